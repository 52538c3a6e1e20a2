"""Return, value, advantage and indicator of every frame of a dataset, for a VLA of your own.

    python -m lab.annotate D.npz --out annotations
    python -m lab.annotate folder/of/a/LeRobot/dataset --out annotations

Trains V on four fifths of the episodes and measures it on the others.  Then V judges all of them.
The dataset is only read.  In the new folder:

    frames.parquet (or .npz without pyarrow)    one row per frame, in the dataset's order
    report.json                                 what is printed
    V.npz                                       the value function, for lab.files.load_network

A task with autonomous episodes is judged N steps ahead, and ε_ℓ is that of its newest ones.  The
tasks, their words, sizes and rate are those of the dataset; N is a second unless it is --lookahead.
A task of demonstrations alone is judged to the end of the episode, as in pre-training.
What to do with the column `indicator`: docs/YOUR_VLA.md.
"""
import argparse
import json
import os
import sys
from dataclasses import fields

import numpy as np
import torch

from data import UserError, generator
from lab.checks import correlation, outcome_auc
from lab.cli import add_setting, check_device
from lab.files import refuse_full, save_network, write_arrays, write_atomically, write_text
from lab.given import check_labels, check_lengths, read, settle
from lab.program import run_program
from labels import episode_returns, label, step_advantages, thresholds
from settings import Settings
from value import predict_values

try:
    import pyarrow
    import pyarrow.parquet
except ImportError:  # requirements-lerobot.txt: then frames.npz instead of frames.parquet
    pyarrow = None

HELD_OUT = 0.2  # of the episodes of each task
OPTIONS = (
    "seed", "device", "lookahead", "positive", "positive_pretraining", "c_fail",
    "value_pretraining_steps",
)  # fmt: skip

def annotate(D, settings, new_value, train_value):
    """Train V on a part of D and judge all of it.

    D: a list of `data.Episode` with labels, of any tasks.
    settings: callable, the settings for a task of that name.
    new_value, train_value: of recap.py.
    Returns V; the columns of the frames, {name: (M,)}; and what is measured, {task: a dict}.
    """
    check_labels(D)
    check_lengths(D)
    names = sorted({e.task for e in D})
    s = settings(names[0])
    heldout = hold_out(D, s.seed)
    V = train_value(
        new_value(s), [e for e, out in zip(D, heldout) if not out], s, s.value_pretraining_steps
    )
    values = predict_values(V, D)
    judged = [None] * len(D)  # of every episode: its returns, advantages and indicators
    report = {}
    for task in names:
        s = settings(task)
        own = [i for i, e in enumerate(D) if e.task == task]
        episodes = [D[i] for i in own]
        own_values = [values[i] for i in own]
        # Only rollouts of a policy say what is good for it (App. F); else it is pre-training.
        autonomous = any(e.source == "autonomous" for e in episodes)
        iteration = None if autonomous else 0
        R = episode_returns(episodes, s)
        A = step_advantages(own_values, episodes, s, iteration)
        I = label(own_values, episodes, s, iteration)
        for i, *columns in zip(own, R, A, I):
            judged[i] = columns
        unseen = [D[i] for i in own if heldout[i]]
        report[task] = {
            "episodes": len(own),
            "success": float(np.mean([e.success for e in episodes])),
            "held_out": len(unseen),
            "correlation": correlation(V, unseen, s),
            "auc": outcome_auc(V, unseen),
            "lookahead": s.lookahead if autonomous else None,
            "epsilon": thresholds(A, episodes, s, iteration)[task],
            "positive": float(np.concatenate(I).mean()),
        }
    R, A, I = zip(*judged)
    lengths = [len(e) for e in D]
    columns = {
        "episode_index": np.repeat(np.arange(len(D)), lengths),
        "frame_index": np.concatenate([np.arange(n) for n in lengths]),
        "return": np.concatenate(R).astype(np.float32),
        "value": np.concatenate(values).astype(np.float32),
        "advantage": np.concatenate(A).astype(np.float32),
        "indicator": np.concatenate(I),
        "held_out": np.repeat(heldout, lengths),  # V was not trained on this episode
    }
    return V, columns, report

def hold_out(D, seed):
    """Which episodes are kept from V: bool (episodes,), a fifth of each task, at least one."""
    g = generator(seed, "held out")
    heldout = np.zeros(len(D), bool)
    for task in sorted({e.task for e in D}):
        own = np.array([i for i, e in enumerate(D) if e.task == task])
        if len(own) < 2:
            raise UserError(f"task {task!r}: one episode, expected two or more (one is held out)")
        shuffled = own[torch.randperm(len(own), generator=g).numpy()]
        heldout[shuffled[: max(1, round(HELD_OUT * len(own)))]] = True
    return heldout

def describe(report):
    """What was measured, a line per task."""
    lines = []
    for task, found in report.items():
        auc = "–" if found["auc"] is None else f"{found['auc']:.2f}"
        r = "–" if found["correlation"] is None else f"{found['correlation']:.2f}"
        n = "the end" if found["lookahead"] is None else f"{found['lookahead']} steps"
        lines.append(
            f"{task}: {found['episodes']} episodes ({found['success']:.0%} succeed); V on the "
            f"{found['held_out']} held out: correlation {r}, AUC {auc}; judged to {n}, "
            f"ε = {found['epsilon']:.4f}, {found['positive']:.0%} positive"
        )
    return "\n".join(lines)

def write(out, V, columns, report):
    """The files of the folder `out`.  Returns the path of the frames."""
    os.makedirs(out, exist_ok=True)
    refuse_full(out)
    save_network(V, os.path.join(out, "V.npz"))
    write_text(os.path.join(out, "report.json"), json.dumps(report, indent=1))
    if pyarrow is None:
        path = os.path.join(out, "frames.npz")
        write_arrays(path, columns)
        return path
    path = os.path.join(out, "frames.parquet")
    table = pyarrow.table(columns)
    write_atomically(path, lambda temporary: pyarrow.parquet.write_table(table, temporary))
    return path

def parser():
    parser = argparse.ArgumentParser(
        prog="python -m lab.annotate", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("dataset", metavar="DATASET", help="an .npz of ours, or a LeRobot folder")
    parser.add_argument("--out", required=True, help="folder, new or empty")
    for f in fields(Settings):
        if f.name in OPTIONS:
            add_setting(parser, f)
    return parser

def main(new_value, train_value, read_lerobot, argv=None):
    """new_value, train_value: of recap.py.  read_lerobot: of robots, None without pyarrow.

    argv: None is the command line's.
    """

    def work():
        args = parser().parse_args(argv)
        given = {name: getattr(args, name) for name in OPTIONS}
        given = {name: x for name, x in given.items() if x is not None}
        check_device(given.get("device", "cpu"))
        refuse_full(args.out)
        D = read(args.dataset, read_lerobot)
        for task in {e.task for e in D}:
            settle(D, task)
        torch.set_num_threads(1)
        V, columns, report = annotate(
            D, lambda task: Settings(task=task, **given), new_value, train_value
        )
        path = write(args.out, V, columns, report)
        print(f"{describe(report)}\n{path}: {len(columns['value'])} frames")

    return run_program("lab.annotate", work)

if __name__ == "__main__":
    # As recap.py does with lab/cli.py: what lies above lab/ is handed to it here alone.
    from recap import new_value, train_value

    read_lerobot = None
    if pyarrow is not None:
        from robots.lerobot_data import read_lerobot

    sys.exit(main(new_value, train_value, read_lerobot))

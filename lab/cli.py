"""The command line `python recap.py`: settings in, a run's folder out."""
import argparse
import os
import shlex
import sys
from dataclasses import asdict, fields

import torch

from data import UserError
from lab.aside import aside
from lab.files import BadFile, claim, read_json
from lab.given import datasets, read, settle
from lab.pictures import draw_pictures
from lab.program import run_program
from lab.run import Run
from lab.tables import summary, table
from settings import Settings
from sim_tasks import TASKS, find_task
from sim_tasks.task import TaskError

# --quick: a first look, a small run whose table visibly improves within a minute
QUICK = dict(
    task="fold_collar", pretraining_tasks="", iterations=1, demonstrations=60,
    autonomous=80, corrected=20, evaluation_episodes=100, pretraining_steps=1000, sft_steps=100,
    policy_steps=1200, value_pretraining_steps=250, value_steps=100,
)  # fmt: skip

# for tests: every stage runs, but so few steps teach a policy next to nothing
TINY = dict(
    iterations=1, demonstrations=20, autonomous=20, corrected=5, evaluation_episodes=30,
    pretraining_steps=150, sft_steps=50, policy_steps=100, value_pretraining_steps=60,
    value_steps=40,
)  # fmt: skip

PICTURES = ("learning_curve.png", "value_trace.png", "before.gif", "after.gif")

DOORS = """\
other doors:
  python -m reproduce --help     the paper's figures, claims and ablations
  python -m robots --help        drive a robot, simulated or real, and record
  python -m benchmarks --help    how fast all this is
  python -m lab.annotate --help  values and labels of your own data, for your own VLA
"""

def parser():
    """A setting that is not given is None, so that `Settings` fills in its default."""
    parser = argparse.ArgumentParser(
        prog="recap.py", usage="python recap.py [options]", epilog=DOORS,
        description="RECAP (Algorithm 1) on a toy bimanual task, from data to table.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    groups = {}
    for f in fields(Settings):
        title = f.metadata["group"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        add_setting(groups[title], f)
    output = parser.add_argument_group("output")
    output.add_argument("--out", help="folder, new or empty (default: runs/TASK-seedN)")
    about = "a first look: a small run, of FoldCollar or of --task"
    output.add_argument("--quick", action="store_true", help=about)
    output.add_argument("--resume", metavar="OUT", help="go on with an interrupted run")
    output.add_argument(
        "--summary", metavar="OUT", nargs="+", help="only print the mean over finished runs"
    )
    return parser

def add_setting(group, f):
    """One field of `Settings` as an option, with its default and the paper's value."""
    default = f.metadata["usual"]
    if default is None:
        default = "none" if f.default == "" else f.default
    if isinstance(f.default, bool):
        default = "yes" if f.default else "no"
    notes = [f"default: {default}"]
    if f.metadata["paper"] is not None:
        notes.append(f"paper: {f.metadata['paper']}")
    about = f"{f.metadata['help']} ({'; '.join(notes)})".replace("%", "%%")
    option = "--" + f.name.replace("_", "-")
    if isinstance(f.default, bool):  # --option or --no-option
        switch = argparse.BooleanOptionalAction
        group.add_argument(option, action=switch, default=None, help=about)
        return
    kind = type(f.default)
    if f.default is None:
        kind = {"beta": float, "positive": float, "pretraining_tasks": str}.get(f.name, int)
    group.add_argument(option, type=kind, default=None, metavar=kind.__name__.upper(), help=about)

def check_device(device):
    """UserError where this machine lacks the device."""
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available[device]:
        names = ", ".join(name for name, ok in available.items() if ok)
        message = f"{device} is not available on this machine, expected one of {names}"
        raise UserError(f"--device: {message}")

def open_run(args, read_lerobot):
    """The `Run` that the command line asks for.  UserError if its folder holds something else."""
    asked = {f.name: getattr(args, f.name) for f in fields(Settings)}
    asked = {name: x for name, x in asked.items() if x is not None}
    if args.resume is not None:
        if asked or args.out is not None or args.quick:
            message = "goes with no other option, a run keeps its settings"
            raise UserError(f"--resume {args.resume}: {message}")
        return resumed(args.resume, read_lerobot)
    if ".py:" in asked.get("task", ""):
        asked["task"] = os.path.abspath(asked["task"])  # --resume may come from another folder
    if args.quick:
        theirs = ("task", "iterations", "corrected") if args.data else ()  # the data say them
        if args.task is not None and not find_task(asked["task"]).has_coach:
            theirs = (*theirs, "corrected")
        asked = {name: x for name, x in QUICK.items() if name not in theirs} | asked
    settings, given = with_data(asked, read_lerobot)
    check_device(settings.device)  # before the folder is made
    out = args.out
    if out is None:
        name = f"runs/{settings.target.name}-seed{settings.seed}"
        out = claim_free(name + "-quick" if args.quick else name, asdict(settings))
    else:
        claim(out, asdict(settings))
    return Run(settings, out, given)

def with_data(asked, read_lerobot):
    """The `Settings` asked for, and the datasets of --data by the names of `recap.recap`'s keep.

    asked: {name: setting}; those that the data settle are filled in.
    """
    if not asked.get("data"):
        return Settings(**asked), {}
    asked["data"] = os.path.abspath(asked["data"])  # --resume may come from another folder
    episodes = read(asked["data"], read_lerobot, asked.get("vision"))
    asked["task"], episodes = settle(episodes, asked.get("task"))
    task = find_task(asked["task"])
    images = [name for name, x in episodes[0].observations.items() if x.ndim == 4]
    if images and task.name not in TASKS:
        asked.setdefault("cameras", " ".join(images))
    n_iterations = max(e.iteration for e in episodes)
    asked.setdefault("iterations", n_iterations)
    if not task.has_world and asked["iterations"] > n_iterations:
        message = f"expected at most the {n_iterations} of the data: nothing can be collected"
        raise UserError(f"--iterations: {asked['iterations']}, {message}")
    settings = Settings(**asked)
    return settings, datasets(episodes, settings)

def claim_free(name, settings):
    """Claim NAME, or NAME-2, NAME-3, ...: the first that is free.  Returns which."""
    out = name
    n = 1
    while True:
        try:
            claim(out, settings)
            return out
        except UserError:  # there before, or taken by a run that began together with this one
            n += 1
            out = f"{name}-{n}"

def resumed(folder, read_lerobot):
    """The `Run` of a folder, with its settings."""
    path = os.path.join(folder, "settings.json")
    try:
        asked = read_json(path)
        settings, given = with_data(asked, read_lerobot)
    except FileNotFoundError as error:
        message = f"there is no {error.filename}, expected the folder of a run, and its data"
        raise UserError(f"--resume: {message}") from None
    except (BadFile, TaskError):  # they name the file, of the data or of the task
        raise
    except (AttributeError, TypeError, UserError) as error:  # other names, other types
        raise UserError(f"{path}: not the settings of a run ({error})") from None
    check_device(settings.device)
    return Run(settings, folder, given)

def main(recap, supervised, read_lerobot, argv=None):
    """recap, supervised: the algorithms, of recap.py.  argv: None is the command line's."""
    opened = []  # the run, once there is one to go on with

    def work():
        args = parser().parse_args(argv)
        if args.summary is not None:
            print(summary(args.summary))
            return
        run = open_run(args, read_lerobot)
        opened.append(run)
        torch.set_num_threads(1)  # products this small gain nothing from a second core
        with aside(run) as run:  # but measuring beside the training does
            if run.settings.supervised:
                supervised(run.settings, run.keep)
            recap(run.settings, run.keep)
        finish(run)

    def hint():
        return "".join(f"python recap.py --resume {shlex.quote(x.out)} goes on" for x in opened)

    return run_program("recap.py", work, hint)

def finish(run):
    """metrics.json, the table, the pictures."""
    metrics = run.write_recap_metrics()
    if not run.settings.target.has_world:
        print(f"\n{run.out}: metrics.json with the checks of V and the labels, checkpoints (.npz);")
        print("there is no world in which to evaluate the policy")
        return
    print(f"\n{table(metrics)}\n", flush=True)
    try:
        draw_pictures(run, metrics)
    except Exception as error:  # the numbers are there: a picture is not worth a run's failure
        message = f"warning: pictures are missing ({type(error).__name__}: {error})"
        print(message, file=sys.stderr)
    pictures = [name for name in PICTURES if os.path.exists(run.path(name))]
    print(f"{run.out}: {', '.join(['metrics.json', *pictures])};")
    print("datasets and checkpoints (.npz)")

"""Runs under runs/cache, found again by their settings, and made side by side.

    make_runs     runs of Algorithm 1, each in the folder of its settings
    serve         the other ranks' part in it, under torchrun, in a shared folder
    SHARED        what runs have in common: pre-training, SFT, the first collection are made once
    VERSION       of the sources; runs that others made are used, with a warning
    data_of, network_of, metrics_of, stage_of     what a finished run left
"""
import contextlib
import glob
import hashlib
import json
import os
import shutil
import sys
from dataclasses import asdict, fields

import torch
from tqdm import tqdm

import recap
from lab.cli import TINY
from lab.files import load_dataset, load_network, read_json, shortest, write_atomically, write_text
from lab.run import Run
from lab.workers import workers
from ranks import agree, own_rows, size
from settings import Settings

CACHE = "runs/cache"

# ---------------------------------------------------------------- settings of a run

# What the file of each product depends on: runs that agree in these settings share the file.
PRETRAINING = (
    "seed", "demonstrations", "positive_pretraining", "dropout", "c_fail", "clip_returns", "batch",
    "draws", "learning_rate", "pretraining_steps", "value_learning_rate",
    "value_pretraining_steps", "value_batch", "vision", "cameras", "metadata", "metadata_dropout",
    "web", "bodies", "token_loss", "insulation", "output", "flow_weight", "device", "data",
    "horizon", "size", "bf16", "value_clock",
)  # fmt: skip
SFT = (*PRETRAINING, "task", "sft_steps", "fine_tuning_rate", "value_steps")
COLLECTED = (*SFT, "autonomous", "corrected", "execute", "euler", "subtask_every")
LATER = ("iterations", "evaluation_episodes", "beta", "evaluation_metadata", "supervised")
EXPERIENCE = tuple(f.name for f in fields(Settings) if f.name not in LATER)
SHARED = {
    **dict.fromkeys(("D_demo", "V_pre", "pi_pre"), PRETRAINING),
    **dict.fromkeys(("supervised_pre", "supervised_small"), PRETRAINING),
    **dict.fromkeys(("D_0", "V_0", "pi_0", "supervised_sft"), SFT),
    "D_1": COLLECTED,
    **dict.fromkeys(("V_1", "pi_1", "D_2", "V_2", "pi_2"), EXPERIENCE),
}

def sized(change, quick):
    """Settings that a row names, {name: value}; with --quick in the size of `lab.cli.TINY`.

    Numbers of episodes and steps shrink by the same factor as TINY's, so that rows still differ.
    """
    if not quick:
        return change
    full = asdict(Settings())
    small = dict(TINY)
    for name, x in change.items():
        if name == "evaluation_episodes":
            continue
        if name in TINY and name != "iterations":
            x = min(x, max(1, round(x * TINY[name] / full[name])))
        small[name] = x
    return small

def digest(*things):
    """Twelve letters that stand for some plain values."""
    return hashlib.sha256(json.dumps(things, sort_keys=True).encode()).hexdigest()[:12]

def folder_of(settings):
    """Where the run of these settings lies."""
    name = f"{settings.target.name}-{settings.seed}-{digest(asdict(settings))}"
    return os.path.join(CACHE, name)

def shared_path(settings, name):
    """Where the product NAME lies for all runs that have it in common."""
    values = [getattr(settings, key) for key in SHARED[name]]
    return os.path.join(CACHE, "shared", f"{name}-{digest(settings.pretraining, *values)}.npz")

# ---------------------------------------------------------------- the version of the sources

METHOD = (
    "recap training ranks labels collection value policy backbone baselines control data settings"
)
MEASURED = "run files evaluation checks"  # of lab/

def digest_of_sources(root):
    """Of the modules under `root` that a run's numbers come from."""
    paths = [os.path.join(root, f"{name}.py") for name in METHOD.split()]
    paths += [os.path.join(root, "lab", f"{name}.py") for name in MEASURED.split()]
    for folder in ("sim_tasks", "examples"):
        paths += sorted(glob.glob(os.path.join(root, folder, "*.py")))
    paths.append(os.path.join(root, "reproduce", "slow_operator.py"))  # a task of an ablation
    texts = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            texts.append(file.read())
    return digest(texts)


ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VERSION = digest_of_sources(ROOT)

def version_of(path):
    """VERSION of the sources that made a run (FOLDER/run) or a shared file, as kept beside it."""
    path += ".version"
    if not os.path.exists(path):
        return "not known"
    with open(path, encoding="utf-8") as file:
        return file.read()

def version_of_new_run(settings):
    """VERSION, or that of a shared file of other sources which the run will take over."""
    for name in SHARED:
        path = shared_path(settings, name)
        if os.path.exists(path) and version_of(path) != VERSION:
            return version_of(path)
    return VERSION

# ---------------------------------------------------------------- making runs

@contextlib.contextmanager
def opened(settings, folder):
    """The `Run` in `folder`, made if need be; what is printed meanwhile goes to its log.txt."""
    torch.set_num_threads(1)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "log.txt"), "a", encoding="utf-8") as log:
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            yield Run(settings, folder)

def make_run(settings, work=None):
    """Make, or go on with, the run of these settings.

    work: callable (run), called in the finished run's folder; None: nothing more.
    """
    os.makedirs(os.path.join(CACHE, "shared"), exist_ok=True)
    with opened(settings, folder_of(settings)) as run:
        if not os.path.exists(run.path("settings.json")):
            write_text(run.path("run.version"), version_of_new_run(settings))
        run.json("settings", lambda: asdict(settings))
        if not os.path.exists(run.path("metrics.json")):
            finish_run(run)
        if work is not None:
            work(run)

def finish_run(run):
    """Algorithm 1 with what other runs have made already, and metrics.json."""
    s = run.settings
    files = [(shared_path(s, name), run.path(f"{name}.npz")) for name in SHARED]
    for shared, own in files:
        copy_missing(shared, own)
    if s.supervised:
        recap.supervised(s, run.keep)
    recap.recap(s, run.keep)
    for shared, own in files:
        if copy_missing(own, shared):
            write_text(f"{shared}.version", version_of(run.path("run")))
    run.write_recap_metrics()

def copy_missing(source, target):
    """Copy a file that exists to where there is none yet, all or nothing.  Returns if it did."""
    if not os.path.exists(source) or os.path.exists(target):
        return False
    write_atomically(target, lambda temporary: shutil.copyfile(source, temporary), ".npz")
    return True

def make_runs(all_settings, jobs, work=None):
    """`make_run` for many, in `jobs` processes a rank.  Returns the list of their folders."""
    with tqdm(total=len(all_settings), desc="runs", disable=None) as bar:
        for group in two_rounds(all_settings):
            asked = agree(lambda: (group, jobs, work))  # to the ranks that `serve`
            make_share(*asked, bar)
    folders = [folder_of(settings) for settings in all_settings]
    old = [folder for folder in folders if version_of(os.path.join(folder, "run")) != VERSION]
    if old:
        count = f"{len(old)} of {len(folders)} runs come from other or unknown sources"
        print(f"warning: {count}, e.g. {old[0]}", file=sys.stderr)
    return folders

def make_share(group, jobs, work, bar=None):
    """This rank's share of a group of runs; it returns when all ranks have made theirs."""
    share = group[own_rows()]
    with workers(jobs) as pool:
        for _ in pool.map(make_run, share, [work] * len(share)):
            if bar is not None:
                bar.update(size())
    agree(lambda: None)

def serve():
    """What ranks above 0 do: their share of each `make_runs` of rank 0, until it `dismiss`es."""
    while (asked := agree(lambda: None)) is not None:
        make_share(*asked)

def dismiss():
    """On rank 0: the others may end."""
    agree(lambda: None)

def two_rounds(all_settings):
    """Two lists, (first, later): those that wait for the pre-training of one of the first."""
    first = []
    later = []
    coming = set()  # what the first ones will make
    for settings in all_settings:
        names = ["pi_pre", "supervised_pre"] if settings.supervised else ["pi_pre"]
        paths = {shared_path(settings, name) for name in names}
        missing = {path for path in paths if not os.path.exists(path)}
        waits = bool(missing) and missing <= coming
        (later if waits else first).append(settings)
        coming |= missing
    return first, later

# ---------------------------------------------------------------- what a run left

def network_of(folder, name):
    """The network NAME of a run."""
    return load_network(os.path.join(folder, f"{name}.npz"))

def data_of(folder, iterations):
    """D_ℓ of a finished run, D_0 to D_K: a list of episodes."""
    episodes = []
    for k in range(iterations + 1):
        episodes += load_dataset(os.path.join(folder, f"D_{k}.npz"))
    return episodes

def metrics_of(folder):
    """What a finished run measured."""
    return read_json(folder, "metrics.json")

def stage_of(folder, name, beta):
    """One row of a run: a policy's evaluation at β; for β = None the demonstrations' row."""
    if beta is None:
        return next(x for x in metrics_of(folder)["stages"] if x["name"] == name)
    return read_json(folder, f"eval_{name}_beta{shortest(beta)}.json")

"""Data that somebody brings, in the place of those that Algorithm 1 would collect."""
import glob
import os
import sys
from dataclasses import replace

import numpy as np
from PIL import Image

from data import UserError, stack_steps, task_of
from lab.files import PENDING, load_dataset
from settings import SIZES
from sim_tasks import TASKS, add_task, find_task
from sim_tasks.task import load_task

HELD_OUT = 10  # every so many-th episode is kept for the checks of V

def read(path, read_lerobot, side=None):
    """Episodes of an .npz file, or of the folder of a LeRobot dataset.

    read_lerobot: `robots.lerobot_data.read_lerobot`, or None without pyarrow.
    side: pixels; a LeRobot dataset's images become squares of this side, those of an .npz where
    they are no squares yet.  None: of LeRobot without images, of an .npz as they are.
    """
    if str(path).endswith(".npz"):
        warn_of_pending(path)
        episodes = load_dataset(path)
        return episodes if side is None else [with_squares(e, side) for e in episodes]
    if read_lerobot is None:
        message = "a folder takes pyarrow: pip install -r requirements-lerobot.txt"
        raise UserError(f"{path}: {message}")
    return read_lerobot(path, cameras=() if side is None else None, side=side)

def side_of(name, size):
    """Pixels: the side of the images of a world of somebody's own, else what the networks read.

    name: of the task, or None.  size: of the networks.
    """
    task = load_task(name) if ".py:" in (name or "") else None
    if task is not None and task.has_world:
        for x in task.world([0]).observe().values():
            if x.ndim == 4:
                return x.shape[1]
    return SIZES.get(size, SIZES["toy"]).image

def with_squares(e, side):
    """The episode e, its images squares of this side where they were no squares."""
    observations = dict(e.observations)
    last = dict(e.last or {})
    for name, x in e.observations.items():
        if x.ndim == 4 and x.dtype == np.uint8 and x.shape[1] != x.shape[2]:
            observations[name] = np.stack([shrunk(Image.fromarray(one), side) for one in x])
            if name in last:
                last[name] = shrunk(Image.fromarray(last[name]), side)
    return replace(e, observations=observations, last=last or None)

def shrunk(image, side):
    """An image of PIL → uint8 (side, side, 3); each pixel is the mean of those it stands for."""
    return np.asarray(image.resize((side, side), Image.Resampling.BOX))

def warn_of_pending(path):
    """Says what a recording session, running or killed, has not yet added to a dataset."""
    folder = str(path) + PENDING
    pending = glob.glob(os.path.join(glob.escape(folder), "*.npz"))
    if pending:
        how = f"python -m robots --out {path} adds them, if no session runs"
        print(f"warning: without {len(pending)} episodes in {folder} ({how})", file=sys.stderr)

# ---------------------------------------------------------------- whose data they are

def settle(episodes, name=None):
    """Let `Settings` find the task of the data.  Returns its name there, and the episodes.

    name: of a task that the data name (None: that of their first episode), or of any other, like
    my_file.py:MY_TASK: then episodes that have no name but its prompt become its own.
    """
    name = name or episodes[0].task
    if name in {e.task for e in episodes}:
        if name not in TASKS:
            add_task(task_of(episodes, name))
    else:
        task = load_task(name) if ".py:" in name else find_task(name)
        episodes = [adopt(e, task) for e in episodes]
        if not any(e.task == task.name for e in episodes):
            found = ", ".join(sorted({repr(e.task) for e in episodes}))
            raise UserError(f"data: no episode of task {task.name!r}, but of {found}")
        if not task.has_world:
            # What its file does not say, the data do.
            known = task_of(episodes, task.name)
            sizes = {"example": known.example}
            if not task.state_mean:
                sizes |= {"state_mean": known.state_mean, "state_std": known.state_std}
            add_task(replace(task, **sizes), name)
    rates = sorted({float(e.hz) for e in episodes})
    if rates != [find_task(name).hz]:
        raise UserError(f"hz: {rates} in the data, expected {find_task(name).hz} of task {name!r}")
    return name, episodes

def adopt(e, task):
    """The episode e as one of the task, if it has that prompt and, as in LeRobot, no other name."""
    if e.task != e.prompt or e.prompt != task.prompt:
        return e
    if len(e) > task.max_steps:
        message = f"an episode of {len(e)} steps, expected at most the task's {task.max_steps}"
        raise UserError(f"max_steps: {message}")
    return replace(e, task=task.name, max_length=task.max_steps)

def check_labels(episodes):
    """UserError where an episode does not say whether it succeeded."""
    missing = [i for i, e in enumerate(episodes) if e.success is None]
    if missing:
        first = ", ".join(str(i) for i in missing[:5])
        first += ", ..." if len(missing) > 5 else ""
        raise UserError(
            f"success: no label of {len(missing)} of {len(episodes)} episodes ({first}), expected "
            "Episode.success True or False; in LeRobot a bool column success of "
            "meta/episodes/*/*.parquet, or a feature next.success, true on a frame of a success"
        )

def check_lengths(episodes):
    """UserError where an episode is longer than its own limit."""
    for e in episodes:
        if len(e) > e.max_length:
            message = f"an episode of {len(e)} steps, expected at most its {e.max_length}"
            raise UserError(f"max_length: {message}")

# ---------------------------------------------------------------- what Algorithm 1 asks for

def datasets(episodes, s):
    """Cut episodes into D_demo, D_0, D_1 ... of the target task, and what is held out of each.

    s: the settings.
    Returns {name of `recap.recap`'s keep: episodes}, "held out V_pre", "held out V_k" among them.
    UserError in one line for what would fail only after a while of training.
    """
    check_labels(episodes)
    task = s.target.name
    demonstrations = [e for e in episodes if e.iteration == 0]
    strays = [e for e in demonstrations if e.source != "demonstration"]
    if strays:
        message = f"{len(strays)} {strays[0].source} episodes of iteration 0"
        raise UserError(f"data: {message}, expected demonstrations (a policy acts from 1 on)")
    check_lengths(episodes)
    own = [e for e in demonstrations if e.task == task]
    if not own:
        raise UserError(f"data: no episode of iteration 0 of task {task!r}, expected some")
    kept, heldout = split(own)
    need_some(heldout, s.target.has_demonstrator, "of iteration 0")
    others = [e for e in demonstrations if e.task != task]
    found = {"D_demo": kept + others, "D_0": kept, "held out V_pre": heldout}
    n_iterations = max(e.iteration for e in episodes if e.task == task)
    for k in range(1, min(s.iterations, n_iterations) + 1):
        newest = [e for e in episodes if e.iteration == k and e.task == task]
        rollouts = [e for e in newest if e.source == "autonomous"]
        if not rollouts:
            message = f"no autonomous episode of task {task!r} in iteration {k}, expected some"
            raise UserError(f"data: {message}: ε_ℓ is theirs")
        kept, heldout = split(rollouts)
        need_some(heldout, s.target.has_world, f"of iteration {k}")
        found[f"D_{k}"] = kept + [e for e in newest if e.source != "autonomous"]
        found[f"held out V_{k}"] = heldout
    for D in found.values():
        if D:
            stack_steps(D, s.interface, horizon=s.horizon)  # sizes and words: does all fit?
    return found

def need_some(heldout, can_make, which):
    """Where nobody can make others, the checks of V have no other episodes than those."""
    if not heldout and not can_make:
        raise UserError(f"data: one episode {which}, expected two or more (one is held out)")

def split(episodes):
    """(kept, held out): every HELD_OUT-th episode is held out, one at least of two."""
    every = min(HELD_OUT, max(2, len(episodes)))
    out = np.arange(len(episodes)) % every == every - 1
    kept = [e for e, o in zip(episodes, out) if not o]
    return kept, [e for e, o in zip(episodes, out) if o]

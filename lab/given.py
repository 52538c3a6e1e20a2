"""Data that somebody brings, instead of those that Algorithm 1 would collect."""
from data import task_of
from lab.files import load_dataset
from sim_tasks import add_task

HELD_OUT = 10  # every so many-th episode is kept for the checks of V

def read(path, read_lerobot):
    """Episodes of an .npz file, or of the folder of a LeRobot dataset.

    read_lerobot: `robots.lerobot_data.read_lerobot`, or None without pyarrow.
    """
    if str(path).endswith(".npz"):
        return load_dataset(path)
    if read_lerobot is None:
        message = "a folder takes pyarrow: pip install -r requirements-lerobot.txt"
        raise ValueError(f"--data: {path}: {message}")
    return read_lerobot(path)

def add_task_of(episodes):
    """Make a task of what the data say of themselves, and return its name."""
    task = task_of(episodes)
    add_task(task)
    return task.name

def datasets(episodes, task):
    """Cut episodes into D_demo, D_0, D_1 ... of one task, and what is held out of each.

    Returns {name of `recap.recap`'s keep: episodes}, "held out V_pre", "held out V_k" among them.
    """
    demonstrations = [e for e in episodes if e.iteration == 0]
    if not demonstrations:
        raise ValueError("data: no episode of iteration 0, expected demonstrations to start from")
    labelled(episodes)
    kept, heldout = split(demonstrations)
    found = {"D_demo": kept, "held out V_pre": [e for e in heldout if e.task == task]}
    found["D_0"] = [e for e in kept if e.task == task]
    for k in range(1, max(e.iteration for e in episodes) + 1):
        newest = [e for e in episodes if e.iteration == k and e.task == task]
        kept, heldout = split(newest)
        found[f"D_{k}"] = kept
        found[f"held out V_{k}"] = [e for e in heldout if e.source == "autonomous"]
    return found

def labelled(episodes):
    """ValueError where a success label is missing."""
    missing = [i for i, e in enumerate(episodes) if e.success is None]
    if missing:
        what = f"data: {len(missing)} of {len(episodes)} episodes have no success label"
        raise ValueError(f"{what} (the first is number {missing[0]}), expected True or False")

def split(episodes):
    """(kept, held out): every HELD_OUT-th episode is held out, one at least of two."""
    every = min(HELD_OUT, max(2, len(episodes)))
    heldout = episodes[every - 1 :: every]
    kept = [e for i, e in enumerate(episodes) if i % every != every - 1]
    return kept, heldout

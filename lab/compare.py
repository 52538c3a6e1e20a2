"""compare.html: the curves of several finished runs over one another, means over their seeds."""
import os
import re

import numpy as np

from data import UserError
from lab.files import shortest, write_text
from lab.progress import read_history
from lab.report import page
from lab.tables import finished, half_interval

FOLDER = "folder"

def compare(folders, axis=None):
    """Write compare.html beside the runs.  Returns its path.

    axis: the one setting, beside the seed, in which they may differ; None: in none.  FOLDER: the
    settings agree, and runs of two versions of the code are set apart by their folders' names.
    UserError: a run is there twice, is not finished, or differs in another setting.
    """
    runs = [finished(folder, "--compare") for folder in folders]
    check(folders, [run["settings"] for run in runs], axis)
    groups = {}  # value of the axis -> the places of its runs
    for i, (folder, run) in enumerate(zip(folders, runs)):
        groups.setdefault(place_of(folder, run["settings"], axis), []).append(i)
    names = {}  # of all stages, in their order
    for run in runs:
        names |= dict.fromkeys(row_name(row) for row in run["stages"])
    data = {
        "kind": "compare", "task": runs[0]["task"], "runs": len(runs), "names": list(names),
        "about": ", ".join(folders),
        "interval": "Bars and bands: 95 % intervals of the mean over training seeds.",
        "groups": [],
    }  # fmt: skip
    for value, places in groups.items():
        members = [runs[i] for i in places]
        histories = [read_history(os.path.join(folders[i], "history.jsonl")) for i in places]
        seeds = ", ".join(str(run["seed"]) for run in members)
        name = f"seed {seeds}" if axis is None else f"{axis} = {value} (seed {seeds})"
        data["groups"].append({
            "name": name, "n": len(members), "rows": rows_of(members, names),
            "history": {x: curve([h[x] for h in histories if x in h]) for x in histories[0]},
        })  # fmt: skip
    parents = [os.path.dirname(os.path.abspath(folder)) for folder in folders]
    path = os.path.join(os.path.commonpath(parents), "compare.html")
    write_text(path, page(data))
    return path

def place_of(folder, s, axis):
    """What sets a run apart from those of other groups.  s: its settings."""
    if axis == FOLDER:  # runs/before-seed0 and runs/before-seed1 are one group
        return re.sub(r"-seed\d+", "", os.path.basename(os.path.abspath(folder)))
    return s.get(axis)  # without an axis None: all are one group

def check(folders, settings, axis):
    """UserError where runs may not be compared, see `compare`."""
    if axis not in (None, FOLDER) and not any(axis in s for s in settings):
        raise UserError(f"--axis: {axis!r}, expected a setting, like sft_steps, or {FOLDER}")
    seen = {}
    for folder, s in zip(folders, settings):
        for name in sorted(s.keys() | settings[0].keys()):
            first = settings[0].get(name)
            if name not in ("seed", "device", axis) and s.get(name) != first:
                found = f"{name} is {first!r} in {folders[0]}, {s.get(name)!r} in {folder}"
                expected = f"expected runs that differ in their seed alone (or --axis {name})"
                raise UserError(f"--compare: {found}, {expected}")
        key = s["seed"], place_of(folder, s, axis)
        if key in seen:
            alike = f"{seen[key]} and {folder} have the same settings and seed, {s['seed']}"
            expected = f"expected each once (of two versions of the code: --axis {FOLDER})"
            raise UserError(f"--compare: {alike}, {expected}")
        seen[key] = folder

def row_name(row):
    """A stage, with its β where that is another one than 1."""
    plain = row["beta"] is None or row["beta"] == 1
    return row["name"] if plain else f"{row['name']} β={shortest(row['beta'])}"

def rows_of(runs, names):
    """Success and throughput of each stage over the runs: mean, and half of its interval."""
    rows = []
    for name in names:
        found = []
        for run in runs:
            found += [row for row in run["stages"] if row_name(row) == name]
        if found:
            row = {"name": name}
            for key in ("success", "throughput"):
                row[key] = mean_of([x[key] for x in found])
            rows.append(row)
    return rows

def mean_of(values):
    """{"mean", "half": half its interval, None for one run}."""
    half = float(half_interval(values)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "half": half}

def curve(histories):
    """[[step, mean loss, half its interval], ...] over runs that were trained as long."""
    steps = [[step for step, _, _ in points] for points in histories]
    if any(x != steps[0] for x in steps):
        return []
    found = []
    for points in zip(*histories):
        x = mean_of([loss for _, loss, _ in points])
        found.append([points[0][0], x["mean"], x["half"]])
    return found

"""Results as text: the table of one run, and the mean over several."""
import math
import os

import numpy as np

from data import UserError
from lab.files import judged, read_json

SFT = "offline_rl_sft"

def table(metrics):
    """The stages of a run, and the gain over offline RL + SFT and over the best earlier stage."""
    lines = [f"{'':<16} {'β':>4} {'success':>15} {'per hour':>12} {'mean time':>10}   stages"]
    for row in metrics["stages"]:
        beta = "" if row["beta"] is None else f"{row['beta']:g}"
        seconds = "" if row["mean_seconds"] is None else f"{row['mean_seconds']:.1f} s"
        stages = " ".join(f"{x:.0%}" for x in row["per_stage_success"])
        lines.append(
            f"{row['name']:<16} {beta:>4} {row['success']:>7.1%} ± {row['success_se']:<5.1%} "
            f"{row['throughput']:>6.0f} ± {row['throughput_se']:<3.0f} {seconds:>10}   {stages}"
        )
    last = metrics["stages"][-1]["name"]
    if last.startswith("recap"):
        for row in metrics["stages"]:
            if row["name"] == last:
                lines += gains(row, metrics["stages"])
    return "\n".join(lines)

def gains(last, stages):
    """A last row beside offline RL + SFT and beside the best earlier policy, in two lines."""
    sft = next(row for row in stages if row["name"] == SFT)
    best = best_before_recap(stages)
    faster = times(last["throughput"], sft["throughput"])
    safer = times(1 - last["success"], 1 - sft["success"])
    over_best = times(last["throughput"], best["throughput"])
    return [
        f"{last['name']} at β = {last['beta']:g}: throughput {faster}, failures {safer} of {SFT};",
        f"throughput {over_best} of {best['name']}, the best before",
    ]

def times(a, b):
    """A ratio in words."""
    return f"× {a / b:.2f}" if b else "undefined (0 before)"

def best_before_recap(stages):
    """The trained policy of highest throughput among the stages before the first iteration."""
    before = []
    for row in stages:
        if row["beta"] is not None and not row["name"].startswith("recap"):
            before.append(row)
    return max(before, key=lambda row: row["throughput"])

# ---------------------------------------------------------------- several runs

def summary(folders):
    """Finished runs of one task (other seeds): means over runs ± the standard error of that mean.

    Ratios are taken within each run before they are averaged.  UserError: a folder is not that of
    a finished run, or the runs differ in more than their seeds, or not in them.
    """
    all_metrics = [finished(folder) for folder in folders]
    tasks = {metrics["task"] for metrics in all_metrics}
    if len(tasks) > 1:
        raise UserError(f"--summary: runs of {', '.join(sorted(tasks))}, expected one task")
    runs = []
    for metrics in all_metrics:
        runs.append({(row["name"], row["beta"]): row for row in metrics["stages"]})
    if len({tuple(run) for run in runs}) > 1:
        raise UserError("--summary: runs of other stages, expected the same iterations and β")
    check_seeds(folders, [metrics["settings"] for metrics in all_metrics])

    sft = [run[SFT, 1.0] for run in runs]
    best = [best_before_recap(run.values()) for run in runs]
    n = sft[0]["episodes"]
    lines = [
        f"{len(runs)} runs, {n} evaluation episodes per policy and β; mean ± standard error",
        f"{'':<19}{'success %':^15}{'failed early %':^16}{'per hour':^12}"
        f"{'throughput ×':^16}{'failures ×':^16}{'throughput ×':^16}",
        f"{'':<19}{'':^15}{'':^16}{'':^12}"
        f"{'of offline+SFT':^16}{'of offline+SFT':^16}{'of best before':^16}",
    ]
    for name, beta in runs[0]:
        rows = [run[name, beta] for run in runs]
        throughput = [row["throughput"] for row in rows]
        failures = [1 - row["success"] for row in rows]
        columns = (
            ([100 * row["success"] for row in rows], 1, 15),
            ([100 * row["failed_early"] for row in rows], 1, 16),
            (throughput, 0, 12),
            (ratios(throughput, [row["throughput"] for row in sft]), 2, 16),
            (ratios(failures, [1 - row["success"] for row in sft]), 2, 16),
            (ratios(throughput, [row["throughput"] for row in best]), 2, 16),
        )
        title = name if beta is None else f"{name} β={beta:g}"
        cells = "".join(cell(values, digits, width) for values, digits, width in columns)
        lines.append(f"{title:<19}{cells}")
    found = [metrics["value"]["heldout_correlation"] for metrics in all_metrics]
    found = ", ".join("–" if x is None else f"{x:.2f}" for x in found)
    lines.append(f"correlation of the last V with the return, held out: {found}")
    return "\n".join(lines)

def finished(folder, option="--summary"):
    """The metrics of a finished run of recap.py.  option: which asks for them."""
    path = os.path.join(folder, "metrics.json")
    expected = "expected the folder of a finished run"
    try:
        metrics = read_json(path)
    except FileNotFoundError:
        raise UserError(f"{option}: {folder} holds no metrics.json, {expected}") from None
    with judged(path, "the metrics of a run"):
        names = [row["name"] for row in metrics.get("stages", [])]
        if SFT in names and not {"task", "settings"} <= metrics.keys():
            raise ValueError("no task, or no settings")
    if SFT not in names:  # as of a generalist
        raise UserError(f"{option}: {path} has no row {SFT}, {expected} of recap.py in a world")
    return metrics

def check_seeds(folders, settings):
    """UserError where runs differ in other settings than the seed, or have the same seed."""
    first = settings[0]
    seen = {}
    for folder, s in zip(folders, settings):
        others = [name for name in s if name != "seed" and s[name] != first.get(name)]
        others += sorted(first.keys() - s.keys())
        if others:
            name = others[0]
            found = f"{name} is {first.get(name)!r} in {folders[0]}, {s.get(name)!r} in {folder}"
            raise UserError(f"--summary: {found}, expected runs that differ in their seed alone")
        if s["seed"] in seen:
            twice = f"{seen[s['seed']]} and {folder} are both of seed {s['seed']}"
            raise UserError(f"--summary: {twice}, expected each once")
        seen[s["seed"]] = folder

# 97.5 % quantiles of Student's t by degrees of freedom, 1 to 9.  With few seeds the normal
# distribution's 1.96 would be far too narrow.
T_975 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)

def half_interval(values):
    """Half the width of the 95 % interval of a mean.  values: (n,), n > 1."""
    n = len(values)
    return T_975[min(n, 10) - 2] * np.std(values, ddof=1) / math.sqrt(n)

def ratios(above, below):
    """Run by run; NaN where there is nothing to compare with."""
    return [a / b if b else math.nan for a, b in zip(above, below)]

def cell(values, digits, width):
    """Mean ± standard error, centred; of one run its number, and – where there is none."""
    text = f"{np.mean(values):.{digits}f}"
    if np.isnan(values).any():
        text = "–"
    elif len(values) > 1:
        error = np.std(values, ddof=1) / math.sqrt(len(values))
        text += f" ± {error:.{digits}f}"
    return f"{text:^{width}}"

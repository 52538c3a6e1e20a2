"""Numbers over seeds: means, paired ratios with their intervals, rows of a figure, a table.

± is the standard error over training seeds.  An interval is one of 95 %, from a paired t test.
A row of results/*.json is what `row_of` makes: one stage of one task over the seeds.
"""
import math

import numpy as np

from lab.files import shortest
from lab.tables import half_interval
from reproduce.cache import stage_of

SFT = "offline_rl_sft β=1"  # the row with which most others are compared

# ---------------------------------------------------------------- a few numbers, one per seed

def spread(values):
    """Mean over seeds, its standard error (None for one seed), and n: a dict."""
    values = np.asarray(values, float)
    n = len(values)
    error = float(values.std(ddof=1) / math.sqrt(n)) if n > 1 else None
    return {"mean": float(values.mean()), "se": error, "n": n}

def ratio(above, below):
    """Ratio of paired positive numbers, (n,) each, one pair per seed, with its interval.

    Returns {"ratio", "low", "high", "n"}: the geometric mean, and the t test's interval of its
    logarithm.  low and high are None for one pair, and where a number is 0; then the ratio is that
    of the means, NaN for 0 / 0.
    """
    above = np.asarray(above, float)
    below = np.asarray(below, float)
    n = len(above)
    if (above <= 0).any() or (below <= 0).any():
        middle = float(above.mean() / below.mean()) if below.any() else math.nan
        return {"ratio": middle, "low": None, "high": None, "n": n}
    d = np.log(above) - np.log(below)  # (n,)
    middle = d.mean()
    low = None
    high = None
    if n > 1:
        low = math.exp(middle - half_interval(d))
        high = math.exp(middle + half_interval(d))
    return {"ratio": math.exp(middle), "low": low, "high": high, "n": n}

def interval_above(x, least):
    """Does the whole interval of a `ratio` lie above `least`?"""
    return x["low"] is not None and x["low"] > least

def interval_below(x, most):
    """Does the whole interval of a `ratio` lie below `most`?"""
    return x["high"] is not None and x["high"] < most

def pooled(a, b):
    """The `spread` of two groups of seeds, from the spreads of both."""
    n = a["n"] + b["n"]
    mean = (a["n"] * a["mean"] + b["n"] * b["mean"]) / n
    squares = 0.0  # Σ (x - mean)², within both groups and between them
    for x in (a, b):
        within = x["n"] * (x["n"] - 1) * (x["se"] or 0.0) ** 2
        squares += within + x["n"] * (x["mean"] - mean) ** 2
    return {"mean": mean, "se": math.sqrt(squares / (n * (n - 1))), "n": n}

def together(a, b):
    """The same results of two groups of seeds as those of all: what both have of results/*.json.

    Numbers of every seed (lists) are appended, spreads are `pooled`, and what is counted over all
    seeds is added up: all but `episodes` and `se_evaluation`, which are of one seed.
    """
    if not isinstance(a, dict):
        return a + b
    found = pooled(a, b) if "se" in a else {}
    for key in a:
        if key in found or a[key] is None or b.get(key) is None:
            continue
        of_one_seed = key in ("episodes", "se_evaluation")
        found[key] = a[key] if of_one_seed else together(a[key], b[key])
    return found

# ---------------------------------------------------------------- rows

def row_of(folders, name, beta=1.0):
    """One stage over the runs of one task: values of every seed, and their spreads.

    folders: of the runs, one per seed.  name, beta: of the stage.
    Its se_evaluation is the mean standard error of one seed's own evaluation, beside the spread
    between seeds.
    """
    stages = [stage_of(folder, name, beta) for folder in folders]
    row = {}
    for key in ("success", "throughput"):
        values = [x[key] for x in stages]
        own = float(np.mean([x[f"{key}_se"] for x in stages]))
        row[key] = spread(values) | {"se_evaluation": own, "values": values}
    row["per_stage_success"] = [x["per_stage_success"] for x in stages]
    row["episodes"] = stages[0]["episodes"]
    row["failed_early"] = spread([x["failed_early"] for x in stages])
    row["subtask_accuracy"] = [x.get("subtask_accuracy") for x in stages]
    if "items" in stages[0]:
        row["items"] = {}
        for item in stages[0]["items"]:
            row["items"][item] = [x["items"].get(item, {}).get("success") for x in stages]
    return row

def rows_of(folders, stages):
    """{"NAME β=b" or "NAME": `row_of`} of several stages [(name, β or None), ...]."""
    rows = {}
    for name, beta in stages:
        title = name if beta is None else f"{name} β={shortest(beta)}"
        rows[title] = row_of(folders, name, beta)
    return rows

def last_row(rows, guided=False):
    """Name of the last iteration's row, at β = 1 or at the recommended β."""
    stages = [name.split(" ")[0] for name in rows if name.startswith("recap_")]
    K = max(int(stage.removeprefix("recap_")) for stage in stages)
    plain = f"recap_{K} β=1"
    if not guided:
        return plain
    return next(name for name in rows if name.startswith(f"recap_{K} ") and name != plain)

def best_of(rows, kind):
    """Name of the row of highest mean throughput among those whose name begins with `kind`."""
    names = [name for name in rows if name.startswith(kind)]
    return max(names, key=lambda name: rows[name]["throughput"]["mean"])

def gain(rows, above, below=SFT):
    """Throughput of one row over another's: a `ratio`."""
    return ratio(rows[above]["throughput"]["values"], rows[below]["throughput"]["values"])

def failures(row):
    """Failure rate of every seed, (n,); with half a failure more, for the logarithm of none."""
    n = row["episodes"]
    return (n * (1 - np.array(row["success"]["values"])) + 0.5) / (n + 1)

def fewer_failures(rows, above, below=SFT):
    """Failures of one row over another's: a `ratio`."""
    return ratio(failures(rows[above]), failures(rows[below]))

# ---------------------------------------------------------------- as text

def ratio_text(x):
    """A `ratio`: × 1.08 [1.06, 1.09]."""
    if math.isnan(x["ratio"]):
        return "undefined"
    interval = "" if x["low"] is None else f" [{x['low']:.2f}, {x['high']:.2f}]"
    return f"× {x['ratio']:.2f}{interval}"

def percent(x):
    """A `spread` of rates: 97.2 ± 0.4 %; of one seed 97.2 %."""
    error = "" if x["se"] is None else f" ± {100 * x['se']:.1f}"
    return f"{100 * x['mean']:.1f}{error} %"

def plus_minus(x, digits):
    """A `spread`: 0.84 ± 0.06; of one seed 0.84 alone."""
    error = "" if x["se"] is None else f" ± {x['se']:.{digits}f}"
    return f"{x['mean']:.{digits}f}{error}"

def table(rows, base=None):
    """Rows as text: mean ± standard error over seeds (and that of one seed's evaluation).

    base: name of the row to whose throughput and failures the others are compared; None: none.
    """
    width = 2 + max(len(name) for name in rows)
    title = f"{'':<{width}}{'success %':^22}{'per hour':^18}"
    if base is not None:
        title += f"{'throughput × [95 %]':^26}{'failures × [95 %]':^26}"
    lines = [title]
    for name, row in rows.items():
        success = cell(row["success"], 100, 1)
        throughput = cell(row["throughput"], 1, 0)
        line = f"{name:<{width}}{success:^22}{throughput:^18}"
        if base is not None:
            faster = ratio_text(gain(rows, name, base))
            safer = ratio_text(fewer_failures(rows, name, base))
            line += f"{faster:^26}{safer:^26}"
        lines.append(line)
    return "\n".join(lines)

def cell(x, scale, digits):
    """Mean ± standard error over seeds (that of one evaluation)."""
    over_seeds = "–" if x["se"] is None else f"{scale * x['se']:.{digits}f}"
    own = f"{scale * x['se_evaluation']:.{digits}f}"
    return f"{scale * x['mean']:.{digits}f} ± {over_seeds} ({own})"

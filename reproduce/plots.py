"""Pictures of rows over seeds, as in results/*.json.  Rows in, Figure out.

    Figs. 7 to 12                       bars
    Fig. 8, right: stages of the box    stage_bars
    Fig. 11: when its order holds       ratios, over_steps
    App. E: over β                      guidance
    Sec. VII: over episodes             over_episodes
"""
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lab.plots import BLUE, FONT, GREEN, GREY, PURPLE, VERMILLION, bare
from sim_tasks import TASKS

ROWS = {
    "supervised_small": r"supervised, small (as $\pi_{0.5}$)",
    "supervised": r"supervised ($\pi_{0.6}$)",
    "supervised_sft": "supervised + SFT",
    "rl_pretrained": r"RL pre-trained ($\pi^*_{0.6}$)",
    "offline_rl_sft": "offline RL + SFT",
    "imitation": "imitation of all data",
    "filtered imitation": "imitation of successes",
}

def task_label(text):
    """A task as the README calls it: "fold_shirt, ..." -> "FoldShirt, ..."."""
    name, comma, rest = text.partition(",")
    if name in TASKS:
        name = "".join(part.capitalize() for part in name.split("_"))
    return name + comma + rest

def row_label(name, beta=True):
    """What a row is called: "recap_2 β=1.5" -> "RECAP k=2, guided (β = 1.5)".

    Before RECAP β is always 1.  beta: say it of guided rows, too; "recap_2 β=" has several.
    """
    stage, _, value = name.partition(" β=")
    if stage.startswith(("AWR T=", "PPO ε=")):
        return sweep_label(stage)
    if not stage.startswith("recap_"):
        return ROWS.get(stage, name)
    k = stage.removeprefix("recap_")
    how = "β = 1"
    if value != "1":
        how = f"guided (β = {value})" if beta and value else "guided"
    return f"RECAP, {how}" if k == "K" else f"RECAP k={k}, {how}"

def sweep_label(name):
    """A method with what is swept: "PPO ε=1000 rate×0.03" -> "PPO (ε = 1,000, rate × 0.03)"."""
    method, swept, *how = name.split()
    letter, value = swept.split("=")
    words = ["no penalty" if value == "inf" else f"{letter} = {float(value):,g}"]
    known = {"mean": "from the mean", "q95": "from the 95 % quantile"}
    words += [known.get(x, x.replace("rate×", "rate × ")) for x in how]
    return f"{method} ({', '.join(words)})"

def row_colour(name):
    """Ours blue at β = 1 and vermillion where guided; all others grey."""
    if not name.startswith("recap_"):
        return GREY
    return BLUE if name.endswith("β=1") else VERMILLION

def guidance_of(rows):
    """The β of the guided rows, where it is one and the same; else None."""
    found = {row_label(x).split("β = ")[1] for x in rows if row_colour(x) == VERMILLION}
    return found.pop().rstrip(")") if len(found) == 1 else None

# ---------------------------------------------------------------- bars

BAR = {"alpha": 0.85, "height": 0.75, "error_kw": {"capsize": 2, "lw": 1}}
PER_ROW = 0.24  # inches
COLOURS = {"RECAP, β = 1": BLUE, "RECAP, guided": VERMILLION, "others": GREY}
# What a panel shows of a row: key, scale, title.
BOTH = (("throughput", 1, "successes per hour"), ("success", 100, "success rate (%)"))

def bars(groups):
    """Figs. 7 to 12: throughput and success of named rows, a pair of panels per group.

    groups: {task: {row: {"throughput", "success": {"mean", "se" (None for one run), "n"}}}}; two
    stand side by side.  Error bars are ±1 standard error over the n training seeds.
    Returns a Figure.
    """
    columns = min(2, len(groups))
    n_lines = -(-len(groups) // columns)
    longest = max(len(rows) for rows in groups.values())
    height = 0.7 + n_lines * (0.75 + PER_ROW * longest)
    fig = plt.figure(figsize=(11, height), layout="constrained")
    parts = np.ravel(fig.subfigures(n_lines, columns))
    for part, (task, rows) in zip(parts, groups.items()):
        pair_of_bars(part, task, rows)
    everything = {}
    for rows in groups.values():
        everything |= rows
    colours = set(map(row_colour, everything))
    keys = [Patch(color=x, label=name) for name, x in COLOURS.items() if x in colours]
    if colours == {GREY}:
        keys = []
    n = min(row["throughput"]["n"] for row in everything.values())
    fig.legend(
        handles=keys, loc="outside lower center", ncols=3, fontsize=FONT, frameon=False,
        title=f"means over n = {n} seeds, ± s.e.",
    )  # fmt: skip
    return fig

def pair_of_bars(fig, task, rows):
    """Throughput and success of one group.  fig: a SubFigure."""
    beta = guidance_of(rows)
    guided = f" (guided: β = {beta})" if beta else ""
    fig.suptitle(f"{task_label(task)}{guided}", fontsize=FONT)
    labels = [row_label(name, beta=beta is None) for name in rows]
    colours = [row_colour(name) for name in rows]
    for ax, (key, scale, title) in zip(fig.subplots(1, 2, sharey=True), BOTH):
        mean = [scale * row[key]["mean"] for row in rows.values()]
        error = [scale * (row[key]["se"] or 0) for row in rows.values()]
        ax.barh(range(len(rows)), mean, xerr=error, color=colours, **BAR)
        ax.set_yticks(range(len(rows)), labels, fontsize=FONT - 2)
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_title(title, fontsize=FONT - 1)
        bare(ax, grid="x")
        ax.set_axisbelow(True)
    ax.set_xlim(0, 104)

def stage_bars(rows, stages):
    """Fig. 8, right: how many episodes complete each stage of a task, one panel per stage.

    rows: as in `bars`, of one task, each with "per_stage_success": one list per seed, of one
    number per stage.  stages: their names.  Returns a Figure.
    """
    fig = plt.figure(figsize=(11, 1.1 + 0.24 * len(rows)), layout="constrained")
    colours = [row_colour(name) for name in rows]
    labels = [row_label(name) for name in rows]
    values = [100 * np.array(row["per_stage_success"]) for row in rows.values()]  # (seeds, stages)
    n = len(values[0])
    for i, (ax, stage) in enumerate(zip(fig.subplots(1, len(stages), sharey=True), stages)):
        mean = [x[:, i].mean() for x in values]
        error = [standard_error(x[:, i]) for x in values]
        ax.barh(range(len(rows)), mean, xerr=error, color=colours, **BAR)
        ax.set_yticks(range(len(rows)), labels, fontsize=FONT - 2)
        ax.set_title(stage, fontsize=FONT)
        ax.set_xlim(0, 104)
        bare(ax, grid="x")
        ax.set_axisbelow(True)
    ax.invert_yaxis()
    title = f"episodes that complete the stage (%), n = {n} seeds ± s.e."
    fig.supxlabel(title, fontsize=FONT)
    return fig

def standard_error(values):
    """Of the mean over seeds, along the last axis; 0 for one seed."""
    n = values.shape[-1]
    return values.std(-1, ddof=1) / np.sqrt(n) if n > 1 else np.zeros(values.shape[:-1])

# ---------------------------------------------------------------- ratios with their intervals

# By how a row's name begins.
MARKERS = {
    "recap": "o", "imitation": "s", "filtered": "P", "positives": "D", "AWR": "^", "PPO": "v",
}  # fmt: skip
SHADES = {"AWR": (GREEN, "#66c2a5", "#b2e2cf"), "PPO": (PURPLE, "#e3bcd2")}
TICKS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.5, 2, 3, 4, 6)

def ratios(groups, title, limits=(0.35, 2.0), columns=1, per_row=0.08):
    """One block per point, one marker per method at its ratio, with its interval, on a log scale.

    groups: {point: {method: a `statistics.ratio`}}.  A filled marker: the interval excludes 1.
    Left out is what the others are compared with (1, without an interval), and what is undefined.
    An arrow at the edge stands for what is 0 or beyond `limits`.
    columns: in which the points stand, a new one beginning where a block has no marker.
    per_row: inches.  Returns a Figure.
    """
    names = {}  # of all groups, in order, once each
    for methods in groups.values():
        names |= dict.fromkeys(methods)
    pieces = in_columns(groups, columns)
    longest = max(len(piece) for piece in pieces)
    height = 1.1 + per_row * longest * (len(names) + 1)
    fig = plt.figure(figsize=(11, height), layout="constrained")
    looks = looks_of(names)
    axes = np.ravel(fig.subplots(1, columns))
    for ax, piece in zip(axes, pieces):
        column_of_ratios(ax, piece, looks, limits)
        ax.set_ylim(longest - 0.5, -0.5)
    keys = [
        Line2D([], [], marker=marker, color=colour, linestyle="none", label=row_label(name))
        for name, (colour, marker) in looks.items()
    ]
    for fill, label in (("black", "interval excludes 1"), ("white", "interval holds 1")):
        style = {"color": "black", "markerfacecolor": fill, "linestyle": "none"}
        keys.append(Line2D([], [], marker="o", label=label, **style))
    fig.legend(
        handles=keys, loc="outside lower center", ncols=4, fontsize=FONT - 1, frameon=False
    )
    fig.suptitle(title, fontsize=FONT)
    return fig

def in_columns(groups, columns):
    """Cut {point: ...} into pieces of about one length, each beginning with a default, if any."""
    points = list(groups)
    begins = [i for i, point in enumerate(points) if all(map(is_default, groups[point].values()))]
    pieces = []
    first = 0
    for column in range(1, columns):
        target = column * len(points) / columns
        last = min(begins, key=lambda i: abs(i - target), default=round(target))
        pieces.append({point: groups[point] for point in points[first:last]})
        first = last
    return [*pieces, {point: groups[point] for point in points[first:]}]

def is_default(x):
    """Is this `statistics.ratio` that of what the others are compared with?"""
    return x["low"] == x["high"] == 1

def column_of_ratios(ax, groups, looks, limits):
    """The blocks of one Axes, from above downwards."""
    for i, methods in enumerate(groups.values()):
        ax.axhspan(i - 0.5, i + 0.5, color=GREY, alpha=0.08 * (i % 2), linewidth=0)
        for j, (name, x) in enumerate(methods.items()):
            y = i - 0.5 + (j + 1) / (len(methods) + 1)
            draw_ratio(ax, x, y, *looks[name], limits)
    ax.axvline(1, color="black", linewidth=0.8)
    ax.set_xscale("log")
    ax.set_xlim(*limits)
    ticks = [tick for tick in TICKS if limits[0] <= tick <= limits[1]]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_yticks(range(len(groups)), list(groups), fontsize=FONT - 2)
    ax.tick_params(axis="y", length=0)
    bare(ax, grid="x")

def looks_of(names):
    """{name: (colour, marker)}; methods of one kind have one marker, and shades of one colour."""
    looks = {}
    seen = dict.fromkeys(MARKERS, 0)
    for name in names:
        kind = next(kind for kind in MARKERS if name.startswith(kind))
        colour = row_colour(name)
        if kind in SHADES:
            colour = SHADES[kind][seen[kind] % len(SHADES[kind])]
        seen[kind] += 1
        looks[name] = colour, MARKERS[kind]
    return looks

def draw_ratio(ax, x, y, colour, marker, limits):
    """One marker and its interval.  x: a `statistics.ratio`."""
    low = x["low"]
    high = x["high"]
    if is_default(x):
        return
    fill = "white"
    if low is not None:
        ax.plot(np.clip([low, high], *limits), [y, y], color=colour, linewidth=1.2)
        if low > 1 or high < 1:
            fill = colour
    # Inside of the frame.
    inside = (limits[0] * 1.02, limits[1] / 1.02)
    if x["ratio"] < limits[0]:
        marker = "<"
    elif x["ratio"] > limits[1]:
        marker = ">"
    ax.plot(
        np.clip(x["ratio"], *inside), y, marker, color=colour, markersize=5.5, zorder=3,
        markerfacecolor=fill,
    )  # fmt: skip

# ---------------------------------------------------------------- over β

PANELS = {
    "throughput": "throughput relative to β = 1 (mean over seeds)",
    "success": "success rate (%)",
    "outside": "numbers outside the data's 99 % (%)",
}
LINES = (
    (BLUE, "o"), (VERMILLION, "^"), (GREEN, "s"), (PURPLE, "D"), ("black", "v"), (GREY, "P"),
)  # fmt: skip

def guidance(groups):
    """App. E: throughput relative to β = 1, success, and actions outside the data, against β.

    groups: {task: {"... β=b": rows as in `bars`, with "outside", and "values" of the seeds}}.
    One line per task; bars are ±1 standard error over the seeds.  Returns a Figure.
    """
    fig = plt.figure(figsize=(11, 3.6), layout="constrained")
    for ax, (key, title) in zip(fig.subplots(1, 3), PANELS.items()):
        for (task, rows), (colour, marker) in zip(groups.items(), LINES):
            beta = [float(name.split("β=")[1]) for name in rows]
            values = np.array([row[key]["values"] for row in rows.values()])  # (β, seeds)
            if key == "throughput":
                # Of each seed over its own at β = 1; a seed with none there has no ratio.
                one = values[beta.index(1.0)]  # (seeds,)
                values = values[:, one > 0] / one[one > 0]
            else:
                values = 100 * values
            n = values.shape[1]
            if n == 0:
                continue
            ax.errorbar(
                beta, values.mean(1), standard_error(values), color=colour, marker=marker,
                markersize=4, capsize=2, label=f"{task_label(task)} (n = {n})",
            )  # fmt: skip
        ax.set(xlabel="β", title=title)
        ax.title.set_fontsize(FONT)
        bare(ax, grid="both")
    ax.legend(fontsize=FONT - 2, frameon=False)
    return fig

# ---------------------------------------------------------------- over episodes

def over_episodes(groups):
    """Throughput and success at β = 1, and guided, against the number of episodes collected.

    groups: {what: {"episodes": one number per round, "β=1", "guided": rows as in `bars`, one per
    round}}.  Bars are ±1 standard error over the seeds.  Returns a Figure.
    """
    fig = plt.figure(figsize=(11, 6.4), layout="constrained")
    panels = fig.subplots(2, 2, sharex=True)
    for line, (key, scale, title) in zip(panels, BOTH):
        for ax, (kind, how) in zip(line, (("β=1", "β = 1"), ("guided", "guided"))):
            for (name, group), (colour, marker) in zip(groups.items(), LINES):
                values = scale * np.array([row[key]["values"] for row in group[kind]])
                ax.errorbar(
                    group["episodes"], values.mean(1), standard_error(values), color=colour,
                    marker=marker, markersize=4, capsize=2, label=name,
                )  # fmt: skip
            ax.set(title=f"{title}, {how}")
            ax.title.set_fontsize(FONT)
            bare(ax, grid="both")
    for ax in panels[1]:
        ax.set_xlabel("episodes collected")
    panels[0, 0].legend(fontsize=FONT - 2, frameon=False)
    return fig

# ---------------------------------------------------------------- over gradient steps

def over_steps(groups):
    """Throughput and success against the number of gradient steps, one line per method.

    groups: {method: {steps: row as in `bars`}}.  Bars are ±1 standard error over the seeds.
    Returns a Figure.
    """
    fig = plt.figure(figsize=(11, 4.2), layout="constrained")
    looks = looks_of(groups)
    for ax, (key, scale, title) in zip(fig.subplots(1, 2), BOTH):
        for name, rows in groups.items():
            colour, marker = looks[name]
            values = scale * np.array([row[key]["values"] for row in rows.values()])
            ax.errorbar(
                list(rows), values.mean(1), standard_error(values), color=colour, marker=marker,
                markersize=5, capsize=2, label=row_label(name),
            )  # fmt: skip
        steps = list(next(iter(groups.values())))
        ax.set_xscale("log")
        ax.set_xticks(steps, [f"{n:,}" for n in steps])
        ax.minorticks_off()
        ax.set(title=title, xlabel="gradient steps")
        ax.title.set_fontsize(FONT)
        bare(ax, grid="both")
    keys = ax.get_legend_handles_labels()
    fig.legend(*keys, loc="outside lower center", ncols=3, fontsize=FONT - 1, frameon=False)
    return fig

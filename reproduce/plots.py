"""Pictures of rows over seeds, as in results/*.json.  Rows in, Figure out.

    Figs. 7 to 12                       bars
    Fig. 8, right: stages of the box    stage_bars
    Fig. 11: when its order holds       ratios
    App. E: over β                      guidance
"""
import matplotlib.pyplot as plt
import numpy as np

from lab.plots import BLUE, FONT, GREEN, GREY, PURPLE, VERMILLION, bare

ROWS = {
    "supervised_small": r"supervised, smaller (as $\pi_{0.5}$)",
    "supervised": r"supervised ($\pi_{0.6}$)",
    "supervised_sft": "supervised + SFT",
    "rl_pretrained": r"RL pre-trained ($\pi^*_{0.6}$)",
    "offline_rl_sft": "offline RL + SFT",
}

def row_label(name):
    """What a row is called: "recap_2 β=1.5" -> "RECAP k=2, β=1.5"; before RECAP β is always 1."""
    stage, _, beta = name.partition(" β=")
    if stage.startswith("recap_"):
        return f"RECAP k={stage.removeprefix('recap_')}, β={beta}"
    return ROWS.get(stage, name)

def row_colour(name):
    """Ours blue at β = 1 and vermillion where guided; all others grey."""
    if not name.startswith("recap_"):
        return GREY
    return BLUE if name.endswith("β=1") else VERMILLION

# ---------------------------------------------------------------- bars

BAR = {"alpha": 0.85, "height": 0.75, "error_kw": {"capsize": 2, "lw": 1}}

def bars(groups):
    """Figs. 7 to 12: throughput and success of named rows, one block of bars per task.

    groups: {task: {row: {"throughput", "success": {"mean", "se" (None for one run), "n"}}}}.
    Error bars are ±1 standard error over the n training seeds.  Returns a Figure.
    """
    n_lines = sum(len(rows) + 1 for rows in groups.values())
    fig = plt.figure(figsize=(11, 0.9 + 0.24 * n_lines), layout="constrained")
    panels = (
        ("throughput", 1, "successes per simulated hour"),
        ("success", 100, "success rate (%)"),
    )
    for ax, (key, scale, title) in zip(fig.subplots(1, 2, sharey=True), panels):
        labels = []
        for task, rows in groups.items():
            ax.text(0, len(labels), f" {task}", va="center", fontsize=FONT, fontweight="bold")
            labels.append("")
            for name, row in rows.items():
                x = row[key]
                error = scale * (x["se"] or 0)
                colour = row_colour(name)
                ax.barh(len(labels), scale * x["mean"], xerr=error, color=colour, **BAR)
                labels.append(row_label(name))
                n = x["n"]
        ax.set_yticks(range(len(labels)), labels, fontsize=FONT - 2)
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(len(labels) - 0.4, -0.6)
        ax.set_title(f"{title}, n = {n} seeds ± s.e.", fontsize=FONT)
        bare(ax, grid="x")
        ax.set_axisbelow(True)
    return fig

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
TICKS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.5, 2)

def ratios(groups, title, limits=(0.35, 2.0)):
    """One block per point, one marker per method at its ratio, with its interval, on a log scale.

    groups: {point: {method: a `statistics.ratio`}}.  A filled marker: the interval excludes 1.
    Left out is what the others are compared with (1, without an interval), and what is undefined.
    What is 0 or beyond `limits` is drawn at the edge.  Returns a Figure.
    """
    names = {}  # of all groups, in order, once each
    for methods in groups.values():
        names |= dict.fromkeys(methods)
    height = 1 + 0.11 * len(groups) * len(names)
    fig = plt.figure(figsize=(11, height), layout="constrained")
    ax = fig.subplots()
    looks = looks_of(names)
    for name, (colour, marker) in looks.items():
        ax.plot([], [], marker, color=colour, label=row_label(name))
    for i, (point, methods) in enumerate(groups.items()):
        ax.axhspan(i - 0.5, i + 0.5, color=GREY, alpha=0.08 * (i % 2), linewidth=0)
        for j, (name, x) in enumerate(methods.items()):
            y = i - 0.5 + (j + 0.5) / len(methods)
            draw_ratio(ax, x, y, *looks[name], limits)
    ax.axvline(1, color="black", linewidth=0.8)
    ax.set_xscale("log")
    ax.set_xlim(*limits)
    ticks = [tick for tick in TICKS if limits[0] <= tick <= limits[1]]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_yticks(range(len(groups)), list(groups), fontsize=FONT - 1)
    ax.set_ylim(len(groups) - 0.5, -0.5)
    ax.set_xlabel(title, fontsize=FONT)
    bare(ax, grid="x")
    legend = ax.get_legend_handles_labels()
    fig.legend(*legend, loc="outside right upper", fontsize=FONT - 1, frameon=False)
    return fig

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
    if low == high == 1:  # what the others are compared with
        return
    fill = "white"
    if low is not None:
        ax.plot(np.clip([low, high], *limits), [y, y], color=colour, linewidth=1.2)
        if low > 1 or high < 1:
            fill = colour
    ax.plot(
        np.clip(x["ratio"], *limits), y, marker, color=colour, markersize=5.5, clip_on=False,
        zorder=3, markerfacecolor=fill,
    )  # fmt: skip

# ---------------------------------------------------------------- over β

PANELS = {
    "throughput": "throughput relative to β = 1",
    "success": "success rate (%)",
    "outside": "numbers outside the data's 99 % (%)",
}
LINES = ((BLUE, "o"), (VERMILLION, "^"), (GREEN, "s"), (PURPLE, "D"), ("black", "v"))

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
                markersize=4, capsize=2, label=f"{task} (n = {n})",
            )  # fmt: skip
        ax.set(xlabel="β", title=title)
        ax.title.set_fontsize(FONT)
        bare(ax, grid="both")
    ax.legend(fontsize=FONT - 2, frameon=False)
    return fig

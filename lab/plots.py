"""Pictures of one run: arrays in, Axes out.  No files are read or written here.

    Figs. 7 and 8: throughput, success rate
    Figs. 9 and 10: over the iterations            learning_curve
    Fig. 4: V along one episode, with its frames   value_trace

Figs. 7 to 10 show one quantity for several tasks.  Here both quantities of one run are side by
side, its stages in the order in which Algorithm 1 goes through them.  What counts as a rise or a
drop in Fig. 4 the paper does not say; here it is a rule (`trends`), and hatching and markers say
the same as the colours, which are those of Okabe and Ito.
"""
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patches import ConnectionPatch

BLUE = "#0072b2"
VERMILLION = "#d55e00"
GREEN = "#009e73"
PURPLE = "#cc79a7"
GREY = "#6b6b6b"
FONT = 10  # points

def bare(ax, grid):
    """Without a box; with a faint grid along "x", "y" or "both"."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, alpha=0.3)

# ---------------------------------------------------------------- the stages of a run

# What the x axis calls a stage, in short lines.
LABELS = {
    "demonstrations": "demon-\nstrations",
    "supervised": "super-\nvised",
    "supervised_small": "super-\nvised,\nsmall",
    "supervised_sft": "super-\nvised\n+ SFT",
    "rl_pretrained": "RL pre-\ntrained",
    "offline_rl_sft": "offline RL\n+ SFT",
}
IMITATION = ("supervised_small", "supervised", "supervised_sft")  # another network's stages

def stage_label(name):
    """What the x axis calls a stage: "recap_2" -> "RECAP\\nk=2"."""
    if name.startswith("recap_"):
        return f"RECAP\nk={name.removeprefix('recap_')}"
    return LABELS.get(name, name.replace("_", "\n"))

def series_of(stages):
    """The lines of `learning_curve`: [(label, line's looks, stages of it), ...], none empty."""
    demonstrations = []
    imitation = []
    plain = []
    guided = {}  # β -> stages
    for stage in stages:
        beta = stage["beta"]
        if stage["name"] == "demonstrations":
            demonstrations.append(stage)
        elif stage["name"] in IMITATION:
            imitation.append(stage)
        elif beta is None or beta == 1:
            plain.append(stage)
        else:
            guided.setdefault(beta, []).append(stage)
    series = [
        ("demonstrations", look("D", GREY, "none"), demonstrations),
        ("imitation only (a second network)", look("s", PURPLE, ":"), imitation),
        ("β = 1 (no guidance)", look("o", BLUE, "-"), plain),
    ]
    for beta, colour in zip(sorted(guided), (VERMILLION, GREEN, "black")):
        label = f"β = {beta:g} (guided, Eq. 13)"
        series.append((label, look("^", colour, "--"), guided[beta]))
    return [line for line in series if line[2]]

def look(marker, colour, line):
    """Keywords of `Axes.errorbar`."""
    style = {"marker": marker, "color": colour, "linestyle": line}
    return style | {"capsize": 3, "markersize": 7, "linewidth": 1.6}

def learning_curve(metrics, fig=None):
    """Throughput and success rate of all stages of a run (Figs. 7 to 10).

    metrics: a run's metrics.json.  fig: a Figure or SubFigure to draw into; None: a new one.
    Error bars are ±1 standard error.  Stages that were evaluated with several β stand once on the
    x axis, with one line for each β.  Returns the two Axes (throughput, success).
    """
    stages = metrics["stages"]
    names = list(dict.fromkeys(stage["name"] for stage in stages))  # in order, once each
    if fig is None:
        fig = plt.figure(figsize=(2 + 1.25 * len(names), 4), layout="constrained")
    series = series_of(stages)
    n_guided = sum("guided" in label for label, _, _ in series)
    panels = (
        ("throughput", 1, "throughput (successes per simulated hour)"),
        ("success", 100, "success rate (%)"),
    )
    axes = fig.subplots(1, 2)
    for ax, (key, scale, title) in zip(axes, panels):
        for i, (label, style, members) in enumerate(series):
            # Guided lines stand a little beside the others: error bars don't hide each other.
            beside = 0.12 * max(0, i + 1 + n_guided - len(series))
            x = [names.index(stage["name"]) + beside for stage in members]
            y = [scale * stage[key] for stage in members]
            error = [scale * stage[f"{key}_se"] for stage in members]
            ax.errorbar(x, y, error, label=label, **style)
        ax.set_title(title, fontsize=FONT)
        ax.set_xticks(range(len(names)), [stage_label(name) for name in names], fontsize=9)
        ax.set_xlim(-0.5, len(names) - 0.5)
        ax.tick_params(axis="y", labelsize=9)
        bare(ax, grid="y")
    axes[0].set_ylim(bottom=0)
    axes[1].set_ylim(0, 104)
    axes[0].legend(fontsize=9, frameon=False)
    counts = sorted({stage["episodes"] for stage in stages})
    episodes = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
    run = f"{metrics['task']}, seed {metrics['seed']}"
    fig.suptitle(f"{run}: {episodes} episodes per point, bars ±1 s.e.", fontsize=11)
    return axes

# ---------------------------------------------------------------- V along an episode

def trends(values, window=8, notable=0.03):
    """Where V rises or drops notably: int (T,), +1, -1 or 0.

    values: V, (T,).  window: over how many steps V's gain is taken, around each step.
    notable: in units of V.  A drop: V loses that much.  A rise: V gains that much beyond the median
    gain of the episode, for V rises by itself as the end comes nearer.  The steps next to it must
    agree in sign, so that a change is marked where it happens and not all around.
    """
    values = np.asarray(values, float)
    half = max(1, window // 2)

    def gain(k):
        """V's gain over 2 k steps, fewer at both ends: (T,)."""
        padded = np.pad(values, k, mode="edge")  # (T + 2k,)
        return padded[2 * k :] - padded[: -2 * k]

    wide = gain(half)
    near = gain(max(1, half // 2))
    usual = max(0.0, np.median(wide))
    rises = (wide >= usual + notable) & (near > 0)
    drops = (wide <= -notable) & (near < 0)
    return rises.astype(int) - drops


TREND_COLOURS = {-1: VERMILLION, 0: GREY, 1: GREEN}

def value_trace(values, frames, frame_steps, title, fig, seconds_per_step=0.1, success=None):
    """V(o_t) along one episode under some of its frames (Fig. 4).

    values: V, (T,), in [-1, 0].  frames: K images, uint8 (height, width, 3).
    frame_steps: the steps at which they were taken, (K,).  fig: a Figure or SubFigure.
    success: True or False marks the end of the episode, None does not.
    Returns the Axes of the trace.
    """
    values = np.asarray(values, float)
    time = np.arange(len(values)) * seconds_per_step  # (T,) s
    # Above the trace the frames, where the task has pictures.
    heights = (1, 1.5) if len(frames) else (0.01, 1)
    grid = fig.add_gridspec(2, max(1, len(frames)), height_ratios=heights)
    ax = fig.add_subplot(grid[1, :])
    end = max(time[-1], seconds_per_step)
    ax.set(xlim=(-0.015 * end, 1.015 * end), ylim=(-1.03, 0.03))  # no marker on the frame

    trend = trends(values)  # (T,)
    draw_line(ax, time, values, trend)
    draw_spans(ax, time, values, trend)
    for i, (frame, step) in enumerate(zip(frames, np.asarray(frame_steps, int))):
        draw_frame(fig, grid[0, i], ax, frame, (time[step], values[step]))
    names = {"a frame": ("o", "white")} if len(frames) else {}  # of the legend: marker, colour
    if success is not None:
        marker = "*" if success else "X"
        colour = GREEN if success else VERMILLION
        ax.plot(
            time[-1], values[-1], marker, color=colour, markersize=13, markeredgecolor="black",
            clip_on=False, zorder=6,
        )  # fmt: skip
        outcome = "success" if success else "failure"
        title = f"{title} ({outcome})"
        names[outcome] = (marker, colour)
    names |= {"V rises notably": ("^", GREEN), "V drops notably": ("v", VERMILLION)}
    keys = [
        Line2D(
            [], [], marker=marker, color=colour, linestyle="none", label=name,
            markeredgecolor="black" if colour == "white" else colour,
        )  # fmt: skip
        for name, (marker, colour) in names.items()
    ]
    ax.legend(handles=keys, fontsize=8, frameon=False, ncols=4, loc="lower right")
    ax.set_xlabel("time (s)", fontsize=FONT)
    ax.set_ylabel("V(o$_t$), from −1 to 0", fontsize=FONT)
    ax.tick_params(labelsize=9)
    bare(ax, grid="y")
    fig.suptitle(title, fontsize=11)
    return ax

def draw_line(ax, time, values, trend):
    """V over time, each piece between two steps in the colour of its earlier step."""
    points = np.stack([time, values], -1)  # (T, 2)
    pieces = np.stack([points[:-1], points[1:]], 1)  # (T - 1, 2 ends, 2)
    colours = [TREND_COLOURS[i] for i in trend[:-1]]
    ax.add_collection(LineCollection(pieces, colors=colours, linewidths=2.2))

def draw_spans(ax, time, values, trend):
    """Behind the line a span for every rise and drop, with a marker in its middle."""
    # Where the trend changes, the beginning and the end included.
    edges = np.flatnonzero(np.diff(trend, prepend=9, append=9))
    for first, after in zip(edges[:-1], edges[1:]):
        if trend[first] == 0:
            continue
        colour = TREND_COLOURS[trend[first]]
        span = (time[first], time[min(after, len(values) - 1)])
        ax.axvspan(*span, facecolor=colour, alpha=0.14, linewidth=0)
        marker = "^"
        if trend[first] < 0:
            marker = "v"
            hatch = {"edgecolor": VERMILLION, "alpha": 0.3, "hatch": "///", "linewidth": 0}
            ax.axvspan(*span, facecolor="none", **hatch)
        middle = (first + min(after, len(values) - 1)) // 2
        style = {"color": colour, "markersize": 9, "markeredgecolor": "white"}
        ax.plot(time[middle], values[middle], marker, **style)

def draw_frame(fig, place, ax, frame, point):
    """A picture above the trace, tied to its point, (time, V)."""
    picture = fig.add_subplot(place)
    picture.imshow(frame)
    picture.set(xticks=[], yticks=[])
    picture.set_title(f"{point[0]:.1f} s", fontsize=9, pad=3)
    tie = ConnectionPatch(
        (0.5, 0), point, "axes fraction", "data", axesA=picture, axesB=ax, color=GREY,
        linewidth=0.7,
    )  # fmt: skip
    tie.set_in_layout(False)
    fig.add_artist(tie)
    ax.plot(*point, "o", color="white", markeredgecolor="black", markersize=4.5, zorder=5)

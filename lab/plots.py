"""Arrays in, Axes out: the pictures that a run, and a comparison of many, is judged by.  No files are read or written here.

    paper                                                function
    Fig. 7 (throughput), Fig. 8 (success rate),
    Figs. 9-10 (over the iterations of Algorithm 1)      `learning_curve`
    Fig. 4 (value along one episode, with its frames)    `value_trace`
    Figs. 7-12 (over seeds; rows of results/*.json)      `bars`
    Fig. 8, right (the stages of the box)                `stage_bars`
    Fig. 11 (when its order holds)                       `ratios`
    App. E (over β)                                      `guidance`

Deviates: Figs. 7-10 show one quantity for several tasks; here both quantities of one run are side by side, its
stages in the order in which Algorithm 1 goes through them.  What counts as a rise or a drop in Fig. 4 the paper
does not say; here it is a rule (`trends`), and hatching and markers say the same as the colours.

Colours are those of Okabe and Ito.  Every function draws into `fig` (a Figure or SubFigure) if it is given one, else
into a new pyplot figure, and never calls `show`.
"""
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.patches import ConnectionPatch

BLUE, VERMILLION, GREEN, PURPLE, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#6b6b6b"
FONT = 10       # points

LABELS = {"demonstrations": "demon-\nstrations", "supervised": "super-\nvised", "supervised_small": "super-\nvised,\nsmall",
          "supervised_sft": "super-\nvised\n+ SFT", "rl_pretrained": "RL pre-\ntrained",
          "offline_rl_sft": "offline RL\n+ SFT"}
APART = ("demonstrations", "supervised_small", "supervised", "supervised_sft")     # not ancestors of what Algorithm 1 returns


def stage_label(name):
    """What the x axis calls a stage, in short lines: "recap_2" -> "RECAP\\nk=2"."""
    if name.startswith("recap_"):
        return f"RECAP\nk={name.removeprefix('recap_')}"
    return LABELS.get(name, name.replace("_", "\n"))


def learning_curve(metrics, fig=None):
    """Throughput and success rate of all stages of a run (Figs. 7-10).

    metrics: the dict of a run's metrics.json; of its "stages" are read name, beta, episodes, and success (0-1) and
    throughput (successes per simulated hour), each with its standard error `..._se`.  Error bars are +-1 s.e.
    Stages that were evaluated with several beta appear once on the x axis, with one series for each beta.
    Returns the two Axes (throughput, success).
    """
    stages = metrics["stages"]
    names = list(dict.fromkeys(s["name"] for s in stages))     # in order, once each
    fig = plt.figure(figsize=(2 + 1.25 * len(names), 4), layout="constrained") if fig is None else fig
    betas = sorted({s["beta"] for s in stages if s["name"] not in APART and s.get("beta") not in (None, 1)})

    # who is drawn how: (label, marker, colour, line, stages of the series)
    series = [("demonstrations", "D", GREY, "none", [s for s in stages if s["name"] == "demonstrations"]),
              ("imitation only (a second network)", "s", PURPLE, ":", [s for s in stages if s["name"] in APART[1:]])]
    chain = [s for s in stages if s["name"] not in APART]
    series += [("β = 1 (no guidance)", "o", BLUE, "-", [s for s in chain if s.get("beta") in (None, 1)])]
    series += [(f"β = {beta:g} (guided, Eq. 13)", "^", colour, "--", [s for s in chain if s.get("beta") == beta])
               for beta, colour in zip(betas, (VERMILLION, GREEN, "black"))]
    series = [one for one in series if one[-1]]

    axes = fig.subplots(1, 2)
    for ax, key, scale, title in zip(axes, ("throughput", "success"), (1, 100),
                                     ("throughput (successes per simulated hour)", "success rate (%)")):
        for i, (label, marker, colour, line, members) in enumerate(series):
            # series stand a little beside one another, so that error bars don't hide each other
            x = np.array([names.index(s["name"]) for s in members]) + 0.12 * max(0, i + 1 + len(betas) - len(series))
            y, error = np.array([(s[key], s[key + "_se"]) for s in members]).T * scale    # (members,) each
            ax.errorbar(x, y, error, label=label, marker=marker, color=colour, linestyle=line, capsize=3,
                        markersize=7, linewidth=1.6)
        ax.set_title(title, fontsize=FONT)
        ax.set_xticks(range(len(names)), [stage_label(n) for n in names], fontsize=9)
        ax.set_xlim(-0.5, len(names) - 0.5)
        ax.tick_params(axis="y", labelsize=9)
        ax.grid(axis="y", alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylim(bottom=0)
    axes[1].set_ylim(0, 104)
    axes[0].legend(fontsize=9, frameon=False)
    counts = sorted({s["episodes"] for s in stages})
    episodes = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
    fig.suptitle(f"{metrics['task']}, seed {metrics['seed']}: {episodes} episodes per point, bars ±1 s.e.",
                 fontsize=11)
    return axes


def trends(values, window=8, notable=0.03):
    """Where V rises or drops notably: int (T,), +1, -1 or 0.

    Looks at the gain of V over `window` steps around each step.  A drop: V loses `notable` or more.  A rise: V gains
    `notable` or more beyond the median gain of the episode, for V rises by itself as the end comes nearer.  The
    steps next to it must agree in sign, so that a change is marked where it happens and not all around.
    """
    values, half = np.asarray(values, float), max(1, window // 2)

    def gain(k):                                                 # over 2 k steps, fewer at both ends; (T,)
        padded = np.pad(values, k, mode="edge")                  # (T + 2k,)
        return padded[2 * k:] - padded[:-2 * k]

    wide, near = gain(half), gain(max(1, half // 2))
    usual = max(0.0, np.median(wide))
    return ((wide >= usual + notable) & (near > 0)).astype(int) - ((wide <= -notable) & (near < 0))


def value_trace(values, frames, frame_steps, title, fig=None, seconds_per_step=0.1, success=None, window=8,
                notable=0.03):
    """V(o_t) along one episode under some of its frames (Fig. 4).

    values (T,) in [-1, 0]; frames: K images uint8 (height, width, 3); frame_steps (K,): the steps at which they were
    taken; success: True or False marks the end of the episode, None does not.  `window` (steps) and `notable`
    (units of V) say which drops and rises are coloured, see `trends`.  Returns the Axes of the trace.
    """
    fig = plt.figure(figsize=(9.5, 4.2), layout="constrained") if fig is None else fig
    values, steps = np.asarray(values, float), np.asarray(frame_steps, int)
    time = np.arange(len(values)) * seconds_per_step                       # (T,) s
    grid = fig.add_gridspec(2, len(frames), height_ratios=(1, 1.5))
    ax = fig.add_subplot(grid[1, :])
    ax.set(xlim=(0, max(time[-1], seconds_per_step)), ylim=(-1, 0))

    # the line, each piece between two steps in the colour of its earlier step; behind it the spans
    trend = trends(values, window, notable)
    colours = {-1: VERMILLION, 0: GREY, 1: GREEN}
    points = np.stack([time, values], -1)                                  # (T, 2)
    pieces = np.stack([points[:-1], points[1:]], 1)                        # (T-1, 2 ends, 2)
    ax.add_collection(LineCollection(pieces, colors=[colours[i] for i in trend[:-1]], linewidths=2.2))
    edges = np.flatnonzero(np.diff(trend, prepend=9, append=9))            # where runs of equal trend begin, and T
    for first, after in zip(edges[:-1], edges[1:]):
        if trend[first] != 0:
            falls = trend[first] < 0
            last = min(after, len(values) - 1)
            ax.axvspan(time[first], time[last], facecolor=colours[trend[first]], alpha=0.14, linewidth=0)
            if falls:
                ax.axvspan(time[first], time[last], facecolor="none", edgecolor=VERMILLION, alpha=0.3, hatch="///",
                           linewidth=0)
            middle = (first + last) // 2
            ax.plot(time[middle], values[middle], "v" if falls else "^", color=colours[trend[first]], markersize=9,
                    markeredgecolor="white")

    # the frames, each tied to its point of the trace
    for i, (frame, step) in enumerate(zip(frames, steps)):
        picture = fig.add_subplot(grid[0, i])
        picture.imshow(frame)
        picture.set(xticks=[], yticks=[])
        picture.set_title(f"{time[step]:.1f} s", fontsize=9, pad=3)
        tie = ConnectionPatch((0.5, 0), (time[step], values[step]), "axes fraction", "data", axesA=picture,
                              axesB=ax, color=GREY, linewidth=0.7)
        tie.set_in_layout(False)
        fig.add_artist(tie)
        ax.plot(time[step], values[step], "o", color="white", markeredgecolor="black", markersize=4.5, zorder=5)

    if success is not None:
        ax.plot(time[-1], values[-1], "*" if success else "X", color=GREEN if success else VERMILLION, markersize=13,
                markeredgecolor="black", clip_on=False, zorder=6)
        title = f"{title} ({'success' if success else 'failure'})"
    ax.set_xlabel("time (s)", fontsize=FONT)
    ax.set_ylabel("V(o$_t$), from −1 to 0", fontsize=FONT)
    ax.tick_params(labelsize=9)
    ax.grid(axis="y", alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    fig.suptitle(title, fontsize=11)
    return ax


ROWS = {"supervised_small": r"supervised, smaller (as $\pi_{0.5}$)", "supervised": r"supervised ($\pi_{0.6}$)",
        "supervised_sft": "supervised + SFT", "rl_pretrained": r"RL pre-trained ($\pi^*_{0.6}$)",
        "offline_rl_sft": "offline RL + SFT"}


def row_label(name):
    """What a row of results/*.json is called: "recap_2 β=1.5" -> "RECAP k=2, β=1.5"; before RECAP β is always 1."""
    stage, _, beta = name.partition(" β=")
    return f"RECAP k={stage.removeprefix('recap_')}, β={beta}" if stage.startswith("recap_") else ROWS.get(stage, name)


def row_colour(name):
    """Ours blue at β = 1 and vermillion where guided; all others grey."""
    return GREY if not name.startswith("recap_") else BLUE if name.endswith("β=1") else VERMILLION


def bars(groups, fig=None):
    """Figs. 7, 8, 9-12: throughput and success of named rows, one block of bars per task.  -> Figure

    groups: {task: {row: {"throughput", "success": {"mean", "se" (None for one run), "n"}}}}, as in results/*.json.
    Error bars are +-1 standard error over the n training seeds.
    """
    height = 0.9 + 0.24 * sum(len(rows) + 1 for rows in groups.values())
    fig = plt.figure(figsize=(11, height), layout="constrained") if fig is None else fig
    axes = fig.subplots(1, 2, sharey=True)
    n = next(iter(next(iter(groups.values())).values()))["success"]["n"]
    for ax, key, scale, title in zip(axes, ("throughput", "success"), (1, 100), ("successes per simulated hour", "success rate (%)")):
        y, names = 0, []
        for task, rows in groups.items():
            ax.text(0, y, f" {task}", va="center", fontsize=FONT, fontweight="bold")
            names.append("")
            y += 1
            for name, row in rows.items():
                ax.barh(y, scale * row[key]["mean"], xerr=scale * (row[key]["se"] or 0), color=row_colour(name), alpha=0.85,
                        height=0.75, error_kw={"capsize": 2, "lw": 1})
                names.append(row_label(name))
                y += 1
        ax.set_yticks(range(y), names, fontsize=FONT - 2)
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(y - 0.4, -0.6)
        ax.set_title(f"{title}, n = {n} seeds ± s.e.", fontsize=FONT)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="x", alpha=0.3)
        ax.set_axisbelow(True)
    return fig


def stage_bars(rows, stages, fig=None):
    """Fig. 8, right: how many episodes complete each stage of a task, one panel per stage, one bar per row.  -> Figure

    rows: as in `bars`, of one task, each with "per_stage_success": lists of one number per stage, one list per seed.
    """
    fig = plt.figure(figsize=(11, 1.1 + 0.24 * len(rows)), layout="constrained") if fig is None else fig
    values = {name: 100 * np.array(row["per_stage_success"]) for name, row in rows.items()}               # (seeds, stages) each
    n = len(next(iter(values.values())))
    for i, (ax, stage) in enumerate(zip(fig.subplots(1, len(stages), sharey=True), stages)):
        mean = [x[:, i].mean() for x in values.values()]
        se = [x[:, i].std(ddof=1) / np.sqrt(n) if n > 1 else 0 for x in values.values()]
        ax.barh(range(len(rows)), mean, xerr=se, color=[row_colour(name) for name in rows], alpha=0.85, height=0.75,
                error_kw={"capsize": 2, "lw": 1})
        ax.set_yticks(range(len(rows)), [row_label(name) for name in rows], fontsize=FONT - 2)
        ax.set_title(stage, fontsize=FONT)
        ax.set_xlim(0, 104)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="x", alpha=0.3)
        ax.set_axisbelow(True)
    ax.invert_yaxis()
    fig.supxlabel(f"episodes that complete the stage (%), n = {n} seeds ± s.e.", fontsize=FONT)
    return fig


# of `ratios`, by how a row's name begins
MARKERS = {"recap": "o", "imitation": "s", "filtered": "P", "positives": "D", "AWR": "^", "PPO": "v"}


def ratios(groups, title, fig=None, limits=(0.35, 2.0)):
    """The map: one block per point, one marker per method at its ratio, with its interval, on a log scale.  -> Figure

    groups: {point: {method: a `claims.ratio`}}.  Filled: the interval excludes 1.  Left out: what the others are compared with
    (1, without an interval), and what is undefined.  What is 0 or beyond `limits` is drawn at the edge.
    """
    rows = next(iter(groups.values()))
    fig = plt.figure(figsize=(11, 1 + 0.11 * len(groups) * len(rows)), layout="constrained") if fig is None else fig
    ax, (low, high) = fig.subplots(), limits
    shades = {"AWR": (GREEN, "#66c2a5", "#b2e2cf"), "PPO": (PURPLE, "#e3bcd2")}
    counts = {kind: [name for name in rows if name.startswith(kind)] for kind in shades}
    for i, (point, methods) in enumerate(groups.items()):
        ax.axhspan(i - 0.5, i + 0.5, color=GREY, alpha=0.08 * (i % 2), linewidth=0)
        for j, (name, x) in enumerate(methods.items()):
            kind = next(kind for kind in MARKERS if name.startswith(kind))
            colour = shades[kind][counts[kind].index(name) % len(shades[kind])] if kind in shades else row_colour(name)
            y, known = i - 0.5 + (j + 0.5) / len(methods), x["low"] is not None
            if i == 0:
                ax.plot([], [], MARKERS[kind], color=colour, label=row_label(name))
            if x["low"] == x["high"] == 1:
                continue
            if known:
                ax.plot(np.clip([x["low"], x["high"]], low, high), [y, y], color=colour, linewidth=1.2)
            ax.plot(np.clip(x["ratio"], low, high), y, MARKERS[kind], color=colour, markersize=5.5, clip_on=False, zorder=3,
                    markerfacecolor=colour if known and (x["low"] > 1 or x["high"] < 1) else "white")
    ax.axvline(1, color="black", linewidth=0.8)
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    ticks = [tick for tick in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.5, 2) if low <= tick <= high]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_yticks(range(len(groups)), list(groups), fontsize=FONT - 1)
    ax.set_ylim(len(groups) - 0.5, -0.5)
    ax.set_xlabel(title, fontsize=FONT)
    ax.grid(axis="x", alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside right upper", fontsize=FONT - 1, frameon=False)
    return fig


def guidance(groups, fig=None):
    """App. E: throughput relative to β = 1, success, and actions outside the data's support against β, one line per task.  -> Figure

    groups: {task: {"... β=b": rows as in `bars`, with "outside" and the seeds' "values"}}.  Bars: +-1 s.e. over the seeds.
    """
    fig = plt.figure(figsize=(11, 3.6), layout="constrained") if fig is None else fig
    for ax, key, title in zip(fig.subplots(1, 3), ("throughput", "success", "outside"),
                              ("throughput relative to β = 1", "success rate (%)", "numbers outside the data's 99 % (%)")):
        for (task, rows), colour, marker in zip(groups.items(), (BLUE, VERMILLION, GREEN, PURPLE, "black"), "o^sDv"):
            beta = [float(name.split("β=")[1]) for name in rows]
            values = np.array([row[key]["values"] for row in rows.values()])                                   # (β, seeds)
            if key == "throughput":                # of each seed to its own at β = 1; a seed with none there has no ratio
                one = values[beta.index(1.0)]
                values = values[:, one > 0] / one[one > 0]
            else:
                values = 100 * values
            n = values.shape[1]
            if n == 0:
                continue
            se = values.std(1, ddof=1) / np.sqrt(n) if n > 1 else 0
            ax.errorbar(beta, values.mean(1), se, color=colour, marker=marker, markersize=4, capsize=2, label=f"{task} (n = {n})")
        ax.set(xlabel="β", title=title)
        ax.title.set_fontsize(FONT)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.3)
    ax.legend(fontsize=FONT - 2, frameon=False)
    return fig

"""The experiments of a course: your curve, beside the band of correct runs.

    python exercises/experiments/run.py lookahead --seed 7    yours: a table and a picture
    python exercises/experiments/run.py lookahead --quick     only to see that it runs
    python exercises/experiments/run.py --reference           the bands, all anew (hours)
    python exercises/experiments/run.py --reference guidance  one of them
    python exercises/experiments/run.py --from-results        the bands from results/ (seconds)

The experiments are those of EXPERIMENTS below; each has a page beside this file.
Yours goes to runs/experiments/NAME-seedN.json and .png.  Runs are cached as those of `python -m
reproduce` are, so what was interrupted goes on.  The bands lie in reference/NAME.json: success and
throughput of every seed, and the command that made them.
"""
import argparse
import json
import math
import os
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

import matplotlib  # noqa: E402

matplotlib.use("Agg")  # whatever MPLBACKEND says: nothing is shown, all is written
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

from lab.files import read_json, write_text  # noqa: E402
from lab.plots import BLUE, FONT, GREEN, GREY, VERMILLION, bare  # noqa: E402
from lab.program import run_program  # noqa: E402
from reproduce.ablations import ABLATIONS  # noqa: E402
from reproduce.cache import folder_of, make_runs, metrics_of, sized  # noqa: E402
from reproduce.extraction import POINTS, extract, file_of  # noqa: E402
from reproduce.guidance import BETAS, sweep_beta  # noqa: E402
from lab.tables import T_975  # noqa: E402
from reproduce.statistics import row_of  # noqa: E402
from settings import Settings  # noqa: E402

SEEDS = (31, 32, 33, 34, 35)  # never tuned on
KINDS = ("throughput", "success")

@dataclass
class Experiment:
    """Points on the x axis, and a few lines through them.

    points: {label: what the settings change}.  lines: {label: (stage, β)}, a stage of a run; β
    None: the point's own.  work: what a finished run does besides.  common: of all settings.
    """

    title: str
    points: dict
    lines: dict
    common: dict = field(default_factory=dict)
    work: object = None

    def settings(self, point, seed, quick=False):
        base = dict(iterations=1, evaluation_episodes=500)
        change = {} if self.own_beta else self.points[point]
        return Settings(seed=seed, **sized(base | self.common | change, quick))

    @property
    def own_beta(self):
        """Are the points values of β, of one and the same run?"""
        return any(beta is None for _, beta in self.lines.values())

RECAP = {"RECAP, β = 1": ("recap_1", 1.0), "RECAP, guided (β = 2)": ("recap_1", 2.0)}
FILTERS = ("positives only", "filtered imitation")

def some_of(name, *rows):
    """Points from an ablation of `python -m reproduce`: those rows, or all."""
    known = ABLATIONS[name][2]
    return {row: known[row] for row in rows or known}


EXPERIMENTS = {
    "lookahead": Experiment(
        "which N?",
        some_of("lookahead", "N = 1", "N = 5", "N = 10", "N = 20", "N = 40"),
        RECAP,
    ),
    "positive": Experiment(
        "how many positives?",
        some_of("positive", "10% positive", "20% positive", "40% positive", "70% positive"),
        RECAP,
    ),
    "guidance": Experiment(
        "β, and the edge of the data",
        {f"β={beta:g}": beta for beta in BETAS},
        {"RECAP, second iteration": ("recap_2", None)},
        dict(iterations=2),
        sweep_beta,
    ),
    "corrections": Experiment(
        "corrections, or autonomy?",
        some_of(
            "corrections", "200 autonomous, none corrected", "150 + 50 corrected",
            "10 + 190 corrected",
        ),
        RECAP,
    ),
    "filtering": Experiment(
        "when does filtering beat conditioning?",
        {point: POINTS[point] for point in (
            "base", "none corrected, 10 % positive", "20 steps of SFT, none of 600 corrected",
        )},
        RECAP | {name: (file_of(name), 1.0) for name in FILTERS},
        dict(supervised=True),
        partial(extract, names=FILTERS),
    ),
}  # fmt: skip

def measure(name, seeds, jobs, quick=False):
    """{line: {point: {"throughput": [one per seed], "success": [...]}}}."""
    experiment = EXPERIMENTS[name]
    groups = {}
    for point in experiment.points:
        groups[point] = [experiment.settings(point, seed, quick) for seed in seeds]
    # Points of one run are made once.
    everything = {folder_of(s): s for group in groups.values() for s in group}
    make_runs(list(everything.values()), jobs, experiment.work)
    curve = {}
    for line, (stage, beta) in experiment.lines.items():
        curve[line] = {}
        for point, group in groups.items():
            asked = experiment.points[point] if beta is None else beta
            row = row_of([folder_of(s) for s in group], stage, asked)
            curve[line][point] = {kind: row[kind]["values"] for kind in KINDS}
    return curve

# ---------------------------------------------------------------- beside the reference

def reference(name):
    with open(HERE / "reference" / f"{name}.json", encoding="utf-8") as file:
        return json.load(file)

def band(values):
    """Where another seed lands in 19 of 20 cases, (low, high): Student's t for one more draw."""
    n = len(values)
    half = T_975[n - 2] * np.std(values, ddof=1) * math.sqrt(1 + 1 / n)
    return float(np.mean(values) - half), float(np.mean(values) + half)

def compare(curve, known):
    """Lines of text: yours, the band, and whether it is inside."""
    lines = [f"{'':<52}{'per hour':>10}{'band':>14}{'success':>10}{'band':>16}"]
    for line, points in curve.items():
        for point, x in points.items():
            text = f"{line}, {point}"[:51].ljust(52)
            outside = False
            for kind, scale, sign in (("throughput", 1, ""), ("success", 100, " %")):
                low, high = band(known[line][point][kind])
                high = min(high, 1.0) if kind == "success" else high
                mine = x[kind][0]
                text += f"{scale * mine:>8.0f}{sign:<2}"
                text += f"{f'{scale * max(low, 0):.0f} to {scale * high:.0f}{sign}':>14}"
                outside = outside or not low <= mine <= high
            lines.append(text + ("   outside" if outside else ""))
    return "\n".join(lines)

def labels_of(name, seed):
    """Lines of text: which share of the newest rollouts' good and bad steps is positive."""
    experiment = EXPERIMENTS[name]
    folders = {folder_of(experiment.settings(x, seed)): x for x in experiment.points}
    lines = []
    for folder, point in folders.items():
        x = metrics_of(folder)["labels"][-1]
        good, bad = (x[f"positive_given_{kind}"] for kind in ("good", "bad"))
        lines.append(f"positive, {point}: {good:.0%} of the good steps, {bad:.0%} of the bad")
    return "\n".join(lines)

def draw(name, curve, known, seed):
    """Your points on the band of the reference.  Returns the figure."""
    experiment = EXPERIMENTS[name]
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    points = list(experiment.points)
    labels = [point.replace(", ", ",\n") for point in points]
    for ax, kind, scale in zip(axes, KINDS, (1, 100)):
        looks = zip(known.items(), (BLUE, VERMILLION, GREEN, GREY), "o^sD")
        for (line, reference_of), colour, marker in looks:
            seeds = scale * np.array([reference_of[point][kind] for point in points])  # (x, seeds)
            middle = seeds.mean(1)
            ax.fill_between(labels, seeds.min(1), seeds.max(1), color=colour, alpha=0.15, lw=0)
            ax.plot(labels, middle, color=colour, lw=1, ls=":")
            if curve:
                mine = [scale * curve[line][point][kind][0] for point in points]
                ax.plot(labels, mine, marker=marker, color=colour, label=line)
            else:
                ax.plot([], [], color=colour, label=line)
        bare(ax, "y")
        ax.tick_params(axis="x", labelsize=FONT - 1)
    axes[0].set_ylabel("successes per simulated hour")
    axes[1].set(ylabel="success rate (%)", ylim=(None, 102))
    axes[0].legend(frameon=False, fontsize=FONT - 1)
    yours = f"seed {seed}, on " if curve else ""
    figure.suptitle(f"{experiment.title}   {yours}five seeds: the band from worst to best")
    return figure

# ---------------------------------------------------------------- the command line

def in_results(name):
    """(command, {(line, point): row}, seeds) of the figure of results/ with the same runs."""
    experiment = EXPERIMENTS[name]
    figure = {"guidance": "cfg", "filtering": "map"}.get(name, f"ablation_{name}")
    kept = read_json(str(ROOT / "results"), f"{figure}.json")
    found = {}
    for line, (stage, beta) in experiment.lines.items():
        for point, x in experiment.points.items():
            if name == "guidance":
                row = kept["rows"]["fold_shirt"][f"{stage} β={x:g}"]
            elif name == "filtering":
                rows = kept["rows"][point]["rows"]
                row = rows[line] if line in rows else rows[f"{stage} β={beta:g}"]
            else:
                row = kept["rows"]["policy"][f"{point} | {stage} β={beta:g}"]
            found[line, point] = row
    return f"python -m reproduce {figure.replace('_', ' ')}", found, kept["seeds"]

def from_results(name):
    """As `measure`, with the command and the seeds: numbers that are there already."""
    command, rows, seeds = in_results(name)
    curve = {line: {} for line in EXPERIMENTS[name].lines}
    for (line, point), row in rows.items():
        curve[line][point] = {kind: row[kind]["values"] for kind in KINDS}
    return command, curve, seeds

def keep_reference(name, command, curve, seeds):
    made = {"made by": command, "seeds": list(seeds), "curve": curve}
    path = HERE / "reference" / f"{name}.json"
    write_text(str(path), json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    print(f"wrote {path.relative_to(ROOT)}")
    picture(name)

def picture(name):
    """The band alone, for the page."""
    figure = draw(name, {}, reference(name)["curve"], None)
    figure.savefig(HERE / "reference" / f"{name}.png", dpi=80)
    plt.close(figure)

def run(name, seed, jobs, quick):
    curve = measure(name, [seed], jobs, quick)
    if quick:
        print(f"{name}: it runs. (Small runs: their numbers say nothing.)")
        return
    known = reference(name)["curve"]
    print(compare(curve, known))
    if not EXPERIMENTS[name].own_beta:
        print(labels_of(name, seed))
    else:
        point = next(iter(EXPERIMENTS[name].points))
        shares = read_json(folder_of(EXPERIMENTS[name].settings(point, seed)), "edges.json")
        found = ", ".join(f"β={beta} {100 * share:.1f} %" for beta, share in shares.items())
        print(f"outside the central 99 % of the data: {found}")
    out = ROOT / "runs" / "experiments"
    os.makedirs(out, exist_ok=True)
    text = json.dumps({"experiment": name, "seed": seed, "curve": curve}, indent=1)
    write_text(str(out / f"{name}-seed{seed}.json"), text)
    draw(name, curve, known, seed).savefig(out / f"{name}-seed{seed}.png", dpi=100)
    print(f"runs/experiments/{name}-seed{seed}.json and .png")

def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", choices=EXPERIMENTS)
    parser.add_argument("--seed", type=int, default=0, help="your own; 31 to 35 are the band's")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--quick", action="store_true", help="only to see that it runs")
    parser.add_argument("--reference", action="store_true", help="make the bands anew")
    parser.add_argument("--from-results", action="store_true", help="take the bands from results/")
    args = parser.parse_args()
    if args.name is None and not (args.reference or args.from_results):
        parser.error(f"name: nothing, expected one of {', '.join(EXPERIMENTS)}")
    if args.seed < 0 or args.jobs < 1:
        parser.error("--seed, --jobs: expected a seed of at least 0 and at least one process")
    os.chdir(ROOT)  # where runs/cache is
    if not (args.reference or args.from_results):
        run(args.name, args.seed, args.jobs, args.quick)
        return
    for name in [args.name] if args.name else EXPERIMENTS:
        if args.from_results:
            keep_reference(name, *from_results(name))
        else:
            command = f"python exercises/experiments/run.py --reference {name}"
            keep_reference(name, command, measure(name, SEEDS, args.jobs), SEEDS)

if __name__ == "__main__":
    sys.exit(run_program("experiments", main))

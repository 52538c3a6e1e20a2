"""A run's folder: every stage of Algorithm 1 leaves a file, so that an interrupted run can go on; tables of results.

    D_demo, D_0, D_k               Run.data     NAME.npz
    V_pre, V_k, pi_pre, pi_k       Run.net      NAME.npz
    evaluations, checks of V       Run.json     NAME.json
    rows of Figs. 7 to 10          table (one run), summary (over seeds)

Nothing here learns or acts; recap.py says what the stages are.  Files are written atomically (data.py).
"""
import json
import math
import os
import time

import numpy as np
import torch

from data import load_dataset, load_network, save_dataset, save_network, write_atomically


class Run:
    """The folder of one run.  A stage whose file exists is loaded, not repeated.

    settings: of the run (has `seed` and `device`); out: the folder, which exists; kinds: the classes that `load_network`
    may build.  Each method takes the stage's name and a function that makes its product.  What is made goes through
    its file, too: a run that was interrupted (kill -9 too) and resumed computes with the same bits.
    """

    def __init__(self, settings, out, kinds):
        self.settings, self.out, self.kinds = settings, out, kinds
        self.stages, self.labels, self.value_report = [], [], {}      # of metrics.json
        self.before = self.json("seconds", lambda: 0.0)               # spent by earlier processes, where this one resumes
        self.started = time.time()

    def seconds(self):
        """What the run has taken so far, over all of its processes (up to their last stage)."""
        return self.before + time.time() - self.started

    def path(self, name):
        """Where a file of this run lies."""
        return os.path.join(self.out, name)

    def say(self, name, text):
        """Print one line on a finished stage, and keep the time that the run has taken."""
        write_text(self.path("seconds.json"), json.dumps(self.seconds()))
        print(f"[{self.seconds():5.0f} s] {name:<20} {text}", flush=True)

    def data(self, name, make):
        """A dataset, kept as NAME.npz."""
        path = self.path(f"{name}.npz")
        if not os.path.exists(path):
            save_dataset(make(), path)
        episodes = load_dataset(path)
        kinds = {kind: [e.success for e in episodes if e.source == kind] for kind in ("demonstration", "autonomous", "corrected")}
        self.say(name, ", ".join(f"{len(ok)} {kind} episodes ({np.mean(ok):.0%} succeed)" for kind, ok in kinds.items() if ok))
        return episodes

    def net(self, name, make):
        """A network, kept as NAME.npz.  make() -> (network, JSON-able log)."""
        path = self.path(f"{name}.npz")
        if not os.path.exists(path):
            torch.manual_seed(self.settings.seed)       # initial weights
            network, log = make()
            save_network(network, path, log)
        network, log = load_network(path, self.kinds)
        self.say(name, f"{sum(p.numel() for p in network.parameters()):,} weights; {_plain(log)}")
        return network.to(self.settings.device)

    def json(self, name, make):
        """A small result, kept as NAME.json."""
        path = self.path(f"{name}.json")
        if not os.path.exists(path):
            write_text(path, json.dumps(make(), indent=1, allow_nan=False))
        with open(path) as file:
            return json.load(file)

    def add_stage(self, stage):
        """One row of the table: a dict as in metrics.json."""
        self.stages.append(stage)
        beta = "" if stage["beta"] is None else f"β = {stage['beta']:g}: "
        self.say(stage["name"], f"{beta}success {stage['success']:.1%} ± {stage['success_se']:.1%}, "
                 f"{stage['throughput']:.0f} ± {stage['throughput_se']:.0f} per hour")

    def add_labels(self, labels):
        """What recap.count_labels counted in one iteration, a dict."""
        self.labels.append(labels)
        self.say(f"labels {labels['iteration']}", _plain(labels))


def write_text(path, text):
    """Write a text file, all or nothing."""
    def write(temporary):
        with open(temporary, "w") as file:
            file.write(text)
    write_atomically(path, write)


def _plain(log):
    """A small dict in one line, numbers to three digits."""
    if isinstance(log, dict):
        return ", ".join(f"{key} {_plain(x)}" for key, x in log.items())
    return f"{log:.3g}" if isinstance(log, float) else str(log)


def summary(folders):
    """Several finished runs of one task (other seeds) as text: means over runs ± the standard error of that mean.

    Ratios are taken within each run before they are averaged: to offline RL + SFT, and of throughput to the best
    stage before RECAP.
    """
    runs, value, tasks = [], [], set()          # {(stage, β): row} of each run; the correlation of its last V
    for folder in folders:
        try:
            with open(os.path.join(folder, "metrics.json")) as file:
                metrics = json.load(file)
        except FileNotFoundError:
            raise ValueError(f"--summary: {folder} holds no metrics.json, expected the folder of a finished run") from None
        runs.append({(x["name"], x["beta"]): x for x in metrics["stages"]})
        value.append(metrics["value"]["heldout_correlation"])
        tasks.add(metrics["task"])

    if len(tasks) > 1:
        raise ValueError(f"--summary: runs of {', '.join(sorted(tasks))}, expected one task")
    if len({tuple(run) for run in runs}) > 1:
        raise ValueError("--summary: runs of different stages, expected the same iterations and β in all of them")

    def spread(x, digits, width):
        error = np.std(x, ddof=1) / math.sqrt(len(x)) if len(x) > 1 else math.nan
        return f"{f'{np.mean(x):.{digits}f} ± {error:.{digits}f}':^{width}}"
    # run by run; nan where there is nothing to compare with
    ratios = lambda a, b: [x / y if y else math.nan for x, y in zip(a, b)]
    sft = [run["offline_rl_sft", 1.0] for run in runs]
    best = [best_before_recap(run.values()) for run in runs]
    lines = [f"{len(runs)} runs, {sft[0]['episodes']} evaluation episodes per policy and β; mean over runs ± standard error",
             f"{'':<20}{'success %':^17}{'failed early %':^17}{'per hour':^12}"
             f"{'throughput ×':^17}{'failures ×':^17}{'throughput ×':^17}",
             f"{'':<20}{'':^17}{'':^17}{'':^12}{'of offline+SFT':^17}{'of offline+SFT':^17}{'of best before':^17}"]
    for name, beta in runs[0]:
        x = [run[name, beta] for run in runs]
        throughput, failures = [a["throughput"] for a in x], [1 - a["success"] for a in x]
        lines.append(f"{name + ('' if beta is None else f' β={beta:g}'):<20}"
                     + spread([100 * a["success"] for a in x], 1, 17) + spread([100 * a["failed_early"] for a in x], 1, 17)
                     + spread(throughput, 0, 12)
                     + spread(ratios(throughput, [b["throughput"] for b in sft]), 2, 17)
                     + spread(ratios(failures, [1 - b["success"] for b in sft]), 2, 17)
                     + spread(ratios(throughput, [b["throughput"] for b in best]), 2, 17))
    lines.append("correlation of the last V with the return, held out: "
                 + ", ".join("–" if x is None else f"{x:.2f}" for x in value))
    return "\n".join(lines)


def best_before_recap(stages):
    """The trained policy of highest throughput among the stages before the first iteration."""
    return max((x for x in stages if x["beta"] is not None and not x["name"].startswith("recap")),
               key=lambda x: x["throughput"])


def table(metrics):
    """The stages of a run as text, with the gain over offline RL + SFT and over the best earlier stage."""
    lines = [f"{'':<16} {'β':>4} {'success':>15} {'per hour':>12} {'mean time':>10}   stages"]
    for stage in metrics["stages"]:
        beta = "" if stage["beta"] is None else f"{stage['beta']:g}"
        seconds = "" if stage["mean_seconds"] is None else f"{stage['mean_seconds']:.1f} s"
        lines.append(f"{stage['name']:<16} {beta:>4} {stage['success']:>7.1%} ± {stage['success_se']:<5.1%} "
                     f"{stage['throughput']:>6.0f} ± {stage['throughput_se']:<3.0f} {seconds:>10}   "
                     + " ".join(f"{x:.0%}" for x in stage["per_stage_success"]))
    last = metrics["stages"][-1]
    if last["name"].startswith("recap"):
        sft = next(x for x in metrics["stages"] if x["name"] == "offline_rl_sft")
        best = best_before_recap(metrics["stages"])
        ratio = lambda a, b: f"× {a / b:.2f}" if b else "undefined (0 before)"
        lines.append(f"{last['name']} at β = {last['beta']:g}: throughput {ratio(last['throughput'], sft['throughput'])}, "
                     f"failures {ratio(1 - last['success'], 1 - sft['success'])} of offline RL + SFT; "
                     f"throughput {ratio(last['throughput'], best['throughput'])} of {best['name']}, the best before")
    return "\n".join(lines)

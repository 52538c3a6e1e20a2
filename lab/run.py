"""The folder of a run: what Algorithm 1 makes is kept there, measured by its name, and reported.

    D_demo, D_k, V_pre, V_k, pi_pre, pi_k       Run.keep, which `recap.recap` is given as `keep`
    checks of V, evaluations of π, labels       Run.measure
    metrics.json                                Run.write_metrics

A product whose file exists is loaded, not made again: so an interrupted run goes on.
Of several ranks (ranks.py) all make and measure, and rank 0 alone reads, writes and prints.
"""
import inspect
import json
import os
import textwrap
import time
from dataclasses import asdict
from functools import partial

from data import UserError
from lab.checks import (
    check_value,
    count_labels,
    flow_loss_by_eta,
    heldout_demonstrations,
    heldout_rollouts,
)
from lab.evaluation import evaluate, evaluate_demonstrations
from lab.files import describe_dataset, load, read_json, save, shortest, write_text
from lab.progress import Quiet
from lab.words import flow_words, label_words, value_words
from ranks import agree, rank

# Which row of the table a policy is: its name, and whether it knows the indicator.
STAGES = {
    "pi_pre": ("rl_pretrained", True),
    "pi_0": ("offline_rl_sft", True),
    "supervised_small": ("supervised_small", None),
    "supervised_pre": ("supervised", None),
    "supervised_sft": ("supervised_sft", None),
}

WIDTH = 100  # columns of what is printed

class Run:
    """The folder of one run.

    settings: of the run.  out: the folder, which exists.
    given: {name: dataset}, what need not be made (`lab.given.datasets`).
    """

    def __init__(self, settings, out, given=None):
        self.settings = settings
        self.out = out
        self.given = given or {}
        self.made = {}  # name -> the product of that name
        self.progress = Quiet()
        self.after_each = None  # callable (), once a product is there and measured
        self.stages = []  # rows of metrics.json
        self.labels = []
        self.value_report = {}
        self.before = self.json("seconds", lambda: 0.0)  # spent by earlier processes
        self.started = time.time()

    def path(self, name):
        """Where a file of this run lies."""
        return os.path.join(self.out, name)

    def seconds(self):
        """What the run has taken so far, over all of its processes (up to their last product)."""
        return self.before + time.time() - self.started

    def say(self, name, *lines):
        """Print lines about a product, and keep the time that the run has taken."""
        if rank() > 0:
            return
        write_text(self.path("seconds.json"), json.dumps(self.seconds()))
        head = f"[{self.seconds():5.0f} s] {name:<18} "
        for line in lines:
            # A path may be longer than a line.
            for piece in textwrap.wrap(line, WIDTH - len(head), break_long_words=False):
                self.progress.line(head + piece)
                head = " " * len(head)

    def json(self, name, make):
        """A small result, kept as NAME.json."""
        path = self.path(f"{name}.json")
        if agree(lambda: not os.path.exists(path)):
            made = make()
            agree(lambda: write_text(path, json.dumps(made, indent=1, allow_nan=False)))
        return agree(lambda: read_json(path))

    def keep(self, name, make, *arguments):
        """A product of Algorithm 1, kept as NAME.npz and measured once.

        What is made goes through its file, too: a run that was interrupted (kill -9 too) and
        resumed computes with the same bits.
        """
        if name in self.made:
            return self.made[name]
        path = self.path(f"{name}.npz")
        new = agree(lambda: not os.path.exists(path))
        self.progress.begin(name)
        if new:
            made = self.given[name] if name in self.given else self.watched(make)(*arguments)
            agree(lambda: save(made, path))
        product = agree(lambda: load(path))
        if isinstance(product, list):
            self.say(name, describe_dataset(product))
            check_demonstrations(product, self.settings.target.name)
        else:
            product.to(self.settings.device)
            n_weights = sum(p.numel() for p in product.parameters())
            self.say(name, f"{n_weights:,} weights")
        self.made[name] = product
        self.measure(name, product, arguments)
        self.progress.end(name, new)
        if self.after_each is not None:
            self.after_each()
        return product

    def watched(self, make):
        """A training that tells `progress` how it goes; other functions as they are."""
        if self.progress.watch is None or "watch" not in inspect.signature(make).parameters:
            return make
        return partial(make, watch=self.progress.watch)

    # ---- what is measured of a product, by its name

    def measure(self, name, product, arguments):
        """arguments: those that the product was made from, as in `recap.recap`."""
        s = self.settings
        kind, _, number = name.partition("_")
        if name == "D_demo" and not self.given:
            self.add_stage(self.json("eval_demonstrations", lambda: evaluate_demonstrations(s)))
        elif name == "V_pre":
            # As many as are held out; those of the station's own robot come first in D_demo.
            trained_on = [e for e in arguments[1] if e.task == s.target.name][: s.demonstrations]
            self.check_value(name, trained_on, lambda: heldout_demonstrations(s, s.demonstrations))
        elif kind == "V" and number != "0":
            k = int(number)
            newest = [e for e in arguments[1] if e.iteration == k and e.source == "autonomous"]
            before = self.made[f"pi_{k - 1}"]
            self.check_value(name, newest, lambda: heldout_rollouts(s, before, k))
        elif name in STAGES:
            stage, indicator = STAGES[name]
            self.measure_policy(name, stage, arguments[1], indicator)
        elif kind == "pi":
            k = int(number)
            _, D, I = arguments[:3]
            self.add_labels(self.json(f"labels_{k}", lambda: self.count_labels(I, D, k)))
            self.measure_policy(name, f"recap_{k}", D)
            if s.beta != 1:
                self.evaluate(f"recap_{k}", product, s.beta)

    def measure_policy(self, name, stage, D, indicator=True):
        """Where in η its error sits, and how good it is."""
        s = self.settings
        policy = self.made[name]
        found = self.json(f"flow_loss_{name}", lambda: flow_loss_by_eta(policy, D, s, indicator))
        self.say(name, *flow_words(found))
        self.evaluate(stage, policy, indicator=indicator)

    def evaluate(self, name, policy, beta=1.0, indicator=True, task=None):
        """Add a row to the table, if there is a world; arguments as `lab.evaluation.evaluate`."""
        if not self.settings.target.has_world:
            return

        def make():
            return evaluate(self.settings, name, policy, beta, indicator, task)

        self.add_stage(self.json(f"eval_{name}_beta{shortest(beta)}", make))

    def check_value(self, name, trained_on, heldout):
        """heldout: callable, makes the episodes that V was not trained on."""
        value = self.made[name]

        def make():
            # Of data that were given, some were held out; without a world there are no others.
            others = self.given.get(f"held out {name}") or heldout()
            return check_value(value, trained_on, others, self.settings)

        report = self.json(f"value_{name}", make)
        self.value_report[name] = report
        self.say(f"{name} held out", *value_words(report))

    def count_labels(self, I, D, k):
        return count_labels(self.made[f"V_{k}"], I, D, self.settings, k)

    def add_stage(self, row):
        """row: a dict as in metrics.json."""
        self.stages.append(row)
        beta = "" if row["beta"] is None else f"β = {row['beta']:g}: "
        success = f"success {row['success']:.1%} ± {row['success_se']:.1%}"
        throughput = f"{row['throughput']:.0f} ± {row['throughput_se']:.0f} per hour"
        self.say(row["name"], f"{beta}{success}, {throughput}")

    def add_labels(self, labels):
        """labels: of `lab.checks.count_labels`."""
        self.labels.append(labels)
        self.say(f"labels {labels['iteration']}", *label_words(labels))

    # ---- the end

    def write_metrics(self, **rest):
        """metrics.json: everything that the run measured.  rest: more of it."""
        s = self.settings
        metrics = {"task": s.target.name, "seed": s.seed, "settings": asdict(s)}
        metrics |= {"seconds": self.seconds(), "stages": self.stages} | rest
        agree(lambda: write_text(self.path("metrics.json"), json.dumps(metrics, indent=1)))
        return metrics

    def write_recap_metrics(self):
        """For Algorithm 1: with the checks of every V, those of the last one at the top, too."""
        last = f"V_{self.settings.iterations or 'pre'}"
        value = self.value_report | self.value_report[last]
        return self.write_metrics(value=value, labels=self.labels)

def check_demonstrations(episodes, task):
    """UserError, before any training, where a task's demonstrations never succeed."""
    own = [e for e in episodes if e.task == task and e.source == "demonstration"]
    if len(own) >= 20 and not any(e.success for e in own):
        late = sum(len(e) == e.max_length for e in own)
        furthest = max(int(e.stages.sum()) for e in own)
        raise UserError(
            f"0 of {len(own)} demonstrations of {task!r} succeed, expected some ({late} ran out of "
            f"time, max_steps = {own[0].max_length}; at most {furthest} stages were done)"
        )

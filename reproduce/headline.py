"""README's table once more, on seeds that nobody had looked at, beside what it has to beat."""
from functools import partial

from lab.files import load_dataset
from labels import all_positive
from recap import train_policy
from reproduce import plots
from reproduce.cache import network_of
from reproduce.extraction import extract, file_of
from reproduce.options import ALL_TASKS
from reproduce.stages import stages_figure
from reproduce.statistics import gain, last_row

POSITIVES = file_of("positives only", "pi_pre")

def headline(o):
    """All tasks; beside RECAP two rivals in as many steps, which also start from π_pre."""
    tasks = o.parts(ALL_TASKS, "headline")
    before = [("offline_rl_sft", 1.0), ("long_sft", 1.0), (POSITIVES, 1.0)]
    changes = {task: {"supervised": False} for task in tasks}
    draw_headline(o, stages_figure(o, "headline", before, changes, rivals))

def rivals(run):
    """Of a finished run: π⁰ in as many steps as π^k, and imitation of the positive steps alone."""
    s = run.settings
    D = load_dataset(run.path("D_0.npz"))
    pi_pre = network_of(run.out, "pi_pre")
    pi = run.keep("long_sft", train_policy, pi_pre, D, all_positive(D), s, s.policy_steps)
    run.evaluate("long_sft", pi)
    extract(run, ("positives only",), ("pi_pre",))

def draw_headline(o, result):
    """RECAP and the positives alone beside SFT in as many steps, on every task."""
    drawn = {}
    for task, rows in result.items():
        names = {"recap_K β=": last_row(rows, guided=True), "recap_K β=1": last_row(rows)}
        names["positives only"] = f"{POSITIVES} β=1"
        compared = {title: gain(rows, name, "long_sft β=1") for title, name in names.items()}
        drawn[plots.task_label(task)] = compared
    n = len(o.seeds)
    title = "throughput relative to SFT in as many steps, "
    title += f"95 % intervals over n = {n} seeds" if n > 1 else "n = 1 seed: no interval"
    o.draw("headline", partial(plots.ratios, limits=(0.7, 7), per_row=0.12), drawn, title)

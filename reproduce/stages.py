"""Figs. 7 to 10 and 12: every stage on every task; and what tells that the runs are in order."""
import numpy as np

import sim_tasks
from labels import label
from lab.files import load_dataset, read_json
from reproduce import plots
from reproduce.cache import folder_of, make_runs, metrics_of, network_of, sized
from reproduce.options import ALL_TASKS
from reproduce.statistics import SFT, plus_minus, row_of, rows_of, spread, table
from settings import Settings
from value import predict_values

# The stages before RECAP, (name, β), in the order of the figures.
RECIPE = (
    ("demonstrations", None),
    ("supervised_small", 1.0),
    ("supervised", 1.0),
    ("supervised_sft", 1.0),
    ("rl_pretrained", 1.0),
    ("offline_rl_sft", 1.0),
)

FIG7_TASKS = ("fold_shirt", "fold_diverse", "espresso", "box")
FIG9_TASKS = ("fold_shirt", "box")
FIG9_SHIRT = dict(autonomous=200, corrected=0, positive=0.1)

def settings_for(task, seed, quick, **change):
    """What all figures share for a task: a thousand evaluation episodes; more in `change`."""
    base = dict(task=task, seed=seed, supervised=True, evaluation_episodes=1000)
    if task == "fold_collar":
        base["corrected"] = 0  # Fig. 12 is without corrections
    return Settings(**sized(base | change, quick))

def stages_figure(o, name, stages, tasks, work=None):
    """Run all tasks and seeds, print and keep one table per task.

    o: the options.  name: of the result.  stages: [(name, β), ...] before RECAP's.
    tasks: {task: what its settings change}.  work: of `make_run`.  Returns {task: rows}.
    """
    groups = {}
    everything = []
    for task, change in tasks.items():
        groups[task] = [settings_for(task, seed, o.quick, **change) for seed in o.seeds]
        everything += groups[task]
    make_runs(everything, o.jobs, work)

    result = {}
    for task, group in groups.items():
        s = group[0]
        shown = list(stages)
        for k in range(1, s.iterations + 1):
            shown += [(f"recap_{k}", 1.0), (f"recap_{k}", s.beta)]
        result[task] = rows_of([folder_of(s) for s in group], shown)
        print(f"\n{task}: {o.header(s.evaluation_episodes)}")
        print(table(result[task], base=SFT))
    return o.keep(name, result)

def fig7(o):
    """Figs. 7 and 8: throughput and success of every stage; the stages of the box, too."""
    tasks = o.parts(FIG7_TASKS, "fig7")
    result = stages_figure(o, "fig7", RECIPE, {task: {} for task in tasks})
    o.draw("fig7", plots.bars, result)
    if "box" in result:
        stages = [stage.subtask for stage in sim_tasks.TASKS["box"].stages]
        o.draw("fig8_box", plots.stage_bars, result["box"], stages)

def fig9(o):
    """Figs. 9 and 10: over two iterations.

    FoldShirt from autonomous data only with 10 % positive, Box with corrections.
    """
    changes = {"fold_shirt": FIG9_SHIRT, "box": {}}
    titles = {
        "fold_shirt": "fold_shirt, autonomous data only, 10 % positive",
        "box": "box, with corrections",
    }
    tasks = o.parts(FIG9_TASKS, "fig9")
    before = [("offline_rl_sft", 1.0)]
    kept = stages_figure(o, "fig9", before, {task: changes[task] for task in tasks})
    drawn = {titles[task]: kept[task] for task in FIG9_TASKS if task in kept}
    o.draw("fig9", plots.bars, drawn)

def fig12(o):
    """Fig. 12: one failure mode to remove, without corrections."""
    before = [("rl_pretrained", 1.0), ("offline_rl_sft", 1.0)]
    o.draw("fig12", plots.bars, stages_figure(o, "fig12", before, {"fold_collar": {}}))

# ---------------------------------------------------------------- are the runs in order?

OF_VALUES = ("heldout_correlation", "outcome_auc", "prompt_effect")
OF_LABELS = (
    "positive_fraction_rollouts", "positive_given_good", "positive_given_bad",
    "positive_before_failure", "corrected_fraction",
)  # fmt: skip

def checks(o):
    """Not in the paper: V against returns, labels against what one sees, ℓ̂, items."""
    result = {}
    for task in o.parts(ALL_TASKS, "checks"):
        group = [settings_for(task, seed, o.quick) for seed in o.seeds]
        folders = make_runs(group, o.jobs, keep_paces)
        rows = checks_of(folders, group[0].iterations)
        result[task] = {}
        print(f"\n{task}: n = {len(o.seeds)} seeds {tuple(o.seeds)}")
        for name, values in rows.items():
            if None in values:
                continue
            x = spread(values) | {"values": values}
            result[task][name] = x
            each = " ".join(f"{value:.3f}" for value in values)
            print(f"{name:<44}{plus_minus(x, 3):<18}{each}")
    o.keep("checks", result)

def checks_of(folders, K):
    """{what: one number per run} of the finished runs of one task, of K iterations."""
    reports = [metrics_of(folder) for folder in folders]
    rows = {}
    for name in ["V_pre"] + [f"V_{k}" for k in range(1, K + 1)]:
        for key in OF_VALUES:
            rows[f"{name}: {key}"] = [x["value"][name][key] for x in reports]
    paces = [read_json(folder, "paces.json") for folder in folders]
    for k in range(1, K + 1):
        for key in OF_LABELS:
            rows[f"iteration {k}: {key}"] = [x["labels"][k - 1].get(key) for x in reports]
        rows[f"iteration {k}: pace of positive steps"] = [x[k - 1] for x in paces]
    compared = {name: row_of(folders, name) for name in ("offline_rl_sft", f"recap_{K}")}
    for name, row in compared.items():
        rows[f"{name}: subtask accuracy"] = row["subtask_accuracy"]
    for name, row in compared.items():
        for item, success in row.get("items", {}).items():
            rows[f"{name}: success, {item}"] = success
    return rows

def keep_paces(run):
    """Leaves paces.json in a finished run's folder: `pace_of_positives` of every round."""
    s = run.settings

    def paces():
        found = []
        for k in range(1, s.iterations + 1):
            D = load_dataset(run.path(f"D_{k}.npz"))
            V = predict_values(network_of(run.out, f"V_{k}"), D)
            # ε_ℓ is that of the newest rollouts, so older data need not be there.
            found.append(pace_of_positives(D, label(V, D, s, k), s.interface.relative))
        return found

    run.json("paces", paces)

def pace_of_positives(D, I, joints):
    """How far the joints move in a positive step, over how far in any step, of autonomous episodes.

    D: episodes.  I: bool (T,) for each.  joints: which numbers of the state they are.
    """
    moved = []
    positive = []
    for e, labels in zip(D, I):
        if e.source == "autonomous":
            q = e.observations["state"][:, joints]  # (T, joints)
            moved.append(np.linalg.norm(np.diff(q, axis=0), axis=1))  # (T - 1,), rad per step
            positive.append(labels[:-1])
    moved = np.concatenate(moved)  # (M,)
    return float(moved[np.concatenate(positive)].mean() / moved.mean())

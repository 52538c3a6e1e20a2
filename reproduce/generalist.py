"""The end of Sec. IV-C: one policy and one V from scratch on the data of all specialists.

The paper says no more than that.  The labels, each task's by its own newest rollouts, and the
number of steps are our choice.
"""
import os
from dataclasses import replace

from labels import label
from recap import new_policy, new_value, train_policy, train_value
from reproduce.cache import CACHE, data_of, digest, folder_of, make_runs, metrics_of, opened
from reproduce.options import ALL_TASKS, UsageError
from reproduce.stages import settings_for
from reproduce.statistics import row_of, table
from lab.workers import workers
from settings import Settings
from value import predict_values

def make_generalist(folders):
    """Train and evaluate a generalist.  folders: of the specialists' runs, one per task.

    Its settings are those of the first specialist.  The policy has as many steps as pre-training
    and one fine-tuning together, V those of pre-training.  Returns the folder of its run, which
    holds metrics.json with the specialists' last stages beside its own.
    """
    metrics, episodes = specialists(folders)
    s = Settings(**metrics[0]["settings"])
    s = replace(s, pretraining_steps=s.pretraining_steps + s.policy_steps)
    # Other runs, or the same folders with other contents, are another generalist.
    folder = os.path.join(CACHE, f"generalist-{s.seed}-{digest(metrics)}")
    with opened(s, folder) as run:
        V = run.keep(
            "generalist_V", train_value, new_value(s), episodes, s, s.value_pretraining_steps
        )
        I = label(predict_values(V, episodes), episodes, s, iteration=None)
        pi = run.keep(
            "generalist_pi", train_policy, new_policy(s), episodes, I, s, s.pretraining_steps
        )
        last = {}
        for x in metrics:
            task = x["task"]
            last[task] = x["stages"][-1]
            file = x["settings"]["task"]  # of a task of one's own; a toy has its name there
            run.evaluate(f"generalist_{task}", pi, s.beta_for(task), task=file)
        run.write_metrics(specialists=last)
    return folder

def specialists(folders):
    """(metrics of every run, D_ℓ of all of them in a row).

    UsageError: one is not finished, is no run of recap.py in a world, or two are of one task.
    """
    expected = "expected the folder of a finished run"
    metrics = []
    episodes = []
    known = {}
    for folder in folders:
        try:
            found = metrics_of(folder)
            if "specialists" in found or not found.get("stages"):
                raise UsageError(f"--runs: {folder} is not of one task, {expected} of recap.py")
            episodes += data_of(folder, found["settings"]["iterations"])
        except FileNotFoundError as error:
            raise UsageError(f"--runs: there is no {error.filename}, {expected}") from None
        task = found["task"]
        if task in known:
            both = f"{known[task]} and {folder} are both of {task}"
            raise UsageError(f"--runs: {both}, expected one run per task")
        known[task] = folder
        metrics.append(found)
    return metrics, episodes

def generalist(o):
    """The specialists of all tasks, then the generalist, over seeds; or of the runs in --runs."""
    if o.runs:
        print_generalist(make_generalist(o.runs))
        return
    groups = []  # the specialists of each seed
    everything = []
    for seed in o.seeds:
        groups.append([settings_for(task, seed, o.quick) for task in ALL_TASKS])
        everything += groups[-1]
    make_runs(everything, o.jobs)
    by_seed = [[folder_of(s) for s in group] for group in groups]
    with workers(o.jobs) as pool:
        folders = list(pool.map(make_generalist, by_seed))
    rows = {}
    for i, s in enumerate(groups[0]):
        theirs = [runs[i] for runs in by_seed]
        rows[f"{s.task}: specialist"] = row_of(theirs, f"recap_{s.iterations}", s.beta)
        rows[f"{s.task}: generalist"] = row_of(folders, f"generalist_{s.task}", s.beta)
    print(o.header(groups[0][0].evaluation_episodes) + ", each at its recommended β")
    print(table(rows))
    o.keep("generalist", rows)

def print_generalist(folder):
    """Each task's specialist (its last stage) and the generalist."""
    metrics = metrics_of(folder)
    for (task, theirs), ours in zip(metrics["specialists"].items(), metrics["stages"]):
        for name, x in (("specialist", theirs), ("generalist", ours)):
            success = f"{x['success']:>7.1%} ± {x['success_se']:<6.1%}"
            throughput = f"{x['throughput']:>6.0f} ± {x['throughput_se']:<4.0f}"
            print(f"{task:<14}{name:<12}{success}{throughput}")
    print(f"{folder}: metrics.json, V and π (.npz)")

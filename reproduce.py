"""Every figure and claim of the paper, measured on the toy: seeds in, results/*.json and figures/*.png out.

    python reproduce.py fig7           Figs. 7 and 8: every stage of the recipe on every task
    python reproduce.py fig9           Figs. 9 and 10: over the iterations
    python reproduce.py fig11          RECAP against AWR, PPO and imitation, from the same data
    python reproduce.py fig12          removal of one failure mode
    python reproduce.py fig4           Figs. 4 and 13: V along episodes, and how well its drops find mistakes
    python reproduce.py cfg            App. E: β from 0 to 5
    python reproduce.py ablation NAME  one knob (python reproduce.py ablation: their names)
    python reproduce.py generalist     Sec. IV-C: one policy on the data of all specialists
    python reproduce.py claims         the table of claims, from the results that are there
    python reproduce.py all            all figures, then the claims

Options: --seeds 21 22 23 24 25, --jobs 2, --quick (seconds, not results), --only TASK ....
Every run is kept under runs/cache by its settings, so what was interrupted goes on where it was, and stages that two
runs have in common (pre-training, SFT, the first collection) are made once.  Delete runs/cache after changing the code.

Tuning used seeds 0, 1 and 2; the default seeds have never been tuned on.  ± is the standard error over seeds unless it says
otherwise.
"""
import argparse
import contextlib
import copy
import hashlib
import json
import math
import os
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from tqdm import tqdm

import plots
import recap
import sim_tasks
from baselines import awr_loss, awr_weights, plain_loss, ppo_loss
from data import load_dataset, load_network
from runs import Run, write_text
from settings import QUICK, Settings
from sim_tasks.arms import World

CACHE, RESULTS, FIGURES = "runs/cache", "results", "figures"
SEEDS = (21, 22, 23, 24, 25)
TASKS = ("fold_shirt", "fold_diverse", "espresso", "box")       # of Figs. 7 and 8

# What each stage's files depend on: runs that agree in these settings share the files.
PRETRAINING = ("seed", "demonstrations", "positive_pretraining", "dropout", "c_fail", "clip_returns", "batch", "draws",
               "learning_rate", "pretraining_steps", "value_learning_rate", "value_pretraining_steps", "value_batch", "vision",
               "cameras", "metadata", "metadata_dropout", "web", "bodies", "token_loss", "insulation", "output", "flow_weight",
               "device")
SFT = (*PRETRAINING, "task", "sft_steps", "fine_tuning_rate", "value_steps")
COLLECTED = (*SFT, "autonomous", "corrected", "execute", "euler", "subtask_every")
SHARED = {"D_demo": PRETRAINING, "V_pre": PRETRAINING, "pi_pre": PRETRAINING, "supervised_pre": PRETRAINING,
          "supervised_small": PRETRAINING, "D_0": SFT, "V_0": SFT, "pi_0": SFT, "supervised_sft": SFT, "D_1": COLLECTED}


# ---------------------------------------------------------------- runs: cached, shared, in parallel

def digest(*things):
    return hashlib.sha256(json.dumps(things, sort_keys=True).encode()).hexdigest()[:12]


def folder_of(settings):
    return os.path.join(CACHE, f"{settings.task}-{settings.seed}-{digest(asdict(settings))}")


def shared_path(settings, name):
    values = [getattr(settings, key) for key in SHARED[name]]
    return os.path.join(CACHE, "shared", f"{name}-{digest(settings.pretraining, *values)}.npz")


def make_run(settings, work=None):
    """Make, or go on with, the run of these settings; then work(run) in its folder, if given.  -> its folder

    What it prints goes to log.txt in the folder.
    """
    torch.set_num_threads(1)
    folder = folder_of(settings)
    os.makedirs(folder, exist_ok=True)
    os.makedirs(os.path.join(CACHE, "shared"), exist_ok=True)
    with open(os.path.join(folder, "log.txt"), "a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        run = Run(settings, folder, recap.KINDS)
        run.json("settings", lambda: asdict(settings))
        if not os.path.exists(run.path("metrics.json")):
            for name in SHARED:
                path = shared_path(settings, name)
                if os.path.exists(path) and not os.path.exists(run.path(f"{name}.npz")):
                    _copy(path, run.path(f"{name}.npz"))
            recap.recap(run)
            for name in SHARED:
                path = shared_path(settings, name)
                if os.path.exists(run.path(f"{name}.npz")) and not os.path.exists(path):
                    _copy(run.path(f"{name}.npz"), path)
            recap.write_metrics(run)
        if work is not None:
            work(run)
    return folder


def _copy(source, target):
    """All or nothing, as every file here."""
    recap.write_atomically(target, lambda temporary: shutil.copyfile(source, temporary), ".npz")


def make_runs(all_settings, jobs, work=None):
    """`make_run` for many, side by side.  -> list of folders

    The first run of each pre-training goes ahead of the others, which then find its files.
    """
    leaders, followers, seen = [], [], set()
    for settings in all_settings:
        key = shared_path(settings, "pi_pre")
        (followers if key in seen or os.path.exists(key) else leaders).append(settings)
        seen.add(key)
    with ProcessPoolExecutor(jobs) as pool, tqdm(total=len(all_settings), desc="runs", disable=None) as bar:
        for group in (leaders, followers):
            for _ in pool.map(make_run, group, [work] * len(group)):
                bar.update()
    return [folder_of(settings) for settings in all_settings]


def metrics_of(folder):
    with open(os.path.join(folder, "metrics.json")) as file:
        return json.load(file)


def stage_of(folder, name, beta):
    if beta is None:          # demonstrations: not evaluated, counted
        return next(x for x in metrics_of(folder)["stages"] if x["name"] == name)
    with open(os.path.join(folder, f"eval_{name}_beta{beta:g}.json")) as file:
        return json.load(file)


# ---------------------------------------------------------------- numbers

def spread(values):
    """Mean over seeds, its standard error, and n."""
    values = np.asarray(values, float)
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else None
    return {"mean": float(values.mean()), "se": error if error is None else float(error), "n": len(values)}


def ratio_interval(above, below, draws=10_000):
    """Ratio of the means over seeds with a 95 % bootstrap interval: seeds are drawn with replacement, pairs together."""
    above, below = np.asarray(above, float), np.asarray(below, float)
    index = np.random.default_rng(0).integers(len(above), size=(draws, len(above)))                # (draws, n)
    ratios = above[index].mean(1) / np.maximum(below[index].mean(1), 1e-12)                        # (draws,)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return {"ratio": float(above.mean() / max(below.mean(), 1e-12)), "low": float(low), "high": float(high), "n": len(above)}


def rows_of(folders, stages):
    """{(name, β): per-seed success and throughput, and their spreads} over the runs of one task and other seeds.

    se_evaluation: the mean standard error of one seed's own evaluation, beside the spread between seeds.
    """
    rows = {}
    for name, beta in stages:
        x = [stage_of(folder, name, beta) for folder in folders]
        rows[f"{name} β={beta:g}" if beta is not None else name] = {
            key: spread([a[key] for a in x]) | {"se_evaluation": float(np.mean([a[f"{key}_se"] for a in x])),
                                                "seeds": [a[key] for a in x]} for key in ("success", "throughput")} | {
            "per_stage_success": np.mean([a["per_stage_success"] for a in x], axis=0).tolist(), "episodes": x[0]["episodes"]}
    return rows


def table(rows, base=None):
    """Rows of `rows_of` as text; base: the row to whose throughput and failures the others are compared."""
    text = [f"{'':<34}{'success %':^16}{'per hour':^14}" + (f"{'throughput × [95 %]':^24}{'failures ×':^12}" if base else "")]
    pm = lambda x, scale, digits: f"{scale * x['mean']:.{digits}f} ± " + ("–" if x["se"] is None else f"{scale * x['se']:.{digits}f}")
    for name, row in rows.items():
        line = f"{name:<34}{pm(row['success'], 100, 1):^16}{pm(row['throughput'], 1, 0):^14}"
        if base:
            speed = ratio_interval(row["throughput"]["seeds"], rows[base]["throughput"]["seeds"])
            failures = ratio_interval(1 - np.array(row["success"]["seeds"]), 1 - np.array(rows[base]["success"]["seeds"]))
            text_of = f"{speed['ratio']:.2f} [{speed['low']:.2f}, {speed['high']:.2f}]"
            line += f"{text_of:^24}{failures['ratio']:^12.2f}"
        text.append(line)
    return "\n".join(text)


def keep(name, result):
    """results/NAME.json."""
    os.makedirs(RESULTS, exist_ok=True)
    write_text(os.path.join(RESULTS, f"{name}.json"), json.dumps(result, indent=1))
    return result


# ---------------------------------------------------------------- knobs (Apps. E, F and the design's own)

# name: (what it asks, settings common to all rows, {row: settings}); the first row is the default
ABLATIONS = {
    "lookahead": ("N of App. F (paper: 50 steps at 50 Hz)", {}, {f"N = {n}": dict(lookahead=n) for n in (10, 1, 5, 20, 40)}),
    "positive": ("fraction of positive labels (paper: 40 %, t-shirts 10 %)", {},
                 {f"{p:.0%} positive": dict(positive=p) for p in (0.2, 0.1, 0.4, 0.7)}),
    "dropout": ("how often the indicator is left out (paper: 30 %)", {}, {f"dropout {p:.0%}": dict(dropout=p) for p in (0.3, 0.1, 0.6)}),
    "c_fail": ("C_fail of Eq. 5 and the range (-1, 0)", {},
               {"C_fail = limit": {}, "C_fail = limit / 4": dict(c_fail=0.25), "C_fail = 2 limits": dict(c_fail=2.0),
                "clipped at -1": dict(clip_returns=True)}),
    "flow": ("what the expert puts out, and α_η of Eq. 4", {},
             {"â, (1 - η)²": {}, "f, constant": dict(output="velocity", flow_weight="constant"),
              "f, e^{-η/2} (paper)": dict(output="velocity", flow_weight="paper"),
              "f, (1 - η)²": dict(output="velocity"), "â, e^{-η/2} (paper)": dict(flow_weight="paper")}),
    "restart": ("where π^k starts (Algorithm 1: π_pre)", dict(iterations=2), {"from π_pre": {}, "from π^{k-1}": dict(restart="last")}),
    "insulation": ("knowledge insulation and the action tokens", {},
                   {"both": {}, "no insulation": dict(insulation=False), "no action tokens": dict(token_loss=False),
                    "neither": dict(insulation=False, token_loss=False)}),
    "corrections": ("human-gated corrections", dict(iterations=2),
                    {"150 + 50 corrected": {}, "200 autonomous, none corrected": dict(autonomous=200, corrected=0),
                     "I = True not forced": dict(force_corrections=False), "V without corrected episodes": dict(value_on_corrections=False)}),
    "metadata": ("ask for it in the prompt, or condition on the advantage", {},
                 {"no metadata": {}, "metadata, not asked": dict(metadata=True),
                  "asked: fast careful": dict(metadata=True, ask="fast careful"), "asked: slow careless": dict(metadata=True, ask="slow careless")}),
    "web": ("co-training on questions, with few demonstrations", dict(demonstrations=20),
            {"none": {}, "0.25 per step": dict(web=0.25), "1 per step": dict(web=1.0)}),
    "bodies": ("demonstrations of other robots in pre-training", {}, {"one robot": {}, "four robots": dict(bodies=True)}),
    "cameras": ("which images the networks read", dict(vision=True, autonomous=150),
                {"all three": {}, "base only": dict(cameras="base"), "wrists only": dict(cameras="left_wrist right_wrist")}),
    "pretraining": ("tasks of D_demo", {}, {"five tasks": {}, "three tasks": dict(pretraining_tasks="fold_shirt fold_collar box"),
                                            "the target alone": dict(pretraining_tasks="fold_shirt")}),
}


def ablation(name, seeds, jobs, quick):
    """One knob over seeds: a table of the last iteration, and of V.  -> results/ablation_NAME.json"""
    about, common, variants = ABLATIONS[name]
    rows, values = {}, {}
    make = lambda seed, change: Settings(**(dict(iterations=1, seed=seed, episodes=500) | (QUICK if quick else {}) | common | change))
    all_settings = {row: [make(seed, change) for seed in seeds] for row, change in variants.items()}
    make_runs([s for group in all_settings.values() for s in group], jobs)
    for row, group in all_settings.items():
        folders, k = [folder_of(s) for s in group], group[0].iterations
        for stage, beta in (("rl_pretrained", 1.0), ("offline_rl_sft", 1.0), (f"recap_{k}", 1.0), (f"recap_{k}", group[0].beta)):
            rows[f"{row} | {stage} β={beta:g}"] = next(iter(rows_of(folders, [(stage, beta)]).values()))
        reports = [metrics_of(folder) for folder in folders]
        values[row] = {f"{v} {key}": spread([x["value"][v][key] for x in reports]) for v in ("V_pre", f"V_{k}")
                       for key in ("heldout_correlation", "heldout_loss", "train_loss")}
    result = keep(f"ablation_{name}", {"about": about, "seeds": list(seeds), "rows": rows, "value": values})
    print(f"{name}: {about}; n = {len(seeds)} seeds, {next(iter(rows.values()))['episodes']} episodes each, mean ± s.e.\n")
    print(table(rows))
    print()
    print(f"{'':<34}" + "".join(f"{key:>30}" for key in next(iter(values.values()))))
    for row, x in values.items():
        print(f"{row:<34}" + "".join(f"{y['mean']:>30.2f}" for y in x.values()))
    return result


# ---------------------------------------------------------------- Figs. 7-10 and 12: stages and iterations

RECIPE = (("demonstrations", None), ("supervised_small", 1.0), ("supervised", 1.0), ("supervised_sft", 1.0), ("rl_pretrained", 1.0),
          ("offline_rl_sft", 1.0))


def settings_for(task, seed, quick, **change):
    """What all figures share for a task: five hundred evaluation episodes; FoldCollar without corrections (Fig. 12)."""
    base = dict(task=task, seed=seed, episodes=500, supervised=True, corrected=0 if task == "fold_collar" else 50)
    return Settings(**(base | (QUICK | dict(corrected=0 if task == "fold_collar" else 5) if quick else {}) | change))


def stages_figure(name, tasks, seeds, jobs, quick, stages, **change):
    """Run all tasks and seeds, print and keep one table per task.  -> {task: rows}"""
    groups = {task: [settings_for(task, seed, quick, **change) for seed in seeds] for task in tasks}
    make_runs([s for group in groups.values() for s in group], jobs)
    result = {}
    for task, group in groups.items():
        K, beta = group[0].iterations, group[0].beta
        ours = [(f"recap_{k}", b) for k in range(1, K + 1) for b in (1.0, beta)]
        result[task] = rows_of([folder_of(s) for s in group], [*stages, *ours])
        print(f"\n{task}: n = {len(seeds)} seeds {tuple(seeds)}, {group[0].episodes} evaluation episodes each; mean ± s.e. over seeds")
        print(table(result[task], base="offline_rl_sft β=1"))
    return keep(name, result)


def fig7(seeds, jobs, quick, only):
    """Figs. 7 and 8: throughput and success of every stage of the recipe."""
    result = stages_figure("fig7", only or TASKS, seeds, jobs, quick, RECIPE)
    draw("fig7", plots.bars, result)


def fig9(seeds, jobs, quick, only):
    """Figs. 9 and 10: over two iterations; FoldShirt from autonomous data only with 10 % positive, Box with corrections."""
    stages = (("offline_rl_sft", 1.0),)
    result = {}
    if not only or "fold_shirt" in only:
        result |= stages_figure("fig9_shirt", ("fold_shirt",), seeds, jobs, quick, stages, autonomous=20 if quick else 200, corrected=0,
                                positive=0.1, iterations=2)
    if not only or "box" in only:
        result |= stages_figure("fig9_box", ("box",), seeds, jobs, quick, stages, iterations=2)
    draw("fig9", plots.bars, result)


def fig12(seeds, jobs, quick, only):
    """Fig. 12: one failure mode to remove, without corrections."""
    result = stages_figure("fig12", ("fold_collar",), seeds, jobs, quick, (("rl_pretrained", 1.0), ("offline_rl_sft", 1.0)), iterations=2)
    draw("fig12", plots.bars, result)


def draw(name, function, *arguments):
    os.makedirs(FIGURES, exist_ok=True)
    figure = function(*arguments)
    recap.write_atomically(os.path.join(FIGURES, f"{name}.png"), lambda path: figure.savefig(path, dpi=110), ".png")
    plt.close(figure)


# ---------------------------------------------------------------- Fig. 11: other ways to extract a policy

# name -> what `recap.train_policy` is given besides; A: advantages of all steps (M,), as a tensor
TEMPERATURES, EPSILONS = (0.01, 0.03, 0.1, 0.3, 1.0), (0.003, 0.01, 0.03, 0.1, 0.3)


def methods(A, positive, success, reference):
    """{name: keyword arguments of train_policy}; positive, success: bool (M,) per step; reference: π_ref of PPO."""
    weights = {T: (w := awr_weights(A, T)) / w.mean() for T in TEMPERATURES}                       # (M,) each
    ppo = lambda epsilon: partial(ppo_loss, reference=reference, epsilon_ar=epsilon, epsilon_flow=epsilon)
    return ({"imitation": dict(loss=plain_loss), "filtered imitation": dict(loss=plain_loss, keep=success),
             "positives only": dict(loss=plain_loss, keep=positive)}
            | {f"AWR T={T:g}": dict(loss=awr_loss, columns={"weight": weights[T]}) for T in TEMPERATURES}
            | {f"PPO ε={e:g}": dict(loss=ppo(e), columns={"advantage": A / A.std()}) for e in EPSILONS})


def extract(run, names=None):
    """Every method of `methods` (or only `names`) on the data and labels of the run's last iteration, from the supervised
    network; as many steps as RECAP's.  Each leaves eval_NAME_beta1.json in the run's folder.
    """
    s, K = run.settings, run.settings.iterations
    D = [e for k in range(K + 1) for e in load_dataset(run.path(f"D_{k}.npz"))]
    load = lambda name: load_network(run.path(f"{name}.npz"), recap.KINDS)[0]
    V = load(f"V_{K}")
    A = torch.as_tensor(np.concatenate(recap.step_advantages(V, D, s, s.lookahead)), dtype=torch.float32)   # (M,)
    labels = recap.label(V, D, s, K)
    success = np.concatenate([np.full(len(e), e.success) for e in D])                              # (M,)
    start = load("supervised_pre")
    for name, arguments in methods(A, np.concatenate(labels.positive), success, copy.deepcopy(start).requires_grad_(False)).items():
        if names is None or name in names:
            file = name.replace(" ", "_")
            pi = run.net(f"baseline_{file}", lambda: recap.train_policy(copy.deepcopy(start), D, s, s.policy_steps, labels,
                                                                        dropout=1.0, **arguments))
            recap.evaluate(run, file, pi, indicator=None)


def fig11(seeds, jobs, quick, only):
    """Fig. 11: policies from the same data.  T and ε are swept on every seed, all of them shown."""
    group = [settings_for("fold_shirt", seed, quick) for seed in seeds]
    folders = make_runs(group, jobs, extract)
    K, beta = group[0].iterations, group[0].beta
    rows = rows_of(folders, [("supervised_sft", 1.0), ("offline_rl_sft", 1.0), (f"recap_{K}", 1.0), (f"recap_{K}", beta)])
    for name in methods(torch.ones(2), None, None, None):
        rows[name] = next(iter(rows_of(folders, [(name.replace(" ", "_"), 1.0)]).values()))
    print(f"n = {len(seeds)} seeds {tuple(seeds)}, {group[0].episodes} evaluation episodes each; mean ± s.e. over seeds")
    print(table(rows, base="offline_rl_sft β=1"))
    draw("fig11", plots.bars, {"fold_shirt": keep("fig11", rows)})


# ---------------------------------------------------------------- Figs. 4 and 13: V along episodes

def mistakes(spec, seeds, episodes):
    """The simulator's own record: bool (T,) per episode, True where something went wrong in that step.

    It is not stored with the episodes (no robot would know it), so they are replayed: same seed, same actions.
    """
    world, T = World(spec, seeds), max(len(e) for e in episodes)
    record = np.zeros((len(episodes), T), bool)
    for t in range(T):
        world.step(np.stack([e.actions[min(t, len(e) - 1)] for e in episodes]))
        record[:, t] = world.mistakes
    return [record[i, :len(e)] for i, e in enumerate(episodes)]


def drops_find_mistakes(V, mistakes):
    """AUC of the drop V(o_t) - V(o_{t+1}) for "something went wrong in step t", over all steps but each last one."""
    drop = np.concatenate([v[:-1] - v[1:] for v in V])                                             # (M,)
    wrong = np.concatenate([m[:-1] for m in mistakes])                                             # (M,)
    rank = np.argsort(np.argsort(drop)) + 1.0
    n = wrong.sum()
    return float((rank[wrong].sum() - n * (n + 1) / 2) / (n * (~wrong).sum())) if 0 < n < len(wrong) else None


def value_checks(run):
    """AUC of drops, for V^1 on fresh rollouts of π⁰ -> drops.json in the run's folder."""
    def make():
        s = run.settings
        spec, seeds = sim_tasks.TASKS[s.task], recap.episode_seeds(s.seed, "drops", min(s.episodes, 150))
        value, policy = (load_network(run.path(f"{name}.npz"), recap.KINDS)[0] for name in ("V_1", "pi_0"))
        episodes = recap.collect(s, spec, seeds, policy, iteration=1, purpose="drops")
        record = mistakes(spec, seeds, episodes)
        V = recap.predict_values(value, episodes)
        # the failure and the success with the most mistakes make the picture
        most = lambda ok: max([i for i, e in enumerate(episodes) if e.success == ok], key=lambda i: record[i].sum(), default=None)
        return {"auc": drops_find_mistakes(V, record), "mistakes": int(sum(m.sum() for m in record)), "steps": int(sum(map(len, V))),
                "shown": [i for i in (most(True), most(False)) if i is not None]}
    run.json("drops", make)


def fig4(seeds, jobs, quick, only):
    """Figs. 4 and 13: V along episodes of five tasks, with the AUC of its drops for the simulator's record of mistakes."""
    tasks = only or tuple(sim_tasks.TASKS)
    groups = {task: [settings_for(task, seed, quick) for seed in seeds] for task in tasks}
    make_runs([s for group in groups.values() for s in group], jobs, value_checks)
    result = {}
    for task, group in groups.items():
        checks = []
        for s in group:
            with open(os.path.join(folder_of(s), "drops.json")) as file:
                checks.append(json.load(file))
        result[task] = {"auc": spread([x["auc"] for x in checks if x["auc"] is not None]), "mistakes": sum(x["mistakes"] for x in checks),
                        "steps": sum(x["steps"] for x in checks)}
        print(f"{task:<14} AUC of drops of V for mistakes {result[task]['auc']['mean']:.3f} ± {result[task]['auc']['se'] or 0:.3f}, "
              f"{result[task]['mistakes']} mistakes in {result[task]['steps']} steps, n = {len(seeds)} seeds")
        s, spec = group[0], sim_tasks.TASKS[task]
        load = lambda name: load_network(os.path.join(folder_of(s), f"{name}.npz"), recap.KINDS)[0]
        episodes = recap.collect(s, spec, recap.episode_seeds(s.seed, "drops", min(s.episodes, 150)), load("pi_0"), iteration=1, purpose="drops")
        draw(f"fig4_{task}", recap.value_figure, load("V_1"), [episodes[i] for i in checks[0]["shown"]])
    keep("fig4", result)


# ---------------------------------------------------------------- App. E, and the generalist

BETAS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0)


def sweep_beta(run):
    """Evaluate the last policy at every β of BETAS, and how often its chunks leave the support of the data."""
    s, K = run.settings, run.settings.iterations
    policy = load_network(run.path(f"pi_{K}.npz"), recap.KINDS)[0]
    for beta in BETAS:
        recap.evaluate(run, f"recap_{K}", policy, beta)
    run.json("edges", lambda: edges(s, policy, [e for k in range(K + 1) for e in load_dataset(run.path(f"D_{k}.npz"))]))


@torch.no_grad()
def edges(s, policy, episodes, n=2000):
    """{β: fraction of the chunk's numbers that lie outside the central 99 % of the data's, per step and dimension}."""
    steps = recap.stack_steps(episodes, cameras=policy.config.cameras)
    chunks = policy.normalize(steps["actions"], steps["state"])                                    # (M, H, A)
    low, high = torch.quantile(chunks[::max(1, len(chunks) // 20_000)], torch.tensor([0.005, 0.995]), dim=0)   # (H, A) each
    g = recap.generator(s.seed, "edges")
    index = torch.randint(len(chunks), (n,), generator=g)
    seen = {key: x[index] for key, x in steps.items() if key in ("state", "keypoints", *policy.config.cameras)}
    omega, found = torch.randn(n, *chunks.shape[1:], generator=g), {}
    for beta in BETAS:
        actions = recap.sample_actions(policy, seen, steps["prompt"][index], steps["subtask"][index], True, beta, s.euler, omega)
        x = policy.normalize(actions, seen["state"])
        found[f"{beta:g}"] = ((x < low) | (x > high)).float().mean().item()                        # (n, H, A) -> scalar
    return found


def cfg(seeds, jobs, quick, only):
    """App. E: guidance from β = 0 (unconditional) to 5: success, throughput, and how near actions come to the edge."""
    result = {}
    for task in only or ("fold_shirt", "box"):
        group = [settings_for(task, seed, quick) for seed in seeds]
        folders, K = make_runs(group, jobs, sweep_beta), group[0].iterations
        rows = rows_of(folders, [(f"recap_{K}", beta) for beta in BETAS])
        outside = []
        for folder in folders:
            with open(os.path.join(folder, "edges.json")) as file:
                outside.append(json.load(file))
        for beta in BETAS:
            rows[f"recap_{K} β={beta:g}"]["outside"] = spread([x[f"{beta:g}"] for x in outside])
        print(f"\n{task}: n = {len(seeds)} seeds\n{table(rows)}\noutside the central 99 % of the data: "
              + ", ".join(f"β={beta:g} {100 * rows[f'recap_{K} β={beta:g}']['outside']['mean']:.1f} %" for beta in BETAS))
        result[task] = rows
    draw("cfg", plots.guidance, keep("cfg", result))


def generalist(seeds, jobs, quick, only):
    """Sec. IV-C: the specialists of all tasks, then one policy and one V from scratch on all D_ℓ."""
    tasks, rows = only or tuple(sim_tasks.TASKS), {}
    groups = {seed: [settings_for(task, seed, quick) for task in tasks] for seed in seeds}
    make_runs([s for group in groups.values() for s in group], jobs)
    folders = {}
    for seed, group in groups.items():
        # as many steps as the pre-training and one fine-tuning of a specialist together
        s = replace(group[0], pretraining_steps=group[0].pretraining_steps + group[0].policy_steps)
        folders[seed] = os.path.join(CACHE, f"generalist-{seed}-{digest(asdict(s), list(tasks))}")
        os.makedirs(folders[seed], exist_ok=True)
        run = Run(s, folders[seed], recap.KINDS)
        recap.generalist(run, [folder_of(x) for x in group])
    for task in tasks:
        of = {seed: next(x for x in group if x.task == task) for seed, group in groups.items()}
        K, beta = next(iter(of.values())).iterations, next(iter(of.values())).beta
        rows[f"{task}: specialist"] = next(iter(rows_of([folder_of(x) for x in of.values()], [(f"recap_{K}", beta)]).values()))
        rows[f"{task}: generalist"] = next(iter(rows_of(list(folders.values()), [(f"generalist_{task}", beta)]).values()))
    print(f"n = {len(seeds)} seeds, β = {beta:g}\n{table(rows)}")
    keep("generalist", rows)


# ---------------------------------------------------------------- claims

def claims(seeds, jobs, quick, only):
    """The table of claims from results/*.json -> results/claims.md; a claim without its results says which command makes them."""
    results = {}
    for name in ("fig7", "fig9_shirt", "fig9_box", "fig11", "fig12", "fig4", "cfg", "ablation_corrections"):
        path = os.path.join(RESULTS, f"{name}.json")
        if os.path.exists(path):
            with open(path) as file:
                results[name] = json.load(file)
    lines = ["| | the paper | our measure | figure | verdict | why |", "|---|---|---|---|---|---|"]
    for number, (words, needs, measure, check) in CLAIMS.items():
        if all(name in results for name in needs):
            figure, verdict, why = check(*(results[name] for name in needs))
        else:
            figure, verdict, why = "–", "not measured", "run " + ", ".join(f"`{name}`" for name in needs)
        lines.append(f"| {number} | {words} | {measure} | {figure} | **{verdict}** | {why} |")
    os.makedirs(RESULTS, exist_ok=True)
    write_text(os.path.join(RESULTS, "claims.md"), "\n".join(lines) + "\n")
    print("\n".join(lines))


def _ratio(rows, above, below, key="throughput"):
    """Ratio of two rows with its interval, and as text; key "failures" is 1 - success."""
    values = lambda row: 1 - np.array(rows[row]["success"]["seeds"]) if key == "failures" else rows[row][key]["seeds"]
    x = ratio_interval(values(above), values(below))
    return x, f"× {x['ratio']:.2f} [{x['low']:.2f}, {x['high']:.2f}]"


def _last(rows):
    """Names of the last iteration's rows: β = 1, and the recommended β."""
    K = max(int(name.split()[0].removeprefix("recap_")) for name in rows if name.startswith("recap_"))
    return [name for name in rows if name.startswith(f"recap_{K} ")]


def _verdict(good, total):
    return "reproduced" if good == total else "not" if good == 0 else "partly"


SFT_ROW = "offline_rl_sft β=1"


def _c1(fig7):
    hard = [task for task in ("fold_diverse", "espresso") if task in fig7]
    found = {task: _ratio(fig7[task], _last(fig7[task])[-1], SFT_ROW) for task in hard}
    plain = {task: _ratio(fig7[task], _last(fig7[task])[0], SFT_ROW)[1] for task in hard}
    good = sum(x["ratio"] >= 2 for x, _ in found.values())
    return ("; ".join(f"{task} {text}, β = 1 {plain[task]}" for task, (_, text) in found.items()), _verdict(good, len(hard)),
            "the demonstrators' slowness and second attempts are what there is to gain")


def _c2(fig7):
    found = {task: _ratio(rows, _last(rows)[-1], SFT_ROW, "failures") for task, rows in fig7.items()}
    return ("; ".join(f"{task} {text}" for task, (_, text) in found.items()),
            _verdict(sum(x["ratio"] <= 0.5 for x, _ in found.values()), len(found)),
            "most failures of the toy are time-outs after careless grasps, which V sees")


def _c3(fig7):
    order = ("supervised β=1", "rl_pretrained β=1", SFT_ROW)
    up = {task: all(rows[b]["throughput"]["mean"] >= rows[a]["throughput"]["mean"] for a, b in zip(order, (*order[1:], _last(rows)[-1])))
          for task, rows in fig7.items()}
    beats = {task: _ratio(rows, SFT_ROW, "supervised_sft β=1") for task, rows in fig7.items()}
    text = "; ".join(f"{task}: {'every stage up' if up[task] else 'not every stage up'}, SFT after offline RL {beats[task][1]} of SFT after "
                     "supervised" for task in fig7)
    return text, _verdict(sum(up.values()) + sum(x["low"] > 1 for x, _ in beats.values()), 2 * len(fig7)), \
        "SFT forces I = True on the same demonstrations either way: what offline RL adds before it is soon overwritten"


def _c4(fig9):
    rows = fig9["fold_shirt"]
    x, text = _ratio(rows, _last(rows)[0], SFT_ROW)
    first = rows["recap_1 β=1"]["success"]["mean"]
    return (f"{text} at β = 1 after two; success after the first {100 * first:.1f} %", _verdict((x["ratio"] >= 1.5) + (first >= 0.9), 2),
            "autonomous data only, 10 % positive")


def _c5(fig9):
    rows = fig9["box"]
    x, text = _ratio(rows, _last(rows)[-1], SFT_ROW)
    before, after = rows[SFT_ROW]["per_stage_success"], rows[_last(rows)[-1]]["per_stage_success"]
    better = all(b >= a - 0.005 for a, b in zip(before, after))
    stages = " ".join(f"{100 * a:.0f}→{100 * b:.0f} %" for a, b in zip(before, after))
    return f"{text}; stages {stages}", _verdict((x["ratio"] >= 2) + better, 2), "the first stages are nearly perfect from the start"


def _c6(fig11):
    ours, guided = _last(fig11)
    best = {kind: max((name for name in fig11 if name.startswith(kind)), key=lambda name: fig11[name]["throughput"]["mean"])
            for kind in ("AWR", "PPO", "positives", "filtered")}
    found = {kind: (_ratio(fig11, ours, name), _ratio(fig11, guided, name)) for kind, name in best.items()}
    text = "; ".join(f"{best[kind]}: β = 1 {a[1]}, guided {b[1]}" for kind, (a, b) in found.items())
    good = sum(found[kind][1][0]["low"] > 1 for kind in ("AWR", "PPO")) + sum(found[kind][0][0]["low"] > 1 for kind in ("AWR", "PPO"))
    return f"RECAP over the best of each sweep: {text}", _verdict(good, 4), "each baseline at its best T or ε; see the figure for the whole sweep"


def _c7(fig12):
    rows = fig12["fold_collar"]
    after = rows[_last(rows)[-1]]["success"]
    return (f"{100 * rows[SFT_ROW]['success']['mean']:.1f} → {100 * after['mean']:.1f} ± {100 * (after['se'] or 0):.1f} % success",
            _verdict(after["mean"] >= 0.97, 1), "the way that counts ends positively, and the label tells")


def _c8(fig4):
    text = "; ".join(f"{task} {x['auc']['mean']:.2f}" for task, x in fig4.items())
    return f"AUC {text}", _verdict(sum(x["auc"]["mean"] >= 0.8 for x in fig4.values()), len(fig4)), "edge grasps and slips are visible when they happen"


def _c9(cfg):
    text, good = [], 0
    for task, rows in cfg.items():
        at = lambda beta: next(row for name, row in rows.items() if name.endswith(f"β={beta:g}"))
        best = max(rows, key=lambda name: rows[name]["throughput"]["mean"])
        text.append(f"{task}: best {best.split()[1]} ({rows[best]['throughput']['mean']:.0f} per hour, β = 1 {at(1)['throughput']['mean']:.0f}), "
                    f"outside the data's 99 %: {100 * at(1)['outside']['mean']:.1f} % at β = 1, {100 * at(5)['outside']['mean']:.1f} % at 5")
        good += (1 < float(best.split("β=")[1]) <= 2.5) + (at(5)["outside"]["mean"] > 2 * at(1)["outside"]["mean"])
    return "; ".join(text), _verdict(good, 2 * len(cfg)), "see App. E's figure"


def _c10(fig7):
    found = {task: _ratio(rows, "recap_1 β=1", SFT_ROW) for task, rows in fig7.items()}
    return ("; ".join(f"{task} {text}" for task, (_, text) in found.items()), _verdict(sum(x["low"] > 1 for x, _ in found.values()), len(found)),
            "at β = 1")


def _c11(ablation):
    rows = ablation["rows"]
    last = max(name.split(" | ")[1] for name in rows if "recap" in name)
    a, b = (rows[f"{name} | {last}"] for name in ("150 + 50 corrected", "200 autonomous, none corrected"))
    pair = {"with": a, "without": b}
    return (f"with corrections {100 * a['success']['mean']:.1f} % and {a['throughput']['mean']:.0f} per hour, without "
            f"{100 * b['success']['mean']:.1f} % and {b['throughput']['mean']:.0f}; failures {_ratio(pair, 'with', 'without', 'failures')[1]}",
            _verdict((_ratio(pair, "with", "without", "failures")[0]["high"] < 1) + (b["throughput"]["mean"] > 0.9 * a["throughput"]["mean"]), 2),
            "speed comes from autonomous data alone")


# number: (the paper's words, results needed, our measure, check)
CLAIMS = {
    "C1": ("throughput “more than doubles on the diverse laundry folding and espresso tasks”", ("fig7",), "last iteration / offline RL + SFT", _c1),
    "C2": ("“the rate of failure reduces by about a factor of two”", ("fig7",), "failures, last iteration / offline RL + SFT", _c2),
    "C3": ("“each stage of RECAP improves performance”; offline RL + SFT “outperforms standard SFT”", ("fig7",), "throughput by stage", _c3),
    "C4": ("laundry: “an overall 50% improvement in throughput” over two iterations; over 90 % success after the first", ("fig9_shirt",),
           "autonomous data only", _c4),
    "C5": ("box: “after the second iteration … ×2”; higher success in all stages", ("fig9_box",), "last iteration / offline RL + SFT", _c5),
    "C6": ("“by far the highest throughput … compared to AWR and PPO”", ("fig11",), "same data, same steps, baselines swept", _c6),
    "C7": ("“a policy that succeeds 97% of the time” after two iterations", ("fig12",), "FoldCollar, no corrections", _c7),
    "C8": ("the value function “correctly identifies mistakes”", ("fig4",), "AUC of V's drops for the simulator's record", _c8),
    "C9": ("moderate β useful; high β pushes actions “towards the boundaries of its learned support”", ("cfg",), "sweep of β", _c9),
    "C10": ("one iteration already helps", ("fig7",), "first iteration / offline RL + SFT", _c10),
    "C11": ("corrections fix mistakes, autonomous data fine-tune the behaviour", ("ablation_corrections",), "with and without corrections", _c11),
}


# ---------------------------------------------------------------- command line

FIGURES_OF = {"fig7": fig7, "fig9": fig9, "fig11": fig11, "fig12": fig12, "fig4": fig4, "cfg": cfg, "generalist": generalist,
              "claims": claims}
ALIASES = {"fig8": "fig7", "fig10": "fig9", "fig13": "fig4"}


def main(argv=None):
    parser = argparse.ArgumentParser(prog="reproduce.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*FIGURES_OF, *ALIASES, "ablation", "all"])
    parser.add_argument("name", nargs="?", help="of the ablation")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=list(sim_tasks.TASKS), help="tasks, where a figure has several")
    args = parser.parse_args(argv)
    try:
        if args.what == "ablation":
            if args.name not in ABLATIONS:
                raise ValueError(f"ablation: {args.name}, expected one of {', '.join(ABLATIONS)}")
            ablation(args.name, args.seeds, args.jobs, args.quick)
        else:
            for name in FIGURES_OF if args.what == "all" else [ALIASES.get(args.what, args.what)]:
                FIGURES_OF[name](args.seeds, args.jobs, args.quick, args.only)
    except ValueError as error:
        print(f"reproduce.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Every figure and claim of the paper, measured on the toy: seeds in, results/*.json and figures/*.png out.

    python reproduce.py fig7           Figs. 7 and 8: every stage of the recipe on every task
    python reproduce.py fig9           Figs. 9 and 10: over the iterations
    python reproduce.py fig11          RECAP against AWR, PPO and imitation, from the same data
    python reproduce.py fig12          removal of one failure mode
    python reproduce.py fig4           Figs. 4 and 13: V along episodes, and how well its drops find mistakes
    python reproduce.py cfg            App. E: β from 0 to 5
    python reproduce.py generalist     Sec. IV-C: one policy on the data of all specialists
    python reproduce.py map            when the order of Fig. 11 holds: one thing at a time changed
    python reproduce.py counts         App. F: numbers of episodes, the paper's and ours
    python reproduce.py checks         V against returns, labels, subtasks, items: what tells that the runs are in order
    python reproduce.py claims         the table of claims, from the results that are there
    python reproduce.py all            all of the above
    python reproduce.py ablation NAME  one knob (python reproduce.py ablation: their names)
    python reproduce.py ablations      all of them

Options: --seeds 31 32 33 34 35, --jobs 2, --quick (smaller, no results), --only TASK ... (fig11: METHOD ..., map: POINT ...).
Every run is kept under runs/cache by its settings, so what was interrupted goes on where it was, and stages that two
runs have in common (pre-training, SFT, the first collection) are made once.  Delete runs/cache after changing the code:
what is there is used as it is (with a warning if a run's own sources changed; without one for what this file adds to runs, for
the generalist and for `ablation web`).

On two cores and with nothing cached each seed takes about 14 minutes for fig7 (3 with one task), 23 for fig11 (its 34 policies
beside RECAP's), 45 for map (5 with one point), 1 to 4 for each of the others.  So in half an hour five seeds have one of
fig7's tasks, a point of the map, or ten of fig11's methods (--only; before them RECAP's runs, those of `fig7 --only fold_shirt`).

Tuning used seeds 0, 1, 2 and 21; the default seeds have never been tuned on.  ± is the standard error over seeds unless it says
otherwise.
"""
import argparse
import copy
import math
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import torch

import ablations
import claims
import plots
import recap
import sim_tasks
from baselines import awr_loss, awr_weights, plain_loss, ppo_loss
from claims import KINDS_OF_MISTAKES
from data import load_dataset
from experiments import (CACHE, RESULTS, Options, UsageError, data_of, digest, folder_of, make_runs, metrics_of, network_of, opened,
                         read_json, row_of, rows_of, sized, spread, table)
from runs import write_text
from settings import Settings
from sim_tasks.arms import EDGE, NOTHING, World

SEEDS = (31, 32, 33, 34, 35)
ALL_TASKS = tuple(sim_tasks.TASKS)


# ---------------------------------------------------------------- Figs. 7-10 and 12: stages and iterations

RECIPE = (("demonstrations", None), ("supervised_small", 1.0), ("supervised", 1.0), ("supervised_sft", 1.0), ("rl_pretrained", 1.0),
          ("offline_rl_sft", 1.0))


def settings_for(task, seed, quick, **change):
    """What all figures share for a task: a thousand evaluation episodes; FoldCollar without corrections (Fig. 12)."""
    base = dict(task=task, seed=seed, supervised=True, episodes=1000) | (dict(corrected=0) if task == "fold_collar" else {})
    return Settings(**sized(base | change, quick))


def stages_figure(o, name, stages, tasks):
    """Run all tasks and seeds, print and keep one table per task.  tasks: {task: what its settings change}.  -> {task: rows}"""
    groups = {task: [settings_for(task, seed, o.quick, **change) for seed in o.seeds] for task, change in tasks.items()}
    make_runs([s for group in groups.values() for s in group], o.jobs)
    result = {}
    for task, group in groups.items():
        K, beta = group[0].iterations, group[0].beta
        ours = [(f"recap_{k}", b) for k in range(1, K + 1) for b in (1.0, beta)]
        result[task] = rows_of([folder_of(s) for s in group], [*stages, *ours])
        print(f"\n{task}: n = {len(o.seeds)} seeds {tuple(o.seeds)}, {group[0].episodes} evaluation episodes each; mean ± s.e. over seeds")
        print(table(result[task], base="offline_rl_sft β=1"))
    return o.keep(name, result)


def fig7(o):
    """Figs. 7 and 8: throughput and success of every stage of the recipe; Fig. 8, right: of the box's own stages."""
    result = stages_figure(o, "fig7", RECIPE, dict.fromkeys(o.parts(PARTS_OF["fig7"], "fig7"), {}))
    o.draw("fig7", plots.bars, result)
    if "box" in result:
        o.draw("fig8_box", plots.stage_bars, result["box"], [stage.subtask for stage in sim_tasks.TASKS["box"].stages])


def checks(o):
    """Not in the paper: what tells that a run is in order.  V against returns, labels against what one sees, ℓ̂, corrections."""
    result = {}
    for task in o.parts(PARTS_OF["checks"], "checks"):
        group = [settings_for(task, seed, o.quick) for seed in o.seeds]
        folders, K = make_runs(group, o.jobs), group[0].iterations
        reports = [metrics_of(folder) for folder in folders]
        rows = {f"{v}: {key}": [x["value"][v][key] for x in reports] for v in ("V_pre", *(f"V_{k}" for k in range(1, K + 1)))
                for key in ("heldout_correlation", "outcome_auc", "prompt_effect")}
        rows |= {f"iteration {k}: {key}": [x["labels"][k - 1][key] for x in reports] for k in range(1, K + 1)
                 for key in ("positive_fraction_rollouts", "positive_given_good", "positive_given_bad", "corrected_fraction")}
        rows |= {f"{name}: subtask accuracy": row_of(folders, name)["subtask_accuracy"] for name in ("offline_rl_sft", f"recap_{K}")}
        if sim_tasks.TASKS[task].items:
            rows |= {f"{name}: success, {item}": x for name in ("offline_rl_sft", f"recap_{K}")
                     for item, x in row_of(folders, name)["items"].items()}
        result[task] = {name: spread(x) | {"values": x} for name, x in rows.items() if None not in x}
        print(f"\n{task}: n = {len(o.seeds)} seeds {tuple(o.seeds)}")
        for name, x in result[task].items():
            print(f"{name:<44}{x['mean']:>7.3f} ± {x['se'] or 0:<8.3f}" + " ".join(f"{y:.3f}" for y in x["values"]))
    o.keep("checks", result)


FIG9_SHIRT = dict(autonomous=200, corrected=0, positive=0.1)


def fig9(o):
    """Figs. 9 and 10: over two iterations; FoldShirt from autonomous data only with 10 % positive, Box with corrections."""
    panels = {"fold_shirt": ("autonomous data only, 10 % positive", FIG9_SHIRT), "box": ("with corrections", {})}
    kept = stages_figure(o, "fig9", (("offline_rl_sft", 1.0),), {task: panels[task][1] for task in o.parts(PARTS_OF["fig9"], "fig9")})
    o.draw("fig9", plots.bars, {f"{task}, {what}": kept[task] for task, (what, _) in panels.items() if task in kept})


def fig12(o):
    """Fig. 12: one failure mode to remove, without corrections."""
    stages = (("rl_pretrained", 1.0), ("offline_rl_sft", 1.0))
    o.draw("fig12", plots.bars, stages_figure(o, "fig12", stages, {"fold_collar": {}}))


# ---------------------------------------------------------------- Fig. 11: other ways to extract a policy

# T in standard deviations of A, and what A is taken from (`methods`).  On FoldShirt AWR has an effective number of 51, 40, 34, 30
# and 42 % of the steps from the mean, 4, 4, 6, 34 and 82 % from the 95 % quantile (RECAP calls a fifth positive).
# ε (paper: 0.01; inf: no penalty), by the share of the others' learning rate: at the full rate PPO ruins the policy, and where
# r is near 0 Eq. (11) has next to no gradient that would lead back
TEMPERATURES = {"mean": (0.1, 0.2, 0.3, 0.5, 1.0), "q95": (0.1, 0.3, 0.5, 1.0, 2.0)}
PPO = {1.0: (0.01, 1.0), 0.3: (100.0,), 0.1: (0.01, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0, 10_000.0, math.inf),
       0.03: (1.0, 100.0, 1000.0, 10_000.0, 100_000.0, math.inf), 0.01: (1000.0, math.inf)}


def methods(A, positive, success, reference):
    """{name: keyword arguments of train_policy, and "rate", the share of the learning rate}; A: advantages of all steps (M,);
    positive, success: bool (M,) per step; reference: π_ref of PPO.

    AWR's weights are of A less its mean, as in [68], or less its 95 % quantile.  The shift changes nothing in exp(A / T) scaled to
    mean 1 but where the clip lies: from the mean the best steps share the largest weight, the smaller T is the more of them,
    towards imitation of all A > mean; from the quantile it is T that sets them apart, and a handful gets nearly all.
    """
    zero = {"mean": A.mean(), "q95": A.quantile(0.95)}
    weights = {f"AWR T={T:g} {name}": awr_weights((A - zero[name]) / A.std(), T)                   # (M,) each
               for name, sweep in TEMPERATURES.items() for T in sweep}
    ppo = lambda epsilon: partial(ppo_loss, reference=reference, epsilon_ar=epsilon, epsilon_flow=epsilon)
    return ({"imitation": dict(loss=plain_loss), "filtered imitation": dict(loss=plain_loss, keep=success),
             "positives only": dict(loss=plain_loss, keep=positive)}
            | {name: dict(loss=awr_loss, columns={"weight": w / w.mean()}) for name, w in weights.items()}
            | {f"PPO ε={e:g} rate×{rate:g}": dict(loss=ppo(e), columns={"advantage": A}, rate=rate)
               for rate, sweep in PPO.items() for e in sweep})


METHODS = tuple(methods(torch.arange(2.0), None, None, None))


def file_of(name, start="supervised_pre"):
    return name.replace(" ", "_") + ("" if start == "supervised_pre" else f"_from_{start}")


def extract(run, names=None, starts=("supervised_pre",)):
    """The methods `names` (all when None) on the data and labels of the run's last iteration, from each of `starts`, the
    supervised network by default; as many steps as RECAP's.  Each leaves eval_NAME_beta1.json in the run's folder.
    """
    s, K = run.settings, run.settings.iterations
    D, V = data_of(run), network_of(run.out, f"V_{K}")
    A = torch.as_tensor(np.concatenate(recap.step_advantages(V, D, s, s.lookahead)), dtype=torch.float32)   # (M,)
    labels = recap.label(V, D, s, K)
    success = np.concatenate([np.full(len(e), e.success) for e in D])                              # (M,)
    for start in starts:
        network = network_of(run.out, start)
        reference = copy.deepcopy(network).requires_grad_(False)
        for name, arguments in methods(A, np.concatenate(labels.positive), success, reference).items():
            if names is None or name in names:
                slower = replace(s, fine_tuning_rate=s.fine_tuning_rate * arguments.pop("rate", 1.0))
                pi = run.net(f"baseline_{file_of(name, start)}", lambda: recap.train_policy(
                    copy.deepcopy(network), D, slower, s.policy_steps, labels, dropout=1.0, **arguments))
                recap.evaluate(run, file_of(name, start), pi, indicator=None)


def fig11(o):
    """Fig. 11: policies from the same data.  T and ε are swept on every seed, all of them shown."""
    names = o.parts(METHODS, "fig11")
    group = [settings_for("fold_shirt", seed, o.quick) for seed in o.seeds]
    folders = make_runs(group, o.jobs, partial(extract, names=names))
    K, beta = group[0].iterations, group[0].beta
    stages = rows_of(folders, [("supervised", 1.0), ("supervised_sft", 1.0), ("offline_rl_sft", 1.0), (f"recap_{K}", 1.0), (f"recap_{K}", beta)])
    rows = stages | {name: row_of(folders, file_of(name)) for name in names}
    print(f"n = {len(o.seeds)} seeds {tuple(o.seeds)}, {group[0].episodes} evaluation episodes each; mean ± s.e. over seeds")
    print(table(rows, base="offline_rl_sft β=1"))
    print("subtask accuracy: " + ", ".join(f"{name} {np.mean(row['subtask_accuracy']):.3f}" for name, row in rows.items()))
    kept = o.keep("fig11", rows)
    o.draw("fig11", plots.bars, {"fold_shirt": {name: kept[name] for name in (*stages, *METHODS) if name in kept}})


# ---------------------------------------------------------------- when the order of Fig. 11 holds

# AWR at what is best in Fig. 11, from the mean and from the quantile, and at another T; PPO within 4 % of its best with a penalty,
# and at its best, which has none
MAPPED = ("filtered imitation", "positives only", "AWR T=0.2 mean", "AWR T=0.3 q95", "AWR T=1 q95", "PPO ε=10000 rate×0.03",
          "PPO ε=inf rate×0.03")
# From the base point (`map_settings`) one thing at a time, the worst data last.  After 20 steps of SFT, in the place of 700, π⁰
# succeeds in about 60 % of the episodes.  (After fewer, the first steps of AdamW, at the full rate, would have broken it.)
POINTS = {"base": {}, "1000 gradient steps": dict(policy_steps=1000), "7000 gradient steps": dict(policy_steps=7000),
          "50 episodes collected": dict(autonomous=38, corrected=12), "600 episodes collected": dict(autonomous=450, corrected=150),
          "none corrected, 10 % positive": dict(autonomous=200, corrected=0, positive=0.1),      # as in Fig. 9 and the paper's Fig. 11
          "pre-trained on the target alone": dict(pretraining_tasks="fold_shirt"), "20 steps of SFT": dict(sft_steps=20),
          "20 steps of SFT, none of 600 corrected": dict(sft_steps=20, autonomous=600, corrected=0)}


def map_settings(seed, quick, **change):
    return settings_for("fold_shirt", seed, quick, **(dict(iterations=1, episodes=500) | change))


def map_of_methods(o):
    """The methods of Fig. 11 at every point of POINTS, beside the best AWR there.

    The best of AWR's T is chosen by the very episodes that are shown, which favours AWR a little.
    """
    points = o.parts(tuple(POINTS), "map")[::3 if o.quick and not o.only else 1]
    groups = {point: [map_settings(seed, o.quick, **POINTS[point]) for seed in o.seeds] for point in points}
    make_runs([s for group in groups.values() for s in group], o.jobs, partial(extract, names=MAPPED))
    result, drawn, n = {}, {}, len(o.seeds)
    for point, group in groups.items():
        folders, s = [folder_of(s) for s in group], group[0]
        rows = rows_of(folders, [("supervised_sft", 1.0), ("offline_rl_sft", 1.0), ("recap_1", 1.0), ("recap_1", s.beta)])
        rows |= {name: row_of(folders, file_of(name)) for name in MAPPED}
        failed = spread([np.mean([not e.success for e in load_dataset(f"{folder}/D_1.npz")]) for folder in folders])
        label = (f"{point}\n{s.autonomous} + {s.corrected} corrected, {100 * failed['mean']:.0f} % failed; {s.policy_steps} steps"
                 f"\n1: {claims.best_of(rows, 'AWR')}")
        result[point] = {"label": label, "failed": failed, "rows": rows}
        print(f"\n{label}; n = {n} seeds {tuple(o.seeds)}, {s.episodes} evaluation episodes each")
        print(table(rows, base=claims.best_of(rows, "AWR")))
    for x in o.keep("map", result).values():
        best = claims.best_of(x["rows"], "AWR")
        drawn[x["label"]] = {name: claims.gain(x["rows"], name, best) for name in (f"recap_1 β={s.beta:g}", "recap_1 β=1", *MAPPED)
                             if name in x["rows"]}
    o.draw("map", plots.ratios, drawn, "throughput relative to the best AWR, " + (
        f"95 % interval over n = {n} seeds; filled: it excludes 1" if n > 1 else "n = 1 seed: no interval"))


def start(o):
    """The baselines from other networks than the supervised one, at the base point: from π_pre (its part without the indicator),
    and from imitation of all data.  That is the policy that collected them, as far as there is one, so PPO's ratios begin where
    PPO means them to; it has trained twice as long.
    """
    names = ("positives only", "AWR T=0.2 mean", "PPO ε=1 rate×0.1", "PPO ε=100 rate×0.1", "PPO ε=10000 rate×0.03",
             "PPO ε=inf rate×0.03")
    starts = {"pi_pre": "π_pre", "baseline_imitation": "imitation"}
    group = [map_settings(seed, o.quick) for seed in o.seeds]
    make_runs(group, o.jobs, partial(extract, names=("imitation", *names)))
    folders = make_runs(group, o.jobs, partial(extract, names=names, starts=starts))
    rows = rows_of(folders, [("offline_rl_sft", 1.0), ("recap_1", 1.0), ("recap_1", group[0].beta)])
    rows["imitation"] = row_of(folders, file_of("imitation"))
    for name in names:
        rows[name] = row_of(folders, file_of(name))
        rows |= {f"{name}, from {label}": row_of(folders, file_of(name, start)) for start, label in starts.items()}
    print(f"start: n = {len(o.seeds)} seeds {tuple(o.seeds)}, {group[0].episodes} evaluation episodes each; mean ± s.e.")
    print(table(rows, base="recap_1 β=1"))
    o.keep("ablation_start", {"about": "where the baselines start", "policy": rows})


# ---------------------------------------------------------------- Figs. 4 and 13: V along episodes

def mistakes(spec, seeds, episodes):
    """The simulator's own record: {kind: bool (T,) per episode}, True where that went wrong in that step.

    edge grasp: the mistake itself; slip: what follows from it when the half is carried on, at worst lost for good; edge let go:
    such a half released elsewhere than at the goal, before it slips; let go: a well held one released there, or spilled.  It is
    not stored with the episodes (no robot would know it), so they are replayed: same seed, same actions.
    """
    world, T = World(spec, seeds), max(len(e) for e in episodes)
    record = {kind: np.zeros((len(episodes), T), bool) for kind in KINDS_OF_MISTAKES}
    for t in range(T):
        hold, slips = world.hold.copy(), world.slips.copy()
        world.step(np.stack([e.actions[min(t, len(e) - 1)] for e in episodes]))
        record["edge grasp"][:, t] = world.mistakes & ((hold == NOTHING) & (world.hold == EDGE)).any(1)
        record["slip"][:, t] = world.mistakes & (world.slips > slips)
        rest = world.mistakes & ~record["edge grasp"][:, t] & ~record["slip"][:, t]                # (n,)
        by_edge = ((hold == EDGE) & (world.hold == NOTHING)).any(1)
        record["edge let go"][:, t], record["let go"][:, t] = rest & by_edge, rest & ~by_edge
    return {kind: [x[i, :len(e)] for i, e in enumerate(episodes)] for kind, x in record.items()}


def drops_find_mistakes(V, mistakes):
    """AUC of the drop V(o_t) - V(o_{t+1}) for "something went wrong in step t", over all steps but each last one."""
    drop = np.concatenate([v[:-1] - v[1:] for v in V])                                             # (M,)
    wrong = np.concatenate([m[:-1] for m in mistakes])                                             # (M,)
    _, index, counts = np.unique(drop, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[index]                                           # equal drops share their mean rank, (M,)
    n = wrong.sum()
    return float((rank[wrong].sum() - n * (n + 1) / 2) / (n * (~wrong).sum())) if 0 < n < len(wrong) else None


def rollouts_for_drops(s, folder):
    """Fresh rollouts of π⁰.  -> seeds, episodes"""
    seeds = recap.episode_seeds(s.seed, "drops", min(s.episodes, 150))
    return seeds, recap.collect(s, sim_tasks.TASKS[s.task], seeds, network_of(folder, "pi_0"), iteration=1, purpose="drops")


def value_checks(run):
    """AUC of drops, by kind of mistake, for V^1 on fresh rollouts of π⁰ -> drops_of_v.json in the run's folder."""
    def make():
        seeds, episodes = rollouts_for_drops(run.settings, run.out)
        record = mistakes(sim_tasks.TASKS[run.settings.task], seeds, episodes)
        V = recap.predict_values(network_of(run.out, "V_1"), episodes)
        # the failure with the most edge grasps and the success with the most, of the same item, make the picture
        by_edge_grasps = sorted(range(len(episodes)), key=lambda i: -record["edge grasp"][i].sum())
        failed = [i for i in by_edge_grasps if not episodes[i].success][:1]
        done = [i for i in by_edge_grasps if episodes[i].success and all(episodes[i].prompt == episodes[j].prompt for j in failed)][:1]
        return {"auc": {kind: drops_find_mistakes(V, x) for kind, x in record.items()}, "steps": sum(len(v) - 1 for v in V),
                "mistakes": {kind: int(sum(m[:-1].sum() for m in x)) for kind, x in record.items()},        # those that the AUC sees
                "last": {kind: int(sum(m[-1] for m in x)) for kind, x in record.items()}, "shown": done + failed}
    run.json("drops_of_v", make)


def fig4(o):
    """Figs. 4 and 13: V along episodes of five tasks, with the AUC of its drops for the simulator's record of mistakes, by kind."""
    groups = {task: [settings_for(task, seed, o.quick) for seed in o.seeds] for task in o.parts(PARTS_OF["fig4"], "fig4")}
    make_runs([s for group in groups.values() for s in group], o.jobs, value_checks)
    result = {}
    for task, group in groups.items():
        checks = [read_json(folder_of(s), "drops_of_v.json") for s in group]
        result[task] = {"steps": sum(x["steps"] for x in checks)}
        print(f"{task}: {result[task]['steps']} steps, n = {len(o.seeds)} seeds")
        for kind in KINDS_OF_MISTAKES:
            found = [x["auc"][kind] for x in checks if x["auc"][kind] is not None]
            if found:
                result[task][kind] = x = {"auc": spread(found)} | {key: sum(x[key][kind] for x in checks) for key in ("mistakes", "last")}
                print(f"  {kind:<12} AUC of drops of V {x['auc']['mean']:.3f} ± {x['auc']['se'] or 0:.3f}, {x['mistakes']} of them; "
                      f"{x['last']} more ended an episode")
        folder = folder_of(group[0])
        _, episodes = rollouts_for_drops(group[0], folder)
        o.draw(f"fig4_{task}", value_figure, network_of(folder, "V_1"), [episodes[i] for i in checks[0]["shown"]],
               f"V¹ of seed {group[0].seed} along rollouts of π⁰: the success and the failure with the most bad grasps of {len(episodes)} "
               "episodes.  Green, ▲: notable rise; red and hatched, ▼: notable drop")
    o.keep("fig4", result)


def value_figure(value, episodes, title):
    """`recap.value_figure` with a title over both episodes.  -> Figure"""
    figure = recap.value_figure(value, episodes)
    figure.suptitle(title, fontsize=10)
    return figure


# ---------------------------------------------------------------- App. E, and the generalist

BETAS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0)


def sweep_beta(run):
    """Evaluate the last policy at every β of BETAS, and how often its chunks leave the support of the data."""
    s, K = run.settings, run.settings.iterations
    policy = network_of(run.out, f"pi_{K}")
    for beta in BETAS:
        recap.evaluate(run, f"recap_{K}", policy, beta)
    run.json("edges", lambda: edges(s, policy, data_of(run)))


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


def cfg(o):
    """App. E: guidance from β = 0 (unconditional) to 5: success, throughput, and how near actions come to the edge."""
    result = {}
    for task in o.parts(PARTS_OF["cfg"], "cfg"):
        group = [settings_for(task, seed, o.quick) for seed in o.seeds]
        folders, K = make_runs(group, o.jobs, sweep_beta), group[0].iterations
        rows = rows_of(folders, [(f"recap_{K}", beta) for beta in BETAS])
        outside = [read_json(folder, "edges.json") for folder in folders]
        for beta in BETAS:
            found = [x[f"{beta:g}"] for x in outside]
            rows[f"recap_{K} β={beta:g}"]["outside"] = spread(found) | {"values": found}
        print(f"\n{task}: n = {len(o.seeds)} seeds\n{table(rows)}\noutside the central 99 % of the data: "
              + ", ".join(f"β={beta:g} {100 * rows[f'recap_{K} β={beta:g}']['outside']['mean']:.1f} %" for beta in BETAS))
        result[task] = rows
    o.draw("cfg", plots.guidance, o.keep("cfg", result))


def make_generalist(group):
    """`recap.generalist` on the finished specialists of one seed, the policy with as many steps as
    pre-training and one fine-tuning of a specialist together, V with those of pre-training.  group: their settings.  -> its folder
    """
    s = replace(group[0], pretraining_steps=group[0].pretraining_steps + group[0].policy_steps)
    folder = os.path.join(CACHE, f"generalist-{s.seed}-{digest(asdict(s), [x.task for x in group])}")
    with opened(s, folder) as run:
        recap.generalist(run, [folder_of(x) for x in group])
    return folder


def generalist(o):
    """Sec. IV-C: the specialists of all tasks, then one policy and one V from scratch on all D_ℓ."""
    rows, groups = {}, [[settings_for(task, seed, o.quick) for task in ALL_TASKS] for seed in o.seeds]
    make_runs([s for group in groups for s in group], o.jobs)
    with ProcessPoolExecutor(o.jobs) as pool:
        folders = list(pool.map(make_generalist, groups))
    for i, task in enumerate(ALL_TASKS):
        specialists = [folder_of(group[i]) for group in groups]
        K, beta = groups[0][i].iterations, groups[0][i].beta
        rows[f"{task}: specialist"] = row_of(specialists, f"recap_{K}", beta)
        rows[f"{task}: generalist"] = row_of(folders, f"generalist_{task}", beta)
    print(f"n = {len(o.seeds)} seeds {tuple(o.seeds)}, each at its recommended β\n{table(rows)}")
    o.keep("generalist", rows)


# Of App. F and Sec. VI-C2 and 4: source, iterations, demonstrations, autonomous and corrected per iteration; "–": not said
PAPER_COUNTS = {
    "fold_shirt": (("Sec. VI-C2", "2", "–", "300", "0"), ("App. F", "–", "–", "300 (in total?)", "0")),
    "fold_diverse": (("App. F", "–", "–", "450 (in total?)", "287 (in total?)"),),
    "fold_collar": (("Sec. VI-C4", "2", "–", "600", "0"), ("App. F", "–", "–", "~1000 in total", "280 + 378 in total")),
    "espresso": (("App. F", "1", "–", "414", "429"),),
    "box": (("Sec. VI-C2", "2", "–", "600", "360"), ("App. F", "–", "600 per iteration", "–", "360"))}
CONTRADICTIONS = """\
The paper contradicts itself twice.  fold_collar: Sec. VI-C4 has two iterations of 600 trajectories "without any intervention
data or additional demonstrations", App. F about 1000 autonomous episodes in total and 280 + 378 with corrections.  box: the 600
are "autonomous trials" in Sec. VI-C2 and "demonstrations" in App. F.  App. F's 300 for fold_shirt are "for reporting eval
performance"; we take them for those that Sec. VI-C2 collects in each iteration.  But for those 600 the paper does not count
the demonstrations of its tasks; pre-training has "tens of thousands of hours" of many tasks (Sec. IV)."""


def counts(o):
    """App. F's numbers of episodes beside those of our figures, read from their settings -> results/counts.md"""
    lines = ["| task | | iterations | demonstrations | autonomous per iteration | corrected per iteration |", "|" + "---|" * 6]
    for task, paper in PAPER_COUNTS.items():
        ours = {"here": settings_for(task, 0, False)}
        if task == "fold_shirt":
            ours["here, fig9"] = settings_for(task, 0, False, **FIG9_SHIRT)
        lines += [f"| {task} | paper, {' | '.join(row)} |" for row in paper]
        lines += [f"| {task} | {name} | {s.iterations} | {s.demonstrations} for pre-training, {s.demonstrations} for SFT "
                  f"| {s.autonomous} | {s.corrected} |" for name, s in ours.items()]
    text = "\n".join(lines) + f"\n\n{CONTRADICTIONS}\n"
    write_text(os.path.join(o.folder(RESULTS), "counts.md"), text)
    print(text)


def write_claims(o):
    """The table of claims, from the results that are there -> results/claims.md."""
    text = claims.table(o.read, METHODS)
    write_text(os.path.join(o.folder(RESULTS), "claims.md"), text + "\n")
    print(text)


# ---------------------------------------------------------------- command line

FIGURES_OF = {"fig7": fig7, "fig9": fig9, "fig11": fig11, "fig12": fig12, "fig4": fig4, "cfg": cfg, "generalist": generalist,
              "map": map_of_methods, "counts": counts, "checks": checks, "claims": write_claims}
ALIASES = {"fig8": "fig7", "fig10": "fig9", "fig13": "fig4"}
# what --only can choose from: tasks, of fig11 methods, of the map points
PARTS_OF = {"fig7": ("fold_shirt", "fold_diverse", "espresso", "box"), "fig9": ("fold_shirt", "box"), "fig4": ALL_TASKS,
            "cfg": ALL_TASKS, "checks": ALL_TASKS, "fig11": METHODS, "map": tuple(POINTS)}
KNOBS = {name: partial(ablations.ablation, name) for name in ablations.ABLATIONS} | {"web": ablations.web, "start": start}


def integer(least):
    """For argparse: an integer of at least `least`."""
    def read(text):
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}, expected an integer >= {least}")
        return int(text)
    return read


def main(argv=None):
    parser = argparse.ArgumentParser(prog="reproduce.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*FIGURES_OF, *ALIASES, "ablation", "ablations", "all"])
    parser.add_argument("name", nargs="?", help="of the ablation")
    parser.add_argument("--seeds", type=integer(0), nargs="+")
    parser.add_argument("--jobs", type=integer(1), default=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=[*ALL_TASKS, *POINTS, *METHODS], metavar="PART",
                        help=f"tasks of {', '.join(name for name in PARTS_OF if name not in ('fig11', 'map'))}; methods of fig11, "
                             "besides RECAP; points of the map")
    args = parser.parse_args(argv)
    if args.what == "ablations":
        args.what, args.name = "ablation", args.name or "all"
    torch.set_num_threads(1)         # as in the runs: another number rounds differently
    known = KNOBS if args.what == "ablation" else FIGURES_OF
    asked = args.name if args.what == "ablation" else ALIASES.get(args.what, args.what)
    try:
        if asked not in (*known, "all"):
            raise UsageError(f"ablation: {asked}, expected all or one of {', '.join(known)}")
        names = [name for name in (known if asked == "all" else [asked])
                 if not args.only or set(args.only) & set(PARTS_OF.get(name, ()))]
        if args.name and args.what != "ablation":
            raise UsageError(f"{args.what}: {args.name}, expected nothing (--only chooses tasks)")
        if args.seeds and len(set(args.seeds)) < len(args.seeds):
            raise UsageError(f"--seeds: {' '.join(map(str, args.seeds))}, expected each once")
        if not names:
            raise UsageError(f"--only: {' '.join(args.only)}, expected some that {asked} has; "
                             + "; ".join(f"{name}: {', '.join(parts)}" for name, parts in PARTS_OF.items()))
        options = {name: Options(tuple(args.seeds or SEEDS), args.jobs, args.quick, args.only) for name in names}
        for name in set(names) & set(PARTS_OF):       # before the first runs
            options[name].parts(PARTS_OF[name], name)
        for name in names:
            known[name](options[name])
    except UsageError as error:
        print(f"reproduce.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

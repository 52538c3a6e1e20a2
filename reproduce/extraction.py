"""Fig. 11: other ways to extract a policy from the same data; when its order holds (map, ...)."""
import copy
import math
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from baselines import awr_loss, awr_weights, plain_loss, ppo_loss
from lab.files import load_dataset, shortest
from labels import label, step_advantages
from recap import train_policy
from reproduce import plots
from reproduce.cache import data_of, folder_of, make_runs, network_of
from reproduce.stages import settings_for
from reproduce.statistics import best_of, gain, row_of, rows_of, spread, table
from value import predict_values

# ---------------------------------------------------------------- the methods

# AWR's T, in standard deviations of A, by what A is taken from (`methods`).  On FoldShirt the
# effective number of steps is 51, 40, 34, 30 and 42 % from the mean, and 4, 4, 6, 34 and 82 %
# from the 95 % quantile (RECAP calls a fifth positive).
TEMPERATURES = {"mean": (0.1, 0.2, 0.3, 0.5, 1.0), "q95": (0.1, 0.3, 0.5, 1.0, 2.0)}
# PPO's ε (paper: 0.01; inf: no penalty), by the share of the others' learning rate.  At the full
# rate PPO ruins the policy, and where r is near 0 Eq. 11 has next to no gradient that leads back.
PPO = {
    1.0: (0.01, 1.0),
    0.3: (100.0,),
    0.1: (0.01, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0, 10_000.0, math.inf),
    0.03: (1.0, 100.0, 1000.0, 10_000.0, 100_000.0, math.inf),
    0.01: (1000.0, math.inf),
}
# The best of the methods that train at RECAP's learning rate, and other shares of it (`rate`).
AT_OTHER_RATES = ("filtered imitation", "positives only", "AWR T=0.2 mean")
RATES = (0.3, 2.0)

def at_rate(name, share):
    """What a method is called at another share of the learning rate."""
    return f"{name} rate×{share:g}"

def methods(A, positive, success, reference):
    """{name: keyword arguments of `recap.train_policy`}, and "rate", a share of the learning rate.

    A: advantages of all steps, a tensor (M,).  positive, success: bool (M,), per step.
    reference: π_ref of PPO.

    AWR's weights are of A less its mean, as in [68], or less its 95 % quantile.  In exp(A / T)
    scaled to mean 1 the shift changes nothing but where the clip lies.  From the mean the best
    steps share the largest weight; the smaller T is, the more of them do.  From the quantile it is
    T that sets them apart, and a handful gets nearly all.
    """
    found = {
        "imitation": {"loss": plain_loss},
        "filtered imitation": {"loss": plain_loss, "drawn": success},
        "positives only": {"loss": plain_loss, "drawn": positive},
    }
    zero = {"mean": A.mean(), "q95": A.quantile(0.95)}
    for name, temperatures in TEMPERATURES.items():
        for T in temperatures:
            weight = awr_weights((A - zero[name]) / A.std(), T)  # (M,)
            columns = {"weight": weight / weight.mean()}
            found[f"AWR T={T:g} {name}"] = {"loss": awr_loss, "columns": columns}
    for rate, sizes in PPO.items():
        for size in sizes:
            loss = partial(ppo_loss, reference=reference, epsilon_ar=size, epsilon_flow=size)
            arguments = {"loss": loss, "columns": {"advantage": A}, "rate": rate}
            found[at_rate(f"PPO ε={size:g}", rate)] = arguments
    return found


METHODS = tuple(methods(torch.arange(2.0), None, None, None))
# What the sweeps chose on the first seeds, for --again, and what else C6 looks at: two of AWR, PPO
# with and without a penalty, and at a tenth of the learning rate a small and a wide trust region.
CHOSEN = (
    "filtered imitation", "positives only", "AWR T=0.2 mean", "AWR T=0.3 q95",
    "PPO ε=0.01 rate×0.1", "PPO ε=1 rate×0.1", "PPO ε=100000 rate×0.03", "PPO ε=inf rate×0.03",
)  # fmt: skip

def with_other_rates(known):
    """`methods` and, of AT_OTHER_RATES, the same at RATES."""
    found = dict(known)
    for name in AT_OTHER_RATES:
        for share in RATES:
            found[at_rate(name, share)] = known[name] | {"rate": share}
    return found

def file_of(name, start="supervised_pre"):
    """What a method's evaluation is called in a run's folder.  start: see `extract`."""
    end = "" if start == "supervised_pre" else f"_from_{start}"
    # Not all file systems and archives keep letters beyond ASCII.
    return name.replace(" ", "_").replace("ε", "eps").replace("×", "x") + end

def extract(run, names, starts=("supervised_pre",)):
    """The methods `names` on the data and labels of a run's last iteration.

    run: finished.  starts: names of networks of the run, from each of which training starts.
    As many steps as RECAP's.  Each leaves eval_NAME_beta1.json in the run's folder.
    """
    s = run.settings
    K = s.iterations
    D = data_of(run.out, K)
    values = predict_values(network_of(run.out, f"V_{K}"), D)
    A = np.concatenate(step_advantages(values, D, s, K))
    A = torch.as_tensor(A, dtype=torch.float32)  # (M,)
    positive = np.concatenate(label(values, D, s, K))  # (M,)
    success = np.concatenate([np.full(len(e), e.success) for e in D])  # (M,)
    for start in starts:
        network = network_of(run.out, start)
        reference = copy.deepcopy(network).requires_grad_(False)
        known = with_other_rates(methods(A, positive, success, reference))
        for name in [name for name in known if name in names]:
            arguments = known[name]
            rate = arguments.pop("rate", 1.0)
            slower = replace(s, fine_tuning_rate=s.fine_tuning_rate * rate)
            train = partial(train_policy, **arguments)
            file = file_of(name, start)
            begin = copy.deepcopy(network)
            # Where PPO's r is near 0 its gradients are below 1e-38, and a CPU takes its time.
            torch.set_flush_denormal(True)
            # No I: none of these networks is shown the indicator.
            pi = run.keep(f"baseline_{file}", train, begin, D, None, slower, s.policy_steps)
            torch.set_flush_denormal(False)
            run.evaluate(file, pi, indicator=None)

def fig11(o):
    """Fig. 11: policies from the same data.  T and ε are swept on every seed, all are shown.

    With --again nothing is swept: there are the CHOSEN alone.
    """
    names = o.parts(CHOSEN if o.again else METHODS, "fig11")
    group = [settings_for("fold_shirt", seed, o.quick) for seed in o.seeds]
    folders = make_runs(group, o.jobs, partial(extract, names=names))
    s = group[0]
    last = f"recap_{s.iterations}"
    shown = [("supervised", 1.0), ("supervised_sft", 1.0), ("offline_rl_sft", 1.0)]
    stages = rows_of(folders, [*shown, (last, 1.0), (last, s.beta)])
    rows = stages | {name: row_of(folders, file_of(name)) for name in names}
    print(o.header(s.evaluation_episodes))
    print(table(rows, base="offline_rl_sft β=1"))
    accuracy = [f"{name} {np.mean(row['subtask_accuracy']):.3f}" for name, row in rows.items()]
    print("subtask accuracy: " + ", ".join(accuracy))
    draw_methods(o, o.keep("fig11", rows))

def draw_methods(o, rows):
    """Two pictures: seven rows, of AWR and PPO the best, and the sweeps of both."""
    ours = [name for name in rows if name.startswith("recap_")]
    awr = [name for name in METHODS if name.startswith("AWR") and name in rows]
    ppo = [name for name in METHODS if name.startswith("PPO") and name in rows]
    shown = ["offline_rl_sft β=1"]
    for kind in ("filtered imitation", "positives only", "AWR", "PPO"):
        if any(name.startswith(kind) for name in rows):
            shown.append(best_of(rows, kind))
    drawn = {name: rows[name] for name in (*shown, *ours) if name in rows}
    o.draw("fig11", plots.bars, {"fold_shirt": drawn})
    imitation = [name for name in METHODS if name in rows and name not in (*awr, *ppo)]
    others = ["supervised β=1", "supervised_sft β=1"]
    sweeps = {
        "fold_shirt, imitation and AWR": [*others, *imitation, *awr],
        "fold_shirt, PPO": ppo,
    }
    groups = {title: {x: rows[x] for x in names} for title, names in sweeps.items() if names}
    o.draw("fig11_sweep", plots.bars, groups)

# ---------------------------------------------------------------- when the order of Fig. 11 holds

# AWR at what is best in Fig. 11, from the mean and from the quantile; PPO within 4 % of its best
# with a penalty, and at its best, which has none.
MAPPED = (
    "filtered imitation", "positives only", "AWR T=0.2 mean", "AWR T=0.3 q95",
    "PPO ε=10000 rate×0.03", "PPO ε=inf rate×0.03",
)  # fmt: skip
# One thing at a time changed from the base point, the worst data last.  After 20 steps of SFT, in
# the place of 700, π⁰ succeeds in 47 ± 7 % of the episodes.  (After fewer, the first steps of
# AdamW, at the full rate, would have broken it.)
POINTS = {
    "base": {},
    "1000 gradient steps": dict(policy_steps=1000),
    "7000 gradient steps": dict(policy_steps=7000),
    "14000 gradient steps": dict(policy_steps=14_000),
    "half of RECAP's draws positive": dict(balance=0.5),
    "2 % positive": dict(positive=0.02),
    "50 episodes collected": dict(autonomous=38, corrected=12),
    "600 episodes collected": dict(autonomous=450, corrected=150),
    # as in Fig. 9, and in the paper's Fig. 11
    "none corrected, 10 % positive": dict(autonomous=200, corrected=0, positive=0.1),
    "pre-trained on the target alone": dict(pretraining_tasks="fold_shirt"),
    "20 steps of SFT": dict(sft_steps=20),
    "20 steps of SFT, none of 600 corrected": dict(sft_steps=20, autonomous=600, corrected=0),
    "images": dict(vision=True),
    "images, 50 episodes collected": dict(vision=True, autonomous=38, corrected=12),
}
# Of these, what differs in the number of gradient steps alone.
STEPS = {
    1000: "1000 gradient steps", 3500: "base", 7000: "7000 gradient steps",
    14_000: "14000 gradient steps",
}  # fmt: skip

def map_settings(seed, quick, **change):
    """Of the base point; more in `change`."""
    base = dict(iterations=1, evaluation_episodes=500)
    return settings_for("fold_shirt", seed, quick, **(base | change))

def map_of_methods(o):
    """The methods of Fig. 11 at every point of POINTS, beside the best AWR there.

    AWR's T and PPO's ε are the best of the very episodes that are shown: it favours them a little.
    """
    points = o.parts(tuple(POINTS), "map")
    if o.quick and not o.only:
        points = points[::3]
    groups = {}
    everything = []
    for point in points:
        groups[point] = [map_settings(seed, o.quick, **POINTS[point]) for seed in o.seeds]
        everything += groups[point]
    make_runs(everything, o.jobs, partial(extract, names=MAPPED))

    result = {}
    for point, group in groups.items():
        result[point] = row_of_point(point, group)
        print(f"\n{result[point]['label']}; {o.header(group[0].evaluation_episodes)}")
        rows = result[point]["rows"]
        print(table(rows, base=best_of(rows, "AWR")))

    kept = o.keep("map", result)
    draw_map(o, kept)
    draw_steps(o, kept)

def guided_row(o):
    """Name of guided RECAP's row in the map."""
    return f"recap_1 β={shortest(map_settings(0, o.quick).beta)}"

def draw_steps(o, result):
    """Every method over gradient steps; of AWR and PPO what is best after the most of them."""
    points = {n: result[point]["rows"] for n, point in STEPS.items() if point in result}
    if len(points) < 2:
        return
    last = points[max(points)]
    names = [guided_row(o), "recap_1 β=1", "positives only", "filtered imitation"]
    names += [best_of(last, "AWR"), best_of(last, "PPO")]
    drawn = {name: {n: rows[name] for n, rows in points.items()} for name in names}
    o.draw("map_steps", plots.over_steps, drawn)

def draw_map(o, result):
    """Who wins, where: at every point RECAP, imitation and the best PPO beside the best AWR."""
    guided = guided_row(o)
    drawn = {}
    # With --only, what was measured later lies last in the file.
    in_order = [result[point] for point in POINTS if point in result]
    for x in in_order:
        rows = x["rows"]
        awr = best_of(rows, "AWR")
        shown = (guided, "recap_1 β=1", "positives only", "filtered imitation")
        drawn[x["label"]] = {name: gain(rows, name, awr) for name in shown}
        drawn[x["label"]]["PPO, the best there"] = gain(rows, best_of(rows, "PPO"), awr)
    n = len(o.seeds)
    title = "throughput relative to the best AWR there, "
    title += f"95 % intervals over n = {n} seeds" if n > 1 else "n = 1 seed: no interval"
    o.draw("map", partial(plots.ratios, limits=(0.6, 1.6)), drawn, title)

def row_of_point(point, group):
    """{"label", "failed", "rows"} of one point.  group: its settings, one per seed."""
    s = group[0]
    folders = [folder_of(settings) for settings in group]
    shown = [("supervised_sft", 1.0), ("offline_rl_sft", 1.0)]
    rows = rows_of(folders, [*shown, ("recap_1", 1.0), ("recap_1", s.beta)])
    rows |= {name: row_of(folders, file_of(name)) for name in MAPPED}
    failed = []
    for folder in folders:
        collected = load_dataset(f"{folder}/D_1.npz")
        failed.append(np.mean([not e.success for e in collected]))
    failed = spread(failed)
    share = f"{100 * failed['mean']:.0f} % failed"
    count = f"{s.autonomous} + {s.corrected} corrected, {share}; {s.policy_steps} steps"
    return {"label": f"{point}\n{count}", "failed": failed, "rows": rows}

def start(o):
    """The baselines from other networks than the supervised one, at the base point.

    From π_pre (its part without the indicator), and from imitation of all data.  The latter is the
    policy that collected them, as far as there is one, so PPO's ratios begin where PPO means them
    to; it has trained twice as long.
    """
    names = (
        "positives only", "AWR T=0.2 mean", "PPO ε=1 rate×0.1", "PPO ε=10 rate×0.1",
        "PPO ε=100 rate×0.1", "PPO ε=1000 rate×0.1", "PPO ε=10000 rate×0.03",
        "PPO ε=inf rate×0.03",
    )  # fmt: skip
    starts = {"pi_pre": "π_pre", "baseline_imitation": "imitation"}
    group = [map_settings(seed, o.quick) for seed in o.seeds]
    make_runs(group, o.jobs, partial(extract, names=("imitation", *names)))
    folders = make_runs(group, o.jobs, partial(extract, names=names, starts=tuple(starts)))
    s = group[0]
    rows = rows_of(folders, [("offline_rl_sft", 1.0), ("recap_1", 1.0), ("recap_1", s.beta)])
    rows["imitation"] = row_of(folders, file_of("imitation"))
    for name in names:
        rows[name] = row_of(folders, file_of(name))
        for begin, title in starts.items():
            rows[f"{name}, from {title}"] = row_of(folders, file_of(name, begin))
    print(f"start: {o.header(s.evaluation_episodes)}")
    print(table(rows, base="recap_1 β=1"))
    o.keep("ablation_start", {"about": "where the baselines start", "policy": rows})

def rate(o):
    """Are imitation and AWR held back by the learning rate that was chosen for RECAP?

    At the base point; RECAP itself has its own alone.
    """
    names = []
    for name in AT_OTHER_RATES:
        names += [name, *(at_rate(name, share) for share in RATES)]
    group = [map_settings(seed, o.quick) for seed in o.seeds]
    folders = make_runs(group, o.jobs, partial(extract, names=names))
    s = group[0]
    rows = rows_of(folders, [("offline_rl_sft", 1.0), ("recap_1", 1.0), ("recap_1", s.beta)])
    rows |= {name: row_of(folders, file_of(name)) for name in names}
    print(f"rate: {o.header(s.evaluation_episodes)}")
    print(table(rows, base="recap_1 β=1"))
    o.keep("ablation_rate", {"about": "imitation and AWR at other learning rates", "policy": rows})

"""One knob at a time: Apps. E and F of the paper, and what our design chose."""
import os
import re
from functools import partial

from collection import demonstrations
from lab.checks import heldout_demonstrations
from lab.files import shortest
from recap import new_value, train_value
from reproduce import plots
from reproduce.cache import folder_of, make_runs, metrics_of, opened, sized
from reproduce.rules import CORRECTED
from reproduce.statistics import gain, plus_minus, row_of, spread, table
from lab.workers import workers
from settings import Settings

def asked(words):
    """Settings of a row that trains with metadata and asks for these."""
    return dict(metadata=True, evaluation_metadata=words)


# FoldShirt whose operator corrects slowly.  A task of one's own is pre-trained alone.
SLOWLY = dict(task=os.path.join(os.path.dirname(__file__), "slow_operator.py:FOLD_SHIRT_SLOW"))

# name: (what it asks, settings common to all rows, {row: settings}); the first row is the default
ABLATIONS = {
    "lookahead": (
        "N of App. F (paper: 50 steps at 50 Hz)",
        {},
        {f"N = {n}": dict(lookahead=n) for n in (10, 1, 5, 20, 40)},
    ),
    "positive": (
        "fraction of positive labels (paper: 40 %, t-shirts 10 %)",
        {},
        {f"{p:.0%} positive": dict(positive=p) for p in (0.2, 0.1, 0.4, 0.7)},
    ),
    "positive_collar": (
        "fraction of positive labels where one failure mode is to go; FoldCollar, as in fig12",
        dict(task="fold_collar", iterations=2, corrected=0, evaluation_episodes=1000),
        {f"FoldCollar, {p:.0%} positive": dict(positive=p) for p in (0.2, 0.4)},
    ),
    "dropout": (
        "how often the indicator is left out (paper: 30 %)",
        {},
        {f"dropout {p:.0%}": dict(dropout=p) for p in (0.3, 0.1, 0.6)},
    ),
    "c_fail": (
        "C_fail of Eq. 5 and the range (-1, 0)",
        dict(iterations=2),
        {
            "C_fail = limit": {},
            "C_fail = limit / 4": dict(c_fail=0.25),
            "C_fail = limit / 2, N = 5": dict(c_fail=0.5, lookahead=5),
            "C_fail = 2 limits": dict(c_fail=2.0),
            "clipped at -1": dict(clip_returns=True),
        },
    ),
    "espresso": (
        "more gradient steps on Espresso, for SFT as for RECAP",
        dict(task="espresso", iterations=2),
        {
            "3500 steps": {},
            "10500 steps": dict(policy_steps=10_500),
            "SFT 10500 steps": dict(sft_steps=10_500, iterations=0),
        },
    ),
    "balance": (
        "how often the indicator is shown on positives (default: as the data are, a fifth)",
        {},
        {
            "as in the data": {},
            "half of the draws": dict(balance=0.5),
            "8 of 10 draws": dict(balance=0.8),
            "as in the data, 4 x the steps": dict(policy_steps=14_000),
            "half of the draws, 4 x the steps": dict(policy_steps=14_000, balance=0.5),
        },
    ),
    "balance_diverse": (
        "the same on FoldDiverse, where imitation of the positives is ahead (headline)",
        dict(task="fold_diverse", iterations=2, evaluation_episodes=1000),
        {
            "FoldDiverse, as in the data": {},
            "FoldDiverse, half of the draws": dict(balance=0.5),
        },
    ),
    "flow": (
        "what the expert puts out, and α_η of Eq. 4",
        {},
        {
            "â, (1 - η)²": {},
            "f, constant": dict(output="velocity", flow_weight="constant"),
            "f, e^{-η/2} (paper)": dict(output="velocity", flow_weight="paper"),
            "f, (1 - η)²": dict(output="velocity"),
            "â, e^{-η/2} (paper)": dict(flow_weight="paper"),
        },
    ),
    "sft": (
        "gradient steps of π⁰, on the same demonstrations",
        {},
        {"700 steps": {}, "3500 steps": dict(sft_steps=3500)},
    ),
    "restart": (
        "where π^k starts (Algorithm 1: π_pre)",
        dict(iterations=2),
        {"from π_pre": {}, "from π^{k-1}": dict(restart="last")},
    ),
    "insulation": (
        "knowledge insulation and the action tokens",
        {},
        {
            "both": {},
            "no insulation": dict(insulation=False),
            "no action tokens": dict(token_loss=False),
            "neither": dict(insulation=False, token_loss=False),
        },
    ),
    "corrections": (
        "human-gated corrections",
        {},
        {
            "150 + 50 corrected": {},
            "200 autonomous, none corrected": dict(autonomous=200, corrected=0),
            # ε_ℓ needs some that nobody helped
            "10 + 190 corrected": dict(autonomous=10, corrected=190),
            "I = True not forced": dict(force_corrections=False),
            "V without corrected episodes": dict(value_on_corrections=False),
        },
    ),
    "operator": (
        "is it our operator's pace that makes corrections bring speed? (C11)",
        {},
        {
            "50 corrected slowly": SLOWLY,
            "190 corrected slowly": SLOWLY | dict(autonomous=10, corrected=190),
        },
    ),
    "metadata": (
        "ask for it in the prompt, or condition on the advantage",
        {},
        {
            "no metadata": {},
            "metadata, not asked": dict(metadata=True),
            "asked: fast careful": asked("fast careful"),
            "asked: slow careless": asked("slow careless"),
        },
    ),
    "bodies": (
        "demonstrations of other robots in pre-training",
        {},
        {"one robot": {}, "four robots": dict(bodies=True)},
    ),
    "cameras": (
        "which images the networks read; one task, fewer steps, up to SFT",
        dict(
            vision=True, iterations=0, pretraining_tasks="fold_shirt", pretraining_steps=4000,
            sft_steps=2000, value_pretraining_steps=600,
        ),
        {"all three": {}, "base only": dict(cameras="base")},
    ),
    "pretraining": (
        "tasks of D_demo",
        {},
        {
            "five tasks": {},
            "three tasks": dict(pretraining_tasks="fold_shirt fold_collar box"),
            "the target alone": dict(pretraining_tasks="fold_shirt"),
        },
    ),
}  # fmt: skip

def settings_of_rows(variants, base, o):
    """{row: its `Settings`, one per seed}.  variants: {row: changes of `base`}.  o: the options."""
    groups = {}
    for row, change in variants.items():
        change = sized(base | change, o.quick)
        groups[row] = [Settings(seed=seed, **change) for seed in o.seeds]
    return groups

def ablation(name, o):
    """One knob over seeds: a table of policies, and of V.  Leaves results/ablation_NAME.json.

    With --again there are only the rows that C11 is judged by.
    """
    about, common, variants = ABLATIONS[name]
    if o.again:
        variants = {row: variants[row] for row in CORRECTED}
    base = dict(iterations=1, evaluation_episodes=500) | common
    groups = settings_of_rows(variants, base, o)
    make_runs(sum(groups.values(), []), o.jobs)

    rows = {}
    values = {}
    for row, group in groups.items():
        s = group[0]
        folders = [folder_of(settings) for settings in group]
        stages = [("rl_pretrained", 1.0), ("offline_rl_sft", 1.0)]
        checked = ["V_pre"]
        for k in range(1, s.iterations + 1):
            stages += [(f"recap_{k}", 1.0), (f"recap_{k}", s.beta)]
            checked.append(f"V_{k}")
        for stage, beta in stages:
            rows[f"{row} | {stage} β={shortest(beta)}"] = row_of(folders, stage, beta)
        reports = [metrics_of(folder)["value"] for folder in folders]
        values[row] = {}
        for V in checked:
            for key in VALUE_KEYS:
                values[row][f"{V} {key}"] = spread([report[V][key] for report in reports])
    o.keep(f"ablation_{name}", {"about": about, "policy": rows, "value": values})
    print(f"{name}: {about}; {o.header(s.evaluation_episodes)}\n")
    print(f"{table(rows)}\n\n{value_table(values)}")
    draw_knobs(o)

def draw_knobs(o):
    """Every knob that has been turned, in one picture: RECAP's throughput over its first row's."""
    drawn = {}
    for name in ABLATIONS:
        result = o.read(f"ablation_{name}")
        if result is not None:
            drawn |= rows_of_knob(name, result)
    if drawn:
        title = "throughput relative to the default, the first row of each knob (no marker); "
        title += "95 % intervals over seeds"
        how = {"limits": (0.6, 1.3), "columns": 2, "per_row": 0.09}
        o.draw("ablations", partial(plots.ratios, **how), drawn, title)

def rows_of_knob(name, result):
    """{label: {stage: `ratio`}} of one knob, without rows that have no RECAP or were not run."""
    rows = result["rows"]["policy"]
    variants = list(ABLATIONS[name][2])
    default = variants[0]
    # RECAP's stages of the default's last round, the guided one first.
    prefix = f"{default} | recap_"
    stages = [row.split(" | ")[1] for row in rows if row.startswith(prefix)][-2:]
    stages.reverse()
    drawn = {}
    for variant in variants:
        if not stages or f"{variant} | {stages[0]}" not in rows:
            continue
        label = variant
        if variant == default:
            K = stages[0].split()[0].removeprefix("recap_")
            label = f"{name}: {variant} (K = {K}, n = {len(result['seeds'])})"
        drawn[label] = {}
        for stage in stages:
            # Knobs of other K, and of other guided β, have one marker.
            title = re.sub(r"_\d+", "_K", stage)
            title = title if title.endswith("β=1") else "recap_K β="
            compared = gain(rows, f"{variant} | {stage}", f"{default} | {stage}")
            drawn[label][title] = compared
    return drawn


VALUE_KEYS = ("heldout_correlation", "heldout_loss", "train_loss")  # of `lab.checks.check_value`

def value_table(values):
    """{row: {key: `spread`}} as text."""
    width = 2 + max(len(row) for row in values)
    keys = next(iter(values.values()))
    lines = [f"{'':<{width}}" + "".join(f"{key:>27}" for key in keys)]
    for row, x in values.items():
        lines.append(f"{row:<{width}}" + "".join(plus_minus(y, 3).rjust(27) for y in x.values()))
    return "\n".join(lines)

# ---------------------------------------------------------------- web questions

def value_alone(settings):
    """V_pre and its check, without a policy.  Returns the report of `lab.checks.check_value`."""
    s = settings
    with opened(s, f"{folder_of(s)}-value") as run:
        D = run.keep("demonstrations", demonstrations, s)
        run.keep("value", train_value, new_value(s), D, s, s.value_pretraining_steps)
        trained_on = [e for e in D if e.task == s.task][: s.demonstrations]
        # Held out are as many in every row.
        run.check_value("value", trained_on, lambda: heldout_demonstrations(s, 100))
        return run.value_report["value"]

def web(o):
    """Sec. V-C: co-training V on questions "to avoid overfitting", with few and many episodes."""
    variants = {}
    for n in (10, 100):
        for share in (0.0, 0.25, 1.0):
            change = dict(evaluation_episodes=500, demonstrations=n, web=share)
            variants[f"{n} demonstrations, {share:g} questions per step"] = sized(change, o.quick)
    everything = []
    for change in variants.values():
        everything += [Settings(seed=seed, **change) for seed in o.seeds]
    with workers(o.jobs) as pool:
        reports = list(pool.map(value_alone, everything))
    n = len(o.seeds)
    values = {}
    for i, row in enumerate(variants):
        found = reports[i * n : (i + 1) * n]
        values[row] = {key: spread([report[key] for report in found]) for key in VALUE_KEYS}
    o.keep("ablation_web", {"about": "co-training of V on questions", "value": values})
    print(f"web: n = {n} seeds {tuple(o.seeds)}, mean ± s.e.\n\n{value_table(values)}")

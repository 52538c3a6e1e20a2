"""One knob at a time: Apps. E and F of the paper, and what our design chose.  `python reproduce.py ablation NAME`."""
import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

import claims
import plots
import recap
from experiments import folder_of, make_runs, metrics_of, opened, row_of, sized, spread, table
from settings import Settings

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
    "sft": ("gradient steps of π⁰, on the same demonstrations", {}, {"700 steps": {}, "3500 steps": dict(sft_steps=3500)}),
    "restart": ("where π^k starts (Algorithm 1: π_pre)", dict(iterations=2), {"from π_pre": {}, "from π^{k-1}": dict(restart="last")}),
    "insulation": ("knowledge insulation and the action tokens", {},
                   {"both": {}, "no insulation": dict(insulation=False), "no action tokens": dict(token_loss=False),
                    "neither": dict(insulation=False, token_loss=False)}),
    "corrections": ("human-gated corrections", {},
                    {"150 + 50 corrected": {}, "200 autonomous, none corrected": dict(autonomous=200, corrected=0),
                     "10 + 190 corrected": dict(autonomous=10, corrected=190),          # ε_ℓ needs some that nobody helped
                     "I = True not forced": dict(force_corrections=False), "V without corrected episodes": dict(value_on_corrections=False)}),
    "metadata": ("ask for it in the prompt, or condition on the advantage", {},
                 {"no metadata": {}, "metadata, not asked": dict(metadata=True),
                  "asked: fast careful": dict(metadata=True, ask="fast careful"), "asked: slow careless": dict(metadata=True, ask="slow careless")}),
    "bodies": ("demonstrations of other robots in pre-training", {}, {"one robot": {}, "four robots": dict(bodies=True)}),
    "cameras": ("which images the networks read; one task, fewer steps, up to SFT",
                dict(vision=True, iterations=0, pretraining_tasks="fold_shirt", pretraining_steps=4000, sft_steps=2000,
                     value_pretraining_steps=600),
                {"all three": {}, "base only": dict(cameras="base")}),
    "pretraining": ("tasks of D_demo", {}, {"five tasks": {}, "three tasks": dict(pretraining_tasks="fold_shirt fold_collar box"),
                                            "the target alone": dict(pretraining_tasks="fold_shirt")}),
}


def ablation(name, o):
    """One knob over seeds: a table of the policies up to the last iteration, and of V.  -> results/ablation_NAME.json"""
    about, common, variants = ABLATIONS[name]
    rows, values = {}, {}
    make = lambda seed, change: Settings(seed=seed, **sized(dict(iterations=1, episodes=500) | common | change, o.quick))
    all_settings = {row: [make(seed, change) for seed in o.seeds] for row, change in variants.items()}
    make_runs([s for group in all_settings.values() for s in group], o.jobs)
    for row, group in all_settings.items():
        folders, k = [folder_of(s) for s in group], group[0].iterations
        ours = ((f"recap_{k}", 1.0), (f"recap_{k}", group[0].beta)) if k else ()
        for stage, beta in (("rl_pretrained", 1.0), ("offline_rl_sft", 1.0), *ours):
            rows[f"{row} | {stage} β={beta:g}"] = row_of(folders, stage, beta)
        reports = [metrics_of(folder) for folder in folders]
        values[row] = {f"{v} {key}": spread([x["value"][v][key] for x in reports]) for v in ("V_pre", *([f"V_{k}"] if k else []))
                       for key in VALUE_KEYS}
    o.keep(f"ablation_{name}", {"about": about, "policy": rows, "value": values})
    print(f"{name}: {about}; n = {len(o.seeds)} seeds, {next(iter(rows.values()))['episodes']} episodes each, mean ± s.e.\n")
    print(f"{table(rows)}\n\n{value_table(values)}")
    draw_knobs(o)


def draw_knobs(o):
    """Every knob that has been turned, in one picture: RECAP's throughput relative to that of the knob's first row."""
    drawn = {}
    for name, (_, _, variants) in ABLATIONS.items():
        if (result := o.read(f"ablation_{name}")) is None:
            continue
        rows, default = result["rows"]["policy"], next(iter(variants))
        ours = [key.split(" | ")[1] for key in rows if key.startswith(f"{default} | recap_")][::-1]            # guided first
        for row in [row for row in variants if ours and f"{row} | {ours[0]}" in rows]:       # what was kept may lack a newer row
            label = row if row != default else f"{name}: {row} (K = {ours[0].split()[0].removeprefix('recap_')}, n = {len(result['seeds'])})"
            drawn[label] = {re.sub(r"_\d+", "_K", stage): claims.gain(rows, f"{row} | {stage}", f"{default} | {stage}") for stage in ours}
    if drawn:
        o.draw("ablations", partial(plots.ratios, limits=(0.6, 1.3)), drawn, "throughput relative to the default, the first row of each "
               "knob (no marker); 95 % interval over seeds, filled: it excludes 1")


VALUE_KEYS = ("heldout_correlation", "heldout_loss", "train_loss")       # of a report of `recap.check_value`


def value_table(values):
    """{row: {key: `spread`}} as text."""
    width = 2 + max(map(len, values))
    text = [f"{'':<{width}}" + "".join(f"{key:>27}" for key in next(iter(values.values())))]
    for row, x in values.items():
        text.append(f"{row:<{width}}" + "".join(f"{y['mean']:.3f} ± {y['se'] or 0:.3f}".rjust(27) for y in x.values()))
    return "\n".join(text)


def value_alone(settings):
    """V_pre and its check, no policy.  -> the report of `recap.check_value`"""
    with opened(settings, folder_of(settings) + "-value") as run:
        D = run.data("D_demo", lambda: recap.multi_task_demonstrations(settings))
        V = run.net("V_pre", lambda: recap.train_value(recap.new_value(settings), D, settings, settings.value_pretraining_steps))
        mine = [e for e in D if e.task == settings.task][:settings.demonstrations]
        many = replace(settings, demonstrations=100)         # held out are as many in every row
        recap.check_value(run, "V_pre", V, mine, lambda: recap.demonstrate(many, settings.task, recap.MIXED, "held out"))
        return run.value_report["V_pre"]


def web(o):
    """Sec. V-C: co-training V on questions "to avoid overfitting", with few and with many demonstrations of each task."""
    variants = {f"{n} demonstrations, {share:g} questions per step": dict(demonstrations=n, web=share)
                for n in (10, 100) for share in (0.0, 0.25, 1.0)}
    group = [Settings(seed=seed, **sized(dict(episodes=500) | change, o.quick)) for change in variants.values() for seed in o.seeds]
    with ProcessPoolExecutor(o.jobs) as pool:
        reports = list(pool.map(value_alone, group))
    n = len(o.seeds)
    values = {row: {key: spread([x[key] for x in reports[i * n:(i + 1) * n]]) for key in VALUE_KEYS} for i, row in enumerate(variants)}
    o.keep("ablation_web", {"about": "co-training of V on questions", "value": values})
    print(f"web: n = {n} seeds {tuple(o.seeds)}, mean ± s.e.\n\n{value_table(values)}")

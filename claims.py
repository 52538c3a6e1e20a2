"""The claims of the paper, each with our measure, our figure and a verdict; and the intervals that decide it.

A verdict is a rule, not an opinion: every claim is a list of conditions, all of them met: reproduced, some: partly, none: not.
"Improves" wants the whole interval over training seeds above 1 (95 %, from a paired t test of log-ratios; of differences above 0); a number of the
paper's ("× 2", "97 %") wants our mean to reach it, with the interval (of rates: the standard error over seeds) beside it.
The paper evaluates with β = 1 unless it says otherwise, so conditions are judged at β = 1; what guidance adds stands beside
it.  `python reproduce.py claims` prints the table from results/*.json.
"""
import math

import numpy as np

# 97.5 % quantiles of Student's t by degrees of freedom, 1 to 9: with few seeds the normal's 1.96 would be far too narrow
T_975 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


def ratio(above, below):
    """Ratio of paired positive numbers, one pair per seed: geometric mean, and a 95 % interval from a t test of its log.

    low and high are None for a single pair, and where a number is 0 (then the ratio is that of the means, NaN for 0 / 0).
    """
    above, below = np.asarray(above, float), np.asarray(below, float)
    if (above <= 0).any() or (below <= 0).any():
        return {"ratio": float(above.mean() / below.mean()) if below.any() else math.nan, "low": None, "high": None, "n": len(above)}
    d = np.log(above) - np.log(below)                         # (n,)
    n, middle = len(d), d.mean()
    half = None if n < 2 else T_975[min(n, 10) - 2] * d.std(ddof=1) / math.sqrt(n)
    low, high = (None, None) if half is None else (math.exp(middle - half), math.exp(middle + half))
    return {"ratio": math.exp(middle), "low": low, "high": high, "n": n}


def failures(row):
    """Failure rate per seed; half a failure is added, so that none is no zero under a logarithm."""
    n = row["episodes"]
    return (n * (1 - np.array(row["success"]["values"])) + 0.5) / (n + 1)


def text_of(x):
    """A `ratio` as text."""
    if math.isnan(x["ratio"]):
        return "undefined"
    return f"× {x['ratio']:.2f}" + ("" if x["low"] is None else f" [{x['low']:.2f}, {x['high']:.2f}]")


SFT = "offline_rl_sft β=1"


def last(rows, guided=False):
    """Name of the last iteration's row, at β = 1 or at the recommended β."""
    K = max(int(name.split()[0].removeprefix("recap_")) for name in rows if name.startswith("recap_"))
    plain = f"recap_{K} β=1"
    return next(name for name in rows if name.startswith(f"recap_{K} ") and name != plain) if guided else plain


def gain(rows, above, below=SFT):
    """Throughput of one row over another's, as a `ratio`."""
    return ratio(rows[above]["throughput"]["values"], rows[below]["throughput"]["values"])


def best_of(rows, kind):
    """Name of the row of highest mean throughput among those whose name begins with `kind`."""
    return max((name for name in rows if name.startswith(kind)), key=lambda name: rows[name]["throughput"]["mean"])


def fewer_failures(rows, above, below=SFT):
    return ratio(failures(rows[above]), failures(rows[below]))


def surely(x, least):
    """The whole interval lies above `least`."""
    return x["low"] is not None and x["low"] > least


def surely_below(x, most):
    return x["high"] is not None and x["high"] < most


def surely_more(differences):
    """The 95 % interval of the mean of paired differences (n,) lies above 0."""
    d = np.asarray(differences, float)
    return bool(len(d) > 1 and d.mean() > T_975[min(len(d), 10) - 2] * d.std(ddof=1) / math.sqrt(len(d)))


def rate(x):
    return f"{100 * x['mean']:.1f} ± {100 * (x['se'] or 0):.1f} %"


# Each check takes the rows of the results that it needs and returns (figure as text, list of conditions met or not).

def hard_tasks_double(fig7):
    x = {task: (gain(fig7[task], last(fig7[task])), gain(fig7[task], last(fig7[task], True))) for task in ("fold_diverse", "espresso")}
    return "; ".join(f"{task} {text_of(a)}, guided {text_of(b)}" for task, (a, b) in x.items()), [a["ratio"] >= 2 for a, _ in x.values()]


def failures_halve(fig7):
    x = {task: fewer_failures(fig7[task], last(fig7[task])) for task in ("fold_diverse", "espresso", "fold_shirt", "box")}
    return "; ".join(f"{task} {text_of(a)}" for task, a in x.items()), [a["ratio"] <= 0.5 for a in x.values()]


def every_stage_improves(fig7):
    order, text, met = ("supervised β=1", "rl_pretrained β=1", SFT), [], []
    for task, rows in fig7.items():
        steps = [gain(rows, b, a) for a, b in zip(order, (*order[1:], last(rows)))]
        sft = gain(rows, SFT, "supervised_sft β=1")
        met += [surely(x, 1) for x in (*steps, sft)]
        text.append(f"{task}: " + ", ".join(f"{x['ratio']:.2f}" for x in steps)
                    + f"; SFT after offline RL over SFT after supervised {text_of(sft)}")
    return "each stage over the one before: " + "; ".join(text), met


def easy_laundry(fig9):
    rows = fig9["fold_shirt"]
    x, second, first = gain(rows, last(rows)), gain(rows, last(rows), "recap_1 β=1"), rows["recap_1 β=1"]["success"]
    return (f"{text_of(x)} after two iterations, the second over the first {text_of(second)}; success after the first {rate(first)}",
            [x["ratio"] >= 1.5, surely(second, 1), first["mean"] >= 0.9])


def box_improves(fig9):
    rows = fig9["box"]
    x, first, second = gain(rows, last(rows)), gain(rows, "recap_1 β=1"), gain(rows, last(rows), "recap_1 β=1")
    stages = np.array(rows[last(rows)]["per_stage_success"]) - np.array(rows[SFT]["per_stage_success"])       # (seeds, stages)
    return (f"{text_of(x)}, guided {text_of(gain(rows, last(rows, True)))}; after the first iteration {text_of(first)}, the second over it "
            f"{text_of(second)}; stages " + ", ".join(f"{100 * d:+.1f}" for d in stages.mean(0)) + " points",
            [x["ratio"] >= 2, surely(second, 1), all(surely_more(d) for d in stages.T)])


BY_FAR = 1.5         # in Fig. 11 RECAP has about twice the throughput of AWR and PPO; the paper prints no numbers


def beats_awr_and_ppo(rows):
    best = {kind: best_of(rows, kind) for kind in ("AWR", "PPO", "positives", "filtered")}
    best["PPO with a penalty"] = best_of({name: row for name, row in rows.items() if "ε=inf" not in name}, "PPO")
    plain = {name: gain(rows, last(rows), name) for name in best.values()}
    text = [f"{name}: {text_of(x)}, guided {text_of(gain(rows, last(rows, True), name))}" for name, x in plain.items()]
    over_sft, awr = {name: gain(rows, name) for name in (best["AWR"], best["PPO"])}, rows[best["AWR"]]["success"]
    begin, small, wide = (rows[name]["throughput"]["mean"] for name in ("supervised β=1", "PPO ε=0.01 rate×0.1", "PPO ε=1 rate×0.1"))
    return ("RECAP over the best of each sweep: " + "; ".join(text) + "; those over offline RL + SFT: "
            + "; ".join(f"{name} {text_of(x)}" for name, x in over_sft.items())
            + f"; success of that AWR {rate(awr)}; PPO per hour, from {begin:.0f}: ε = 0.01 {small:.0f}, ε = 1 {wide:.0f}",
            [plain[best["AWR"]]["ratio"] >= BY_FAR, plain[best["PPO"]]["ratio"] >= BY_FAR, not any(surely(x, 1) for x in over_sft.values()),
             awr["mean"] >= 0.9, small >= 0.9 * begin > wide])


def failure_mode_removed(fig12):
    rows = fig12["fold_collar"]
    plain, guided = rows[last(rows)], rows[last(rows, True)]
    text = {key: f"{rate(rows[SFT][key])} → {rate(plain[key])}, guided {rate(guided[key])}" for key in ("success", "failed_early")}
    return (f"success {text['success']}; the wrong way or a drop {text['failed_early']}",
            [plain["success"]["mean"] >= 0.97, plain["failed_early"]["mean"] <= 0.03])


KINDS_OF_MISTAKES = ("edge grasp", "slip", "edge let go", "let go")       # what they are: `reproduce.mistakes`


def drops_at_mistakes(fig4):
    auc = {kind: [rows[kind]["auc"]["mean"] for rows in fig4.values() if kind in rows] for kind in KINDS_OF_MISTAKES}
    n, ends = (sum(rows[kind][key] for rows in fig4.values() for kind in KINDS_OF_MISTAKES if kind in rows) for key in ("mistakes", "last"))
    return ("AUC, lowest to highest of the tasks: " + "; ".join(f"{kind} {min(x):.2f} to {max(x):.2f}" for kind, x in auc.items() if x)
            + f"; {n} mistakes, and {ends} left out", [min(x) >= 0.8 for x in auc.values() if x])


def moderate_guidance(cfg):
    text, met = [], []
    for task, rows in cfg.items():
        at = {float(name.split("β=")[1]): name for name in rows}
        x, far = gain(rows, at[1.5], at[1.0]), {beta: rows[at[beta]]["outside"]["mean"] for beta in (1.0, 1.5, 5.0)}
        text.append(f"{task}: β = 1.5 over 1 {text_of(x)}; outside the data's 99 %: "
                    + ", ".join(f"{100 * y:.1f} % at {b:g}" for b, y in far.items()))
        met += [surely(x, 1), far[5.0] > 2 * far[1.0]]
    return "; ".join(text), met


def one_iteration(fig7):
    x = {task: gain(rows, "recap_1 β=1") for task, rows in fig7.items()}
    return "; ".join(f"{task} {text_of(a)}" for task, a in x.items()), [surely(a, 1) for a in x.values()]


def corrections(ablation_corrections):
    rows = ablation_corrections["policy"]
    stage = max(name.split(" | ")[1] for name in rows if "recap" in name and name.endswith("β=1"))
    some, none, most = (f"{name} | {stage}" for name in ("150 + 50 corrected", "200 autonomous, none corrected", "10 + 190 corrected"))
    fewer, faster = fewer_failures(rows, some, none), gain(rows, some, most)
    return (f"failures {text_of(fewer)} (of 10 + 190: {text_of(fewer_failures(rows, most, none))}); throughput {text_of(faster)}, over 200 "
            f"autonomous ones {text_of(gain(rows, some, none))}", [surely_below(fewer, 1), surely(faster, 1)])


# number: (the paper's words, result that is needed and its command, our measure, check)
CLAIMS = {
    "C1": ("throughput “more than doubles on the diverse laundry folding and espresso tasks”", "fig7", "fig7",
           "last iteration over offline RL + SFT: ≥ 2", hard_tasks_double),
    "C2": ("“the rate of failure reduces by about a factor of two”", "fig7", "fig7", "failures, likewise: ≤ ½", failures_halve),
    "C3": ("“Each stage of RECAP improves performance”; offline RL + SFT “outperforms standard SFT”", "fig7", "fig7",
           "throughput: every interval above 1", every_stage_improves),
    "C4": ("laundry: “steady improvement yielding an overall 50% improvement in throughput”; the first iteration “raises the success rate "
           "to over 90%”", "fig9", "fig9", "autonomous data only, 10 % positive: ≥ 1.5; the second iteration over the first: interval "
           "above 1; ≥ 90 %", easy_laundry),
    "C5": ("box: “more data is needed …, but after the second iteration we see a ×2 improvement”; “the most consistent (and highest) "
           "success across all subtasks”", "fig9", "fig9", "last iteration over offline RL + SFT: ≥ 2; over the first: interval above "
           "1; success in every stage, reached after those before it: intervals above 0", box_improves),
    "C6": ("“by far the highest throughput … compared to AWR and PPO”, which “struggle to improve over” offline RL + SFT; AWR “a reasonable "
           "success rate” but “much slower”; PPO needs “a small trust-region constraint” to be stable", "fig11", "fig11",
           "same data (with corrections), same steps: × 1.5 of the best AWR and of the best PPO; neither surely above offline RL + SFT; AWR's "
           "success ≥ 90 %; at a tenth of the learning rate (at the full one PPO always fails) ε = 0.01 keeps 90 % of the throughput "
           "of the network it starts from, ε = 1 does not", beats_awr_and_ppo),
    "C7": ("removes a failure mode: “a policy that succeeds 97% of the time” after two iterations", "fig12", "fig12",
           "FoldCollar, no corrections: success ≥ 97 %; episodes that end in the failure mode (or a drop) ≤ 3 %", failure_mode_removed),
    "C8": ("the value function “correctly identifies mistakes”", "fig4", "fig4",
           "AUC (0.5: chance) of V(o_t) − V(o_t+1) for each kind in the simulator's record, what ends an episode left out: ≥ 0.8 on all tasks. "
           "A slip follows from the edge grasp, so a V that dropped there has nothing left to lose", drops_at_mistakes),
    "C9": ("“moderate settings (e.g. β ∈ [1.5, 2.5])” useful, high ones push actions “towards the boundaries of its learned support”",
           "cfg", "cfg", "β = 1.5 over 1; share of numbers outside, β = 5 over twice that of 1", moderate_guidance),
    "C10": ("“even one iteration often leads to significantly improved results”", "fig7", "fig7",
            "recap_1 over offline RL + SFT: intervals above 1", one_iteration),
    "C11": ("corrections “serve more to fix large mistakes”; the details, such as speed, come from “autonomous data”", "ablation_corrections",
            "ablation corrections", "150 autonomous and 50 corrected episodes: failures over those of 200 autonomous ones, interval below 1; "
            "throughput over that of 10 autonomous and 190 corrected ones, interval above 1", corrections),
}
# Why, as far as we can tell from rollouts and figures: {number: (the verdict that it explains, one sentence)}
WHY = {
    "C1": ("partly", "FoldDiverse starts from 20 % success and can gain a multiple; Espresso starts from 64 %, where × 2 takes "
           "speed, too, and what guidance adds in speed there it loses in failures."),
    "C2": ("reproduced", "The operator at his best hardly ever fails: for nearly every action that fails the data hold a better "
           "one, and V tells them apart."),
    "C3": ("partly", "Each stage improves on the one before (on Espresso the first not surely), but which pre-training SFT "
           "starts from matters little: 1 to 4 %. Pre-training is small here, and what SFT shows decides."),
    "C4": ("partly", "All of it comes with the first iteration; the second adds nothing that five seeds can show."),
    "C5": ("partly", "Nearly all failures of SFT are in the last stage, and so is nearly all that is gained; in the first, 99.6 % succeed "
           "before. Most comes with the first iteration."),
    "C6": ("partly", "Whether an action was good shows within a second here, so whatever prefers high advantages learns the good "
           "ones, and imitation of the positive steps alone is better than RECAP at β = 1. PPO is mostly the better the weaker "
           "its penalty; without any (ε = inf, a policy gradient at 3 % of the learning rate) it is as fast as RECAP at β = 1, "
           "but not as safe, and not on every seed. It starts far from the policy that collected the data: from imitation of "
           "them it comes level with AWR (ε = 100) and with guided RECAP (ε = inf; `ablation start`). A lower learning rate "
           "keeps it from ruin, not a smaller ε."),
    "C7": ("partly", "The failure mode is gone; most of what is left of the failures runs out of time. With guidance 97 % are reached."),
    "C8": ("partly", "V drops at the careless grasp; when the item then slips, or is let go before it does, V has nothing left to lose, and "
           "rises. A well held item let go at the wrong place is rare, and seen, but on FoldCollar, where it is the failure mode and "
           "V misses it."),
    "C9": ("partly", "What the positive steps have in common, speed above all, is exaggerated until it leaves the data. On Espresso, "
           "where haste spills, what is gained in speed is lost in failures."),
    "C10": ("reproduced", "One round of data and labels brings most of what two bring."),
    "C11": ("partly", "Corrections remove failures. But the more episodes are corrected, the faster the policy, too: the scripted operator "
            "helps smoothly and at once, while “intervening during autonomous execution is a disruptive event” for a person."),
}
FOUR = ("fold_diverse", "espresso", "fold_shirt", "box")
TASKS_OF = {"C1": FOUR[:2], "C2": FOUR, "C3": FOUR, "C4": ("fold_shirt",), "C5": ("box",), "C8": (*FOUR, "fold_collar"), "C9": (*FOUR, "fold_collar"),
            "C10": FOUR}       # not judged without all


def table(read, methods=()):
    """The table in Markdown.  read(name) -> {"seeds", "rows"} or None; results of fewer than three seeds are not judged.

    methods: names of the rows of Fig. 11 without which C6 is not judged, for then a sweep is not over.

    A sentence of `WHY` stands only beside the verdict that it was written for.
    """
    needed = TASKS_OF | {"C6": methods}
    lines = ["| | the paper | our measure | figure (95 % interval, or ± s.e., over seeds) | seeds | verdict | why |", "|" + "---|" * 7]
    for number, (words, name, command, measure, check) in CLAIMS.items():
        result = read(name)
        if result is None or not set(needed.get(number, ())) <= set(result["rows"]):
            figure, n, verdict = f"`python reproduce.py {command}` makes it", "–", "not measured"
        else:
            figure, met = check(result["rows"])
            n = ", ".join(map(str, result["seeds"]))
            verdict = ("too few seeds" if len(result["seeds"]) < 3 else "reproduced" if all(met) else
                       f"partly ({sum(met)} of {len(met)})" if any(met) else "not")
        explained, why = WHY[number]
        why = why if verdict.split(" (")[0] == explained else "–"
        lines.append(f"| {number} | {words} | {measure} | {figure} | {n} | **{verdict}** | {why} |")
    return "\n".join(lines)

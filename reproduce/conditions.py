"""When a claim holds that default runs do not show: C4, C5 (climb), C3 (handover), C8 (clock)."""
from labels import all_positive
from lab.files import load_dataset, read_json
from recap import train_policy
from reproduce.beyond import QUALITY, over_rounds
from reproduce.cache import folder_of, make_runs, metrics_of, network_of
from reproduce.stages import FIG9_SHIRT, settings_for
from reproduce.statistics import (
    SFT,
    gain,
    plus_minus,
    ratio_text,
    row_of,
    rows_of,
    spread,
    table,
)
from reproduce.value_traces import over_seeds, print_mistakes, value_checks

# ---------------------------------------------------------------- C4, C5: do more rounds help?

# {what: settings}.  Four rounds in the place of two, of ever fewer episodes.  A quarter of them is
# corrected but in the first row, which is Fig. 9's, with four rounds.
HARD = dict(task="fold_diverse", iterations=4)
CLIMBS = {
    "FoldShirt, 200 a round, none corrected, 10 % positive": dict(iterations=4, **FIG9_SHIRT),
    "FoldShirt, 200 a round": dict(iterations=4),
    "FoldShirt, 50 a round": dict(iterations=4, autonomous=38, corrected=12),
    "FoldShirt, 25 a round": dict(iterations=4, autonomous=19, corrected=6),
    "FoldDiverse, 50 a round": dict(autonomous=38, corrected=12, **HARD),
    "FoldDiverse, 25 a round": dict(autonomous=19, corrected=6, **HARD),
}

def climb(o):
    """Do four rounds climb step by step where each brings few episodes, or much is to gain?"""
    over_rounds("climb", CLIMBS, o)

# ---------------------------------------------------------------- C3: what SFT starts from

# How many demonstrations SFT sees, and for how many steps, beside the 100 and 700 of every run.
HANDOVERS = [(20, 200), (20, 100), (20, 50), (10, 100), (10, 50)]
# {what: which network SFT starts from}
STARTS = {"offline RL": "pi_pre", "supervised": "supervised_pre"}

def handovers(run):
    """SFT of both pre-trained networks on few demonstrations, for few steps."""
    s = run.settings
    D_0 = load_dataset(run.path("D_0.npz"))
    for n, n_steps in HANDOVERS:
        D = D_0[:n]
        for start in STARTS.values():
            pi = network_of(run.out, start)
            # As in Algorithm 1, and in `recap.supervised`, which is never shown the indicator.
            told = start == "pi_pre"
            I = all_positive(D) if told else None
            name = file_of(start, n, n_steps)
            # --quick has fewer steps in all.
            pi = run.keep(name, train_policy, pi, D, I, s, min(n_steps, s.sft_steps))
            run.evaluate(name, pi, indicator=True if told else None)

def file_of(start, n, n_steps):
    """What a row is called in a run's folder."""
    return f"handover_{start}_{n}_{n_steps}"

def handover(o):
    """SFT after offline RL against SFT after supervised pre-training, over SFT's size."""
    group = []
    for seed in o.seeds:
        change = dict(iterations=0, evaluation_episodes=500)
        group.append(settings_for("fold_shirt", seed, o.quick, **change))
    folders = make_runs(group, o.jobs, handovers)
    names = ("rl_pretrained", "supervised", "offline_rl_sft", "supervised_sft")
    rows = rows_of(folders, [(name, 1.0) for name in names])
    compared = {SFT: gain(rows, SFT, "supervised_sft β=1")}
    for n, n_steps in HANDOVERS:
        names = {}
        for what, start in STARTS.items():
            names[what] = f"{n} demonstrations, {n_steps} steps, after {what}"
            rows[names[what]] = row_of(folders, file_of(start, n, n_steps))
        compared[names["offline RL"]] = gain(rows, *names.values())
    print(f"handover: {o.header(group[0].evaluation_episodes)}")
    print(table(rows, base=SFT))
    for name, x in compared.items():
        print(f"{name}, over supervised: {ratio_text(x)}")
    about = "what SFT starts from, C3"
    o.keep("ablation_handover", {"about": about, "policy": rows, "compared": compared})

# ---------------------------------------------------------------- C7, C8: what V cannot see

CLOCKS = {"no clock": False, "a clock": True}  # does V see how much of the time limit is over?

def clock(o):
    """FoldCollar with and without a clock for V: V itself, the labels, and what is learnt."""
    groups = {}
    for what, seen in CLOCKS.items():
        change = dict(supervised=False, value_clock=seen)
        groups[what] = [settings_for("fold_collar", seed, o.quick, **change) for seed in o.seeds]
    make_runs(sum(groups.values(), []), o.jobs, value_checks)
    rows = {}
    of_V = {}
    of_labels = {}
    for what, group in groups.items():
        s = group[0]
        folders = [folder_of(settings) for settings in group]
        stages = [("offline_rl_sft", 1.0)]
        for k in range(1, s.iterations + 1):
            stages += [(f"recap_{k}", 1.0), (f"recap_{k}", s.beta)]
        found = rows_of(folders, stages)
        rows |= {f"{what} | {name}": row for name, row in found.items()}
        of_V[what] = over_seeds([read_json(folder, "drops_of_v.json") for folder in folders])
        reports = [metrics_of(folder) for folder in folders]
        heldout = [report["value"]["V_1"]["heldout_correlation"] for report in reports]
        of_V[what]["heldout_correlation"] = spread(heldout)
        first = [report["labels"][0] for report in reports]
        of_labels[what] = {key: spread([x[key] for x in first]) for key in QUALITY}
    print(f"clock: {o.header(s.evaluation_episodes)}")
    print(table(rows, base=f"no clock | recap_{s.iterations} β=1"))
    for what, x in of_V.items():
        print_clock(what, x, of_labels[what])
    about = "V sees how much of the time limit is over; FoldCollar"
    kept = {"about": about, "policy": rows, "value": of_V, "labels": of_labels}
    o.keep("ablation_clock", kept)

def print_clock(what, of_V, of_labels):
    """V¹ and the first labels of one row."""
    correlation = plus_minus(of_V["heldout_correlation"], 2)
    error = plus_minus(of_V["calibration error"], 3)
    print(f"{what}: V¹ with the return, correlation {correlation}; V − mean return {error}")
    good, bad = (100 * of_labels[key]["mean"] for key in QUALITY)
    print(f"  positive: {good:.0f} % of steps that look good, {bad:.0f} % of bad ones")
    print_mistakes(of_V)

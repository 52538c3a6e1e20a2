"""When a claim holds that the default runs do not show: C4 and C5 (climb), C3 (handover)."""
from labels import all_positive
from lab.files import load_dataset
from recap import train_policy
from reproduce.beyond import over_rounds
from reproduce.cache import make_runs, network_of
from reproduce.stages import settings_for
from reproduce.statistics import SFT, gain, ratio_text, row_of, rows_of, table

# ---------------------------------------------------------------- C4, C5: do more rounds help?

# {what: settings}.  Four rounds in the place of two, of ever fewer episodes, a quarter corrected.
HARD = dict(task="fold_diverse", iterations=4)
CLIMBS = {
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

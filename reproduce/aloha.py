"""ALOHA in MuJoCo (examples/aloha.py): RECAP beside imitation of the same data, at equal steps.

Not in the paper.  The questions: how much of the gain over a short SFT is more steps, or more data?
Has RECAP, for which a fifth of the draws are positive, seen the positives often enough?  So there
are rows with four times the steps, and rows in which half of the draws are positive.
"""
import copy
from dataclasses import replace
from functools import partial

import numpy as np

from labels import all_positive, label
from lab.files import load_dataset
from recap import train_policy
from reproduce.cache import data_of, make_runs, network_of, sized
from reproduce.statistics import row_of, rows_of, table
from settings import Settings
from value import predict_values

TASK = "examples/aloha.py:TRANSFER_CUBE"
IMITATION = ("SFT, as many steps", "all data, all positive", "positives only")
LONGER = 4  # times the steps of RECAP's fine-tuning, in the rows of MORE
BALANCE = 0.5  # of the draws that show the indicator are positive, in the rows that say so
# {name in a run's folder: the positives only?}
LONGER_IMITATION = {"all_positive_longer": False, "positives_longer": True}
# A row: its name in a run's folder, how many times the steps, balance.
MORE = (("recap_balanced", 1, BALANCE), ("recap_longer", LONGER, 0.0))
MORE += (("recap_balanced_longer", LONGER, BALANCE),)
SIZE = dict(
    task=TASK, iterations=1, demonstrations=150, autonomous=120, corrected=40,
    evaluation_episodes=300, pretraining_steps=4000, sft_steps=700, policy_steps=2500,
)  # fmt: skip

def others(run):
    """The other rows, from π_pre like RECAP, on the data and labels of its last iteration.

    run: finished.  Each row leaves eval_NAME_betaB.json in its folder.
    """
    s = run.settings
    D = data_of(run.out, s.iterations)
    values = predict_values(network_of(run.out, f"V_{s.iterations}"), D)
    I = label(values, D, s, s.iterations)
    positive = np.concatenate(I)  # (M,)
    D_0 = load_dataset(run.path("D_0.npz"))
    pi_pre = network_of(run.out, "pi_pre")

    def train(name, episodes, I, times=1, drawn=None, balance=0.0):
        make = partial(train_policy, drawn=drawn)
        n_steps = times * s.policy_steps
        own = replace(s, balance=balance)
        return run.keep(f"imitation_{name}", make, copy.deepcopy(pi_pre), episodes, I, own, n_steps)

    data = zip(IMITATION, ((D_0, None), (D, None), (D, positive)), strict=True)
    for name, (episodes, drawn) in data:
        name = file_of(name)
        run.evaluate(name, train(name, episodes, all_positive(episodes), drawn=drawn))
    # More steps, or more positives: for RECAP and, as far as they can have them, for imitation.
    for name, drawn in LONGER_IMITATION.items():
        pi = train(name, D, all_positive(D), LONGER, positive if drawn else None)
        run.evaluate(name, pi)
    for name, times, balance in MORE:
        pi = train(name, D, I, times, balance=balance)
        for beta in (1.0, s.beta):
            run.evaluate(name, pi, beta)

def file_of(name):
    """What a row is called in a run's folder."""
    return name.replace(", ", "_").replace(" ", "_")

def aloha(o):
    """One table: RECAP after each iteration, and imitation of the same data in as many steps."""
    group = [Settings(seed=seed, **sized(SIZE, o.quick)) for seed in o.seeds]
    folders = make_runs(group, o.jobs, others)
    s = group[0]
    rows = rows_of(folders, [("demonstrations", None), ("offline_rl_sft", 1.0)])
    rows |= {name: row_of(folders, file_of(name)) for name in IMITATION}
    for k in range(1, s.iterations + 1):
        rows |= rows_of(folders, [(f"recap_{k}", 1.0), (f"recap_{k}", s.beta)])
    for name, only in LONGER_IMITATION.items():
        words = "positives only" if only else "all data, all positive"
        rows[f"{words}, {LONGER} x the steps"] = row_of(folders, name)
    for name, times, balance in MORE:
        words = ", half of the draws positive" if balance else ""
        words += f", {times} x the steps" if times > 1 else ""
        for beta in (1.0, s.beta):
            rows[f"recap β={beta:g}{words}"] = row_of(folders, name, beta)
    print(o.header(s.evaluation_episodes))
    print(table(rows, base="all data, all positive"))
    longer = f", {LONGER} x the steps"
    rows_longer = {name: row for name, row in rows.items() if longer in name}
    print(f"\nat {LONGER} x the steps, over imitation of all data at as many:")
    print(table(rows_longer, base=f"all data, all positive{longer}"))
    o.keep("aloha", rows)

"""ALOHA in MuJoCo (examples/aloha.py): RECAP beside imitation of the same data, at equal steps.

Not in the paper.  The question: how much of the gain over a short SFT is more steps, or more data?
"""
import copy
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
SIZE = dict(
    task=TASK, iterations=1, demonstrations=150, autonomous=120, corrected=40,
    evaluation_episodes=300, pretraining_steps=4000, sft_steps=700, policy_steps=2500,
)  # fmt: skip

def imitate(run):
    """The rows of IMITATION, from π_pre like RECAP, on the data and labels of its last iteration.

    run: finished.  As many steps as RECAP's.  Each leaves eval_NAME_beta1.json in its folder.
    """
    s = run.settings
    D = data_of(run.out, s.iterations)
    values = predict_values(network_of(run.out, f"V_{s.iterations}"), D)
    positive = np.concatenate(label(values, D, s, s.iterations))  # (M,)
    D_0 = load_dataset(run.path("D_0.npz"))
    data = zip(IMITATION, ((D_0, None), (D, None), (D, positive)), strict=True)
    pi_pre = network_of(run.out, "pi_pre")
    for name, (episodes, drawn) in data:
        train = partial(train_policy, drawn=drawn)
        begin = copy.deepcopy(pi_pre)
        I = all_positive(episodes)
        pi = run.keep(f"imitation_{file_of(name)}", train, begin, episodes, I, s, s.policy_steps)
        run.evaluate(file_of(name), pi)

def file_of(name):
    """What a row is called in a run's folder."""
    return name.replace(", ", "_").replace(" ", "_")

def aloha(o):
    """One table: RECAP after each iteration, and imitation of the same data in as many steps."""
    group = [Settings(seed=seed, **sized(SIZE, o.quick)) for seed in o.seeds]
    folders = make_runs(group, o.jobs, imitate)
    s = group[0]
    rows = rows_of(folders, [("demonstrations", None), ("offline_rl_sft", 1.0)])
    rows |= {name: row_of(folders, file_of(name)) for name in IMITATION}
    for k in range(1, s.iterations + 1):
        rows |= rows_of(folders, [(f"recap_{k}", 1.0), (f"recap_{k}", s.beta)])
    print(o.header(s.evaluation_episodes))
    print(table(rows, base="all data, all positive"))
    o.keep("aloha", rows)

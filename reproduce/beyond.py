"""Beyond the paper (Sec. VII): RECAP online, in small rounds; an off-policy critic for labels."""
import copy

import numpy as np
import torch
import torch.nn.functional as F

from data import generator, stack_steps
from lab.checks import count_labels
from labels import label, step_advantages
from lab.files import read_json
from recap import train_policy, train_value
from reproduce import plots
from reproduce.ablations import settings_of_rows
from reproduce.cache import data_of, folder_of, make_runs, network_of, sized
from reproduce.stages import pace_of_positives
from reproduce.statistics import ratio, ratio_text, row_of, rows_of, spread, table
from settings import Settings
from training import optimise
from value import discretize, predict_values

# ---------------------------------------------------------------- online, in small rounds

# {what: settings}.  All collect 400 episodes, a quarter of them corrected, and train π for 7,000
# and V for 1,200 gradient steps in all.
ONLINE = dict(restart="all")
ROUNDS = {
    "2 rounds of 200, as in Algorithm 1": dict(iterations=2),
    "2 rounds of 200, going on": dict(iterations=2, **ONLINE),
    "8 rounds of 50, going on": dict(
        iterations=8, autonomous=38, corrected=12, policy_steps=875, value_steps=150, **ONLINE
    ),
    "16 rounds of 25, going on": dict(
        iterations=16, autonomous=19, corrected=6, policy_steps=437, value_steps=75, **ONLINE
    ),
}  # fmt: skip

def online(o):
    """Throughput against episodes collected: Algorithm 1's batches, and ever smaller rounds.

    The small rounds stand for a loop that collects while it trains: V and π go on from the last
    ones, and a robot would never wait for either.
    """
    over_rounds("online", ROUNDS, o)

def over_rounds(name, variants, o):
    """Every round of some kinds of rounds: a table of the last, and a picture of all.

    name: of the experiment.  variants: {what: settings}; the first of a task is the base of its
    table.
    """
    groups = settings_of_rows(variants, {"evaluation_episodes": 300}, o)
    make_runs(sum(groups.values(), []), o.jobs)
    result = {}
    last = {}  # {task: rows}
    for row, group in groups.items():
        s = group[0]
        folders = [folder_of(settings) for settings in group]
        names = ["offline_rl_sft", *(f"recap_{k}" for k in range(1, s.iterations + 1))]
        episodes = [k * (s.autonomous + s.corrected) for k in range(len(names))]
        plain = [row_of(folders, name) for name in names]
        guided = [plain[0], *(row_of(folders, name, s.beta) for name in names[1:])]
        result[row] = {"episodes": episodes, "β=1": plain, "guided": guided}
        rows = last.setdefault(s.task, {})
        rows |= {f"{row} | β=1": plain[-1], f"{row} | guided": guided[-1]}
    print(f"{name}: {o.header(s.evaluation_episodes)}")
    for rows in last.values():
        print(table(rows, base=next(iter(rows))))
    for row, found in result.items():
        for how in ("β=1", "guided"):
            compared = over_the_one_before(found[how])
            print(f"{row}, {how}: each round over the one before, {compared}")
    o.draw(name, plots.over_episodes, o.keep(f"ablation_{name}", result))

def over_the_one_before(rows):
    """Throughput of each round over that of the one before, as text."""
    compared = []
    for after, before in zip(rows[1:], rows):
        values = (row["throughput"]["values"] for row in (after, before))
        compared.append(ratio_text(ratio(*values)))
    return ", ".join(compared)

# ---------------------------------------------------------------- an off-policy critic

# All go on from V¹, Monte Carlo.  A round carries what it learns N steps towards the beginning:
# these are as many as the time limit takes.
CRITIC_ROUNDS = 15
# {what: τ of the expectile}; None: Monte Carlo, as in the paper, for as many steps.
CRITICS = {"mc": None, "td_0.5": 0.5, "td_0.7": 0.7, "td_0.9": 0.9}

def train_critic(value, D, s, tau):
    """Fitted N-step evaluation, off-policy for τ > 1/2: an alternative target for Eq. 1.

    In every round the target is Σ r + V(o_{t+N}) with V of the round before: it can join the good
    ends of some episodes to the good beginnings of others, as returns cannot.  Targets above V
    weigh τ, others 1 - τ: V becomes their τ-expectile (implicit Q-learning, without Q).
    value: V of Monte Carlo, trained in place; each round has half of V's usual gradient steps.
    D: episodes.  s: the settings.  Returns value.
    """
    steps = stack_steps(D, value.config.interface, s.device)
    for i in range(CRITIC_ROUNDS):
        V = predict_values(value, D)
        A = np.concatenate(step_advantages(V, D, s, None))  # (M,)
        V = np.concatenate(V)
        target = torch.as_tensor(np.clip(V + A, -1, 0), dtype=torch.float32)  # (M,)
        target = discretize(target).to(s.device)
        # Times 2: for τ = 1/2 it is the plain loss.
        weight = torch.as_tensor(2 * np.where(A > 0, tau, 1 - tau), dtype=torch.float32)
        weight = weight.to(s.device)
        g = generator(s.seed, f"critic {i} {len(V)}")

        def draw_loss():
            index = torch.randint(len(target), (s.value_batch,), generator=g)
            batch = {name: x[index] for name, x in steps.items()}
            logits = value(batch, batch["prompt"])  # (B, n_bins)
            loss = F.cross_entropy(logits, target[index], reduction="none")  # (B,)
            return (weight[index] * loss).mean()

        optimise(value, draw_loss, steps_of_round(s), s.value_learning_rate, "critic")
    return value

def steps_of_round(s):
    """Gradient steps of one round."""
    return max(1, s.value_steps // 2)

def critics(run):
    """V, labels and π by every critic, on the data of the finished run."""
    s = run.settings
    D = data_of(run.out, 1)
    V = network_of(run.out, "V_1")
    pi_pre = network_of(run.out, "pi_pre")
    I = label(predict_values(V, D), D, s, iteration=1)
    run.json("pace_1", lambda: pace_of_positives(D, I, s.interface.relative))
    for name, tau in CRITICS.items():
        how = (train_critic, tau)
        if tau is None:
            how = (train_value, CRITIC_ROUNDS * steps_of_round(s))
        make, last = how
        value = run.keep(f"critic_{name}", make, copy.deepcopy(V), D, s, last)
        I = label(predict_values(value, D), D, s, iteration=1)
        run.json(f"labels_critic_{name}", lambda: count_labels(value, I, D, s, 1))
        run.json(f"pace_critic_{name}", lambda: pace_of_positives(D, I, s.interface.relative))
        start = copy.deepcopy(pi_pre)
        pi = run.keep(f"critic_pi_{name}", train_policy, start, D, I, s, s.policy_steps)
        for beta in (1.0, s.beta):
            run.evaluate(f"critic_{name}", pi, beta)

QUALITY = ("positive_given_good", "positive_given_bad")  # of `lab.checks.count_labels`
CRITIC_QUALITY = (*QUALITY, "positive_fraction_failures")

def critic(o):
    """Does an off-policy critic make better labels than Monte Carlo, and these a better policy?"""
    change = sized(dict(iterations=1, evaluation_episodes=500), o.quick)
    group = [Settings(seed=seed, **change) for seed in o.seeds]
    folders = make_runs(group, o.jobs, critics)
    s = group[0]
    rows = rows_of(folders, [("offline_rl_sft", 1.0), ("recap_1", 1.0), ("recap_1", s.beta)])
    ends = {"recap_1": "1"}  # of the names of files
    for name in CRITICS:
        ends[f"critic_{name}"] = f"critic_{name}"
        rows |= rows_of(folders, [(f"critic_{name}", 1.0), (f"critic_{name}", s.beta)])
    quality = {}
    for name, end in ends.items():
        found = [read_json(folder, f"labels_{end}.json") for folder in folders]
        quality[name] = {key: spread([x[key] for x in found]) for key in CRITIC_QUALITY}
        paces = [read_json(folder, f"pace_{end}.json") for folder in folders]
        quality[name]["pace of positive steps"] = spread(paces)
    print(f"critic: {o.header(s.evaluation_episodes)}")
    print(table(rows, base="recap_1 β=1"))
    for name, x in quality.items():
        good, bad, failed, pace = (share["mean"] for share in x.values())
        print(f"{name:<14} positive: {good:.0%} of steps that look good, {bad:.0%} of bad ones,")
        print(f"{'':<14} {failed:.0%} of failures; they move the joints × {pace:.2f} of any step")
    about = "an off-policy critic in the place of returns"
    o.keep("ablation_critic", {"about": about, "policy": rows, "labels": quality})

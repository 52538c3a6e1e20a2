# %% [markdown]
# # 06 · Algorithm 1, step by step
#
# previous: [05 · VLA](05_vla.ipynb) · [contents](../README.md#learn) · next: [07 ·
# extraction](07_extraction.ipynb)
#
# Beside the paper: Algorithm 1, Sec. IV, Sec. V-D, Fig. 12; Eqs. 1, 2, 3; App. F
# (thresholds).
#
# `recap.recap` is Algorithm 1 in one function, which stands below beside the paper's
# listing. Then its lines stand in cells, at a size that runs in about a minute of
# CPU time, and after each line we look at what it made.
#
# The task is FoldCollar (Sec. VI-A, targeted failure removal; Fig. 12): two arms take a
# flat shirt at its collar and fold it over. Only "collar up" (towards the far side)
# counts. About half of the demonstrations fold it the wrong way. Reading time: about 30
# minutes.
#
# One run of this size, on one seed, is a demonstration and no evidence. The evidence is
# the table of the README (seeds that were not tuned on, 1,000 episodes each).

# %%
import sys
from pathlib import Path

# The folder above this one; Jupyter has no __file__, and starts in this one.
sys.path.insert(0, str(Path(globals().get("__file__", "notebook")).resolve().parents[1]))
import copy

import matplotlib.pyplot as plt
import numpy as np
import torch

import labels
import recap
import show
from collection import (
    coach, collect_iteration, demonstrations, roll_out, task_demonstrations,
)  # fmt: skip
from data import episode_seeds
from lab import plots
from lab.checks import correlation, heldout_demonstrations, heldout_rollouts, outcome_auc
from lab.evaluation import score
from lab.pictures import frames
from lab.tables import table
from settings import Settings
from sim_tasks.arms import CONTROL_HZ
from value import predict_values

torch.set_num_threads(1)
plt.rcParams.update({"figure.dpi": 80, "font.size": 10})
show.progress(recap)

# %% [markdown]
# ## 1. The algorithm
#
# > **Algorithm 1** RL with Experience and Corrections via Advantage-conditioned Policies
# >
# > **Require:** multi-task demonstration dataset $\mathcal D_\text{demo}$
# >
# > 1. Train $V_\text{pre}$ on $\mathcal D_\text{demo}$ using Eq. 1
# > 2. Train $\pi_\text{pre}$ on $\mathcal D_\text{demo}$ using Eq. 3 and $V_\text{pre}$
# > 3. Initialize $\mathcal D_\ell$ with demonstrations for $\ell$
# > 4. Train $V_\ell^0$ from $V_\text{pre}$ on $\mathcal D_\ell$ using Eq. 1
# > 5. Train $\pi_\ell^0$ from $\pi_\text{pre}$ on $\mathcal D_\ell$ using Eq. 3 and $V_\ell^0$
# > 6. **for** $k = 1$ to $K$ **do**
# > 7. &emsp; Collect data with $\pi_\ell^{k-1}$, add it to $\mathcal D_\ell$
# > 8. &emsp; Train $V_\ell^k$ from $V_\text{pre}$ on $\mathcal D_\ell$ using Eq. 1
# > 9. &emsp; Train $\pi_\ell^k$ from $\pi_\text{pre}$ on $\mathcal D_\ell$ using Eq. 3
# >    and $V_\ell^k$
# > 10. **end for**

# %%
show.source(recap.recap)

# %% [markdown]
# `keep` makes each product, and the command `python recap.py` gives one that writes it
# to a file, too. The settings of this page:

# %%
s = Settings(
    task="fold_collar", pretraining_tasks="", iterations=1, seed=0, evaluation_episodes=200,
    demonstrations=100, autonomous=80, corrected=20, pretraining_steps=1500, sft_steps=200,
    policy_steps=1200, value_pretraining_steps=300, value_steps=150,
)  # fmt: skip
spec = s.target
kinds = {True: "success", False: "failure"}
default = Settings(task="fold_collar")
names = "demonstrations autonomous corrected pretraining_steps sft_steps policy_steps"
for name in [*names.split(), "value_pretraining_steps", "value_steps"]:
    print(f"{name:<24}{getattr(s, name):>6}   (recap.py: {getattr(default, name)})")

# %% [markdown]
# `pretraining_tasks=""` leaves the target task alone in $\mathcal D_{demo}$; `recap.py`
# pre-trains on five. Five tasks would need more steps than we have here.
#
# ## 2. Require: $\mathcal D_{demo}$
#
# A scripted operator demonstrates: fast or slow, careful or careless, and up or down is
# a coin flip.

# %%
D_demo = demonstrations(s)

def tell(name, episodes):
    x = score(episodes)
    late = 1 - x["success"] - x["failed_early"]
    print(
        f"{name:<24}{x['episodes']:>4} episodes  {x['success']:>4.0%} succeed  "
        f"{x['failed_early']:>4.0%} fail early  {late:>4.0%} run out of time"
    )

tell("demonstrations", D_demo)
for words in sorted({e.metadata for e in D_demo}):
    tell(f"  {words}", [e for e in D_demo if e.metadata == words])

def strip(episodes):
    """One row per episode: its first, middle and last frame."""
    fig, axes = plt.subplots(
        len(episodes), 3, figsize=(7.5, 2.7 * len(episodes)), layout="constrained"
    )
    for row, e in zip(axes, episodes):
        steps = np.linspace(0, len(e) - 1, 3).astype(int)
        for ax, picture, t in zip(row, frames(spec, e, steps), steps):
            ax.imshow(picture)
            ax.set(xticks=[], yticks=[])
            ax.set_title(f"{t / CONTROL_HZ:.1f} s", fontsize=9, pad=2)
        row[0].set_ylabel(kinds[e.success])

strip(
    [
        next(e for e in D_demo if e.success),
        next(e for e in D_demo if not e.success and len(e) < e.max_length),
    ]
)

# %% [markdown]
# The first row folds towards the top of the picture, which is up. The second folds
# towards the bottom. "Fail early" is the wrong way, nearly always (a shirt that was
# dropped is the rest). Every step of both kinds goes into the data.
#
# ## 3. Line 1: train $V_{pre}$ on $\mathcal D_{demo}$ with Eq. 1
#
# $$ \min_\phi\; \mathbb E_{\tau\in\mathcal D}\Big[\sum_{\mathbf o_t\in\tau} H\big(R^B_t(\tau),\,
# p_\phi(V \mid \mathbf o_t, \ell)\big)\Big] \tag{1} $$
#
# $V$ predicts the return $R_t$, normalised to $(-1, 0)$: a success that takes $k$ more
# steps has $-k / (2 \cdot 55)$, a failure between $-1$ and $-1/2$. It is judged on
# demonstrations that it has not seen.

# %%
V_pre = recap.train_value(recap.new_value(s), D_demo, s, s.value_pretraining_steps)  # line 1
unseen = heldout_demonstrations(s, s.demonstrations)
print(
    f"correlation of V_pre with the return: {correlation(V_pre, D_demo, s):.2f} on its data, "
    f"{correlation(V_pre, unseen, s):.2f} on other demonstrations"
)
print(
    f"P(V of a success > V of a failure) in mid-episode, other demonstrations: "
    f"{outcome_auc(V_pre, unseen):.2f}"
)

# %% [markdown]
# Up or down is a coin that $V$ cannot see before the hands begin to move the shirt, so
# no $V$ reaches a correlation of 1 here.
#
# ## 4. Line 2: train $\pi_{pre}$ on $\mathcal D_{demo}$ with Eq. 3 and $V_{pre}$
#
# First the labels. In pre-training $A = R_t - V(o_t)$, and $\epsilon_\ell$ lets 30 % of
# the steps be positive (App. F). Then plain imitation of all steps, with the word
# "positive" or "negative" in the prompt, left out 30 % of the time:
#
# $$ \min_\theta\; \mathbb E_{\mathcal D}\big[ -\log\pi_\theta(\mathbf a_t\mid\mathbf o_t,\ell)
# \;-\;\alpha\,\log\pi_\theta(\mathbf a_t\mid I_t,\mathbf o_t,\ell)\big] \tag{3} $$

# %%
show.source(recap.eq3_loss, recap.train_policy)

# %%
values = predict_values(V_pre, D_demo)
I_demo = labels.label(values, D_demo, s, iteration=0)
A = labels.step_advantages(values, D_demo, s, iteration=0)
epsilon = labels.thresholds(A, D_demo, s, iteration=0)[s.task]
I_pre = np.concatenate(I_demo)
of_success = np.concatenate([np.full(len(e), e.success) for e in D_demo])
print(
    f"epsilon_l = {epsilon:.3f}; positive: {I_pre.mean():.1%} of all steps, "
    f"{I_pre[of_success].mean():.0%} of the steps of successes, "
    f"{I_pre[~of_success].mean():.0%} of those of failures"
)
assert abs(I_pre.mean() - s.positive_pretraining) < 0.001

pi_pre = recap.train_policy(recap.new_policy(s), D_demo, I_demo, s, s.pretraining_steps)  # line 2

# %% [markdown]
# ## 5. Lines 3 to 5: $\mathcal D_\ell$, and $\pi^0$ by SFT
#
# The demonstrations for $\ell$ come from a better operator; up or down is still a coin.
# Sec. V-D fixes $I_t$ = True in this stage, so line 5 is supervised fine-tuning and
# does not read $V^0$; we leave out line 4, which trains it.
#
# <details><summary><b>Predict before you run:</b> which succeeds more often, $\pi_{pre}$ told
# "positive", or $\pi^0$?</summary>
#
# $\pi_{pre}$. SFT calls *all* demonstrations positive, those that go down, too, so $\pi^0$
# unlearns what the word meant.
# </details>

# %%
D = task_demonstrations(s)  # line 3
tell("D_0", D)
I = labels.all_positive(D)
pi_0 = recap.train_policy(copy.deepcopy(pi_pre), D, I, s, s.sft_steps)  # line 5

seeds = episode_seeds(s.seed, "evaluation", s.evaluation_episodes)
stages = []
evaluated = {}

def try_out(name, policy, beta=1.0, indicator=True):
    episodes = roll_out(s, spec, seeds, policy, beta, indicator)
    tell(f"{name}, beta = {beta:g}", episodes)
    evaluated[name, beta, indicator] = episodes
    if indicator:
        stages.append({"name": name, "beta": beta} | score(episodes))

try_out("rl_pretrained", pi_pre)
try_out("offline_rl_sft", pi_0)

# %% [markdown]
# Every policy is evaluated on the same 200 starting states. That $\pi^0$ is worse is the
# adversarial start that Fig. 12 intends.
#
# ## 6. Line 7: collect with $\pi^0$
#
# Some episodes run alone. Others an expert watches, who takes over when something goes
# wrong and hands back (Sec. V-D, human-gated corrections).

# %%
show.source(collect_iteration, coach)

# %%
newest = collect_iteration(s, pi_0, 1)  # line 7
rollouts = [e for e in newest if e.source == "autonomous"]
corrected = [e for e in newest if e.source == "corrected"]
D = D + newest
tell("autonomous", rollouts)
tell("corrected", corrected)
expert = np.concatenate([e.intervention for e in corrected])
print(f"the expert was in control in {expert.mean():.0%} of the steps of corrected episodes")

fig, ax = plt.subplots(figsize=(8, 2.8), layout="constrained")
for row, e in enumerate(corrected):
    t = np.flatnonzero(e.intervention) / CONTROL_HZ
    ax.barh(np.full(len(t), row), 1 / CONTROL_HZ, left=t, color=plots.VERMILLION, height=0.75)
    ax.barh(row, len(e) / CONTROL_HZ, color="none", edgecolor=plots.GREY, height=0.75)
ax.set(
    xlabel="time (s)",
    ylabel="corrected episode",
    yticks=[],
    title="who is in control: policy (white), expert (orange)",
)
plt.show()

# %% [markdown]
# Nothing is dropped: the failures, the steps of the policy just before a takeover and
# the expert's own steps are all in $\mathcal D_\ell$ now.
#
# ## 7. Line 8: train $V^1$ from $V_{pre}$ on $\mathcal D_\ell$
#
# From $V_{pre}$ again, not from a later $V$. We judge it on fresh rollouts of $\pi^0$.

# %%
V = recap.train_value(copy.deepcopy(V_pre), D, s, s.value_steps)  # line 8
fresh = heldout_rollouts(s, pi_0, 1)
print(
    f"correlation with the return on fresh rollouts: V_pre {correlation(V_pre, fresh, s):.2f}, "
    f"V_1 {correlation(V, fresh, s):.2f}"
)
print(
    f"P(V of a success > V of a failure) in mid-episode: V_pre {outcome_auc(V_pre, fresh):.2f}, "
    f"V_1 {outcome_auc(V, fresh):.2f}"
)

fig, ax = plt.subplots(figsize=(5, 2.4), layout="constrained")
for success, colour, line in ((True, plots.BLUE, "-"), (False, plots.VERMILLION, "--")):
    same = sorted([e for e in fresh if e.success == success], key=len)
    for x in predict_values(V, same[len(same) // 2 - 1 : len(same) // 2 + 2]):
        ax.plot(np.arange(len(x)) / CONTROL_HZ, x, color=colour, linestyle=line)
    ax.plot([], [], color=colour, linestyle=line, label=f"{kinds[success]}: three of {len(same)}")
ax.set(
    xlabel="time (s)",
    ylabel="V(o), from -1 to 0",
    ylim=(-1, 0),
    title="$V^1$ along fresh rollouts of π⁰",
)
ax.legend(fontsize=9, frameon=False, loc="upper left")
plt.show()

# %% [markdown]
# ## 8. Line 9, first half: the labels
#
# $$ A(\mathbf o_t, \mathbf a_t) = \sum_{t'=t}^{t+N-1} r_{t'} + V(\mathbf o_{t+N}) -
# V(\mathbf o_t), \qquad I_t = \mathbb 1(A > \epsilon_\ell) $$
#
# with $N = 10$ steps. $\epsilon_\ell$ lets 20 % of the newest autonomous
# steps be positive (App. F: 40 %); older data and demonstrations are judged by the same
# $\epsilon_\ell$; what the expert did is True whatever $V$ thinks (Sec. IV-B).

# %%
show.source(labels.label)

# %%
values = predict_values(V, D)
A = labels.step_advantages(values, D, s, iteration=1)
epsilon = labels.thresholds(A, D, s, iteration=1)[s.task]
I = labels.label(values, D, s, iteration=1)

def share(chosen):
    return np.mean(np.concatenate(chosen))

print(f"epsilon_l = {epsilon:.3f}; share of positive steps:")
for kind in ("autonomous", "demonstration", "corrected"):
    print(f"  {kind:<16}{share([p for p, e in zip(I, D) if e.source == kind]):.0%}")
by_expert = np.concatenate([p[e.intervention] for p, e in zip(I, D)])
A_expert = np.concatenate([a[e.intervention] for a, e in zip(A, D)])
print(
    f"  the expert's     {by_expert.mean():.0%}   (without the rule of Sec. IV-B it would be "
    f"{(A_expert > epsilon).mean():.0%})"
)
assert by_expert.all()
assert abs(share([p for p, e in zip(I, D) if e.source == "autonomous"]) - s.positive) < 0.001

# %% [markdown]
# Which steps are positive, and why? Two checks that $V$ has no part in. First, what a
# bystander would say: a good grasp is good; an edge grasp or standing still is bad
# (`sim_tasks.toys.Toy.visible_quality`). Second, which way the shirt is carried.

# %%
mine = [(p, e) for p, e in zip(I, D) if e.source == "autonomous"]
for i, name in enumerate(("good", "bad")):
    steps = np.concatenate([p[spec.visible_quality(e.observations)[i]] for p, e in mine])
    print(f"P(+ | {name:<4}) = {steps.mean():.2f}   ({len(steps)} steps)")

def height(e):
    return e.observations["keypoints"][:, :2, 1].mean(1)  # (T,) m, mean y of both halves

def moves(e, sign):
    return np.append(sign * np.diff(height(e)) > 0.004, False)

for name, sign in (("up", 1), ("down", -1)):
    steps = np.concatenate([p[moves(e, sign)] for p, e in mine])
    print(f"P(+ | carried {name:<4}) = {steps.mean():.2f}   ({len(steps)} steps)")

fig, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
for p, e in mine[:14]:
    t = np.arange(len(e)) / CONTROL_HZ
    axes[0].plot(t, height(e), color=plots.GREY, linewidth=0.4, zorder=0)
    for yes, colour, marker in ((False, plots.VERMILLION, "x"), (True, plots.BLUE, "o")):
        axes[0].scatter(
            t[p == yes], height(e)[p == yes], s=9, color=colour, marker=marker, linewidths=0.8
        )
axes[0].scatter([], [], color=plots.BLUE, marker="o", label="positive")
axes[0].scatter([], [], color=plots.VERMILLION, marker="x", label="negative")
axes[0].set(
    xlabel="time (s)",
    ylabel="y of the collar (m)",
    xlim=(0, 7.4),
    title="14 rollouts of π⁰ and their labels",
)
axes[0].legend(loc="upper right", fontsize=9, frameon=False)
bins = np.linspace(-0.5, 0.5, 60)
for name, sign, colour in (("carried up", 1, plots.BLUE), ("carried down", -1, plots.VERMILLION)):
    values = np.concatenate([a[moves(e, sign)] for a, e in zip(A, D) if e.source == "autonomous"])
    axes[1].hist(
        values,
        bins,
        color=colour,
        alpha=0.6,
        label=name,
        histtype="stepfilled",
        hatch="//" if sign < 0 else None,
    )
axes[1].axvline(epsilon, color="black", linestyle="--", label="$\\epsilon_\\ell$")
axes[1].set(
    xlabel="advantage A (units of V, range 1)", ylabel="steps", title="the advantage of these steps"
)
axes[1].legend(fontsize=9, frameon=False)
plt.show()

# %% [markdown]
# The base rate is 20 %. A good grasp is positive more often than any step, and a bad one
# rarely. Most of what $V$ knows here is the way the collar goes: where the paths leave
# the middle, up is often positive and down hardly ever.
#
# The label is about the step, not about the episode: it compares with what was to be
# expected *there*. Why 20 % and not the paper's 40? Look at the very last steps of lost
# episodes:

# %%
A_new = [a for a, e in zip(A, D) if e.source == "autonomous"]
lost = {"ran out of time": [], "failed early": []}
for a, e in zip(A_new, [e for e in D if e.source == "autonomous"]):
    if not e.success:
        lost["ran out of time" if len(e) == e.max_length else "failed early"].append(a)
for name, some in lost.items():
    last = np.concatenate([a[-s.lookahead :] for a in some])  # A of their last N steps
    print(f"{len(some)} rollouts that {name}, mean A of their last steps {last.mean():+.3f}:")
    for fraction in (0.2, 0.4):
        at = labels.threshold(np.concatenate(A_new), fraction)
        print(f"  {fraction:.0%} positive, ε {at:+.3f}: {(last > at).mean():.0%} of them")

# %% [markdown]
# While there is time, ten steps without progress cost ten steps of reward and $V$ stays
# where it is: $A = -10 / 110 = -0.09$, the peak of the histogram.
#
# In the last $N$ steps
# nothing is bootstrapped, $A = R_t - V(o_t)$; a failure's return ends at $-1/2$, which
# is about what $V$ says of a lost state (it has no clock), so $A$ is around 0. At 40 %
# $\epsilon_\ell$ is, too, and most of these steps would be positive for nothing. At 20 %
# few are.
#
# ## 9. Line 9, second half: $\pi^1$ from $\pi_{pre}$
#
# The same loss as in line 2 on all of $\mathcal D_\ell$, from $\pi_{pre}$ and not from
# $\pi^0$ (Sec. V-D: against drift).
#
# <details><summary><b>Predict before you run:</b> the same data, all called positive, gave
# $\pi^0$-like imitation. How much is the word worth: 5, 20 or 40 points of success?</summary>
#
# About 40 here. The first line under "Change this line and see" is that experiment.
# </details>

# %%
pi_1 = recap.train_policy(copy.deepcopy(pi_pre), D, I, s, s.policy_steps)  # line 9
try_out("recap_1", pi_1)
try_out("recap_1", pi_1, s.beta)

# %% [markdown]
# The same network, asked otherwise: with "Advantage: negative", and without the
# indicator (which is $\pi_{ref}$, the mixture of all that is in the data; Eq. 2). The
# prompt is all that differs.

# %%
try_out("told negative", pi_1, indicator=False)
try_out("not told", pi_1, indicator=None)

# %%
metrics = {"task": s.task, "seed": s.seed, "stages": stages}
print(table(metrics))
plots.learning_curve(metrics, plt.figure(figsize=(9, 3.4), layout="constrained"))
plt.show()

# %%
before = stages[-3]
after = stages[-2]
difference = after["success"] - before["success"]
error = np.hypot(after["success_se"], before["success_se"])
print(
    f"RECAP k=1 at beta = 1 minus offline RL + SFT: {100 * difference:+.0f} points of success, "
    f"standard error of the evaluation {100 * error:.0f}"
)
assert difference > 3 * error

# %% [markdown]
# The standard error here is that of 200 episodes; it says nothing of other training
# seeds, and seeds differ by more. (`python -m reproduce fig12`, five seeds, full size,
# no corrections: 41.3 ± 4.6 % before, 94.2 ± 0.8 % after one iteration, ± over seeds.)
#
# ## 10. Look at it
#
# The same starting state, before and after: an episode that $\pi^0$ folds the wrong way
# and $\pi^1$ folds up.

# %%
pairs = zip(evaluated["offline_rl_sft", 1.0, True], evaluated["recap_1", 1.0, True])
strip(next((a, b) for a, b in pairs if not a.success and len(a) < a.max_length and b.success))

# %% [markdown]
# ## 11. Line 6: and so on
#
# The next round would collect with $\pi^1$, add to $\mathcal D_\ell$, and train $V^2$
# and $\pi^2$ from $V_{pre}$ and $\pi_{pre}$ again: `python recap.py --task fold_collar`
# does two rounds at full size. The command also keeps every product in a file
# (`lab.run.Run`), so that an interrupted run goes on.

# %% [markdown]
# ## Change this line and see
#
# - Sec. 9: `copy.deepcopy(pi_pre), D, I, s, s.policy_steps` to `copy.deepcopy(pi_pre), D,
#   labels.all_positive(D), s, s.policy_steps`: the same data, network and steps, and every
#   step called positive: 30 points or more fall away. The difference is what the labels are
#   worth here.
# - Sec. 5: `try_out("rl_pretrained", pi_pre)` to `try_out("rl_pretrained", pi_pre,
#   indicator=False)`: told "negative", $\pi_{pre}$ hardly ever succeeds. After pre-training
#   the word already decides.
#
# ## In three sentences
#
# > Pre-train V and π on many demonstrations, fine-tune π on good ones, and then repeat: collect,
# > fit V to all data, label, fit π to all data. Both always start from the pre-trained networks,
# > and no data are dropped. What improves the policy is the word, on the policy's own tries.
#
# previous: [05 · VLA](05_vla.ipynb) · [contents](../README.md#learn) · next: [07 ·
# extraction](07_extraction.ipynb)

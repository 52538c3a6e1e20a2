# %% [markdown]
# # 02 · Advantages, thresholds, the improvement indicator
#
# previous: [01 · value](01_value.ipynb) · [contents](../README.md#learn) · next: [03 ·
# flow](03_flow.ipynb)
#
# **Beside the paper:** Sec. III, Sec. IV-B, Eqs. 2 and 3, App. F. The code: in
# `labels.py` the functions `advantages`, `threshold`, `indicators` and `label`.
#
# You will see: how V becomes one word per step, "positive" or "negative"; what the
# lookahead N trades; three labelling bugs as numbers; which steps of an episode are
# positive; and, on a bandit where all is known, why imitating under the word "positive"
# improves the policy, when $\beta$ matters, when the guarantee does not hold, and what
# the 30 % dropout has to do with $\alpha$ of Eq. 3.
#
# 20 minutes to read, about a minute of one core to run.

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
from collection import collect_iteration, demonstrate, demonstrations
from data import episode_seeds
from lab.checks import correlation
from lab.evaluation import score
from lab.pictures import frames
from lab.plots import BLUE, GREEN, GREY, VERMILLION
from policy import VLA, PolicyConfig
from settings import Settings
from value import predict_values

torch.set_num_threads(1)
plt.rcParams.update({"figure.dpi": 80, "font.size": 10})
show.progress(recap)

# %% [markdown]
# ## 1. A small round of Algorithm 1
#
# Lines 1, 3, 5, 7 and 8, with few steps: V from demonstrations of two tasks; a policy
# that imitates demonstrations of the collar; its rollouts, some with corrections by an
# expert who takes over; V again, on all of that. The policy is weak, and that is
# welcome: its rollouts are good and bad.

# %%
s = Settings(
    task="fold_collar",
    pretraining_tasks="fold_collar fold_shirt",
    demonstrations=120,
    autonomous=150,
    corrected=50,
    value_batch=64,
)
D_demo = demonstrations(s)
V_pre = recap.train_value(recap.new_value(s), D_demo, s, 500)

seeds = episode_seeds(s.seed, "sft fold_collar fold_collar", s.demonstrations)
D = demonstrate(s.target, seeds, "good")
policy = VLA(PolicyConfig(s.interface))
recap.train_policy(policy, D, labels.all_positive(D), s, 700)
D = D + collect_iteration(s, policy, 1)
V = recap.train_value(copy.deepcopy(V_pre), D, s, 400)

rollouts = [e for e in D if e.source == "autonomous"]
corrected = [e for e in D if e.source == "corrected"]
for source in ("demonstration", "autonomous", "corrected"):
    some = [e for e in D if e.source == source]
    by_hand = np.concatenate([e.intervention for e in some]).mean()
    print(
        f"{source:<14}{len(some):>4} episodes, {sum(map(len, some)):>5} steps; "
        f"{score(some)['success']:.0%} succeed; corrections: {by_hand:.0%} of the steps"
    )
print(f"correlation of V with the return on the rollouts: {correlation(V, rollouts, s):.2f}")

# %% [markdown]
# ## 2. The advantage, and what N trades (Sec. III, App. F)
#
# $$ A(o_t, a_t) = \sum_{t'=t}^{t+N-1} r'_{t'} + V(o_{t+N}) - V(o_t) $$
#
# What did the next N steps bring, beyond what V expected?

# %%
show.source(labels.advantages)

# %% [markdown]
# The function is given
# returns, normalised as V is, and no rewards: with $r'_u = R'_u - R'_{u+1}$ the sum
# telescopes to $R'_t - R'_{t+N}$. The same, added up literally:

# %%
N = s.lookahead
e = rollouts[0]
(R,) = labels.episode_returns([e], s)
(v,) = predict_values(V, [e])
A = labels.advantages(R, v, N)
r = labels.rewards(len(e), e.success, s.c_fail * e.max_length)
r = r / (e.max_length * (1 + s.c_fail))  # normalised as V is
for t in range(len(e)):
    bootstrap = v[t + N] if t + N < len(e) else 0.0  # past the end: no bootstrap, the sum runs to T
    assert np.isclose(A[t], r[t : t + N].sum() + bootstrap - v[t])
assert np.allclose(A[-N:], (R - v)[-N:])
print(f"{len(e)} steps, N = {N}: the literal sums agree; the last {N} advantages are R'_t - V(o_t)")

# %% [markdown]
# Past the end there is nothing to bootstrap from: running out of time *is* the failure
# here, not a truncation.
#
# Now N. With N = T (pre-training) the advantage of a step contains all that comes after
# it, the luck and mistakes of later steps included. With a small N it contains only
# what V notices within N steps. An independent check of the labels:
# `sim_tasks.toys.Toy.visible_quality` marks steps that anyone would call good (a grasp is
# about to be a good one) or bad (an edge grasp is about to begin, or all stands still).
#
# <details><summary><b>Predict before you run:</b> with which N are the good steps positive
# most often, with N = 1, 10 or T?</summary>
#
# With a small one. With N = T the label says how the *episode* ended; good steps of bad
# episodes are called negative.
# </details>

# %%
seen = [s.target.visible_quality(e.observations) for e in rollouts]
good, bad = (np.concatenate(x) for x in zip(*seen))
which = np.concatenate([[i] * len(e) for i, e in enumerate(rollouts)])
won = np.concatenate([[e.success] * len(e) for e in rollouts])
lookaheads = (1, 5, 10, 20, 40, None)
rows = []
print("                                    positive (20 % of all steps) of the")
print("   N   spread of A   between episodes   good steps   bad steps   successes   failures")
R_rollouts = labels.episode_returns(rollouts, s)
V_rollouts = predict_values(V, rollouts)
for n in lookaheads:
    A = np.concatenate([labels.advantages(R, v, n) for R, v in zip(R_rollouts, V_rollouts)])
    means = np.array([A[which == i].mean() for i in range(len(rollouts))])
    between = (
        means[which].var() / A.var()
    )  # share of the variance that is the episode's, not the step's
    positive = labels.indicators(A, labels.threshold(A, 0.2))
    rows.append([between, positive[good].mean(), positive[bad].mean()])
    print(
        f"{'T' if n is None else n:>4}{A.std():>14.3f}{between:>19.0%}"
        f"{positive[good].mean():>13.0%}"
        f"{positive[bad].mean():>12.0%}{positive[won].mean():>12.0%}{positive[~won].mean():>11.0%}"
    )

# %%
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
names = (
    "variance of A between episodes",
    "good steps that are positive",
    "bad steps that are positive",
)
for column, label, colour, marker in zip(zip(*rows), names, (GREY, BLUE, VERMILLION), "sov"):
    ax.plot(range(len(rows)), 100 * np.array(column), color=colour, marker=marker, label=label)
ax.set_xticks(range(len(rows)), ["T" if n is None else n for n in lookaheads])
ax.set(xlabel="N (steps)", ylabel="%", ylim=(0, 100))
ax.legend(frameon=False, fontsize=9)
plt.show()

# %% [markdown]
# With a large N the label turns into the outcome of the episode: nearly all steps of
# successes are positive, those that grasp badly included, and the steps worth imitating
# are positive no more often than any other (20 %). With a small N the label belongs to
# the step.
#
# What a small N costs does not show here: it trusts V, and only what V
# notices within N steps counts. The paper takes N = 50 at 50 Hz, one second; N = 10 at
# 10 Hz is one second, too (`python -m reproduce ablation lookahead`). In pre-training N
# = T spares the second call of V, and much data averages out the luck.
#
# ## 3. Two bugs at the end of what is known
#
# *V was not computed for some frames and left at 0.* Say, where the operator is in
# control. Then the N steps before a takeover bootstrap from "success now", just where
# the policy went wrong. *Padding.* The last frame is repeated, and bootstrapped from
# after the terminal reward was already counted.

# %%
def mean_at(A, steps):
    return np.concatenate([a[m] for a, m in zip(A, steps)]).mean()

def before_takeover(e, n=N):
    """The policy's own steps among the n before the operator takes over.  -> bool (T,)"""
    soon = [e.intervention[t + 1 : t + 1 + n].any() for t in range(len(e))]
    return np.array(soon) & ~e.intervention

R = labels.episode_returns(corrected, s)
values = predict_values(V, corrected)
right = [labels.advantages(r, v, N) for r, v in zip(R, values)]
zeros = []
for r, v, e in zip(R, values, corrected):
    zeros.append(labels.advantages(r, np.where(e.intervention, 0.0, v), N))
soon = [before_takeover(e) for e in corrected]
print(
    f"steps before a takeover: mean A {mean_at(right, soon):+.3f}; "
    f"with V = 0 where it was not computed {mean_at(zeros, soon):+.3f}"
)

failures = [e for e in rollouts if not e.success]
R = labels.episode_returns(failures, s)
values = predict_values(V, failures)
right = [labels.advantages(r, v, N) for r, v in zip(R, values)]
padded = [np.append(a[:-N], a[-N:] + v[-1]) for a, v in zip(right, values)]
final = [np.arange(len(e)) >= len(e) - N for e in failures]
print(
    f"last {N} steps of a failure: mean A {mean_at(right, final):+.3f}; "
    f"bootstrapping from padding {mean_at(padded, final):+.3f}"
)

# %% [markdown]
# The first bug calls what made the operator take over excellent. The second counts the
# failure twice.
#
# Two things about the right figures. Before a takeover A is not below zero: the
# operator's help comes within the N steps and is credited to the policy's last steps.
# And the last steps of a failure come out slightly *positive*: where an episode ends in
# failure R' is near −1/2, and V, which sees no clock and so not that the failure is
# now, expected less of such a view. No bug, but a weakness of such labels.
#
# ## 4. The threshold $\epsilon_\ell$
#
# App. F: "approximately 30 % of the demonstration data has *positive* advantage" in
# pre-training, about 40 % of the rollouts in fine-tuning (10 % for t-shirts and
# shorts). So $\epsilon_\ell$ is the 70 % quantile, not the 30 % one. (Sec. V-D speaks
# of the "30% percentile of values"; the two contradict, we follow App. F.)
#
# $$ \epsilon_\ell:\; \text{a given share of the steps has } A > \epsilon_\ell,
# \qquad I_t = \mathbb 1\big(A(o_t, a_t) > \epsilon_\ell\big)
# \;\text{or}\; a_t \text{ is a correction} $$

# %%
show.source(labels.threshold, labels.indicators)

# %%
A = np.concatenate(labels.step_advantages(predict_values(V_pre, D_demo), D_demo, s, iteration=0))
task = np.concatenate([[e.task] * len(e) for e in D_demo])

def share(A, epsilon):
    return f"{np.mean(A > epsilon):.1%}"

print(
    "asked for 30 %:  threshold",
    share(A, labels.threshold(A, 0.3)),
    "  inverted, quantile(A, 0.3)",
    share(A, np.quantile(A, 0.3)),
)
ties = np.round(A, 2)  # values that tie, as those of a coarse V would
epsilon = labels.threshold(ties, 0.3)
print(
    f"with ties:       A > ε {np.mean(ties > epsilon):.1%}   A >= ε {np.mean(ties >= epsilon):.1%}"
)
pooled = labels.threshold(A, 0.3)
for name in s.pretraining:
    mine = A[task == name]
    own = labels.threshold(mine, 0.3)
    print(
        f"{name:<13} ε of its own {own:+.3f}: {share(mine, own)} positive   "
        f"pooled ε {pooled:+.3f}: {share(mine, pooled)}"
    )

# %% [markdown]
# Inverted, 70 % are positive. With ties, `>=` calls more positive than asked for and
# `>` fewer; `labels.threshold` is an order statistic and `labels.indicators` takes `>`.
# Pooled over tasks, one task gets more positive labels than the other, for no merit of
# its own; here the difference is moderate, because both tasks are normalised by their
# own limits.
#
# The population matters, too. In fine-tuning $\epsilon_\ell$ is set on the *autonomous*
# steps of the newest iteration. Corrections become True anyway; with them in the
# population, the rollouts get another share than the one asked for:

# %%
A_of = {}  # A of every step, by the source of the episodes
for source, some in (("autonomous", rollouts), ("corrected", corrected)):
    A = labels.step_advantages(predict_values(V, some), some, s, iteration=1)
    A_of[source] = np.concatenate(A)
A_rollouts = A_of["autonomous"]
A_corrected = A_of["corrected"]
everything = np.concatenate([A_rollouts, A_corrected])
for name, population in (("rollouts", A_rollouts), ("rollouts and corrected episodes", everything)):
    epsilon = labels.threshold(population, 0.4)
    print(
        f"ε on {name:<32} {epsilon:+.4f}: {share(A_rollouts, epsilon)} "
        "of the rollouts' steps are positive"
    )

# %% [markdown]
# ## 5. Which steps are positive
#
# One rollout and one corrected episode. Line: the advantage with N = 10. Blue dots:
# positive. Hatched: the operator is in control.

# %%
# 20 % of the rollouts' steps are positive, the default.
values = predict_values(V, D)
A = labels.step_advantages(values, D, s, iteration=1)
epsilon_collar = labels.thresholds(A, D, s, iteration=1)[s.task]
I = labels.label(values, D, s, iteration=1)
A_of_episode = {id(e): a for e, a in zip(D, A)}
positive_of = {id(e): p for e, p in zip(D, I)}

def advantage_trace(e, fig):
    A = A_of_episode[id(e)]
    positive = positive_of[id(e)]
    t = np.arange(len(e))
    steps = np.linspace(0, len(e) - 1, 5).astype(int)
    grid = fig.add_gridspec(2, 5, height_ratios=(1, 1.4))
    for i, picture in enumerate(frames(s.target, e, steps)):
        fig.add_subplot(grid[0, i], xticks=[], yticks=[], title=f"t = {steps[i]}").imshow(picture)
    ax = fig.add_subplot(grid[1, :], xlabel="step t", ylabel="A, N = 10")
    ax.plot(A, color=GREY)
    ax.plot(t[positive], A[positive], "o", color=BLUE, ms=4)
    ax.axhline(epsilon_collar, color="black", ls=":", label=f"ε = {epsilon_collar:.3f}")
    ax.fill_between(
        t, *ax.get_ylim(), e.intervention, fc="none", ec=VERMILLION, hatch="//", alpha=0.4
    )
    ax.legend(frameon=False, fontsize=9)
    outcome = "success" if e.success else "failure"
    fig.suptitle(f"{e.source}, {outcome}: {positive.mean():.0%} of the steps positive", fontsize=11)

edge_first = [e for e, (_, bad) in zip(rollouts, seen) if e.success and bad.any()]
saved = [e for e in corrected if e.success and not e.intervention[:20].any()]
saved.sort(key=lambda e: e.intervention.sum())
figure = plt.figure(figsize=(9.5, 8.4), layout="constrained")
for e, part in zip((edge_first[0], saved[-1]), figure.subfigures(2, 1)):
    advantage_trace(e, part)

# %% [markdown]
# Above: a success of the weak policy. A is below the threshold where an edge grasp
# (orange) is coming and where it slips, and above it where a half is grasped well or
# placed within the next 10 steps. Not each dot is deserved: V is an estimate from few
# episodes. Below: hatched steps are all True, whatever their A.
#
# Note the sign of ε: here it is above zero. To call 40 % of these rollouts positive it
# must lie below (Sec. 4), and a step that brings a little *less* than expected passes.
#
# ## 6. Corrections are True (Sec. IV-B)
#
# "We found it useful to force $I_t$ = True (i.e., positive) for actions provided as
# human corrections during autonomous rollouts." What if they were judged like all
# others?

# %%
hand = np.concatenate([e.intervention for e in corrected])
forced = np.concatenate([positive_of[id(e)] for e in corrected])
assert forced[hand].all() and (forced == (A_corrected > epsilon_collar))[~hand].all()
for fraction in (0.1, 0.2, 0.4):
    judged = A_corrected > labels.threshold(A_rollouts, fraction)
    print(
        f"ε for {fraction:.0%} of the rollouts: by A alone {judged[hand].mean():.0%} "
        f"of the corrections are positive, and {judged[~hand].mean():.0%} "
        "of the policy's own steps in these episodes"
    )

# %% [markdown]
# Some public implementations did not force them, and most corrections came out
# negative. Not so here: V was trained on episodes that the operator saved, knows that
# these states end well, and at 20 % most of the operator's steps pass on their own, at
# 40 % nearly all. Forcing matters where the threshold is high, and it is an
# assumption: "if we assume that human experts always provide good corrective actions".
#
# ## 7. 10, 20 or 40 % positive?
#
# The fraction decides how choosy the word "positive" is.

# %%
for fraction in (0.1, 0.2, 0.4):
    epsilon = labels.threshold(A_rollouts, fraction)
    positive = A_rollouts > epsilon
    assert abs(positive.mean() - fraction) < 1e-3
    print(
        f"{fraction:.0%}: ε {epsilon:+.4f}   "
        f"positive: {positive[good].mean():.0%} of the good steps, "
        f"{positive[bad].mean():.0%} of the bad; "
        f"{positive[won].mean():.0%} of the steps of successes, "
        f"{positive[~won].mean():.0%} of failures"
    )

# %% [markdown]
# Fewer positives are a stricter choice: the share of bad steps that slip through falls
# fastest. The price is that fewer steps teach the policy what "positive" looks like. 10
# % is the paper's choice for t-shirts and shorts, where demonstrations were good but
# slow.
#
# ## 8. Why it works: the theorem of Sec. III on a bandit
#
# One state, eight actions, $\pi_\text{ref}$ and the rewards known. $\hat\pi \propto
# \pi_\text{ref}\; p(I \mid A)^\beta$ with $p(I\mid A)=g(A)$ increasing. The improvement
# is a covariance, and two increasing functions of A have one that is never negative:
#
# $$ J(\hat\pi) - J(\pi_\text{ref}) = \frac{\mathrm{Cov}_{\pi_\text{ref}}\!\big(g(A)^\beta, A\big)}
# {\mathbb E_{\pi_\text{ref}}[g(A)^\beta]} \ge 0 $$
#
# <details><summary><b>Predict before you run:</b> with the hard indicator, $g(A)$ = 1 for a
# positive A and 0 else, what does a larger $\beta$ change?</summary>
#
# Nothing: $1^\beta = 1$ and $0^\beta = 0$. See the last line of the next table.
# </details>

# %%
def improved(pi_ref, g, beta):
    """π̂ of Sec. III.  pi_ref, g: (actions,)"""
    pi_hat = pi_ref * g**beta
    return pi_hat / pi_hat.sum()

rng = np.random.default_rng(0)
betas = np.linspace(0, 5, 26)

def soft(A):
    return 1 / (1 + np.exp(-3 * A))

shapes = {
    "soft, sigmoid(3A)": soft,
    "softer, sigmoid(A)": lambda A: 1 / (1 + np.exp(-A)),
    "exp(A)": np.exp,
    "hard, A > 0": lambda A: (A > 0) * 1.0,
}
gains = {name: [] for name in shapes}
for _ in range(300):  # random bandits
    pi_ref = rng.dirichlet(np.ones(8))
    reward = rng.normal(size=8)
    A = reward - pi_ref @ reward
    for name, g in shapes.items():
        gains[name].append([improved(pi_ref, g(A), beta) @ A for beta in betas])
gains = {name: np.array(x) for name, x in gains.items()}  # (bandits, betas)
for name, x in gains.items():
    print(
        f"{name:<20} worst of 300 bandits {x.min():+.3f}, mean at β = 1: {x[:, 5].mean():.2f}, "
        f"at β = 5: {x[:, -1].mean():.2f}"
    )
    assert (
        x.min() > -1e-12 and (np.diff(x, axis=1) > -1e-12).all()
    )  # improves, and never falls with beta
hard = gains["hard, A > 0"]
assert np.allclose(hard[:, 1:], hard[:, 1:2])  # beta > 0: all the same

# %% [markdown]
# Every increasing g improves, on every bandit, and more with more $\beta$. But look at
# the last line: with the *hard* indicator of Eq. 3, $p(I\mid A) \in \{0, 1\}$, and
# **every $\beta > 0$ gives the same policy**. What is left for guidance
# to do, then?
#
# The label is computed from *one sampled outcome*, $\hat A = A +
# \text{luck}$, so that an action is positive *sometimes*: $p(I\mid a) = P(A +
# \text{luck} > \epsilon)$ is soft again. That is what a network trained on the labels
# learns.

# %%
def label_chance(A, pi_ref, sigma, fraction, n=20_000):
    """P(A + luck > ε) of every action; luck ~ N(0, sigma²), `fraction` of n samples positive."""
    rng = np.random.default_rng(1)
    action = rng.choice(len(A), n, p=pi_ref)
    sampled = A[action] + np.broadcast_to(sigma, len(A))[action] * rng.normal(size=n)
    positive = labels.indicators(sampled, labels.threshold(sampled, fraction))
    return np.array([positive[action == a].mean() for a in range(len(A))])

pi_ref = np.full(8, 1 / 8)
A = np.linspace(-1, 1, 8)
figure, axes = plt.subplots(1, 2, figsize=(10, 3.3), layout="constrained", sharey=True)
for (name, x), colour, line in zip(
    gains.items(), (BLUE, GREEN, GREY, VERMILLION), ("-", "--", "-.", ":")
):
    axes[0].plot(betas, x.mean(0), line, color=colour, label=name, lw=2)
for fraction, colour, line in zip((0.4, 0.2, 0.1), (BLUE, GREEN, VERMILLION), ("-", "--", "-.")):
    g = label_chance(A, pi_ref, 1.0, fraction)
    gain = [improved(pi_ref, g, beta) @ A for beta in betas]
    axes[1].plot(betas, gain, line, color=colour, label=f"{fraction:.0%} positive", lw=2)
    print(
        f"{fraction:.0%} positive: chance of the best action at β = 0, 1, 2, 5: "
        + ", ".join(f"{improved(pi_ref, g, beta)[-1]:.2f}" for beta in (0, 1, 2, 5))
    )
axes[0].set(title="exact A, mean of 300 bandits", xlabel="β", ylabel="J(π̂) − J(π_ref)")
axes[1].set(title="hard labels of lucky outcomes, one bandit", xlabel="β")
for ax in axes:
    ax.legend(frameon=False, fontsize=9)

# %% [markdown]
# Right: the labels are hard, the luck is as large as the advantages, and both knobs
# sharpen, $\beta$ and a smaller share of positives: the "loose connection" of App. E.
# It also shows what over-sharpening is: the policy ends on a single action (footnote 2:
# the corners of the support).
#
# **Where the guarantee ends.** $p(I\mid a)$ increases with A only if luck treats all
# actions alike. An action that is worse on average but *varies* more gets over a high
# threshold more often:

# %%
pi_ref = np.full(3, 1 / 3)
A = np.array([0.1, 0.1, -0.2])
sigma = np.array([0.1, 0.1, 1.0])  # the last action: worse, but a gamble
for how_much in (1.0, 0.5, 0.1):
    for fraction in (0.4, 0.1):
        g = label_chance(A, pi_ref, how_much * sigma, fraction)
        gain = [f"{improved(pi_ref, g, beta) @ A:+.3f} at β = {beta}" for beta in (1, 2)]
        print(
            f"luck × {how_much}, {fraction:.0%} positive: P(positive) of each {g.round(2)}, gain",
            *gain,
        )

# %% [markdown]
# With much luck in the labels and few positives, "improved" is worse than
# $\pi_\text{ref}$, and guidance makes it worse still. The theorem is about the
# *expected* advantage. That is one reason for V and a short N: after N steps V's
# expectation stands in the place of what came by luck.
#
# ## 9. Eq. 3: $\alpha$, or dropout
#
# $$ \min_\theta\; \mathbb E\big[-\log \pi_\theta(a_t\mid o_t,\ell) - \alpha \log
# \pi_\theta(a_t\mid I_t,o_t,\ell)\big] \tag{3} $$
#
# App. F drops the indicator with chance $p$ = 30 % and says that this "effectively
# replaces the loss multiplier $\alpha$". In expectation the loss is then
# $p\,[-\log\pi(a)] + (1-p)\,[-\log\pi(a\mid I)]$: Eq. 3 times $p$, with $\alpha =
# (1-p)/p$. Tested with a model that is too small on purpose, logits $= b + I\,w$ with
# $I$ = +1, −1, or 0 where omitted, which cannot get all three distributions right:

# %%
pi_ref = np.full(8, 1 / 8)
A = np.linspace(-1, 1, 8)
g = label_chance(A, pi_ref, 0.4, 0.3)
joint = torch.tensor(
    np.stack([pi_ref * (1 - g), pi_ref * g])
).float()  # (I, action), the true chances
truth = {"π(a)": joint.sum(0), "π(a | I)": joint[1] / joint[1].sum()}

def log_policies(theta):
    """theta (2, 8): b, w -> log π(a | I = False), log π(a | I = True), log π(a), stacked (3, 8)"""
    return torch.stack([theta[0] + x * theta[1] for x in (-1, 1, 0)]).log_softmax(-1)

def fit(loss, rates):
    theta = torch.zeros(2, 8, requires_grad=True)
    for rate in rates:
        (gradient,) = torch.autograd.grad(loss(log_policies(theta)), theta)
        theta = (theta - rate * gradient).detach().requires_grad_()
    return log_policies(theta).exp().detach()

generator = torch.Generator().manual_seed(0)

def dropout_loss(log_pi, p, n=512):
    """-log π of n sampled (I, a), the indicator omitted with chance p."""
    sample = torch.multinomial(joint.flatten(), n, replacement=True, generator=generator)
    omit = torch.rand(n, generator=generator) < p
    return -log_pi[torch.where(omit, 2, sample // 8), sample % 8].mean()

rates = torch.cat([torch.full((1500,), 1.0), torch.linspace(1, 0, 1500)])

def far(a, b):
    return (a - b).abs().sum().item() / 2  # total variation

print("                     π(a | I): Eq. 3 with α    Eq. 3 with α against the truth")
print("   p   α = (1-p)/p     against dropout p           π(a)      π(a | I)")
for p in (0.05, 0.3, 0.95):
    alpha = (1 - p) / p

    def loss(log_pi):
        return -(joint.sum(0) * log_pi[2]).sum() - alpha * (joint * log_pi[:2]).sum()

    eq3 = fit(lambda log_pi: p * loss(log_pi), rates)
    dropped = fit(lambda log_pi: dropout_loss(log_pi, p), rates)
    print(
        f"{p:>5}{alpha:>12.2f}{far(eq3[1], dropped[1]):>20.3f}"
        f"{far(eq3[2], truth['π(a)']):>21.3f}{far(eq3[1], truth['π(a | I)']):>12.3f}"
    )

# %% [markdown]
# Dropout and α give the same policy, up to the noise of sampled batches (first column;
# a total variation of 1 would be disjoint). What α trades is seen on the right: with
# little dropout (large α) the conditional policy is right and the unconditional one is
# sacrificed, with much dropout the other way round. 30 % is α = 7/3.
#
# A model that can
# represent all three distributions gets them right with any α between; then p only
# decides how often each is practised. Guidance with β ≠ 1 needs both.
#
# ## Change this line and see
#
# - Sec. 8: `"exp(A)": np.exp,` to `"exp(A)": lambda A: np.exp(-A),`: no longer increasing, and
#   the assertion fails: the policy gets worse, and more so with more β.
# - Sec. 8: `label_chance(A, pi_ref, 1.0, fraction)` to `label_chance(A, pi_ref, 0.01,
#   fraction)`: hardly any luck. At 40 % the chance of the best action stays at about one
#   third for every β from 1 to 5: guidance has nothing left to do.
# - Sec. 8: `sigma = np.array([0.1, 0.1, 1.0])` to `sigma = np.array([1.0, 1.0, 1.0])`: the
#   same luck for all, and every line gains again.
# - Sec. 8: `A = np.array([0.1, 0.1, -0.2])` to `A = np.array([-0.1, -0.1, 0.2])`: the gamble is
#   now the best action, and luck that favours it does no harm.
#
# ## In three sentences
#
# > An advantage is what N steps brought beyond what V had expected, and $\epsilon_\ell$ makes
# > a yes or no of it. Imitating under "yes" improves the policy wherever the chance of a yes
# > rises with the true advantage. A dropout of $p$ on the word is Eq. 3 with
# > $\alpha = (1 - p)/p$.
#
# previous: [01 · value](01_value.ipynb) · [contents](../README.md#learn) · next: [03 ·
# flow](03_flow.ipynb)

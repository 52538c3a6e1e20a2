# %% [markdown]
# # 00 · RECAP in ten minutes
#
# [contents](../README.md#learn) · next: [01 · value](01_value.ipynb)
#
# **Beside the paper:** all of Sec. IV, Algorithm 1, Eqs. 1 to 5, 12 and 13. Each equation
# stands above the cell that writes it from nothing, and each is then compared with the
# function of this repository. The world is a line, so that everything can be seen.
#
# The method in one breath: *let the policy try; let a value function say which steps went
# better than expected; imitate everything, with the word "positive" or "negative" before
# each action; then ask for "positive".*
#
# Ten minutes to read, less than a minute to run.

# %%
import sys
from pathlib import Path

# The folder above this one; Jupyter has no __file__, and starts in this one.
sys.path.insert(0, str(Path(globals().get("__file__", "notebook")).resolve().parents[1]))
import copy
from dataclasses import dataclass
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import diagrams
import labels
import policy
import recap
import value
from lab.plots import BLUE, GREEN, GREY, VERMILLION

torch.set_num_threads(1)
plt.rcParams.update({"figure.dpi": 80, "font.size": 10})

def same(mine, theirs):
    """An error where my numbers are not the module's."""
    mine = torch.as_tensor(mine).double()
    torch.testing.assert_close(mine, torch.as_tensor(theirs).double(), rtol=1e-4, atol=1e-5)

# %% [markdown]
# ## 1. The loop, and what the policy reads

# %%
diagrams.loop()
diagrams.sequence()
plt.show()

# %% [markdown]
# Above, the loop: nothing is ever thrown away, and each round trains the *pre-trained*
# networks again. Below, what the policy reads for one step. The word about the advantage
# stands just before the actions, so it can change nothing but them.
#
# ## 2. A world on a line
#
# A hand starts near $x = 0$ and must come to rest at least $G$ away, on either side: **two
# ways to do it**, as there are two ways to fold a collar. On the left lies a puddle, where
# every step may slip. An action is the length of one step, so a policy has **a speed**, too;
# who lands more than 0.2 beyond $G$ falls off the edge. The task $\ell$ is $G$ itself, 1
# or 1.5 (two tasks; the second is our target).

# %%
LIMIT = {1.0: 30, 1.5: 45}  # time limits of both tasks, in steps
PUDDLE = (-0.8, -0.3)  # a step that ends here slips with chance 0.5

@dataclass
class Attempt:
    task: float  # ℓ: the distance G
    x: np.ndarray  # (T,) what the policy saw
    a: np.ndarray  # (T,) what was done
    intervention: np.ndarray  # (T,) bool: did the operator act?
    success: bool
    source: str  # "demonstration", "autonomous" or "corrected"
    iteration: int

    def __len__(self):
        return len(self.a)

    @property
    def max_length(self):
        return LIMIT[self.task]

def attempts(act, G, n, rng, source, iteration=0):
    """n episodes side by side.  act: callable (x (n,), G) -> steps (n,)."""
    x = rng.uniform(-0.1, 0.1, n)
    helped = np.zeros(n, bool)  # has the operator control?
    seen, done, by_operator = [], [], []  # one (n,) per step
    end = np.zeros(n, int)  # steps taken, 0 while under way
    success = np.zeros(n, bool)
    for t in range(LIMIT[G]):
        a = act(x, G)
        if source == "corrected":
            # The operator takes over before the puddle, and hands back on the other side.
            helped = (x < -0.15) & (x > -0.3) | helped & (x < 0.1)
            a = np.where(helped, 0.12 + 0.01 * rng.normal(size=n), a)
        seen.append(x)
        done.append(a)
        by_operator.append(helped)
        x = x + a
        slips = (x > PUDDLE[0]) & (x < PUDDLE[1]) & (rng.random(n) < 0.5)
        there = (np.abs(x) >= G) & ~slips
        over = (there | slips | (t == LIMIT[G] - 1)) & (end == 0)
        success[over] = (there & (np.abs(x) < G + 0.2))[over]
        end[over] = t + 1
    columns = np.array(seen), np.array(done), np.array(by_operator)  # (limit, n) each
    return [
        Attempt(G, *[x[:T, i] for x in columns], bool(success[i]), source, iteration)
        for i, T in enumerate(end)
    ]

def operators(G, n, rng, slowest):
    """Operators who choose a side by a coin, and a pace of their own."""
    side = rng.choice([-1, 1], n)
    pace = rng.uniform(slowest, 0.16, n)

    def act(x, G):
        return side * pace + 0.01 * rng.normal(size=n)

    return attempts(act, G, n, rng, "demonstration")

def rates(episodes):
    """Success rate, and successes per 100 steps (throughput; failures cost time, too)."""
    wins = sum(e.success for e in episodes)
    return wins / len(episodes), 100 * wins / sum(len(e) for e in episodes)

rng = np.random.default_rng(0)
D_demo = operators(1.0, 200, rng, 0.04) + operators(1.5, 200, rng, 0.04)
print("demonstrations: success {:.0%}, {:.1f} successes per 100 steps".format(*rates(D_demo)))

# %% [markdown]
# ## 3. What a step is worth
#
# People say one thing about an episode: success or not. Eq. 5 makes it a reward:
#
# $$ r_t = \begin{cases} 0 & \text{if } t = T \text{ and success} \\
# -C_\text{fail} & \text{if } t = T \text{ and failure} \\ -1 & \text{otherwise} \end{cases}
# \tag{5} $$
#
# The return is what is still to come, scaled by the task's own limit to $[-1, 0]$. We take
# $C_\text{fail}$ = limit:
#
# $$ R_t = \sum_{t'=t}^{T} r_{t'}, \qquad R'_t = \frac{R_t}{\text{limit} + C_\text{fail}} $$

# %%
def my_rewards(T, success, c_fail):
    r = -np.ones(T)
    r[-1] = 0 if success else -c_fail
    return r

def my_returns(T, success, limit):
    r = my_rewards(T, success, c_fail=limit)
    return np.array([r[t:].sum() for t in range(T)]) / (2 * limit)

for T, success in ((5, True), (5, False), (30, False)):
    same(my_rewards(T, success, 30), labels.rewards(T, success, 30))
    same(my_returns(T, success, 30), labels.returns(T, success, 30))
print("5 steps, success:", my_returns(5, True, 30).round(3))
print("5 steps, failure:", my_returns(5, False, 30).round(3))

# %% [markdown]
# <details><summary><b>Predict before you run:</b> can any step of a failure have a higher
# return than a step of a success?</summary>
#
# No. A success loses at most limit − 1 steps, so $R' > -\frac12$; a failure pays at least
# $C_\text{fail}$ = limit, so $R' \le -\frac12$.
# </details>
#
# ## 4. The value function
#
# $V$ is a distribution over $B = 201$ values $v(b)$ from −1 to 0. The return becomes the
# index of the nearest one, $R^B_t$, and the network learns it by cross-entropy:
#
# $$ \min_\phi\; \mathbb E_{\tau\in\mathcal D}\Big[\sum_{\mathbf o_t\in\tau} H\big(R^B_t(\tau),\,
# p_\phi(V \mid \mathbf o_t, \ell)\big)\Big] \tag{1} $$
#
# $$ V(\mathbf o_t,\ell)=\sum_b p_\phi(V=b\mid \mathbf o_t,\ell)\,v(b) $$

# %%
v = torch.linspace(-1, 0, 201)

def my_bins(R):
    return (R[:, None] - v).abs().argmin(1)  # (M, 201) -> (M,)

def my_value_loss(logits, R):
    log_p = logits - logits.exp().sum(-1, keepdim=True).log()
    return -log_p[torch.arange(len(R)), my_bins(R)].mean()

def my_expected_value(logits):
    p = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return (p * v).sum(-1)

some = torch.randn(50, 201)
R = -torch.rand(50)
same(my_bins(R), value.discretize(R))
same(my_value_loss(some, R), value.value_loss(some, R))
same(my_expected_value(some), value.expected_value(some))

# %% [markdown]
# The network is tiny. It sees the position and the task, and begins with all values alike.

# %%
def network(n_in, n_out):
    torch.manual_seed(0)
    hidden = nn.Sequential(nn.Linear(n_in, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU())
    return hidden.append(nn.Linear(64, n_out))

def descend(net, draw_loss, n_steps):
    """Adam, with a learning rate that falls to zero.  Trains in place."""
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for i in range(n_steps):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - i / n_steps)
        optimizer.zero_grad()
        draw_loss().backward()
        optimizer.step()
    return net

def column(D, name):
    """One number per step of a dataset, (M,)."""
    return torch.tensor(np.concatenate([getattr(e, name) for e in D])).float()

def observations(D):
    G = torch.tensor(np.concatenate([np.full(len(e), e.task) for e in D]))
    return torch.stack([column(D, "x"), G.float()], dim=1)  # (M, 2)

def train_V(V, D, n_steps=300):
    o = observations(D)
    R = np.concatenate([my_returns(len(e), e.success, e.max_length) for e in D])
    R = torch.tensor(R).float()
    g = torch.Generator().manual_seed(0)

    def draw_loss():
        i = torch.randint(len(R), (512,), generator=g)
        return my_value_loss(V(o[i]), R[i])

    return descend(V, draw_loss, n_steps)

def values_of(V, D):
    """V(o_t) of every step: a list of (T,), one per episode."""
    with torch.no_grad():
        return [my_expected_value(V(observations([e]))).numpy() for e in D]

V_pre = train_V(network(2, 201), D_demo)

# %%
places = torch.linspace(-1.5, 1.5, 121)
fig, axes = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
for G, colour, line in ((1.0, GREY, "--"), (1.5, BLUE, "-")):
    o = torch.stack([places, torch.full_like(places, G)], dim=1)
    inside = places.abs() < G
    V_of_x = my_expected_value(V_pre(o)).detach()
    axes[0].plot(places[inside], V_of_x[inside], line, color=colour, label=f"G = {G}")
axes[0].axvspan(*PUDDLE, color=VERMILLION, alpha=0.2, lw=0)
axes[0].set(title="V of the demonstrations (red: the puddle)", xlabel="x", ylabel="V")
axes[0].legend(frameon=False)
for x, colour in ((0.0, VERMILLION), (0.6, BLUE)):
    p = V_pre(torch.tensor([[x, 1.5]])).softmax(-1)[0].detach()
    axes[1].bar(v[1::3], p.view(67, 3).sum(1), 0.013, color=colour, alpha=0.7, label=f"x = {x}")
axes[1].set(title="p(V | o) at two places, G = 1.5", xlabel="return R'", ylabel="in three bins")
axes[1].legend(frameon=False)
plt.show()

# %% [markdown]
# Left: V knows the puddle, and how near the goal is on the right. Right: at the start (red)
# it keeps *two* outcomes apart, to go left and slip, or to go right and arrive sooner or
# later. Their mean, which is all that a squared error learns, would be neither.
#
# ## 5. Advantage, threshold, word
#
# How much better did the next $N$ steps go than $V$ had expected?
#
# $$ A(\mathbf o_t, \mathbf a_t) = \sum_{t'=t}^{t+N-1} r_{t'}
# {}+ V(\mathbf o_{t+N}) - V(\mathbf o_t) $$
#
# $\epsilon_\ell$ is set so that a chosen share of the steps lies above it, and the word is
# a yes or no. What an operator did to correct the policy counts as a yes (Sec. IV-B):
#
# $$ I_t = \mathbb 1\big(A(\mathbf o_t, \mathbf a_t) > \epsilon_\ell\big)
# \quad\text{or}\quad \mathbf a_t \text{ is a correction} $$

# %%
def my_advantages(R, V, n):
    """R, V: (T,), both scaled.  n: N in steps, None for the whole episode."""
    A = np.empty(len(R))
    for t in range(len(R)):
        if n is None or t + n >= len(R):
            A[t] = R[t] - V[t]  # no o_{t+N}: all rewards to the end
        else:
            A[t] = (R[t] - R[t + n]) + V[t + n] - V[t]  # the rewards of n steps, then V
    return A

def my_threshold(A, share):
    """The smallest of the sorted advantages that leaves `share` of them above."""
    return np.sort(A)[len(A) - round(share * len(A)) - 1]

def my_indicators(A, epsilon, correction):
    return (A > epsilon) | correction

R = my_returns(12, True, 30)
V = -rng.random(12)
for n in (None, 1, 3, 40):
    same(my_advantages(R, V, n), labels.advantages(R, V, n))
A = my_advantages(R, V, 3)
correction = np.arange(12) == 5
same(my_threshold(A, 0.3), labels.threshold(A, 0.3))
same(my_indicators(A, 0.0, correction), labels.indicators(A, 0.0, correction))

# %% [markdown]
# For a dataset (App. F): pre-training looks to the end of the episode ($N = T$) and calls
# 30 % positive. Later rounds look $N = 3$ steps ahead (the paper: 50) and call 20 % of the
# newest *autonomous* steps positive (the paper: 40 %, of t-shirts 10 %). Each task has its
# own $\epsilon_\ell$.

# %%
N = 3

def my_labels(V, D, k):
    """I_t of every step: a list of bool (T,).  k: the iteration, 0 for pre-training."""
    A = []
    for e, V_t in zip(D, values_of(V, D)):
        R = my_returns(len(e), e.success, e.max_length)
        A.append(my_advantages(R, V_t, None if k == 0 else N))
    epsilon = {}
    for task in {e.task for e in D}:
        pool = []
        for e, A_t in zip(D, A):
            newest = k == 0 or (e.source == "autonomous" and e.iteration == k)
            if e.task == task and newest:
                pool.append(A_t)
        epsilon[task] = my_threshold(np.concatenate(pool), 0.3 if k == 0 else 0.2)
    return [my_indicators(A_t, epsilon[e.task], e.intervention) for e, A_t in zip(D, A)]

settings = SimpleNamespace(
    lookahead=N, c_fail=1.0, clip_returns=False, force_corrections=True,
    positive_pretraining=0.3, positive_for=lambda task: 0.2, seed=0,
)  # fmt: skip
I_demo = my_labels(V_pre, D_demo, 0)
theirs = labels.label(values_of(V_pre, D_demo), D_demo, settings, iteration=0)
assert all((mine == other).all() for mine, other in zip(I_demo, theirs))
positive = torch.tensor(np.concatenate(I_demo)).double()
x = column(D_demo, "x")
a = column(D_demo, "a")
for name, where in (("at the start", x.abs() < 0.15), ("in the puddle", (x > -0.8) & (x < -0.3))):
    for side, way in (("right", a > 0), ("left", a < 0)):
        if (where & way).any():
            print(f"{name}, to the {side}: {positive[where & way].mean():.0%} positive")

# %% [markdown]
# <details><summary><b>Predict before you run:</b> the operators go left as often as right.
# Which steps to the left will be positive?</summary>
#
# Hardly any at the start: whoever goes left slips in the puddle. Within the puddle some
# are: a hand that gets through did *better than expected there*.
# </details>
#
# ## 6. Imitate everything, with the word
#
# A policy that must know two ways to act cannot predict one number. Flow matching learns
# to walk from noise $\omega$ to an action $\mathbf a$. On the way, at time $\eta$ (0 noise, 1
# data), stands
#
# $$ \mathbf a^{\eta,\omega} = \eta\,\mathbf a + (1-\eta)\,\omega,
# \qquad \omega\sim\mathcal N(0,\mathbf I), $$
#
# and the network's $f_\theta$ is trained to point back to the noise. This is the second term
# of Eq. 4 (the first is for action tokens, which our line does without):
#
# $$ \log\pi_\theta(\mathbf a\mid I_t,\mathbf o_t,\ell) \;\ge\;
# \mathbb E_{\eta,\omega}\Big[ {-\alpha_\eta} \big\|\omega-\mathbf a
# {}-f_\theta(\mathbf a^{\eta,\omega}, I_t,\mathbf o_t,\ell)\big\|^2\Big] \tag{4} $$
#
# Our network predicts the clean action $\hat{\mathbf a}$, so that $f = (\mathbf a^\eta -
# \hat{\mathbf a})/(1-\eta)$, and $\alpha_\eta = (1-\eta)^2$.

# %%
def my_noised(a, omega, eta):
    """a, omega: (n, 1, 1), n chunks of one action of one number.  eta: (n,)."""
    return eta[:, None, None] * a + (1 - eta[:, None, None]) * omega

def my_flow_loss(f, a, omega, eta):
    return (1 - eta) ** 2 * ((omega - a - f) ** 2)[:, 0, 0]  # (n,)

def field(net, a_eta, eta, o, word):
    """f of n noised actions.  o: (n, 2).  word: (n, 2), [1, 0] positive, [0, 1] negative, or 0s."""
    a_hat = net(torch.cat([a_eta[:, 0], eta[:, None], eta[:, None] ** 2, o, word], dim=1))
    return (a_eta - a_hat[:, None]) / (1 - eta[:, None, None])

a, omega, f = torch.randn(3, 20, 1, 1)
eta = torch.rand(20)
same(my_noised(a, omega, eta), policy.noised(a, omega, eta))
same(my_flow_loss(f, a, omega, eta), policy.flow_matching_loss(f, a, omega, eta))

# %% [markdown]
# The objective asks for two policies in one network, with the word and without:
#
# $$ \min_\theta\; \mathbb E_{\mathcal D}\big[ -\log\pi_\theta(\mathbf a_t\mid\mathbf o_t,\ell)
# \;-\;\alpha\,\log\pi_\theta(\mathbf a_t\mid I_t,\mathbf o_t,\ell)\big] \tag{3} $$
#
# In practice the word is left out with chance $p$ = 0.3 (Sec. V-B). In expectation that is
# $p$ times Eq. 3, with $\alpha = (1-p)/p = 7/3$. Good *and bad* actions are imitated, each
# under its word.

# %%
UNIT = 0.1  # actions in units of 0.1 are about as large as the noise

def my_eq3_loss(net, o, a, positive, omit, omega, eta):
    """o: (n, 2).  a, omega: (n, 1, 1).  positive, omit: bool (n,).  eta: (n,)."""
    word = torch.stack([positive, ~positive], dim=1) * ~omit[:, None]
    f = field(net, my_noised(a, omega, eta), eta, o, word)
    return my_flow_loss(f, a, omega, eta).mean()

def train_pi(net, D, I, n_steps=1000):
    o = observations(D)
    a = column(D, "a")[:, None, None] / UNIT
    positive = torch.tensor(np.concatenate(I))
    g = torch.Generator().manual_seed(0)

    def draw_loss():
        i = torch.randint(len(a), (512,), generator=g)
        omit = torch.rand(512, generator=g) < 0.3
        omega, eta = policy.draw_noise(a[i], g)  # η more often near the noise, as in π₀
        return my_eq3_loss(net, o[i], a[i], positive[i], omit, omega, eta)

    return descend(net, draw_loss, n_steps)

pi_pre = train_pi(network(7, 1), D_demo, I_demo, 2000)

# %% [markdown]
# `recap.eq3_loss` has the terms of subtask and action tokens besides, and a factor of 10 on
# the flow. With those terms at zero it must be ten times ours; and the mixture of a batch
# must be Eq. 3:

# %%
o = observations(D_demo)[:64]
a = column(D_demo, "a")[:64, None, None] / UNIT
positive = torch.tensor(np.concatenate(I_demo))[:64]
omit = torch.rand(64) < 0.3
omega, eta = policy.draw_noise(a)

class Terms:
    """What recap.eq3_loss asks a policy for."""

    @staticmethod
    def terms(batch, omega, eta, weight):
        word = torch.stack([positive, ~positive], dim=1) * ~batch["omit"][:, None]
        f = field(pi_pre, policy.noised(a, omega, eta), eta, o, word)
        zero = torch.zeros(64)
        flow = policy.flow_matching_loss(f, a, omega, eta, weight)
        return {"subtask": zero, "tokens": zero, "flow": flow}

def mine(omit):
    return my_eq3_loss(pi_pre, o, a, positive, omit, omega, eta).detach()

same(10 * mine(omit), recap.eq3_loss(Terms, {"omit": omit}, omega, eta).detach())
without, with_word = mine(omit | True), mine(omit & False)
p = 0.3
same((1 - p) * with_word + p * without, p * (without + (1 - p) / p * with_word))

# %% [markdown]
# ## 7. Act: ask for "positive", and perhaps more than that
#
# Sampling walks from noise to data in small steps, $d\mathbf a/d\eta = -f$. The improved
# policy is
#
# $$ \hat\pi(\mathbf a\mid\mathbf o,\ell)\;\propto\;\pi_\text{ref}(\mathbf a\mid\mathbf o,\ell)
# \left(\frac{\pi_\text{ref}(\mathbf a\mid I,\mathbf o,\ell)}
# {\pi_\text{ref}(\mathbf a\mid\mathbf o,\ell)}\right)^{\beta}
# \tag{2, 12} $$
#
# With $\beta = 1$ that is simply the policy told "positive". A larger $\beta$ goes further
# in the direction in which the word changes the policy:
#
# $$ \nabla_{\mathbf a}\log\pi_\theta(\mathbf a\mid\mathbf o_t,\ell)
# {}+\beta\,\big(\nabla_{\mathbf a}\log\pi_\theta(\mathbf a\mid I_t,\mathbf o_t,\ell)
# {}-\nabla_{\mathbf a}\log\pi_\theta(\mathbf a\mid\mathbf o_t,\ell)\big) \tag{13} $$
#
# which for the field of a flow reads $f_u+\beta\,(f_c-f_u)$, $u$ without and $c$ with the
# word.

# %%
def my_guided(f_u, f_c, beta):
    return f_u + beta * (f_c - f_u)

def my_integrate(f, omega, steps):
    a = omega
    for i in range(steps):
        a = a - f(a, torch.full((len(a),), i / steps)) / steps
    return a

@torch.no_grad()
def sample(net, x, G, g, beta=1.0, positive=True, steps=10):
    """Steps (n,) of the hand, from the policy told "positive", guided by β."""
    o = torch.tensor(np.stack([x, np.full(len(x), G)], axis=1)).float()
    word = torch.tensor([[1.0, 0.0] if positive else [0.0, 1.0]]).expand(len(x), 2)

    def f(a, eta):
        f_u = field(net, a, eta, o, 0 * word)
        return my_guided(f_u, field(net, a, eta, o, word), beta)

    omega = torch.randn(len(x), 1, 1, generator=g)
    return UNIT * my_integrate(f, omega, steps)[:, 0, 0].double().numpy()

f_u, f_c, omega = torch.randn(3, 20, 1, 1)
same(my_guided(f_u, f_c, 2.0), policy.guided(f_u, f_c, 2.0))

def some_field(a, eta):
    return a * (1 + eta[:, None, None])

same(my_integrate(some_field, omega, 10), policy.integrate(some_field, omega, 10))

# %% [markdown]
# The same network at $x = 0$, asked in four ways:

# %%
x = np.zeros(2000)
g = torch.Generator().manual_seed(0)
fig, axes = plt.subplots(1, 4, figsize=(11, 2.6), layout="constrained")
ways = (
    ("not told (β = 0)", dict(beta=0.0), GREY),
    ("negative", dict(positive=False), VERMILLION),
    ("positive", dict(), BLUE),
    ("positive, β = 2", dict(beta=2.0), GREEN),
)
for ax, (name, how, colour) in zip(axes, ways):
    steps = sample(pi_pre, x, 1.5, g, **how)
    ax.hist(steps, np.linspace(-0.25, 0.25, 51), color=colour)
    ax.set(title=name, xlabel="first step (left, right)", yticks=[])
    right = np.mean(steps > 0)
    print(f"{name:<18} {right:4.0%} to the right, mean length {np.abs(steps).mean():.3f}")
plt.show()

# %% [markdown]
# Both ways are in the network, each speed, too. The word chooses.
#
# <details><summary><b>Predict:</b> what does a very large β do?</summary>
#
# The steps grow beyond those of any operator, to where the network has seen no data, and the
# hand falls off the edge. The next table shows it; [04](04_guidance.ipynb) shows why.
# </details>
#
# ## 8. Algorithm 1
#
# > **Require:** demonstrations of many tasks $\mathcal D_\text{demo}$
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
#
# Lines 1 and 2 are done. In line 5 every step is called positive (Sec. V-D), so line 4 has
# no reader and is left out here. Line 7 has tries without help and tries under an
# operator's eye.

# %%
K = 3
G = 1.5  # ℓ, the target task
rows = []  # (name, β, success, throughput)

def act(net, beta=1.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    return lambda x, G: sample(net, x, G, g, beta)

def try_out(name, net, betas=(1.0,)):
    for beta in betas:
        tries = attempts(act(net, beta), G, 500, np.random.default_rng(1), "evaluation")
        rows.append((name, beta, *rates(tries)))
        print("{:<7} β = {:<4g} success {:4.0%}, {:5.1f} successes per 100 steps".format(*rows[-1]))

try_out("π_pre", pi_pre)
D = operators(G, 100, rng, 0.06)  # line 3: better operators, not one of them very slow
everything = [np.ones(len(e), bool) for e in D]
pi = train_pi(copy.deepcopy(pi_pre), D, everything, 800)  # line 5
policies = {"π⁰": pi}
try_out("π⁰", pi)
for k in range(1, K + 1):  # line 6
    D = D + attempts(act(pi, seed=k), G, 150, rng, "autonomous", k)  # line 7
    D = D + attempts(act(pi, seed=10 + k), G, 50, rng, "corrected", k)
    V = train_V(copy.deepcopy(V_pre), D)  # line 8
    I = my_labels(V, D, k)
    theirs = labels.label(values_of(V, D), D, settings, iteration=k)
    assert all((mine == other).all() for mine, other in zip(I, theirs))
    pi = train_pi(copy.deepcopy(pi_pre), D, I)  # line 9
    policies[f"π{'⁰¹²³'[k]}"] = pi
    try_out(f"π{'⁰¹²³'[k]}", pi, (1.0, 2.0))
try_out("π³", pi, (4.0, 16.0, 64.0))

# %%
fig, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
plain = [row for row in rows if row[1] == 1]
guided_rows = [row for row in rows if row[1] == 2]
for some, style, label in ((plain, "o-", "β = 1"), (guided_rows, "^--", "guided, β = 2")):
    axes[0].plot([row[0] for row in some], [row[3] for row in some], style, label=label, ms=8,
                 color=GREEN if "guided" in label else BLUE)
for name, _, success, throughput in plain:
    axes[0].annotate(f"{success:.0%}", (name, throughput), (0, 8), textcoords="offset points",
                     ha="center", color=BLUE, fontsize=9)
axes[0].set(title="successes per 100 steps (numbers: success at β = 1)", ylim=(0, None))
axes[0].legend(frameon=False, loc="lower right")
for (name, net), colour in zip(policies.items(), (GREY, VERMILLION, GREEN, BLUE)):
    steps = sample(net, np.zeros(4000), G, torch.Generator().manual_seed(0))
    edges = np.linspace(-0.25, 0.3, 80)
    axes[1].hist(steps, edges, histtype="step", lw=2, color=colour, label=name)
axes[1].set(title="the first step of each policy, β = 1", xlabel="left, right", yticks=[])
axes[1].legend(frameon=False, loc="upper left")
plt.show()
before, after = plain[1], plain[-1]
assert after[3] > 1.5 * before[3] and after[2] > before[2] + 0.2
assert guided_rows[-1][3] > after[3] and rows[-1][2] < 0.1  # β = 2; β = 64

# %% [markdown]
# $\pi_\text{pre}$, told "positive", goes right. Line 5 calls every step positive, those to
# the left, too, so $\pi^0$ has both ways again and slips often. That is this toy's doing:
# half of its better operators go left. In the paper SFT is a good start (Sec. VI-B).
#
# From then on the tries of the policy itself teach it: first the left way goes, then the
# slow steps. Guidance adds speed, until the steps grow too long: by $\beta$ = 16 a good
# part of the hands falls off the edge, by 64 all of them.
#
# ## 9. What the real thing has more of
#
# | here | in this repository | in the paper |
# |---|---|---|
# | a position | keypoints or cameras, and joints | cameras, and joints |
# | a number for $\ell$ | words; a subtask $\hat\ell$ that it writes itself | the same |
# | one action | a chunk of 8, and tokens | a chunk, and tokens |
# | 5 thousand weights | 225 thousand, two transformers | 4 billion and 860 million |
# | half a minute | minutes | robots, for days |
#
# The equations are the same. Eqs. 6 to 9 say how tokens and flow share one likelihood
# ([05](05_vla.ipynb), [03](03_flow.ipynb)), Eqs. 10 and 11 are the PPO that the paper
# compares with ([07](07_extraction.ipynb)).
#
# ## Change this line and see
#
# - Sec. 8: `pi = train_pi(copy.deepcopy(pi_pre), D, I)` to `pi =
#   train_pi(copy.deepcopy(pi_pre), D, [np.ones(len(e), bool) for e in D])`: every step is
#   called positive. The same data and steps, and an assertion at the end fails: it is the word
#   that improves the policy, not the data alone.
# - Sec. 3: `r[-1] = 0 if success else -c_fail` to `r[-1] = 0 if success else -1`: a failure
#   costs one step. The comparison with `labels.rewards` fails at once.
#
# ## In three sentences
#
# > RECAP judges each step of all data by whether it went better than a value function had
# > expected. It imitates all of them, with the verdict as a word before the action. Asked for
# > "positive", the policy acts better than what it imitated; its new tries are data for the
# > next round.
#
# [contents](../README.md#learn) · next: [01 · value](01_value.ipynb)

# %% [markdown]
# # 03 · Flow matching: from two modes to action chunks
#
# previous: [02 · advantage](02_advantage.ipynb) · [contents](../README.md#learn) · next:
# [04 · guidance](04_guidance.ipynb)
#
# **Beside the paper:** Secs. V-A and V-B (Eq. 4), App. C (Eqs. 6 to 9).
#
# A policy that imitates by regression answers with the mean of what it has seen. Where
# there are two ways to do a thing, the mean is neither. You will see in two dimensions
# how a flow keeps both ways, what $\alpha_\eta$ and $w(\eta)$ weigh, in which sense Eq.
# 4 is a bound, and then the same on chunks of two arms that may fold a collar up or
# down.
#
# Half an hour to read; less than a minute to run.

# %%
import sys
from pathlib import Path

# The folder above this one; Jupyter has no __file__, and starts in this one.
sys.path.insert(0, str(Path(globals().get("__file__", "notebook")).resolve().parents[1]))

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import recap
import show
from control import play
from data import episode_seeds, stack_steps
from lab.plots import BLUE, GREEN, GREY, VERMILLION
from policy import (
    ETA_MAX,
    FLOW_WEIGHTS,
    draw_noise,
    flow_matching_loss,
    integrate,
    likelihood_bound,
    noised,
    paper_weight,
    sample_actions,
)
from recap import optimise
from settings import Settings
from sim_tasks import TASKS
from sim_tasks.arms import forward_kinematics
from sim_tasks.demonstrator import Operator, Skill

torch.set_num_threads(1)
plt.rcParams.update({"figure.dpi": 80, "font.size": 10})

# %% [markdown]
# ## 1. Conventions, once
#
# $\omega \sim \mathcal N(0, \mathbf I)$ is noise, $\mathbf a$ is data, and between them
# stands
#
# $$ \mathbf a^{\eta,\omega} = \eta\,\mathbf a + (1 - \eta)\,\omega : $$
#
# **$\eta = 0$ is noise, $\eta = 1$ is data.** The policy is trained by a bound on its
# log-likelihood, one term for the action tokens $a^\ell$ and one for the chunk:
#
# $$ \begin{aligned} \log \pi_\theta(\mathbf a_{t:t+H}, a^\ell_{t:t+H} \mid I_t, \mathbf
# o_t, \ell, \hat\ell) \ge \mathbb E_{\eta,\omega} \Big[ & \log p_\theta(a^\ell_{t:t+H}
# \mid I_t, \mathbf o_t, \ell, \hat\ell) \\ & {} - \alpha_\eta \big\| \omega - \mathbf
# a_{t:t+H} - f_\theta(\mathbf a^{\eta,\omega}_{t:t+H}, I_t, \mathbf o_t, \ell,
# \hat\ell) \big\|^2 \Big] \end{aligned} \tag{4} $$
#
# So $f \approx \omega - \mathbf a$, which points from the
# data to the noise. Sampling walks against it: $d\mathbf a / d\eta = -f$. (Other
# texts swap the ends or the sign. Mixing two of them is the most common bug here.)

# %%
show.source(noised, flow_matching_loss, integrate)

# %% [markdown]
# An oracle that knows the one true $\mathbf a$ has $f = (\mathbf a^\eta - \mathbf
# a)/(1 - \eta)$. Its path is a straight line, so any number of Euler steps must return the
# data.
#
# <details><summary><b>Predict before you run:</b> where does one step with the wrong sign end,
# from $\omega$?</summary>
#
# At $\omega + f = 2\omega - \mathbf a$: as far from the noise as the data, on the other side.
# </details>

# %%
g = torch.Generator().manual_seed(0)
a = torch.randn(6, 8, 6, generator=g)
omega = torch.randn(6, 8, 6, generator=g)  # (N, H, A)

def oracle(a_eta, eta):
    return (a_eta - a) / (1 - eta[:, None, None])

eta = torch.rand(6, generator=g)
assert torch.allclose(oracle(noised(a, omega, eta), eta), omega - a, atol=1e-4)  # f is omega - a
for steps in (1, 5, 50):
    assert torch.allclose(integrate(oracle, omega, steps), a, atol=1e-4)
wrong = integrate(lambda a_eta, eta: -oracle(a_eta, eta), omega, 1)
assert torch.allclose(wrong, 2 * omega - a, atol=1e-5)
print(
    "rms distance to the data: "
    f"right sign {(integrate(oracle, omega, 5) - a).square().mean().sqrt():.6f}, "
    f"wrong sign {(wrong - a).square().mean().sqrt():.2f}"
)

# %% [markdown]
# ## 2. Two modes
#
# Half of the demonstrators pass an obstacle on the left, half on the right: a mixture
# of two Gaussians of standard deviation 0.15 in the plane. The best possible $f$ (the
# minimum of Eq. 4) is the *mean* of $\omega - \mathbf a$ over all $(\mathbf a, \omega)$
# that could have led to $\mathbf a^\eta$, and for a mixture it is known in closed form.
# With $\hat{\mathbf a} = E[\mathbf a \mid \mathbf a^\eta]$,
#
# $$ f(\mathbf a^\eta, \eta) = \frac{\mathbf a^\eta - \hat{\mathbf a}}{1 - \eta}. $$

# %%
modes = torch.tensor([[-1.0, 0.6], [1.0, 0.6]])
sd = 0.15

def best_field(a_eta, eta):
    """The optimal f of the two modes.  a_eta (N, 1, 2), eta (N,) -> (N, 1, 2)."""
    e = eta[:, None]
    v = e**2 * sd**2 + (1 - e) ** 2  # (N, 1) variance of a^eta around eta * mode
    off = a_eta - e[..., None] * modes  # (N, 2 modes, 2)
    share = torch.softmax(-(off**2).sum(-1) / (2 * v), dim=1)  # (N, 2): which mode is it?
    a_hat = modes + (e * sd**2 / v)[..., None] * off  # (N, 2 modes, 2)
    a_hat = (share[..., None] * a_hat).sum(1, keepdim=True)
    return (a_eta - a_hat) / (1 - eta[:, None, None])

def draw_data(n, g):
    return (modes[torch.randint(2, (n,), generator=g)] + sd * torch.randn(n, 2, generator=g))[
        :, None
    ]

g = torch.Generator().manual_seed(1)
data = draw_data(80, g)
omega = torch.randn(80, 1, 2, generator=g)
axis = torch.linspace(-2.2, 2.2, 9)
points = torch.cartesian_prod(axis, axis)[:, None]  # (81, 1, 2)
fig, axes = plt.subplots(1, 5, figsize=(10, 2.4), sharey=True, layout="constrained")
for ax, e in zip(axes, (0.0, 0.3, 0.6, 0.9)):
    v = -best_field(points, torch.full((len(points),), e))[:, 0]  # velocity
    cloud = noised(data, omega, torch.full((80,), e))[:, 0]
    ax.scatter(*cloud.T, s=4, color=GREY)
    ax.quiver(
        *points[:, 0].T, *(v / v.norm(dim=1, keepdim=True)).T, color=BLUE, scale=18, width=0.008
    )
    ax.set(title=rf"$\eta$ = {e}", xlabel=r"$a_1$", xlim=(-2.4, 2.4), ylim=(-2.4, 2.4))
path = [omega[:30]]
steps = 50  # the walk, step by step, as integrate does it
for i in range(steps):
    path.append(path[-1] - best_field(path[-1], torch.full((30,), i / steps)) / steps)
assert torch.equal(path[-1], integrate(best_field, omega[:30], steps))
path = torch.stack(path)[:, :, 0]  # (51, 30, 2)
for i in range(30):
    axes[4].plot(*path[:, i].T, lw=0.8, color=BLUE if path[-1, i, 0] < 0 else VERMILLION)
axes[4].plot(*path[-1].T, "k.", ms=3)
axes[4].set(title="30 walks to the data", xlabel=r"$a_1$")
axes[0].set_ylabel(r"$a_2$")
plt.show()

# %% [markdown]
# Grey: the noised data $\mathbf a^\eta$; arrows: direction of $-f$. At $\eta = 0$ all
# arrows point to one spot between the modes: pure noise says nothing about $\mathbf a$,
# so the best guess is the mean. Later the field splits, and where a walk goes is
# decided by its noise. There is no dice roll after $\omega$.
#
# <details><summary><b>Predict before you run the next cell:</b> where does a walk of a single
# Euler step end?</summary>
#
# At the mean of the data, between the modes, whatever the noise was.
# </details>
#
# ## 3. The mean, and how many Euler steps
#
# Regression of $\mathbf a$ gives the mean of the data. The very same field gives it,
# too, if one takes **one** Euler step: $\omega - f(\omega, 0) = \hat{\mathbf
# a}(\omega, 0) = E[\mathbf a]$. The flow's gain over regression is in the steps after the first.

# %%
g = torch.Generator().manual_seed(2)
omega = torch.randn(4000, 1, 2, generator=g)
fine = integrate(best_field, omega, 500)[:, 0]  # the reference: small steps, same noise
assert torch.allclose(
    integrate(best_field, omega, 1)[:, 0], modes.mean(0).expand(4000, 2), atol=1e-5
)

def at_a_mode(x):
    """Share of x (N, 2) within 3 standard deviations of a mode; of the data it is 98.9 %."""
    return (torch.cdist(x, modes).min(1).values < 3 * sd).float().mean().item()

print("Euler steps   at a mode   on the left   spread / sd   rms distance to 500 steps")
for steps in (1, 2, 5, 10, 50):
    x = integrate(best_field, omega, steps)[:, 0]
    side = (x[:, :1] > 0).long()[:, 0]
    spread = (x - modes[side]).square().mean().sqrt() / sd
    print(
        f"{steps:8} {100 * at_a_mode(x):12.1f} % {100 * (x[:, 0] < 0).float().mean():10.1f} %"
        f"{spread:12.2f}"
        f"{(x - fine).square().mean().sqrt():18.3f}"
    )

# %% [markdown]
# One step: the mean, where no demonstrator has ever been (the robot hits the obstacle).
# Five steps, the default of this project, are at a mode nearly always, a little too
# narrow; fifty bring the spread nearly right. (This is the error of Euler's steps
# alone; the field is exact.)
#
# ## 4. What the loss weighs
#
# `policy.VLA` predicts the clean chunk $\hat{\mathbf a}$ and derives $f$ from it. Since
# $\omega - \mathbf a - f = (\hat{\mathbf a} - \mathbf a)/(1 - \eta)$,
#
# $$ \|\omega - \mathbf a - f\|^2 = \frac{\|\mathbf a - \hat{\mathbf a}\|^2}{(1 - \eta)^2}, $$
#
# a plain squared error on $\hat{\mathbf a}$ *is* Eq. 4 with $\alpha_\eta = (1 - \eta)^2$.
# The paper's weight comes by way of a Gaussian for one step of the flow,
#
# $$ \log \pi_\theta(\mathbf a_{t:t+H} \mid \mathbf a^{\eta,\omega}_{1:H}, I_t, \mathbf
# o_t, \ell, \hat\ell) = \log \mathcal N\big(\omega - f_\theta(\mathbf
# a^{\eta,\omega}_{1:H}, I_t, \mathbf o_t, \ell, \hat\ell), \mathbf I\big), \tag{7} $$
#
# whose logarithm is a squared norm and a constant, averaged over noise:
#
# $$ \log \pi_\theta(\mathbf a_{t:t+H} \mid I_t, \mathbf o_t, \ell, \hat\ell) \ge \tfrac12
# \mathbb E_{\eta,\omega}\Big[ {-w(\eta)} \big\| \omega - \mathbf a_{1:H} -
# f_\theta(\mathbf a^{\eta,\omega}_{1:H}, I_t, \mathbf o_t, \ell, \hat\ell) \big\|^2
# \Big] + c, \qquad w(\eta) = e^{-\eta/2}. \tag{8} $$
#
# So $\alpha_\eta = w(\eta)/2$. `FLOW_WEIGHTS` has both, and the constant.

# %%
show.source(paper_weight, draw_noise)

# %%
g = torch.Generator().manual_seed(3)
a = draw_data(200_000, g)
omega, eta = draw_noise(a, g)  # eta from pi_0's noise-heavy law
a_hat = torch.randn(a.shape, generator=g)  # any prediction at all
f = (noised(a, omega, eta) - a_hat) / (1 - eta[:, None, None])
squared_error = (a - a_hat).square().mean(dim=(1, 2))  # (N,)
assert torch.allclose(flow_matching_loss(f, a, omega, eta), squared_error, rtol=1e-3, atol=1e-3)

e = torch.linspace(0, 0.99, 200)
density = 1.5 / ETA_MAX * (1 - e / ETA_MAX) ** 0.5  # of eta = 0.999 (1 - u^(1/1.5)), u uniform
fig, axes = plt.subplots(1, 3, figsize=(10, 2.3), layout="constrained")
axes[0].hist(eta, 50, density=True, color=GREY, alpha=0.5, label="200,000 draws")
axes[0].plot(e, density, color="black", label=r"$p(\eta) \propto (1 - \eta/0.999)^{1/2}$")
axes[0].set(
    title=r"how often $\eta$ is drawn", xlabel=r"$\eta$ (0 noise, 1 data)", ylabel="density"
)
for (name, weight), colour, style in zip(
    FLOW_WEIGHTS.items(), (BLUE, VERMILLION, GREEN), ("-", "--", ":")
):
    alpha = (1 - e) ** 2 if weight is None else weight(e)
    axes[1].plot(e, alpha, color=colour, ls=style, label=name)
    axes[2].semilogy(e, density * alpha / (1 - e) ** 2, color=colour, ls=style, label=name)
axes[1].set(title=r"$\alpha_\eta$: weight of $\|\omega - a - f\|^2$", xlabel=r"$\eta$")
axes[2].set(
    title=r"$p(\eta)\,\alpha_\eta/(1-\eta)^2$: weight of $\|a - \hat a\|^2$", xlabel=r"$\eta$"
)
for ax in axes:
    ax.title.set_fontsize(10)
    ax.legend(fontsize=9, frameon=False)
plt.show()
print(
    "paper's weight at eta = 1 against eta = 0: "
    f"{FLOW_WEIGHTS['paper'](torch.ones(1)).item() / 0.5:.3f}"
)

# %% [markdown]
# The paper's weight is nearly a constant: it falls by 39 % from noise to data. Why
# $e^{-\eta/2}$? In [80] the weighting is a function of the log signal-to-noise ratio
# $\lambda = 2 \log(\eta/(1 - \eta))$, not of the flow's time, and the loss reads
# $\frac12 \int w(\lambda)\, E\|\omega - \hat\omega\|^2\, d\lambda$. Put in $\omega -
# \hat\omega = \eta\,(\omega - \mathbf a - f)$ and $d\lambda = 2\, d\eta / (\eta(1 -
# \eta))$:
#
# $$ \frac12 \int w\, \|\omega - \hat\omega\|^2\, d\lambda
# = \int w\,\frac{\eta}{1 - \eta}\, \|\omega - \mathbf a - f\|^2\, d\eta,
# \qquad w = e^{-\lambda/2} = \frac{1 - \eta}{\eta} \;\Rightarrow\; \alpha_\eta = 1. $$
#
# So $e^{-\lambda/2}$ is *plain flow matching with uniform $\eta$*. Our reading: that is
# what App. C means, and the $\eta$ in its exponent stands for $\lambda$. Taken
# literally it is almost the same thing. For a network that puts out $f$ either will do.
# For one that puts out $\hat{\mathbf a}$ (right picture) both give errors near the data
# a weight thousands of times that of "clean" at $\eta = 0.99$, the end of the plot.
#
# Does it matter? A tiny network, the two outputs, the three weights, 800 steps of Adam
# each:

# %%
def train(output, weight):
    """A field (a_eta (N, 1, 2), eta (N,)) -> f, trained by Eq. 4 on the two modes."""
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 2))

    def out(x, eta):
        return net(torch.stack([*x[:, 0].T, eta, eta**2], dim=1))[:, None]

    field = (
        out if output == "velocity" else lambda x, eta: (x - out(x, eta)) / (1 - eta[:, None, None])
    )

    def draw_loss():
        a = draw_data(256, g)
        omega, eta = draw_noise(a, g)
        f = field(noised(a, omega, eta), eta)
        return flow_matching_loss(f, a, omega, eta, None if weight is None else weight(eta)).mean()

    optimise(net, draw_loss, 800, 1e-2, "field")
    return field

omega = torch.randn(4000, 1, 2, generator=torch.Generator().manual_seed(4))
print("output     alpha       at a mode (50 steps)   spread / sd")
for output in ("clean", "velocity"):
    for name, weight in FLOW_WEIGHTS.items():
        field = train(output, weight)
        with torch.no_grad():
            x = integrate(field, omega, 50)[:, 0]
        spread = (x - modes[(x[:, 0] > 0).long()]).square().mean().sqrt() / sd
        print(f"{output:9}  {name:9} {100 * at_a_mode(x):12.1f} % {spread:20.2f}")

# %% [markdown]
# The weight belongs to the output. A network that puts out $\hat{\mathbf a}$ does best
# with "clean", one that puts out $f$ with the constant or the paper's weight; crosswise
# more samples lie between the modes or beside them. None is perfect after so few steps:
# "clean" is too narrow, the velocities a little too wide. (One seed and a tiny network:
# an illustration, not a measurement. `python -m reproduce ablation flow` compares them
# on the task.)
#
# ## 5. A bound, and an order
#
# Eqs. 4 and 8 call the (negative) loss a lower bound of $\log \pi_\theta(\mathbf a)$ up
# to a constant $c$ that does not depend on $f_\theta$. Here the density is known.
#
# Along the line through both modes, with the best field and the same draws of $(\omega,
# \eta)$ for every point, compare $\log p(\mathbf a)$ with $-E_{\eta,\omega}[\alpha_\eta
# \|\omega - \mathbf a - f\|^2]$, $\eta$ uniform, for three $\alpha_\eta$: "clean",
# "paper", and $\alpha_\eta = \eta/(1 - \eta)$. The last is $w(\lambda) = 1$ in the
# formula above, for which the best field makes the bound exact.

# %%
line = torch.linspace(-1.5, 1.5, 61)
along = torch.stack([line, torch.full((61,), 0.6)], dim=1)  # (61, 2)
log_p = torch.logsumexp(
    -0.5 * ((along[:, None] - modes) / sd).square().sum(-1), dim=1
)  # + constant
n = 4000
omega = torch.randn(n, 1, 2, generator=torch.Generator().manual_seed(5))
eta = ETA_MAX * (torch.arange(n) + 0.5) / n  # uniform, evenly spaced

def bound(point, alpha):
    """-E[alpha ‖omega - a - f‖²] of one action (2,), on the draws above."""
    a = point.expand(n, 1, 2)
    f = best_field(noised(a, omega, eta), eta)
    return (
        -2 * flow_matching_loss(f, a, omega, eta, alpha).mean().item()
    )  # of 2 numbers: mean -> sum

kinds = {
    "clean": (1 - eta) ** 2,
    "paper": FLOW_WEIGHTS["paper"](eta),
    r"$\eta/(1-\eta)$": eta / (1 - eta),
}
bounds = {name: np.array([bound(point, alpha) for point in along]) for name, alpha in kinds.items()}
fig, axes = plt.subplots(1, 3, figsize=(9, 2.2), layout="constrained")
for ax, (name, values), colour in zip(axes, bounds.items(), (BLUE, GREEN, VERMILLION)):
    ax.plot(line, values - values.max(), color=colour)
    ax.set(title=r"bound with $\alpha_\eta$ = " + name, xlabel=r"$a_1$ ($a_2$ = 0.6)")
axes[2].plot(line, log_p - log_p.max(), "k:", label="log p(a)")
axes[2].legend(fontsize=9, frameon=False, loc="lower left")
axes[0].set_ylabel("nats, maximum at 0")
plt.show()
for name, values in bounds.items():
    print(
        f"alpha = {name:16} middle below the mode by {values[10] - values[30]:6.2f}, "
        f"in log p {log_p[10] - log_p[30]:.2f}; correlation {np.corrcoef(values, log_p)[0, 1]:5.2f}"
    )

# %% [markdown]
# With $\eta/(1 - \eta)$ the curve lies on $\log p$: that bound is tight. The other two
# are far too flat, and "clean" does not even keep the order: it likes the middle, where
# no datum is, a little *better* than the modes. Nothing is broken. With other weights
# [80] bounds the likelihood of *noised* data, averaged over noise levels, and under
# much noise the two modes are one hill whose top is the middle. "Clean" looks mostly at
# much noise.
#
# So: as a loss to descend over $f_\theta$, any of these weights has the same minimum,
# if $f_\theta$ can represent it. As a stand-in for $\log \pi_\theta(\mathbf a)$ (for
# one $f_\theta$, over $\mathbf a$) the weight matters, and the size in nats means
# little. (The default of `policy.likelihood_bound` is "clean".) Eq. 11 compares two
# networks on the same $\mathbf a$, not two $\mathbf a$.
#
# ## 6. Action chunks
#
# Now the VLA on the collar task: take both halves of the collar, fold them up (counts)
# or down (does not). Half of the demonstrations go each way, and nothing in the
# observation before tells which. To see only that, the operator is careful, never
# pauses and keeps one pace. The network trains on 100 demonstrations for 300 steps,
# without the indicator (no labels): plain imitation.

# %%
s = Settings(task="fold_collar", demonstrations=100)
steady = Skill(
    careful=1.0, pause=0.0, paces=(0.017,), pace_p=(1.0,)
)  # m per step; half still go wrong

def demonstrated_steadily(seeds):
    """`collection.demonstrate` by an operator of this skill."""
    world = TASKS["fold_collar"].world(seeds)
    operator = Operator(world, seeds, steady)

    def act(observation, live):
        return operator.act(world)[:, None]  # chunks of one action

    return play(world, act, 1, source="demonstration", metadata=operator.metadata())

D = demonstrated_steadily(episode_seeds(s.seed, "walkthrough fold_collar", s.demonstrations))
policy = recap.train_policy(recap.new_policy(s), D, None, s, 300)
success = 100 * np.mean([e.success for e in D])
print(
    f"{len(D)} demonstrations, {sum(len(e) for e in D)} steps, {success:.0f} % success (folded up)"
)

seeds = episode_seeds(s.seed, "walkthrough, held out fold_collar", s.demonstrations)
held_out = demonstrated_steadily(seeds)

def at_the_fork(episodes):
    """(episode, step) at which both halves are held for the first time: one goes up or down."""
    held = [
        (e.observations["keypoints"][:, :2, 7:9].max(-1) > 0).all(1) for e in episodes
    ]  # (T,) each
    return [(e, int(np.flatnonzero(h)[0])) for e, h in zip(episodes, held) if h.any()]

def hands(chunks, state):
    """Up or down: y of the left hand (N, H), cm from where it is, of joint targets (N, H, 6)."""

    def y(joints):
        return forward_kinematics(joints.reshape(-1, 2, 3)[:, :, :2])[:, 0, 1]

    return 100 * (y(np.asarray(chunks)).reshape(len(chunks), -1) - y(np.asarray(state)[None]))

demonstrated = np.concatenate(
    [
        hands(
            stack_steps([e], s.interface, horizon=8)["actions"][t : t + 1],
            e.observations["state"][t],
        )
        for e, t in at_the_fork(D)
    ]
)  # (episodes, 8)
e, t = at_the_fork(held_out)[0]  # one state that the network has not seen
steps = stack_steps([e], s.interface)
seen = {key: x[t : t + 1].expand(200, *x.shape[1:]) for key, x in steps.items()}
omega = torch.randn(200, 8, 6, generator=torch.Generator().manual_seed(6))
observation = {key: seen[key] for key in ("state", "keypoints")}

def sample(n):
    return sample_actions(policy, observation, seen["prompt"], seen["subtask"], None, 1.0, n, omega)

fig, axes = plt.subplots(1, 3, figsize=(9.5, 2.6), sharey=True, layout="constrained")
now = e.observations["state"][t]  # (6,)
pictures = {
    "demonstrated,\nat the fork of each episode": demonstrated,
    "samples at one held-out state,\n5 Euler steps": hands(sample(5), now),
    "the same noise, 1 Euler step:\nthe network's mean": hands(sample(1), now),
}
for ax, (title, y) in zip(axes, pictures.items()):
    for row in y[:20]:
        ax.plot(np.arange(1, 9), row, lw=0.7, alpha=0.6, color=BLUE if row[-1] > 0 else VERMILLION)
    ax.axhline(0, color="black", lw=0.8, ls=":")
    ax.set(xlabel="step of the chunk (0.1 s each)")
    up = 100 * (y[:, -1] > 5).mean()
    down = 100 * (y[:, -1] < -5).mean()
    shares = f"up {up:.0f} %, down {down:.0f} %, below 5 cm {100 - up - down:.0f} %"
    ax.set_title(f"{title}\n{shares}", fontsize=10)
axes[0].set_ylabel("left hand, y from here (cm)")
plt.show()

# %% [markdown]
# (Twenty of each are drawn, the shares are of all.) Up and down are both there, and
# almost no chunk stays between. The same network with the same noise and a single Euler
# step answers with its mean: many chunks go a little way in one direction, or none.
# That is regression. (300 gradient steps do not teach the first step to ignore $\omega$
# altogether, so this is a fan and not one curve.)
#
# A chunk is for two arms, and they must choose together:

# %%
def y_of_both(joints):
    return forward_kinematics(joints.reshape(-1, 2, 3)[:, :, :2])[:, :, 1]  # (n, arm), m

for n in (1, 5, 50):
    moved = y_of_both(sample(n)[:, -1].numpy()) - y_of_both(
        now
    )  # (200, 2): at the end of the chunk
    print(
        f"{n:2} Euler steps: both arms the same way {100 * (moved.prod(1) > 0).mean():5.1f} %, "
        f"left hand up {100 * (moved[:, 0] > 0).mean():5.1f} %, "
        f"moved less than 5 cm {100 * (abs(moved[:, 0]) < 0.05).mean():5.1f} %"
    )

# %% [markdown]
# Where in $\eta$ is the error? Below, $\|\mathbf a - \hat{\mathbf a}\|^2/(H A)$ by
# $\eta$ on steps of the training data (chunks have unit variance, so 1 is what a
# constant prediction would get).

# %%
steps = stack_steps(D, s.interface, horizon=8)
batch = {key: x for key, x in steps.items() if key != "actions"}
batch["chunk"] = policy.normalize(steps["actions"], steps["state"])  # (M, H, action_dim)
batch["tokens"] = policy.tokenizer.encode(batch["chunk"])
yes = torch.ones(len(batch["chunk"]), dtype=torch.bool)
batch |= {"positive": yes, "omit": yes}  # never shown the indicator
omega, eta = draw_noise(batch["chunk"], torch.Generator().manual_seed(8))
with torch.no_grad():
    error = policy.terms(batch, omega[:, None], eta[:, None])["flow"][:, 0]  # (M,)
edges = (0, 0.1, 0.2, 0.4, 0.6, 1)
by_eta = []
for low, high in zip(edges[:-1], edges[1:]):
    by_eta.append(error[(eta >= low) & (eta < high)].mean().item())
    print(f"eta {f'{low}-{high}':8} {by_eta[-1]:.3f}  {'#' * round(200 * by_eta[-1])}")
assert by_eta[0] > by_eta[-1]

# %% [markdown]
# Large near the noise, where the choice of the way is not made yet and no network can
# know it: that part of the loss is the variance of the demonstrations, not a fault.
# $\pi_0$'s law draws $\eta$ there most often.
#
# ## 7. `likelihood_bound`, and why the draws must be shared
#
# Eq. 8 with the tokens' likelihood, and the weights taken into $\alpha_\eta$:
#
# $$ \begin{aligned} \log \pi_\theta(\mathbf a_{t:t+H}, a^\ell_{t:t+H} \mid I_t, \mathbf
# o_t, \ell, \hat\ell) \ge \mathbb E_{\eta,\omega}\Big[ & \log p_\theta(a^\ell_{t:t+H}
# \mid I_t, \mathbf o_t, \ell, \hat\ell) \\ & {} - \alpha_\eta \big\| \omega - \mathbf
# a_{1:H} - f_\theta(\mathbf a^{\eta,\omega}_{1:H}, I_t, \mathbf o_t, \ell, \hat\ell)
# \big\|^2 \Big] \end{aligned} \tag{9} $$

# %%
show.source(likelihood_bound)

# %% [markdown]
# The bound is an average over draws of $(\omega, \eta)$, here 4 per
# step. Eq. 11 needs the *difference* of two bounds. Two tests on held-out steps: the
# demonstrated chunk against the chunk moved by a fifth of a standard deviation, and the
# network against itself, whose ratio must be 1.

# %%
steps = stack_steps(held_out, s.interface, horizon=8)
index = torch.randperm(len(steps["prompt"]), generator=torch.Generator().manual_seed(7))[:200]
batch = {key: x[index] for key, x in steps.items()}
chunk = policy.normalize(batch["actions"], batch["state"])  # (200, H, A)
batch |= {
    "positive": torch.ones(200, dtype=torch.bool),
    "omit": torch.ones(200, dtype=torch.bool),
}  # Eq. 10

def flow_bound(chunk, seed):
    """The flow term of the bound (200,), on 4 draws per step from that seed."""
    omega, eta = draw_noise(chunk.repeat_interleave(4, 0), torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return likelihood_bound(
            policy,
            batch | {"chunk": chunk, "tokens": policy.tokenizer.encode(chunk)},
            omega.view(200, 4, 8, 6),
            eta.view(200, 4),
        )[1]

here = flow_bound(chunk, 0)
print("the demonstrated chunk has the higher bound in")
for name, seed in (("the same draws", 0), ("other draws", 1)):
    moved = flow_bound(chunk + 0.2, seed)
    print(f"  {100 * (here > moved).float().mean():5.1f} % of the steps with {name}")
assert torch.equal(here, flow_bound(chunk, 0))
print(
    f"ratio of the network with itself: 1 with the same draws; with other draws the log-ratio has "
    f"the standard deviation {(here - flow_bound(chunk, 1)).std():.1f}"
)

# %% [markdown]
# The order is found more often if both bounds share $(\omega, \eta)$ than if they do
# not. And the ratio: with draws of its own on each side, even the ratio of a network
# with *itself* is $e^{\pm\text{that}}$ in the place of 1. So `baselines.ppo_loss` takes
# both bounds on the same draws.
#
# ## Change this line and see
#
# - Sec. 2: `sd = 0.15` to `sd = 0.5`: the modes overlap, and the mean is "at a mode" in 100
#   % of the cases. Now only the spread (1.41 at one step) and the distance to 500 steps
#   tell that one step is wrong.
# - Sec. 5: `eta = ETA_MAX * (torch.arange(n) + 0.5) / n` to `eta = draw_noise(omega,
#   torch.Generator().manual_seed(0))[1]`: training's draws make the bound, and "paper" loses
#   order, too. The middle lies below the mode by about 0.35 in the place of 0.86.
# - Sec. 7: `flow_bound(chunk + 0.2, seed)` to `flow_bound(chunk + 0.5, seed)`: a larger
#   difference, and the order is found in 100 % of the steps either way.
#
# ## In three sentences
#
# > Regression answers with the mean of two ways, a flow keeps both and lets the noise choose.
# > Eq. 4 trains $f \approx \omega - \mathbf a$; with $\alpha_\eta = (1 - \eta)^2$ it is a plain
# > squared error of the clean chunk. Read as a likelihood it is a loose bound, to be compared
# > on the same draws only.
#
# previous: [02 · advantage](02_advantage.ipynb) · [contents](../README.md#learn) · next:
# [04 · guidance](04_guidance.ipynb)

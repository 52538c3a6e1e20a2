"""Exercise 5: guidance, Eq. (13), inside the sampler."""
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import parameters as P
from checks import check, close, refused
import policy

GAIN = {"positive": 0.6, "negative": -0.4, "omitted": 0.2}  # of the made-up policy below

def normal(seed, *shape):
    """Random numbers, float64; a chunk for every sample where no shape is given."""
    numbers = np.random.default_rng([P.SEED, seed]).normal(size=shape or P.SHAPE)
    return torch.as_tensor(numbers)

def test_guidance_in_closed_form():
    f_u = normal(1)
    f_c = normal(2)
    hint = "β = 1 is the conditional field (some papers write β = 1 + w)"
    close(policy.guided(f_u, f_c, 1.0), f_c, hint)
    close(policy.guided(f_u, f_c, 0.0), f_u, "β = 0 is the unconditional field")
    for beta in P.BETAS:
        expected = [(1 - beta) * u + beta * c for u, c in zip(f_u.numpy(), f_c.numpy())]
        hint = f"β = {beta}: from f_u, β times the way to f_c"
        close(policy.guided(f_u, f_c, beta), np.array(expected), hint)

class Gains:
    """Stands for a VLA: its field is f(a) = gain · a, and the gain tells which branch it is.

    Euler steps then end at ω (1 - gain / steps)^steps; guidance is a gain between or beyond two.
    """

    config = SimpleNamespace(horizon=P.SHAPE[1], output="velocity")
    action_dim = P.SHAPE[2]

    def hidden_states(self, observation, prompt, subtask, positive, omit, *rest, read=True):
        same = len(observation["state"]) == len(prompt) == len(omit)
        check(same, "observation, prompt and omit have one row each per sample")
        gain = torch.full((len(positive),), GAIN["negative"], dtype=torch.float64)
        gain[positive] = GAIN["positive"]
        return gain  # (n,)

    def context(self, hidden, omit):
        hint = "policy.context takes omit (n,), or (n, n_draws) with one branch per draw"
        check(len(omit) == len(hidden) and omit.ndim in (1, 2), hint)
        gain = hidden[:, None].expand(len(hidden), omit[0].numel())
        return gain.masked_fill(omit.view(len(omit), -1), GAIN["omitted"])  # (n, n_draws)

    def field(self, context, a_eta, eta):
        hint = "policy.field takes draws per prefix: a (B, n_draws, H, action_dim), eta (B, ·)"
        check(a_eta.ndim == 4 and eta.shape == a_eta.shape[:2], hint)
        return context[:, :, None, None] * a_eta

    def normalize(self, chunks, states):
        return (chunks - states[:, None]) / 3

    def denormalize(self, chunks, states):
        return 3 * chunks + states[:, None]

def sample(indicator, beta, steps):
    """Returns (what sample_actions gives, ω, states)."""
    N, _, action_dim = P.SHAPE
    omega = normal(3)
    state = normal(4, N, action_dim)
    prompt = torch.zeros(N, 5, dtype=torch.long)
    subtask = torch.zeros(N, 2, dtype=torch.long)
    got = policy.sample_actions(
        Gains(), {"state": state}, prompt, subtask, indicator, beta, steps, omega
    )
    return got, omega, state

def expected(gain, steps, omega, state):
    return 3 * omega * (1 - gain / steps) ** steps + state[:, None]

@pytest.mark.parametrize("steps", P.STEPS)
def test_beta_1_samples_the_branch_that_was_asked_for(steps):
    for indicator, name in ((True, "positive"), (False, "negative"), (None, "omitted")):
        got, *rest = sample(indicator, 1.0, steps)
        hint = f"indicator={indicator}, β = 1: integrate the field of the {name} indicator from ω,"
        close(got, expected(GAIN[name], steps, *rest), f"{hint} then denormalize with the state")

@pytest.mark.parametrize("steps", P.STEPS)
def test_beta_0_samples_the_unconditional_branch(steps):
    for indicator in (True, False):
        got, *rest = sample(indicator, 0.0, steps)
        hint = "β = 0: the indicator is left out (omit True)"
        close(got, expected(GAIN["omitted"], steps, *rest), hint)

@pytest.mark.parametrize("beta", P.BETAS)
@pytest.mark.parametrize("steps", P.STEPS)
def test_guidance_moves_velocities(steps, beta):
    for indicator, name in ((True, "positive"), (False, "negative")):
        got, *rest = sample(indicator, beta, steps)
        gain = GAIN["omitted"] + beta * (GAIN[name] - GAIN["omitted"])
        hint = f"indicator={indicator}, β = {beta}, {steps} Euler steps: guide f in every step;"
        hint += " guiding two finished chunks agrees only for a single step"
        close(got, expected(gain, steps, *rest), hint)

def test_guidance_needs_an_indicator_and_a_number():
    for indicator, beta in ((True, -0.5), (True, math.nan), (None, P.BETAS[-1])):
        hint = f"indicator={indicator}, beta={beta}: raise ValueError"
        refused(hint, sample, indicator, beta, 2)

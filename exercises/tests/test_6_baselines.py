"""Exercise 6: AWR's weights, and Eq. (11)."""
import numpy as np
import pytest
import torch

import parameters as P
from checks import check, close, refused
import baselines

def some_advantages(n=9):
    return torch.as_tensor(np.random.default_rng(P.SEED).uniform(-1, 1, n))  # float64

def some_log_ratios(n=9):
    return torch.as_tensor(np.random.default_rng(P.SEED + 1).normal(0, 0.2, n))

def brace(log_ratio, A, epsilon):
    """Eq. (11), one brace, sample by sample; to maximise."""
    terms = []
    for r_i, A_i in zip(np.exp(np.asarray(log_ratio)), np.asarray(A)):
        terms.append(r_i * A_i - abs(A_i) * (r_i - 1) * (r_i - 1) / 2 / epsilon)
    return np.mean(terms)

@pytest.mark.parametrize("temperature", P.TEMPERATURES)
def test_awr_weights_by_hand(temperature):
    A = torch.cat([some_advantages(), torch.tensor([0.0, 1000.0, -1000.0]).double()])
    weight = baselines.awr_weights(A, temperature, P.MAX_WEIGHT)
    expected = [min(np.exp(min(a / temperature, 700)), P.MAX_WEIGHT) for a in A.tolist()]
    hint = "exp(A / T), at most max_weight; clip before exp, so that no inf appears on the way"
    close(weight, expected, hint)

def test_awr_wants_a_temperature():
    for temperature in (0.0, -1.0, float("nan")):
        hint = f"temperature {temperature}: raise ValueError (NaN compares False with anything)"
        refused(hint, baselines.awr_weights, some_advantages(), temperature)

@pytest.mark.parametrize("epsilon", P.EPSILONS)
def test_spo_by_hand(epsilon):
    log_ratio = some_log_ratios()
    A = some_advantages()
    hint = "to minimise, so with a minus; r = exp(log_ratio); the penalty is |A| / (2ε) times the"
    loss = baselines.spo_loss(log_ratio, A, epsilon)
    close(loss, -brace(log_ratio, A, epsilon), f"{hint} *square* of r - 1")

@pytest.mark.parametrize("epsilon", P.EPSILONS)
def test_spo_begins_as_the_policy_gradient(epsilon):
    A = some_advantages()
    log_ratio = torch.zeros(9).double().requires_grad_()
    baselines.spo_loss(log_ratio, A, epsilon).backward()
    hint = "at r = 1 the penalty is flat and the slope is -A: good actions become likelier"
    close(log_ratio.grad, -A / len(A), hint)

@pytest.mark.parametrize("epsilon", P.EPSILONS)
def test_spo_is_smallest_at_the_edge_of_the_trust_region(epsilon):
    for A in (0.7, -0.7):
        ratio = torch.tensor([1 + epsilon * np.sign(A)]).requires_grad_()
        loss = baselines.spo_loss(torch.log(ratio), torch.tensor([A]).double(), epsilon)
        (slope,) = torch.autograd.grad(loss, ratio)
        hint = f"A = {A}: the minimum lies at r = 1 + ε sign(A); a penalty without a square has"
        close(slope, [0.0], f"{hint} no minimum", 1e-4)

@pytest.fixture
def bounds(monkeypatch):
    """likelihood_bound gives made-up numbers, and notes the draws that it was called with."""
    calls = []
    x = some_log_ratios()
    known = {"new": (x, x.flip(0)), "old": (0.3 * x, torch.zeros(9).double())}

    def bound(policy, batch, omega, eta, alpha=None):
        calls.append((policy, omega, eta))
        return known[policy]

    monkeypatch.setattr(baselines, "likelihood_bound", bound)
    return known, calls

@pytest.mark.parametrize("epsilon", P.EPSILONS)
def test_ppo_compares_new_with_old(bounds, epsilon):
    known, _ = bounds
    tokens, flow = known["new"]
    tokens_ref, flow_ref = known["old"]
    A = some_advantages()
    other = epsilon / 2
    loss = baselines.ppo_loss(
        "new", {"advantage": A}, "omega", "eta", "old", epsilon, other, P.ALPHA
    )
    of_tokens = brace(tokens - tokens_ref, A, epsilon)
    of_flow = brace(flow - flow_ref, A, other)
    hint = "the ratio is exp(new - old): π_θ above, π_ref below; two braces, each with its ε,"
    close(loss, -(of_tokens + P.ALPHA * of_flow), f"{hint} α times the flow's")

def test_ppo_compares_on_the_same_draws(bounds):
    _, calls = bounds
    baselines.ppo_loss("new", {"advantage": some_advantages()}, "omega", "eta", "old", 0.1, 0.1)
    both = sorted(policy for policy, _, _ in calls) == ["new", "old"]
    check(both, "the bound of π_θ and that of π_ref, once each")
    same = all((omega, eta) == ("omega", "eta") for _, omega, eta in calls)
    check(same, "both on the ω and η that were given: other draws would compare noise")

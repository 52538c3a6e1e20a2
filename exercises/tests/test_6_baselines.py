"""Exercise 6: AWR's weights, and Eq. (11)."""
import numpy as np
import pytest
import torch

import baselines
import parameters as P
from checks import check, close

RATIO = "the ratio is exp(new - old): π_θ above, π_ref below"


def some_advantages(n=9):
    return torch.as_tensor(np.random.default_rng(P.SEED).uniform(-1, 1, n))              # float64


def some_log_ratios(n=9):
    return torch.as_tensor(np.random.default_rng(P.SEED + 1).normal(0, 0.2, n))


def brace(log_ratio, A, epsilon):
    """Eq. (11), one brace, sample by sample; to maximise."""
    r = np.exp(np.asarray(log_ratio))
    A = np.asarray(A)
    return np.mean([r_i * A_i - abs(A_i) * (r_i - 1) * (r_i - 1) / 2 / epsilon for r_i, A_i in zip(r, A)])


@pytest.mark.parametrize("T", P.TEMPERATURES)
def test_awr_weights_by_hand(T):
    A = torch.cat([some_advantages(), torch.tensor([0.0, 1000.0, -1000.0]).double()])
    weight = baselines.awr_weights(A, T, P.MAX_WEIGHT)
    close(weight, [min(np.exp(min(a / T, 700)), P.MAX_WEIGHT) for a in A.tolist()],
          "exp(A / T), at most max_weight; clip before exp, so that no inf appears on the way")


def test_awr_wants_a_temperature():
    for T in (0.0, -1.0, float("nan")):
        try:
            baselines.awr_weights(some_advantages(), T)
        except ValueError:
            continue
        check(False, f"temperature {T}: raise ValueError (NaN compares False with anything)")


@pytest.mark.parametrize("epsilon", P.EPSILONS)
def test_spo_by_hand(epsilon):
    log_ratio, A = some_log_ratios(), some_advantages()
    close(baselines.spo_loss(log_ratio, A, epsilon), -brace(log_ratio, A, epsilon), "to minimise, so with a minus; r = exp(log_ratio); "
          "the penalty is |A| / (2ε) times the *square* of r - 1")


@pytest.mark.parametrize("epsilon", P.EPSILONS)
def test_spo_begins_as_the_policy_gradient(epsilon):
    A, log_ratio = some_advantages(), torch.zeros(9).double().requires_grad_()
    baselines.spo_loss(log_ratio, A, epsilon).backward()
    close(log_ratio.grad, -A / len(A), "at r = 1 the penalty is flat and the slope is -A: good actions become likelier")


@pytest.mark.parametrize("epsilon", P.EPSILONS)
def test_spo_is_smallest_at_the_edge_of_the_trust_region(epsilon):
    for A in (0.7, -0.7):
        ratio = torch.tensor([1 + epsilon * np.sign(A)]).requires_grad_()
        loss = baselines.spo_loss(torch.log(ratio), torch.tensor([A]).double(), epsilon)
        slope, = torch.autograd.grad(loss, ratio)
        close(slope, [0.0], f"A = {A}: the minimum lies at r = 1 + ε sign(A); a penalty without a square has no minimum", 1e-4)


@pytest.fixture
def bounds(monkeypatch):
    """likelihood_bound gives made-up numbers, and notes the draws that it was asked with."""
    asked, n = [], 9
    known = {"new": (some_log_ratios(n), some_log_ratios(n).flip(0)), "old": (0.3 * some_log_ratios(n), torch.zeros(n).double())}

    def bound(policy, batch, omega, eta, alpha=None):
        asked.append((policy, omega, eta))
        return known[policy]
    monkeypatch.setattr(baselines, "likelihood_bound", bound)
    return known, asked


@pytest.mark.parametrize("epsilon", P.EPSILONS)
def test_ppo_compares_new_with_old(bounds, epsilon):
    (tokens, flow), (tokens_ref, flow_ref) = bounds[0]["new"], bounds[0]["old"]
    A, other = some_advantages(), epsilon / 2
    loss = baselines.ppo_loss("new", {"advantage": A}, "omega", "eta", "old", epsilon, other, P.ALPHA)
    close(loss, -(brace(tokens - tokens_ref, A, epsilon) + P.ALPHA * brace(flow - flow_ref, A, other)),
          RATIO + "; two braces, each with its ε, α times the flow's")


def test_ppo_compares_on_the_same_draws(bounds):
    baselines.ppo_loss("new", {"advantage": some_advantages()}, "omega", "eta", "old", 0.1, 0.1)
    check(sorted(policy for policy, *_ in bounds[1]) == ["new", "old"], "the bound of π_θ and that of π_ref, once each")
    check(all((omega, eta) == ("omega", "eta") for _, omega, eta in bounds[1]), "both on the ω and η that were given: other draws would "
          "compare noise")

"""Exercise 4: flow matching.  η = 0 is noise, η = 1 is data, f ≈ ω - a, and sampling walks da/dη = -f."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import parameters as P
import policy
from checks import check, close


def normal(seed, *shape):
    return torch.as_tensor(np.random.default_rng([P.SEED, seed]).normal(size=shape or P.SHAPE))      # float64


def some_etas(N=P.SHAPE[0]):
    return torch.tensor([P.ETAS[i % len(P.ETAS)] for i in range(N)]).double()                        # (N,)


def test_eta_0_is_noise_and_eta_1_is_data():
    a, omega, N = normal(1), normal(2), P.SHAPE[0]
    close(policy.noised(a, omega, torch.zeros(N).double()), omega, "at η = 0 there is only noise")
    close(policy.noised(a, omega, torch.ones(N).double()), a, "at η = 1 there is only data")
    eta = some_etas()
    expected = np.stack([eta[i].item() * a[i].numpy() + (1 - eta[i].item()) * omega[i].numpy() for i in range(N)])
    close(policy.noised(a, omega, eta), expected, "every sample has an η of its own: (N,) against (N, H, A)")


def test_flow_loss_by_hand():
    a, omega, f, eta = normal(1), normal(2), normal(3), some_etas()
    square = np.array([np.mean((omega[i] - a[i] - f[i]).numpy() ** 2) for i in range(len(a))])
    close(policy.flow_matching_loss(f, a, omega, eta), square * (1 - eta.numpy()) ** 2,
          "one loss per sample, (N,): the mean over H and A, times (1 - η)² when no weight is given")
    alpha = torch.arange(1.0, len(a) + 1).double()
    close(policy.flow_matching_loss(f, a, omega, eta, alpha), square * alpha.numpy(), "a weight replaces (1 - η)²")


def test_flow_loss_vanishes_at_noise_minus_data_only():
    a, omega, eta = normal(1), normal(2), some_etas()
    close(policy.flow_matching_loss(omega - a, a, omega, eta), np.zeros(len(a)), "f = ω - a is the target: it points to the noise")
    check(policy.flow_matching_loss(a - omega, a, omega, eta).min() > 0, "f = a - ω is the other convention of time, not the paper's")


def test_flow_loss_is_the_error_of_the_clean_chunk():
    a, omega, a_hat, eta = normal(1), normal(2), normal(3), some_etas()
    e = eta[:, None, None]
    close(policy.flow_matching_loss((e * a + (1 - e) * omega - a_hat) / (1 - e), a, omega, eta), ((a - a_hat) ** 2).mean((1, 2)),
          "see the head of policy.py: with α = (1 - η)² Eq. (4) is ‖a - â‖²")


def test_the_field_points_from_the_clean_chunk_to_the_noise():
    N, H, A = P.SHAPE
    R, context = 2, ("keys", "bias")
    a, omega, eta = normal(1, N, R, H, A), normal(2, N, R, H, A), some_etas(N * R).view(N, R)
    e = eta[..., None, None]

    def expert(*given):
        check(given[:2] == context and given[2] is a_eta and given[3] is eta, "the expert is called with (*context, a_eta, eta)")
        return a                                                                         # it knows the data
    a_eta = e * a + (1 - e) * omega
    for output, expected in (("clean", omega - a), ("velocity", a)):
        net = SimpleNamespace(expert=expert, config=SimpleNamespace(output=output))
        close(policy.VLA.field(net, context, a_eta, eta), expected,
              f'output = "{output}": the expert puts out â, and f = (a^η - â) / (1 - η); with "velocity" it puts out f itself')


@pytest.mark.parametrize("steps", P.STEPS)
def test_an_oracle_is_integrated_to_the_data(steps):
    """f = (a - data) / (1 - η) is exact on every straight path: any number of steps must arrive."""
    data, omega = normal(1), normal(2)
    close(policy.integrate(lambda a, eta: (a - data) / (1 - eta)[:, None, None], omega, steps), data,
          "start from a = ω at η = 0 and subtract f / steps: da/dη = -f", 1e-8)


@pytest.mark.parametrize("steps", P.STEPS)
def test_eta_goes_from_0_upwards(steps):
    seen = []

    def f(a, eta):
        close(eta.shape, (len(a),), "η has one entry per sample, (N,)")
        seen.append(eta[0].item())
        return torch.zeros_like(a)
    omega = normal(2)
    close(policy.integrate(f, omega, steps), omega, "where f is 0 nothing moves")
    close(np.array(seen), np.arange(steps) / steps, "Euler asks for f at the beginning of each step: 0, 1/steps, ...")


@pytest.mark.parametrize("steps", P.STEPS)
def test_euler_steps_in_closed_form(steps):
    omega = normal(2)
    before = omega.clone()
    close(policy.integrate(lambda a, eta: 0.7 * a, omega, steps), before * (1 - 0.7 / steps) ** steps,
          "each step starts where the last one ended")
    check(torch.equal(omega, before), "the caller's noise was changed: a -= ... works in place")

"""Exercise 4: flow matching.  η = 0 is noise, η = 1 is data, f ≈ ω - a, and da/dη = -f."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import parameters as P
from checks import check, close
import policy

def normal(seed, *shape):
    """Random numbers, float64; a chunk for every sample where no shape is given."""
    numbers = np.random.default_rng([P.SEED, seed]).normal(size=shape or P.SHAPE)
    return torch.as_tensor(numbers)

def some_etas(N=P.SHAPE[0]):
    return torch.tensor([P.ETAS[i % len(P.ETAS)] for i in range(N)]).double()  # (N,)

def test_eta_0_is_noise_and_eta_1_is_data():
    a = normal(1)
    omega = normal(2)
    N = P.SHAPE[0]
    none = torch.zeros(N).double()
    close(policy.noised(a, omega, none), omega, "at η = 0 there is only noise")
    close(policy.noised(a, omega, none + 1), a, "at η = 1 there is only data")
    eta = some_etas()
    expected = []
    for i in range(N):
        expected.append(eta[i].item() * a[i].numpy() + (1 - eta[i].item()) * omega[i].numpy())
    hint = "every sample has an η of its own: (N,) against (N, H, action_dim)"
    close(policy.noised(a, omega, eta), np.stack(expected), hint)

def test_flow_loss_by_hand():
    a = normal(1)
    omega = normal(2)
    f = normal(3)
    eta = some_etas()
    square = np.array([np.mean((omega[i] - a[i] - f[i]).numpy() ** 2) for i in range(len(a))])
    hint = "one loss per sample, (N,): the mean over H and action_dim, times (1 - η)² when no"
    loss = policy.flow_matching_loss(f, a, omega, eta)
    close(loss, square * (1 - eta.numpy()) ** 2, f"{hint} weight is given")
    alpha = torch.arange(1.0, len(a) + 1).double()
    loss = policy.flow_matching_loss(f, a, omega, eta, alpha)
    close(loss, square * alpha.numpy(), "a weight replaces (1 - η)²")

def test_flow_loss_vanishes_at_noise_minus_data_only():
    a = normal(1)
    omega = normal(2)
    eta = some_etas()
    loss = policy.flow_matching_loss(omega - a, a, omega, eta)
    close(loss, np.zeros(len(a)), "f = ω - a is the target: it points to the noise")
    loss = policy.flow_matching_loss(a - omega, a, omega, eta)
    check(loss.min() > 0, "f = a - ω is the other convention of time, not the paper's")

def test_flow_loss_is_the_error_of_the_clean_chunk():
    a = normal(1)
    omega = normal(2)
    a_hat = normal(3)
    eta = some_etas()
    e = eta[:, None, None]
    f = (e * a + (1 - e) * omega - a_hat) / (1 - e)
    hint = "see the head of policy.py: with α = (1 - η)² Eq. (4) is ‖a - â‖²"
    close(policy.flow_matching_loss(f, a, omega, eta), ((a - a_hat) ** 2).mean((1, 2)), hint)

def test_the_field_points_from_the_clean_chunk_to_the_noise():
    N, H, action_dim = P.SHAPE
    n_draws = 2
    context = ("keys", "bias")
    a = normal(1, N, n_draws, H, action_dim)
    omega = normal(2, N, n_draws, H, action_dim)
    eta = some_etas(N * n_draws).view(N, n_draws)
    e = eta[..., None, None]
    a_eta = e * a + (1 - e) * omega

    def expert(*given):
        passed_on = given[:2] == context and given[2] is a_eta and given[3] is eta
        check(passed_on, "the expert is called with (*context, a_eta, eta)")
        return a  # it knows the data

    for output, expected in (("clean", omega - a), ("velocity", a)):
        net = SimpleNamespace(expert=expert, config=SimpleNamespace(output=output))
        hint = f'output = "{output}": the expert puts out â, and f = (a^η - â) / (1 - η); with'
        hint += ' "velocity" it puts out f itself'
        close(policy.VLA.field(net, context, a_eta, eta), expected, hint)

@pytest.mark.parametrize("steps", P.STEPS)
def test_an_oracle_is_integrated_to_the_data(steps):
    """f = (a - data) / (1 - η) is exact on every straight path: any number of steps arrives."""
    data = normal(1)
    omega = normal(2)

    def f(a, eta):
        return (a - data) / (1 - eta)[:, None, None]

    hint = "start from a = ω at η = 0 and subtract f / steps: da/dη = -f"
    close(policy.integrate(f, omega, steps), data, hint, 1e-8)

@pytest.mark.parametrize("steps", P.STEPS)
def test_eta_goes_from_0_upwards(steps):
    seen = []

    def f(a, eta):
        close(eta.shape, (len(a),), "η has one entry per sample, (N,)")
        seen.append(eta[0].item())
        return torch.zeros_like(a)

    omega = normal(2)
    close(policy.integrate(f, omega, steps), omega, "where f is 0 nothing moves")
    hint = "Euler asks for f at the beginning of each step: 0, 1/steps, ..."
    close(np.array(seen), np.arange(steps) / steps, hint)

@pytest.mark.parametrize("steps", P.STEPS)
def test_euler_steps_in_closed_form(steps):
    omega = normal(2)
    before = omega.clone()

    def f(a, eta):
        return 0.7 * a

    expected = before * (1 - 0.7 / steps) ** steps
    hint = "each step starts where the last one ended"
    close(policy.integrate(f, omega, steps), expected, hint)
    check(torch.equal(omega, before), "the caller's noise was changed: a -= ... works in place")

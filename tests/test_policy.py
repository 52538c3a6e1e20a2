"""policy.py: Eqs. (4), (6), (9), (10), (13) against closed forms and oracles.

Who sees whom, and where gradients flow.
"""
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from helpers import (
    A,
    PROMPT_LENGTH,
    STATE_DIM,
    SUBTASK_LENGTH,
    TINY_POLICY,
    TOYS,
    VOCABULARY,
    asked,
    encode,
    make_batch,
    make_draws,
    make_policy,
    normal,
    outputs,
    seen_by,
)
from policy import ETA_MAX, FLOW_WEIGHTS, VLA, ActionTokenizer, PolicyConfig, dct_matrix
from policy import draw_noise, flow_matching_loss, guided, integrate, likelihood_bound, noised
from policy import predict_subtask, sample_actions
from recap import answer_loss
from sim_tasks.arms import KEYPOINT_DIM, N_KEYPOINTS
from sim_tasks.cameras import CAMERAS

GRIPPERS = [2, 5]
JOINTS = [0, 1, 3, 4]

def rows(batch, index):
    return {key: x[index] for key, x in batch.items()}

def constant_prediction(policy, seed=7):
    """Make the network answer one chunk â (H, A) to everything: an oracle for data that always
    equals â.
    """
    H = policy.config.horizon
    one_arm = normal(H, A // 2, seed=seed)
    with torch.no_grad():
        policy.expert.outward.weight.zero_()
        policy.expert.outward.bias.copy_(one_arm.flatten())
    return torch.cat([one_arm, one_arm], dim=1)

# ---------------------------------------------------------------- Eq. (4): noise and loss

def test_noised_is_noise_at_0_and_data_at_1():
    a, omega = normal(4, 3, 2), normal(4, 3, 2, seed=1)
    eta = torch.tensor([0.0, 1.0, 0.25, 0.9], dtype=torch.float64)
    a_eta = noised(a, omega, eta).numpy()
    np.testing.assert_array_equal(a_eta[0], omega[0])
    np.testing.assert_array_equal(a_eta[1], a[1])
    np.testing.assert_allclose(a_eta[2], 0.25 * a[2].numpy() + 0.75 * omega[2].numpy())
    np.testing.assert_allclose(a_eta[3], 0.9 * a[3].numpy() + 0.1 * omega[3].numpy())

def test_flow_matching_loss_by_hand():
    a, omega, f, eta = (
        normal(6, 3, 2),
        normal(6, 3, 2, seed=1),
        normal(6, 3, 2, seed=2),
        torch.linspace(0, 0.9, 6).double(),
    )
    loss = flow_matching_loss(f, a, omega, eta).numpy()
    for i in range(6):
        error = (omega[i] - a[i] - f[i]).numpy()
        assert loss[i] == pytest.approx((1 - eta[i].item()) ** 2 * np.mean(error**2))
    alpha = torch.arange(1.0, 7.0).double()
    np.testing.assert_allclose(
        flow_matching_loss(f, a, omega, eta, alpha), alpha.numpy() * loss / (1 - eta.numpy()) ** 2
    )

def test_flow_matching_loss_is_zero_for_omega_minus_a_only():
    a, omega, eta = normal(6, 3, 2), normal(6, 3, 2, seed=1), torch.linspace(0, 0.9, 6).double()
    assert flow_matching_loss(omega - a, a, omega, eta).max() == 0
    for wrong in (a - omega, omega + a, torch.zeros_like(a)):
        assert flow_matching_loss(wrong, a, omega, eta).min() > 1e-3

def test_default_weight_makes_it_the_squared_error_of_the_clean_chunk():
    a, omega, a_hat, eta = (
        normal(6, 3, 2),
        normal(6, 3, 2, seed=1),
        normal(6, 3, 2, seed=2),
        torch.linspace(0, ETA_MAX, 6).double(),
    )
    f = (noised(a, omega, eta) - a_hat) / (1 - eta)[:, None, None]
    np.testing.assert_allclose(
        flow_matching_loss(f, a, omega, eta), ((a - a_hat) ** 2).mean((1, 2)), rtol=1e-9
    )

def test_draw_noise_follows_its_law():
    n = 20_000
    omega, eta = draw_noise(torch.zeros(n, 2, 1), torch.Generator().manual_seed(0))
    omega, eta = omega.numpy(), eta.numpy()
    assert eta.min() >= 0 and eta.max() <= np.float32(ETA_MAX)
    # z = 1 - η/0.999 is Beta(1.5, 1) in π₀: P(z <= x) = x^1.5
    for x in (0.05, 0.2, 0.5, 0.8):
        p = 1 - (1 - x / ETA_MAX) ** 1.5
        assert abs((eta < x).mean() - p) < 4 * math.sqrt(p * (1 - p) / n)
    for x in (-2, -1, 0, 0.5, 1.5):
        p = (1 + math.erf(x / math.sqrt(2))) / 2
        assert abs((omega < x).mean() - p) < 4 * math.sqrt(p * (1 - p) / (2 * n))
    # independent of one another
    table = np.corrcoef(np.stack([eta, omega[:, 0, 0], omega[:, 1, 0]]))
    assert np.abs(table[np.triu_indices(3, 1)]).max() < 4 / math.sqrt(n)

def test_draw_noise_is_reproducible_and_leaves_the_global_generator_alone():
    def draw(seed):
        return draw_noise(torch.zeros(3, 2, 1), torch.Generator().manual_seed(seed))

    before = torch.get_rng_state()
    one, same, other = draw(1), draw(1), draw(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one[0], same[0]) and torch.equal(one[1], same[1])
    assert not (one[0] == other[0]).any() and not (one[1] == other[1]).any()
    # an η per sample, not per batch
    assert len(one[1].unique()) == 3

# ---------------------------------------------------------------- sampling: da/dη = -f

@pytest.mark.parametrize("steps", [1, 3, 10])
def test_integrate_with_an_oracle_returns_the_data(steps):
    data, omega = normal(5, 3, 2), normal(5, 3, 2, seed=1)

    def straight(a, eta):
        return omega - data  # the paper's f

    # ours, with â = data
    def from_a_hat(a, eta):
        return (a - data) / (1 - eta)[:, None, None]

    torch.testing.assert_close(integrate(straight, omega, steps), data)
    torch.testing.assert_close(integrate(from_a_hat, omega, steps), data)
    # lands at 2 ω - data
    opposite = integrate(lambda a, eta: data - omega, omega, steps)
    torch.testing.assert_close(opposite, 2 * omega - data)

def test_integrate_passes_eta_from_0_upwards():
    seen = []

    def f(a, eta):
        seen.append((a.clone(), eta.clone()))
        return torch.ones_like(a)

    result = integrate(f, torch.zeros(2, 1, 1), 4)
    for i, (a, eta) in enumerate(seen):
        np.testing.assert_allclose(eta, [i / 4, i / 4])
        np.testing.assert_allclose(a.flatten(), [-i / 4, -i / 4])
    assert len(seen) == 4
    np.testing.assert_allclose(result.flatten(), [-1, -1])

def mixture_field(means, weights, deviation):
    """E[ω - a | a^η] for data from Σ_k w_k N(mean_k, deviation² I), in closed form.

    means: (K, H, A).
    """

    def f(x, eta):
        eta = eta[:, None, None]
        # of a^η within a mode
        variance = eta**2 * deviation**2 + (1 - eta) ** 2
        logit = [
            math.log(w) - ((x - eta * m) ** 2 / (2 * variance)).sum((1, 2))
            if w
            else torch.full((len(x),), -math.inf)
            for m, w in zip(means, weights)
        ]
        p = torch.stack(logit).softmax(0)[:, :, None, None]  # (K, N, 1, 1)
        a_hat = sum(
            p_k * (m + eta * deviation**2 / variance * (x - eta * m)) for m, p_k in zip(means, p)
        )
        return (x - a_hat) / (1 - eta)

    return f

def test_integrate_converges_on_a_gaussian():
    """From N(0, 1) to N(2, 0.5²), the flow keeps the order: ω goes to 2 + 0.5 ω.

    Euler's error is of first order.
    """
    omega = torch.linspace(-2, 2, 9).double()[:, None, None]
    f = mixture_field(torch.tensor([[[2.0]]]).double(), [1.0], 0.5)
    error = [
        (integrate(f, omega, n) - (2 + 0.5 * omega)).abs().max().item() for n in (50, 100, 200)
    ]
    assert error[2] < 0.01
    for coarse, fine in zip(error, error[1:]):
        assert 1.7 < coarse / fine < 2.3

# ---------------------------------------------------------------- Eq. (13): guidance

def test_guided_in_closed_form():
    u, c = normal(4, 3, 2), normal(4, 3, 2, seed=1)
    torch.testing.assert_close(guided(u, c, 0.0), u)
    torch.testing.assert_close(guided(u, c, 1.0), c)
    torch.testing.assert_close(guided(u, c, 2.0), 2 * c - u)
    torch.testing.assert_close(guided(u, c, 3.5) - guided(u, c, 2.5), c - u)  # linear in β

def test_guidance_moves_velocities_not_finished_actions():
    """On a mixture, where Eq. (12) is known: velocities stay on the modes, extrapolated actions
    leave them.
    """
    modes = torch.tensor([[[-1.0]], [[1.0]]]).double()
    f_u, f_c = mixture_field(modes, [0.5, 0.5], 0.1), mixture_field(modes, [0.2, 0.8], 0.1)
    omega, n = normal(2000, 1, 1), 50
    inside = integrate(lambda a, eta: guided(f_u(a, eta), f_c(a, eta), 2.0), omega, n)
    outside = guided(integrate(f_u, omega, n), integrate(f_c, omega, n), 2.0)

    def distance(a):
        return (a.abs() - 1).abs().flatten()

    assert (distance(inside) < 0.5).double().mean() > 0.97
    # about 30 % change sides, and end at 3
    assert (distance(outside) > 1.5).double().mean() > 0.2
    # Eq. (12): 0.64/0.68 = 0.94
    assert (inside > 0).double().mean() > 0.85

@pytest.mark.parametrize("beta", [0.5, 2.0, 3.0])
def test_sample_actions_equals_a_loop_over_two_fields(beta):
    policy, batch = make_policy(), make_batch(make_policy())
    omega = normal(5, TINY_POLICY.horizon, A, seed=9)
    steps = 4
    yes = torch.ones(5, dtype=torch.bool)
    sampled = sample_actions(
        policy, batch, batch["prompt"], batch["subtask"], True, beta, steps, omega
    )
    with torch.no_grad():
        context = {}
        for omit in (~yes, yes):
            hidden = policy.hidden_states(batch, batch["prompt"], batch["subtask"], yes, omit)
            context[bool(omit[0])] = policy.context(hidden, omit)
        a = omega[:, None]  # (B, 1, H, A)
        for i in range(steps):
            eta = torch.full((5, 1), i / steps).double()
            f_u, f_c = policy.field(context[True], a, eta), policy.field(context[False], a, eta)
            a = a - ((1 - beta) * f_u + beta * f_c) / steps
        chunk = a[:, 0].numpy() * policy.std.numpy() + policy.mean.numpy()
    chunk[:, :, JOINTS] += batch["state"].numpy()[:, None, JOINTS]
    np.testing.assert_allclose(sampled, chunk, rtol=1e-9)

    # and that is not the same as extrapolating the samples of the two branches
    def sample(indicator):
        return sample_actions(
            policy, batch, batch["prompt"], batch["subtask"], indicator, 1.0, steps, omega
        )

    assert (guided(sample(None), sample(True), beta) - sampled).abs().max() > 1e-4

def test_sample_actions_at_beta_1_and_0():
    policy, batch = make_policy(), make_batch(make_policy())
    omega = normal(5, TINY_POLICY.horizon, A, seed=9)

    def sample(indicator, beta):
        return sample_actions(
            policy, batch, batch["prompt"], batch["subtask"], indicator, beta, 4, omega
        )

    unconditional, positive, negative = sample(None, 1.0), sample(True, 1.0), sample(False, 1.0)
    torch.testing.assert_close(sample(True, 0.0), unconditional)
    torch.testing.assert_close(sample(False, 0.0), unconditional)
    # approached from both sides: the branches that leave a pass out agree with those that take both
    torch.testing.assert_close(sample(True, 1e-9), unconditional, atol=1e-6, rtol=0)
    torch.testing.assert_close(sample(True, 1 + 1e-9), positive, atol=1e-6, rtol=0)
    torch.testing.assert_close(sample(False, 1 - 1e-9), negative, atol=1e-6, rtol=0)
    for one, other in ((positive, negative), (positive, unconditional), (negative, unconditional)):
        assert (one - other).abs().max() > 1e-3
    # guidance is not skipped
    assert (sample(True, 2.0) - positive).abs().max() > 1e-3

@pytest.mark.parametrize(
    "indicator, beta",
    [(True, -0.1), (True, math.nan), (True, math.inf), (None, 2.0), (None, 0.0), (None, math.nan)],
)
def test_sample_actions_refuses(indicator, beta):
    policy = make_policy()
    batch = make_batch(policy)
    with pytest.raises(ValueError, match="beta"):
        sample_actions(policy, batch, batch["prompt"], batch["subtask"], indicator, beta)

@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_sampling_reaches_what_the_network_predicts(beta, steps):
    """With â constant, every noise flows to â; then the normaliser is undone.

    A sign error anywhere misses it.
    """
    policy = make_policy()
    batch, a_hat = make_batch(policy), constant_prediction(policy)
    actions = sample_actions(
        policy, batch, batch["prompt"], batch["subtask"], True, beta, steps
    ).numpy()
    expected = np.broadcast_to(
        a_hat.numpy() * policy.std.numpy() + policy.mean.numpy(), actions.shape
    ).copy()
    expected[:, :, JOINTS] += batch["state"].numpy()[:, None, JOINTS]
    np.testing.assert_allclose(actions, expected, rtol=1e-9)

def test_sampling_is_deterministic_given_omega_and_rows_are_independent():
    policy = make_policy()
    batch, omega, order = (
        make_batch(policy),
        normal(5, TINY_POLICY.horizon, A, seed=9),
        torch.tensor([3, 0, 4, 1, 2]),
    )

    def sample(b, o):
        return sample_actions(policy, b, b["prompt"], b["subtask"], True, 2.0, 4, o)

    actions = sample(batch, omega)
    assert torch.equal(sample(batch, omega), actions)
    torch.testing.assert_close(sample(rows(batch, order), omega[order]), actions[order])
    torch.testing.assert_close(sample(rows(batch, slice(2, 3)), omega[2:3]), actions[2:3])
    # the noise does matter
    assert (sample(batch, omega[order]) - actions).abs().amax((1, 2)).min() > 1e-3

@pytest.mark.parametrize("beta", [1.0, 2.0])
@pytest.mark.parametrize("known", [1, 2, 3])
def test_behind_a_frozen_prefix_stands_the_chunk_of_the_same_noise_entry_by_entry(known, beta):
    """Real-time chunking: an independent loop, in which the known entries are data from the start.

    Entry k of the answer is entry k of the loop: nothing is one step off.
    """
    policy = make_policy()
    batch = make_batch(policy)
    H = TINY_POLICY.horizon
    steps = 4
    omega = normal(5, H, A, seed=9)
    frozen = 0.5 * normal(5, known, A, seed=10)
    texts = (batch["prompt"], batch["subtask"])
    sampled = sample_actions(policy, batch, *texts, True, beta, steps, omega, frozen)

    origin = batch["state"].clone()
    origin[:, GRIPPERS] = 0
    begin = [(frozen[:, k] - origin - policy.mean[k]) / policy.std[k] for k in range(known)]
    yes = torch.ones(5, dtype=torch.bool)
    with torch.no_grad():
        context = {}
        for omit in (~yes, yes):
            hidden = policy.hidden_states(batch, *texts, yes, omit)
            context[bool(omit[0])] = policy.context(hidden, omit)
        a = omega.clone()
        for i in range(steps):
            for k in range(known):
                a[:, k] = i / steps * begin[k] + (1 - i / steps) * omega[:, k]
            eta = torch.full((5, 1), i / steps).double()
            f_u = policy.field(context[True], a[:, None], eta)[:, 0]
            f_c = policy.field(context[False], a[:, None], eta)[:, 0]
            a = a - (f_u + beta * (f_c - f_u)) / steps
    assert torch.equal(sampled[:, :known], frozen)
    for k in range(known, H):
        expected = a[:, k] * policy.std[k] + policy.mean[k] + origin
        torch.testing.assert_close(sampled[:, k], expected)
    # The rest heeds what is frozen, and nothing frozen is nothing changed.
    free = sample_actions(policy, batch, *texts, True, beta, steps, omega)
    assert (sampled[:, known:] - free[:, known:]).abs().max() > 1e-3
    nothing = sample_actions(policy, batch, *texts, True, beta, steps, omega, frozen[:, :0])
    assert torch.equal(nothing, free)

# ---------------------------------------------------------------- discrete actions

@pytest.mark.parametrize("H", [2, 4, 8])
def test_dct_is_orthonormal_and_diagonalises_the_path(H):
    """DCT-II: the eigenvectors of the second difference with reflecting ends.

    Their eigenvalues are 2 - 2 cos(πk/H).
    """
    M = dct_matrix(H).double().numpy()
    np.testing.assert_allclose(M @ M.T, np.eye(H), atol=1e-6)
    laplacian = 2 * np.eye(H) - np.eye(H, k=1) - np.eye(H, k=-1)
    laplacian[0, 0] = laplacian[-1, -1] = 1
    np.testing.assert_allclose(
        M @ laplacian @ M.T, np.diag(2 - 2 * np.cos(np.pi * np.arange(H) / H)), atol=1e-5
    )

def make_tokenizer(H=8, C=3, n_bins=16):
    tokenizer = ActionTokenizer(H, A, C, n_bins).double()
    tokenizer.fit(normal(400, H, A) * torch.arange(1, A + 1) + normal(400, 1, A, seed=1))
    return tokenizer

def test_tokenizer_scale_is_the_rms_of_each_coefficient():
    chunks = normal(400, 8, A) * torch.arange(1, A + 1) + 0.5
    tokenizer = ActionTokenizer(8, A, 3, 16).double()
    tokenizer.fit(chunks)
    coefficients = np.einsum("kt,nta->nka", dct_matrix(8).double().numpy()[:3], chunks.numpy())
    np.testing.assert_allclose(tokenizer.scale, np.sqrt((coefficients**2).mean(0)), rtol=1e-6)

def test_tokens_keep_the_low_coefficients_to_half_a_bin():
    H, C, n_bins = 8, 3, 16
    tokenizer, M = make_tokenizer(H, C, n_bins), dct_matrix(H).double().numpy()
    chunks = normal(300, H, A, seed=2) * torch.arange(1, A + 1) + 2 * normal(300, 1, A, seed=3)
    decoded = np.einsum("kt,nta->nka", M, tokenizer.decode(tokenizer.encode(chunks)).numpy())
    original = np.einsum("kt,nta->nka", M, chunks.numpy())
    covered = tokenizer.RANGE * tokenizer.scale.numpy()  # (C, A)
    half_a_bin = covered / n_bins
    error = np.abs(decoded[:, :C] - original[:, :C])
    inside = np.abs(original[:, :C]) < covered
    assert 0.9 < inside.mean() < 1  # both cases occur
    assert (error <= half_a_bin + 1e-6)[inside].all()
    outermost = np.broadcast_to(covered - half_a_bin, error.shape)
    np.testing.assert_allclose(np.abs(decoded[:, :C])[~inside], outermost[~inside], rtol=1e-5)
    # higher frequencies are gone
    np.testing.assert_allclose(decoded[:, C:], 0, atol=1e-5)

def test_tokens_come_lowest_frequency_first():
    """A constant chunk has tokens of coefficient 0 alone, in the first A.

    The others stand at zero, in the middle.
    """
    H, C, n_bins = 8, 3, 16
    tokenizer = make_tokenizer(H, C, n_bins)
    level = 0.2 * tokenizer.scale[0] * torch.linspace(-2, 2, A)  # (A,)
    tokens = tokenizer.encode(level.expand(1, H, A))[0].view(C, A)
    expected = np.floor(
        (0.2 * np.linspace(-2, 2, A) * math.sqrt(H) / tokenizer.RANGE + 1) / 2 * n_bins
    )
    np.testing.assert_array_equal(tokens[0], expected)
    # zero, up to rounding: an edge between two
    assert ((tokens[1:] == n_bins // 2) | (tokens[1:] == n_bins // 2 - 1)).all()
    slope = torch.linspace(1, -1, H).double()[:, None].expand(1, H, A) * tokenizer.scale[1]
    tokens = tokenizer.encode(slope)[0].view(C, A)
    assert (tokens[1] > n_bins // 2 + 1).all() and (tokens[[0, 2]] - n_bins // 2).abs().max() <= 1

def test_bins_are_monotone_and_all_used():
    H, n_bins = 8, 16
    tokenizer = make_tokenizer(H, 3, n_bins)
    level = torch.linspace(-1.2, 1.2, 300).double() * tokenizer.RANGE / math.sqrt(H)
    tokens = tokenizer.encode(level[:, None, None] * tokenizer.scale[0].expand(300, H, A))[:, :A]
    steps = tokens.diff(dim=0)
    assert steps.min() == 0 and steps.max() == 1
    assert (tokens[0] == 0).all() and (tokens[-1] == n_bins - 1).all()

# ---------------------------------------------------------------- actions as the network sees them

def test_normalize_by_hand_and_back():
    policy = make_policy()
    states = normal(7, A, seed=3)
    chunks = normal(7, TINY_POLICY.horizon, A, seed=4)
    relative = chunks.numpy().copy()
    for d in JOINTS:
        # grippers stay absolute
        relative[:, :, d] -= states.numpy()[:, None, d]
    normalized = policy.normalize(chunks, states)
    np.testing.assert_allclose(normalized, (relative - policy.mean.numpy()) / policy.std.numpy())
    torch.testing.assert_close(policy.denormalize(normalized, states), chunks)
    untouched = normal(7, A, seed=3)
    # the caller's tensor
    assert torch.equal(states, untouched)

def test_joints_are_relative_and_grippers_absolute():
    policy = make_policy()
    states = normal(7, A, seed=3)
    chunks = normal(7, TINY_POLICY.horizon, A, seed=4)
    base = policy.normalize(chunks, states)
    for d in range(A):
        moved = torch.zeros(A).double()
        moved[d] = 0.5
        if d in JOINTS:  # robot and targets moved together: the same relative chunk
            torch.testing.assert_close(policy.normalize(chunks + moved, states + moved), base)
        else:  # where the gripper stands now does not matter
            assert torch.equal(policy.normalize(chunks, states + moved), base)
            assert (policy.normalize(chunks + moved, states + moved) - base)[
                ..., d
            ].abs().min() > 1e-3

OTHERS = (
    # entries of an action that are targets for the state's numbers, and the sizes they have
    ([0, 2, 3], dict(state_dim=14, action_dim=5, n_arms=1, absolute=(1, 4))),
    ([0, 1, 2, 3], dict(state_dim=4, action_dim=8, n_arms=2, absolute=(4, 5, 6, 7))),
    ([0, 1, 2, 3, 4, 5], dict(state_dim=6, action_dim=6, n_arms=3, absolute=())),
    ([], dict(state_dim=3, action_dim=2, n_arms=1, absolute=(0, 1))),
)

@pytest.mark.parametrize("relative, sizes", OTHERS)
def test_other_actions_are_relative_to_other_numbers_of_the_state(relative, sizes):
    """By hand, there and back; a chunk that is sampled is relative to the state, too."""
    interface = replace(TOYS, keypoints=(), near=(), **sizes)
    torch.manual_seed(0)
    policy = VLA(replace(TINY_POLICY, interface=interface)).double()
    H = TINY_POLICY.horizon
    states = normal(60, interface.state_dim, seed=3)
    chunks = 2 * normal(60, H, interface.action_dim, seed=4) + 1
    policy.fit_normalizer(chunks, states)
    by_hand = chunks.clone()
    for d in relative:
        by_hand[:, :, d] -= states[:, None, d]
    by_hand = (by_hand - by_hand.mean(0)) / by_hand.std(0)
    torch.testing.assert_close(policy.normalize(chunks, states), by_hand)
    torch.testing.assert_close(policy.denormalize(by_hand, states), chunks)
    prompt = torch.tensor([encode("fold shirt", PROMPT_LENGTH)])
    subtask = torch.tensor([encode("stack shirt", SUBTASK_LENGTH)])
    omega = normal(1, H, interface.action_dim, seed=5)
    policy.backbone.state = torch.nn.Linear(interface.state_dim, TINY_POLICY.width).double()
    torch.nn.init.zeros_(policy.backbone.state.weight)  # it sees the same in every state
    first, moved = (
        sample_actions(policy, {"state": s}, prompt, subtask, omega=omega)
        for s in (states[:1], states[:1] + 0.5)
    )
    expected = torch.zeros(interface.action_dim).double()
    expected[relative] = 0.5
    assert first.shape == (1, H, interface.action_dim)
    torch.testing.assert_close(moved - first, expected.expand_as(first))

@pytest.mark.parametrize("n_arms", [1, 3])
def test_the_expert_has_one_token_per_arm_and_its_arms_see_one_another(n_arms):
    interface = replace(TOYS, n_arms=n_arms)
    policy = make_policy(replace(TINY_POLICY, interface=interface))
    batch = make_batch(policy)
    omega, eta = make_draws(policy)
    assert policy.expert.arm.shape == (n_arms, TINY_POLICY.expert_width)
    assert policy.expert.outward.out_features == TINY_POLICY.horizon * A // n_arms
    f = outputs(policy, batch, omega, eta)[2]
    changed = omega.clone()
    changed[:, 1, :, 0] += 1  # the first arm of the second draw
    moved = (outputs(policy, batch, changed, eta)[2] - f).abs()
    assert moved[:, [0, 2]].max() == 0 and moved[:, 1].amin((0, 1)).min() > 0

def test_fit_normalizer_gives_zero_mean_unit_variance_and_survives_a_constant():
    policy = VLA(TINY_POLICY).double()
    assert not policy.fitted
    states, chunks = normal(500, A), 3 * normal(500, TINY_POLICY.horizon, A, seed=1) + 1
    # a gripper that never moves
    chunks[:, :, 2] = 0.7
    policy.fit_normalizer(chunks, states)
    assert policy.fitted
    x = policy.normalize(chunks, states).numpy()
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.delete(x.std(0), 2, 1), 1, atol=2e-3)
    coefficients = np.einsum("kt,nta->nka", policy.tokenizer.dct.numpy(), x)
    np.testing.assert_allclose(
        np.delete((coefficients / policy.tokenizer.scale.numpy()).std(0), 2, 1), 1, atol=5e-3
    )
    assert np.isfinite(x).all()

# ---------------------------------------------------------------- the sequence: who sees whom

# where things stand: 4 keypoints, state, 5 words of the prompt; "subtask:", 2 words; "Advantage:",
# its value; "action:"
PREFIX, INDICATOR, ACTION = 10, [13, 14], 15

def by_hand(policy, sample, without=()):
    """Hidden states of one sample: the sequence of Fig. 3 laid out word by word, its mask by its
    definition.

    Words at the positions `without` are not there at all.  -> (list of what goes into each layer,
    output), (1, S', width)
    """
    words = [
        "subtask:",
        *(VOCABULARY[i] for i in sample["subtask"][0]),
        "Advantage:",
        "positive" if sample["positive"][0] else "negative",
        "action:",
    ]
    ids = sample["prompt"][0].tolist() + [VOCABULARY.index(w) for w in words]
    ids += [len(VOCABULARY) + b for b in sample["tokens"][0, :-1].tolist()]
    x = torch.cat([policy.backbone.embed_observation(sample)[0], policy.backbone.token.weight[ids]])
    x = x + policy.backbone.position[: len(x)]
    kept = [i for i in range(len(x)) if i not in without]
    visible = torch.tensor([[j < PREFIX if i < PREFIX else j <= i for j in kept] for i in kept])
    bias = torch.zeros(visible.shape).double().masked_fill(~visible, -math.inf)
    x, inputs = x[None, kept], []
    for block in policy.backbone.blocks:
        inputs.append(x)
        x = block(x, bias)
    return inputs, policy.backbone.norm(x)

def test_the_sequence_is_that_of_figure_3():
    """Hidden states equal those of a sequence laid out by hand.

    An omitted indicator is as if it were not there.
    """
    policy = make_policy()
    batch = make_batch(policy)
    assert batch["omit"].any() and not batch["omit"].all()
    hidden = policy.hidden_states(
        batch, batch["prompt"], batch["subtask"], batch["positive"], batch["omit"], batch["tokens"]
    )
    for i in range(5):
        gone = INDICATOR if batch["omit"][i] else []
        inputs, output = by_hand(policy, rows(batch, slice(i, i + 1)), gone)
        kept = [p for p in range(len(policy.mask)) if p not in gone]
        for ours, theirs in zip(hidden.inputs, inputs, strict=True):
            torch.testing.assert_close(ours[i : i + 1, kept], theirs)
        # The output begins at "subtask:".
        text = [p - PREFIX for p in kept if p >= PREFIX]
        torch.testing.assert_close(hidden.output[i : i + 1, text], output[:, PREFIX:])

def test_the_expert_reads_up_to_the_indicator():
    """f equals that of an expert given only those hidden states: nothing of the action tokens, no
    omitted word.
    """
    policy, (omega, eta) = make_policy(), make_draws(make_policy())
    batch = make_batch(policy)
    f = outputs(policy, batch, omega, eta)[2]
    for i in range(5):
        gone = INDICATOR if batch["omit"][i] else []
        inputs, _ = by_hand(policy, rows(batch, slice(i, i + 1)), gone)
        P = ACTION - len(gone)
        context = policy.expert.context([h[:, :P] for h in inputs])
        a_hat = policy.expert(
            context, torch.zeros(1, 1, 1, P).double(), omega[i : i + 1], eta[i : i + 1]
        )
        torch.testing.assert_close(
            (omega[i : i + 1] - a_hat) / (1 - eta[i])[None, :, None, None], f[i : i + 1]
        )

def test_the_indicator_changes_actions_but_no_subtask_logit():
    policy, (omega, eta) = make_policy(), make_draws(make_policy())
    batch, yes = make_batch(policy), torch.ones(5, dtype=torch.bool)
    variants = [
        outputs(policy, batch | {"positive": positive, "omit": omit}, omega, eta)
        for positive, omit in ((yes, ~yes), (~yes, ~yes), (yes, yes))
    ]
    for i in range(3):
        for j in range(i):
            assert torch.equal(variants[i][0], variants[j][0])  # ℓ̂
            # a^ℓ
            assert (variants[i][1] - variants[j][1]).abs().amax((-1, -2)).min() > 1e-4
            # a, of every sample and draw
            assert (variants[i][2] - variants[j][2]).abs().amax((-1, -2)).min() > 1e-4

def test_an_omitted_indicator_is_not_seen():
    policy, (omega, eta) = make_policy(), make_draws(make_policy())
    batch, yes = make_batch(policy), torch.ones(5, dtype=torch.bool)
    one, other = (
        outputs(policy, batch | {"positive": positive, "omit": yes}, omega, eta)
        for positive in (yes, ~yes)
    )
    for x, y in zip(one, other):
        assert torch.equal(x, y)
    mixed = torch.tensor([True, False, True, False, True])  # only where it is omitted
    one, other = (
        outputs(policy, batch | {"positive": positive, "omit": mixed}, omega, eta)
        for positive in (yes, ~yes)
    )
    for x, y in zip(one[1:], other[1:]):
        assert (x != y).flatten(1).any(1).tolist() == (~mixed).tolist()

def test_action_tokens_are_causal_and_hidden_from_the_expert():
    policy, (omega, eta) = make_policy(), make_draws(make_policy())
    batch = make_batch(policy)
    words, bins, f = outputs(policy, batch, omega, eta)
    n = policy.n_action_tokens
    for j in range(n):
        tokens = batch["tokens"].clone()
        tokens[:, j] = (tokens[:, j] + 1) % TINY_POLICY.n_action_bins
        words_j, bins_j, f_j = outputs(policy, batch | {"tokens": tokens}, omega, eta)
        assert torch.equal(f_j, f) and torch.equal(words_j, words)
        # logit i predicts token i
        assert (bins_j != bins).any(-1).any(0).tolist() == [i > j for i in range(n)]

def test_acting_sees_what_training_saw():
    """The pass without action tokens (`sample_actions`) gives the expert the same context as the
    pass with them.
    """
    policy, (omega, eta) = make_policy(), make_draws(make_policy())
    batch = make_batch(policy)
    hidden = policy.hidden_states(
        batch, batch["prompt"], batch["subtask"], batch["positive"], batch["omit"]
    )
    f = policy.field(policy.context(hidden, batch["omit"]), omega, eta)
    torch.testing.assert_close(f, outputs(policy, batch, omega, eta)[2])

@pytest.mark.parametrize("name", ["subtask", "prompt", "state", "keypoints"])
def test_everything_before_the_indicator_reaches_the_actions(name):
    policy, (omega, eta) = make_policy(), make_draws(make_policy())
    batch = make_batch(policy)
    words, bins, f = outputs(policy, batch, omega, eta)
    # every word, every joint, every keypoint
    for column in range(batch[name].shape[1]):
        x = batch[name].clone()
        x[:, column] = (
            x[:, column] % (len(VOCABULARY) - 1) + 1
            if x.dtype == torch.long
            else x[:, column] + 0.5
        )
        words_x, bins_x, f_x = outputs(policy, batch | {name: x}, omega, eta)
        assert (f_x - f).abs().amax((-1, -2)).min() > 1e-7
        assert (bins_x - bins).abs().amax(-1).min() > 1e-7
        # word 1 predicts word 2
        expected = [False, column == 0] if name == "subtask" else [True, True]
        assert (words_x != words).any(-1).any(0).tolist() == expected

def test_the_prefix_is_bidirectional_and_sees_no_text():
    policy, batch = make_policy(), make_batch(make_policy())

    def output(b):
        """What goes into the last layer, (B, S, width): the first layer's output."""
        return policy.hidden_states(
            b, b["prompt"], b["subtask"], b["positive"], b["omit"], b["tokens"]
        ).inputs[-1]

    base = output(batch)
    keypoints = batch["keypoints"].clone()
    keypoints[:, -1] += 0.5
    assert (output(batch | {"keypoints": keypoints})[:, 0] - base[:, 0]).abs().amax(-1).min() > 1e-5
    prompt = batch["prompt"] % (len(VOCABULARY) - 1) + 1
    assert (output(batch | {"prompt": prompt})[:, 0] - base[:, 0]).abs().amax(-1).min() > 1e-5
    other = make_batch(policy, seed=1)
    text = {name: other[name] for name in ("subtask", "tokens")} | {"positive": ~batch["positive"]}
    changed = (output(batch | text) != base).any(-1).any(0)
    # "subtask:" itself is no news
    assert changed.tolist() == [i > PREFIX for i in range(base.shape[1])]

def test_draws_of_a_prefix_do_not_see_one_another():
    policy, (omega, eta) = make_policy(), make_draws(make_policy(), n_draws=4)
    batch = make_batch(policy)
    f = outputs(policy, batch, omega, eta)[2]
    for r in range(4):
        torch.testing.assert_close(
            outputs(policy, batch, omega[:, r : r + 1], eta[:, r : r + 1])[2], f[:, r : r + 1]
        )
        other = omega.clone()
        other[:, r] += 1
        # (B, R)
        changed = (outputs(policy, batch, other, eta)[2] - f).abs().amax((-1, -2)) > 1e-9
        assert changed.all(0).tolist() == [i == r for i in range(4)] == changed.any(0).tolist()

def test_the_expert_reads_eta_and_both_arms_together():
    policy, (omega, eta) = make_policy(), make_draws(make_policy())
    batch = make_batch(policy)
    hidden = policy.hidden_states(
        batch, batch["prompt"], batch["subtask"], batch["positive"], batch["omit"]
    )
    context = policy.context(hidden, batch["omit"])
    a_hat = policy.expert(*context, omega, eta)
    assert (policy.expert(*context, omega, eta / 2) - a_hat).abs().amax((-1, -2)).min() > 1e-4
    for t in range(TINY_POLICY.horizon):
        # any action dimension moves both arms' prediction
        for d in range(A):
            other = omega.clone()
            other[:, :, t, d] += 1
            # (B, R, A)
            moved = (policy.expert(*context, other, eta) - a_hat).abs().amax(2)
            assert moved.min() > 1e-9
    swapped = policy.expert(*context, torch.cat([omega[..., 3:], omega[..., :3]], -1), eta)
    # arms differ
    assert (torch.cat([swapped[..., 3:], swapped[..., :3]], -1) - a_hat).abs().amax(
        (-1, -2)
    ).min() > 1e-4

# ---------------------------------------------------------------- knowledge insulation

def gradients(policy, loss):
    policy.zero_grad()
    loss.backward()
    return {
        name: p.grad is not None and bool((p.grad != 0).any())
        for name, p in policy.named_parameters()
    }

def test_the_flow_loss_trains_the_expert_and_nothing_else():
    policy = make_policy()
    terms = policy.terms(make_batch(policy), *make_draws(policy))
    trained = gradients(policy, terms["flow"].sum())
    assert trained == {name: name.startswith("expert.") for name in trained}
    assert any(name.startswith("backbone.") for name in trained) and "text_head.weight" in trained

def test_the_token_losses_train_the_backbone_and_not_the_expert():
    policy = make_policy()
    for term in ("subtask", "tokens"):
        terms = policy.terms(make_batch(policy), *make_draws(policy))
        trained = gradients(policy, terms[term].sum())
        assert trained == {name: not name.startswith("expert.") for name in trained}

def test_insulation_is_what_keeps_the_flow_loss_out_of_the_backbone():
    """Off, its gradient is that of finite differences.

    On, exactly zero, though the loss depends on the backbone as much.
    """
    # equal weights
    policies = {on: make_policy(replace(TINY_POLICY, insulation=on)) for on in (True, False)}
    batch, draws = make_batch(policies[True]), make_draws(policies[True])

    def flow(policy):
        return policy.terms(batch, *draws)["flow"].sum()

    losses = {on: flow(policy) for on, policy in policies.items()}
    assert torch.equal(losses[True], losses[False])
    for policy, loss in zip(policies.values(), losses.values()):
        loss.backward()
    for name in ("token", "position", "keypoint.0", "state.2", "blocks.0.qkv"):
        one, other = (dict(policy.backbone.named_parameters()) for policy in policies.values())
        name = name if name == "position" else name + ".weight"
        x, direction = other[name], normal(*other[name].shape)
        assert one[name].grad is None
        with torch.no_grad():
            x += 1e-5 * direction
            above = flow(policies[False])
            x -= 2e-5 * direction
            below = flow(policies[False])
            x += 1e-5 * direction
        assert ((above - below) / 2e-5).item() == pytest.approx(
            (x.grad * direction).sum().item(), rel=1e-5
        )
        assert abs(above - below) > 1e-7
    # what comes after the last layer's input serves the text and the action tokens only: not the
    # flow loss, ever
    trained = gradients(policies[False], flow(policies[False]))
    last = ("text_head.", "backbone.norm.", f"backbone.blocks.{TINY_POLICY.layers - 1}.")
    assert trained == {name: not name.startswith(last) for name in trained}
    # these it leaves alone
    for term in ("subtask", "tokens"):
        grads = [
            torch.autograd.grad(policy.terms(batch, *draws)[term].sum(), policy.backbone.position)[
                0
            ]
            for policy in policies.values()
        ]
        torch.testing.assert_close(*grads)

# ---------------------------------------------------------------- the other output: velocities

VELOCITY = replace(TINY_POLICY, output="velocity")

def test_with_velocity_the_field_is_what_the_expert_puts_out():
    clean, policy = make_policy(), make_policy(VELOCITY)  # equal weights
    batch, (omega, eta) = make_batch(policy), make_draws(policy)
    hidden = policy.hidden_states(
        batch, batch["prompt"], batch["subtask"], batch["positive"], batch["omit"]
    )
    context = policy.context(hidden, batch["omit"])
    out = policy.expert(*context, omega, eta)
    assert torch.equal(policy.field(context, omega, eta), out)
    torch.testing.assert_close(
        clean.field(context, omega, eta), (omega - out) / (1 - eta)[..., None, None]
    )
    with pytest.raises(ValueError, match="output: 'noise', expected 'clean' or 'velocity'"):
        VLA(replace(TINY_POLICY, output="noise"))

@pytest.mark.parametrize("steps", [1, 5])
def test_with_velocity_sampling_walks_against_what_the_expert_puts_out(steps):
    """An oracle for one noise: f = ω - a for the chunk a.  From that ω, sampling must end at a."""
    policy = make_policy(VELOCITY)
    batch, f = make_batch(policy), constant_prediction(policy)
    a = normal(5, TINY_POLICY.horizon, A, seed=11)
    actions = sample_actions(
        policy, batch, batch["prompt"], batch["subtask"], True, 2.0, steps, omega=a + f
    )
    torch.testing.assert_close(actions, policy.denormalize(a, batch["state"]))
    # and the loss of the oracle is zero, that of the opposite sign is not, with any weight
    eta = make_draws(policy)[1]
    for weight in FLOW_WEIGHTS.values():

        def flow(omega):
            return policy.terms(
                batch | {"chunk": a}, omega[:, None].expand(5, 3, -1, -1), eta, weight
            )["flow"]

        assert flow(a + f).max() < 1e-25 and flow(a - f).min() > 1e-6

def test_flow_weights_are_those_of_the_paper():
    a, omega, f, eta = (
        normal(6, 3, 2),
        normal(6, 3, 2, seed=1),
        normal(6, 3, 2, seed=2),
        torch.linspace(0, 0.99, 6).double(),
    )
    formulas = {
        "clean": lambda e: (1 - e) ** 2,
        "constant": lambda e: 1.0,
        "paper": lambda e: math.exp(-e / 2) / 2,
    }
    assert set(formulas) == set(FLOW_WEIGHTS)
    for name, alpha in formulas.items():
        weight = FLOW_WEIGHTS[name]
        loss = flow_matching_loss(f, a, omega, eta, None if weight is None else weight(eta))
        for i, e in enumerate(eta.tolist()):
            assert loss[i].item() == pytest.approx(
                alpha(e) * ((omega[i] - a[i] - f[i]) ** 2).mean().item(), rel=1e-9
            )
    # through the network, which puts out â: squared error of the chunk, times α / (1 - η)²
    policy, (noise, eta) = make_policy(), make_draws(make_policy())
    batch = make_batch(policy)
    flows = {
        name: policy.terms(batch, noise, eta, weight)["flow"]
        for name, weight in FLOW_WEIGHTS.items()
    }
    torch.testing.assert_close(flows["constant"] * (1 - eta) ** 2, flows["clean"])
    torch.testing.assert_close(
        flows["paper"] * (1 - eta) ** 2, flows["clean"] * torch.exp(-eta / 2) / 2
    )

# ---------------------------------------------------------------- images, and questions about them

def single(batch):
    """In single precision: that is what images become."""
    return {key: x.float() if x.dtype == torch.float64 else x for key, x in batch.items()}

def test_the_policy_reads_images_of_every_camera_that_it_has():
    """In all three outputs; training, acting and the subtask run on images alone."""
    policy = make_policy(replace(TINY_POLICY, interface=seen_by("base", "right_wrist"))).float()
    # 18 patches, state, 5 words, ...
    assert (policy.at_subtask, policy.at_indicator, policy.at_action) == (24, 27, 29)
    seen, _, _ = asked(5, cameras=CAMERAS)
    batch = single(
        {key: x for key, x in make_batch(make_policy()).items() if key != "keypoints"} | seen
    )
    omega, eta = (x.float() for x in make_draws(policy))
    base = outputs(policy, batch, omega, eta)
    for name, read in (
        ("base", True),
        ("left_wrist", False),
        ("right_wrist", True),
        ("state", True),
    ):
        # those of another scene
        other = outputs(policy, batch | {name: batch[name].roll(1, 0)}, omega, eta)
        for x, y in zip(base, other):
            assert bool((x - y).flatten(1).abs().amax(1).min() > 1e-7) == read
    terms = policy.terms(batch, omega, eta)
    trained = gradients(policy, terms["subtask"].sum() + terms["tokens"].sum())
    assert (
        trained == {name: not name.startswith("expert.") for name in trained}
        and trained["backbone.patch.0.weight"]
    )
    a_hat, observation = (
        constant_prediction(policy).float(),
        {key: batch[key] for key in ("state", "base", "right_wrist")},
    )
    actions = sample_actions(
        policy,
        observation,
        batch["prompt"],
        predict_subtask(policy, observation, batch["prompt"]),
        beta=2.0,
    )
    torch.testing.assert_close(actions, policy.denormalize(a_hat.expand(5, -1, -1), batch["state"]))

@pytest.mark.parametrize(
    "config", [TINY_POLICY, replace(TINY_POLICY, interface=seen_by("base"))],
    ids=("keypoints", "images"),
)
def test_the_sequence_fills_all_positions(config):
    """A training sequence uses every position once: none is missing, none is idle."""
    policy = make_policy(config).float()
    batch = single(make_batch(make_policy()) | asked(5, cameras=config.interface.cameras)[0])
    hidden = policy.hidden_states(
        batch, batch["prompt"], batch["subtask"], batch["positive"], batch["omit"], batch["tokens"]
    )
    S = hidden.inputs[0].shape[1]
    assert S == len(policy.backbone.position) == len(policy.mask)
    assert S - policy.at_action == policy.n_action_tokens
    assert hidden.output.shape[1] == S - policy.at_subtask

def test_answers_are_subtasks_without_an_indicator():
    """The question in the prompt's place, the answer in the subtask's: equal to a sequence laid
    out by hand.
    """
    policy = make_policy()
    seen, question, answer = asked(6)
    seen = {name: x.double() for name, x in seen.items()}
    logits = policy.answer_logits(seen, question, answer)
    for i in range(6):
        one = rows(seen, slice(i, i + 1)) | {
            "prompt": question[i : i + 1],
            "subtask": answer[i : i + 1],
            "positive": torch.tensor([i % 2 == 0]),
            "tokens": torch.zeros(1, 12).long(),
        }
        output = policy.text_head(by_hand(policy, one, INDICATOR)[1][0])
        torch.testing.assert_close(logits[i], output[PREFIX : PREFIX + 2])
    other = policy.answer_logits(seen, question, (answer + 1) % len(VOCABULARY))
    # the second word reads the first
    assert (other != logits).any(-1).tolist() == [[False, True]] * 6
    with_it = answer_loss(policy, seen | {"question": question, "answer": answer})
    log_p = logits.detach().log_softmax(-1)
    assert with_it.item() == pytest.approx(
        -np.mean([log_p[i, j, answer[i, j]].item() for i in range(6) for j in range(2)])
    )
    # all of the backbone, and the text head
    trained = gradients(policy, with_it)
    assert trained == {name: not name.startswith("expert.") for name in trained}

@pytest.mark.parametrize("cameras", [(), ("base", "left_wrist")])
def test_the_policy_learns_to_answer_questions(cameras):
    seen, question, answer = asked(24, cameras=cameras)
    config = replace(TINY_POLICY, width=32, layers=1, interface=seen_by(*cameras))
    policy = make_policy(config).float()
    seen, losses = single(seen), []

    def draw_loss():
        losses.append(answer_loss(policy, seen | {"question": question, "answer": answer}))
        return losses[-1]

    train(policy.parameters(), draw_loss, 100, 1e-2)
    assert losses[0] > 3 and losses[-1] < (0.5 if cameras else 0.15)
    # and read out as in acting: word by word, without the answer at hand
    assert (predict_subtask(policy, seen, question) == answer).all(1).float().mean() > (
        0.6 if cameras else 0.9
    )

# ---------------------------------------------------------------- Eq. (6): the terms, and the bound

def nll(logits, target):
    return F.cross_entropy(logits[None], torch.tensor([target])).item()

def test_terms_sample_by_sample():
    policy, (omega, eta) = make_policy(), make_draws(make_policy())
    batch, alpha = make_batch(policy), lambda eta: torch.exp(-eta / 2)
    terms, weighted = policy.terms(batch, omega, eta), policy.terms(batch, omega, eta, alpha)
    for i in range(5):
        sample = rows(batch, slice(i, i + 1))
        gone = INDICATOR if batch["omit"][i] else []
        inputs, output = by_hand(policy, sample, gone)
        # row p predicts what stands at p + 1
        logits = policy.text_head(output[0])
        words = nll(logits[PREFIX], sample["subtask"][0, 0].item()) + nll(
            logits[PREFIX + 1], sample["subtask"][0, 1].item()
        )
        assert terms["subtask"][i].item() == pytest.approx(words)
        first = ACTION - len(gone)  # "action:"
        bins = sum(
            nll(logits[first + j], len(VOCABULARY) + b)
            for j, b in enumerate(sample["tokens"][0].tolist())
        )
        assert terms["tokens"][i].item() == pytest.approx(bins)
        for r in range(3):
            w, a, e = omega[i : i + 1, r : r + 1], sample["chunk"][:, None], eta[i, r].item()
            context = policy.expert.context([h[:, :first] for h in inputs])
            a_hat = policy.expert(
                context,
                torch.zeros(1, 1, 1, first).double(),
                e * a + (1 - e) * w,
                eta[i : i + 1, r : r + 1],
            )
            squared = ((a - a_hat) ** 2).mean().item()
            assert terms["flow"][i, r].item() == pytest.approx(squared, rel=1e-9)
            assert weighted["flow"][i, r].item() == pytest.approx(
                math.exp(-e / 2) * squared / (1 - e) ** 2, rel=1e-9
            )

def test_token_terms_are_likelihoods():
    """exp(-term) sums to one over all texts of two words, and over all values of an action token.
    """
    policy = make_policy()
    batch, n = rows(make_batch(policy), slice(0, 1)), policy.text_head.out_features

    def hidden(subtask):
        return policy.hidden_states(
            batch, batch["prompt"], subtask, batch["positive"], batch["omit"]
        )

    first = policy.subtask_logits(hidden(batch["subtask"]))[0, 0].softmax(-1)
    second = torch.stack(
        [policy.subtask_logits(hidden(torch.tensor([[w, 0]])))[0, 1].softmax(-1) for w in range(n)]
    )
    # (n, n): p(w1) p(w2 | w1)
    joint = first[:, None] * second
    assert joint.sum().item() == pytest.approx(1)
    for w1, w2 in ((7, 8), (16, 17), (1, 1)):
        terms = policy.terms(
            batch | {"subtask": torch.tensor([[w1, w2]])}, *make_draws(policy, B=1)
        )
        assert math.exp(-terms["subtask"].item()) == pytest.approx(joint[w1, w2].item(), rel=1e-9)

def test_likelihood_bound_by_its_definition():
    policy, (omega, eta) = make_policy(), make_draws(make_policy(), n_draws=3)
    batch, a = make_batch(policy), make_batch(make_policy())["chunk"][:, None]
    hidden = policy.hidden_states(
        batch, batch["prompt"], batch["subtask"], batch["positive"], batch["omit"], batch["tokens"]
    )
    e = eta[..., None, None]
    f = policy.field(policy.context(hidden, batch["omit"]), e * a + (1 - e) * omega, eta)
    # (B, R), a sum over H·A
    norm = ((omega - a - f) ** 2).sum((2, 3))
    log_p = (
        policy.action_logits(hidden)
        .log_softmax(-1)
        .gather(-1, batch["tokens"][..., None] + len(VOCABULARY))[..., 0]
        .sum(1)
    )
    for alpha in (None, lambda eta: torch.exp(-eta / 2), lambda eta: 2 * torch.ones_like(eta)):
        autoregressive, flow = likelihood_bound(policy, batch, omega, eta, alpha)
        weight = (1 - eta) ** 2 if alpha is None else alpha(eta)
        torch.testing.assert_close(autoregressive, log_p)
        # the draws are averaged
        torch.testing.assert_close(flow, -(weight * norm).mean(1))

def test_likelihood_bound_of_a_perfect_prediction_and_of_one_off_by_d():
    policy, (omega, eta) = make_policy(), make_draws(make_policy())
    batch, a_hat, d = (
        make_batch(policy),
        constant_prediction(policy),
        normal(5, TINY_POLICY.horizon, A, seed=8),
    )
    _, flow = likelihood_bound(policy, batch | {"chunk": a_hat.expand(5, -1, -1)}, omega, eta)
    np.testing.assert_allclose(flow.detach(), 0, atol=1e-18)
    off = batch | {"chunk": a_hat + d}
    _, flow = likelihood_bound(policy, off, omega, eta)
    np.testing.assert_allclose(flow.detach(), -(d**2).sum((1, 2)), rtol=1e-9)
    _, flow = likelihood_bound(policy, off, omega, eta, torch.ones_like)
    np.testing.assert_allclose(
        flow.detach(), -(d**2).sum((1, 2)) * (1 / (1 - eta) ** 2).mean(1), rtol=1e-9
    )

def test_likelihood_bound_without_the_indicator_is_eq_10():
    policy, (omega, eta) = make_policy(), make_draws(make_policy())
    batch, yes = make_batch(policy), torch.ones(5, dtype=torch.bool)

    def bound(positive, omit):
        return torch.stack(
            likelihood_bound(policy, batch | {"positive": positive, "omit": omit}, omega, eta)
        )

    assert torch.equal(bound(yes, yes), bound(~yes, yes))
    assert (bound(yes, ~yes) - bound(~yes, ~yes)).abs().min() > 1e-6
    assert (bound(yes, ~yes) - bound(yes, yes)).abs().min() > 1e-6

def test_likelihood_bound_keeps_away_from_eta_1():
    policy, (omega, eta) = make_policy(), make_draws(make_policy())
    batch = make_batch(policy)
    for bad in (0.9995, 1.0, 1.5, math.nan):
        with pytest.raises(ValueError, match="eta"):
            likelihood_bound(policy, batch, omega, torch.where(torch.arange(3) == 1, bad, eta))
    # in single precision, too
    for largest in (ETA_MAX, torch.tensor(ETA_MAX, dtype=torch.float32)):
        at_the_edge = torch.as_tensor(largest).expand(5, 3)
        _, flow = likelihood_bound(policy, batch, omega, at_the_edge)
        torch.testing.assert_close(
            flow, -policy.terms(batch, omega, at_the_edge)["flow"].mean(1) * TINY_POLICY.horizon * A
        )
        assert torch.isfinite(flow).all()

# ---------------------------------------------------------------- the subtask

def test_predict_subtask_is_greedy_word_by_word():
    policy = make_policy()
    # an action token that is likelier than every word must not come out as one
    with torch.no_grad():
        policy.text_head.weight.mul_(3)
        policy.text_head.bias[len(VOCABULARY) + 2] += 100
        # so that answers differ from sample to sample
        for block in policy.backbone.blocks:
            block.qkv.weight.mul_(3)
            block.out.weight.mul_(4)
    batch = make_batch(policy, B=12)
    subtask = predict_subtask(policy, batch, batch["prompt"])
    assert torch.equal(predict_subtask(policy, batch, batch["prompt"]), subtask)
    depends = False
    for i in range(12):
        sample = rows(batch, slice(i, i + 1))

        def word(position, given, positive):
            """Most likely word at `position`, one sample alone, other fillers, the indicator
            shown.
            """
            s = sample | {"subtask": torch.tensor([given]), "positive": torch.tensor([positive])}
            return (
                policy.text_head(by_hand(policy, s)[1][0, PREFIX + position])[: len(VOCABULARY)]
                .argmax()
                .item()
            )

        w1 = word(0, [9, 9], True)
        assert subtask[i].tolist() == [w1, word(1, [w1, 3], False)]
        depends |= any(
            word(1, [other, 3], False) != subtask[i, 1] for other in range(len(VOCABULARY))
        )
    assert depends  # word 2 is conditioned on word 1
    assert len(subtask.unique(dim=0)) > 5  # and the answer on the sample

# ---------------------------------------------------------------- no setting is idle

SIZES = [
    f.name
    for f in fields(PolicyConfig)
    if isinstance(f.default, int) and not isinstance(f.default, bool)
]

@pytest.mark.parametrize("name", SIZES)
def test_every_size_changes_the_network(name):
    base = make_policy()
    other = make_policy(replace(TINY_POLICY, **{name: 2 * getattr(TINY_POLICY, name)}))

    def shapes(net):
        return {key: tuple(x.shape) for key, x in net.state_dict().items()}

    if shapes(base) == shapes(other):
        other.load_state_dict(base.state_dict())
        batch, (omega, eta) = make_batch(base), make_draws(base)
        assert all(
            (x - y).abs().max() > 1e-4
            for x, y in zip(outputs(base, batch, omega, eta), outputs(other, batch, omega, eta))
        )

def test_no_setting_is_without_a_test():
    """The others: see `test_insulation_...`, `test_with_velocity_...`,
    `test_the_policy_reads_images_...`.
    """
    assert {f.name for f in fields(PolicyConfig)} - set(SIZES) == {
        "insulation",
        "output",
        "interface",
    }

# ---------------------------------------------------------------- does it learn?

def train(parameters, draw_loss, steps, learning_rate):
    optimizer = torch.optim.Adam(parameters, learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss = draw_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

def test_a_tiny_flow_network_learns_a_mixture():
    """Eq. (4) trains it, `integrate` samples it: 0.3 N(-1, 0.15²) + 0.7 N(1, 0.15²)."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(2, 64),
        torch.nn.SiLU(),
        torch.nn.Linear(64, 64),
        torch.nn.SiLU(),
        torch.nn.Linear(64, 1),
    )
    g = torch.Generator().manual_seed(0)
    means, deviation = torch.tensor([-1.0, 1.0])[:, None, None], 0.15

    def f(a, eta):
        return net(torch.cat([a, eta[:, None, None].expand_as(a)], -1))

    def draw_loss():
        a = means[(torch.rand(256, generator=g) < 0.7).long()] + deviation * torch.randn(
            256, 1, 1, generator=g
        )
        omega, eta = draw_noise(a, g)
        return flow_matching_loss(
            f(noised(a, omega, eta), eta), a, omega, eta, torch.ones(256)
        ).mean()

    train(net.parameters(), draw_loss, steps=1000, learning_rate=1e-2)
    omega = torch.randn(20_000, 1, 1, generator=g)
    with torch.no_grad():
        a = integrate(f, omega, 20)
    assert (a < 0).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert a[a < 0].mean().item() == pytest.approx(-1, abs=0.08) and a[
        a > 0
    ].mean().item() == pytest.approx(1, abs=0.08)
    # sample by sample what the true field makes of the same noise
    true = integrate(mixture_field(means, [0.3, 0.7], deviation), omega, 20)
    assert (a - true).abs().mean() < 0.12

# Two tasks, each with a good (+) and a bad (-) way to act: P(+), and
# P(I = positive | -), P(I = positive | +).
WAYS = {"fold shirt": (0.35, 0.0, 1.0), "build box": (0.5, 0.3, 0.8)}
SUBTASKS = {"fold shirt": "flatten shirt", "build box": "pick sheet"}
LEVEL, SPREAD = 0.5, 0.2  # chunks: ± LEVEL in every number, + SPREAD · noise

def train_two_ways(steps, seed=0):
    torch.manual_seed(seed)
    policy = VLA(
        PolicyConfig(
            TOYS, width=16, layers=1, heads=2, expert_width=32, horizon=2, n_action_bins=8
        )
    )
    one = {
        "state": torch.zeros(1, STATE_DIM),
        "keypoints": normal(1, N_KEYPOINTS, KEYPOINT_DIM).float(),
    }
    prompts = torch.tensor([encode(prompt, PROMPT_LENGTH) for prompt in WAYS])
    subtasks = torch.tensor([encode(SUBTASKS[prompt], SUBTASK_LENGTH) for prompt in WAYS])
    ways, g, B, R = torch.tensor(list(WAYS.values())), torch.Generator().manual_seed(seed), 64, 4

    def draw_loss():
        task = torch.randint(2, (B,), generator=g)
        plus = (torch.rand(B, generator=g) < ways[task, 0]).long()
        chunk = LEVEL * (2.0 * plus - 1)[:, None, None] + SPREAD * torch.randn(B, 2, A, generator=g)
        batch = {key: x.expand(B, *x.shape[1:]) for key, x in one.items()}
        batch |= {
            "prompt": prompts[task],
            "subtask": subtasks[task],
            "chunk": chunk,
            "tokens": policy.tokenizer.encode(chunk),
            "positive": torch.rand(B, generator=g) < ways[task, 1 + plus],
            "omit": torch.rand(B, generator=g) < 0.3,
        }
        omega, eta = draw_noise(chunk.repeat_interleave(R, 0), g)
        terms = policy.terms(batch, omega.view(B, R, 2, A), eta.view(B, R))
        return terms["subtask"].mean() + terms["tokens"].mean() + 10 * terms["flow"].mean()

    train(policy.parameters(), draw_loss, steps, 1e-2)
    return policy.eval(), one

# a quick look in every run, the tight one as a slow test
@pytest.mark.parametrize(
    "steps, n, tolerance", [(200, 400, 0.2), pytest.param(1000, 1000, 0.08, marks=pytest.mark.slow)]
)
def test_the_policy_learns_both_ways_and_the_indicator_chooses(steps, n, tolerance):
    """Trained by `terms`, sampled by `sample_actions`.

    Compared with the exact fields on the same noise.
    """
    policy, one = train_two_ways(steps)
    euler = 20
    omega = torch.randn(n, 2, A, generator=torch.Generator().manual_seed(1))
    modes = LEVEL * torch.stack([-torch.ones(2, A), torch.ones(2, A)])
    observation = {key: x.expand(n, *x.shape[1:]) for key, x in one.items()}
    for prompt, (p_plus, positive_if_bad, positive_if_good) in WAYS.items():
        ids, subtask = (
            torch.tensor([encode(text, n)])
            for n, text in ((PROMPT_LENGTH, prompt), (SUBTASK_LENGTH, SUBTASKS[prompt]))
        )
        assert torch.equal(predict_subtask(policy, one, ids), subtask)

        def bayes(good, bad):
            """P(+ | I) from P(I | +), P(I | -)."""
            return p_plus * good / (p_plus * good + (1 - p_plus) * bad)

        exact = {
            None: p_plus,
            True: bayes(positive_if_good, positive_if_bad),
            False: bayes(1 - positive_if_good, 1 - positive_if_bad),
        }
        field = {key: mixture_field(modes, [1 - p, p], SPREAD) for key, p in exact.items()}
        fraction = {}
        for indicator, beta in ((None, 1.0), (True, 1.0), (False, 1.0), (True, 2.0), (True, 3.0)):
            a = sample_actions(
                policy,
                observation,
                ids.expand(n, -1),
                subtask.expand(n, -1),
                indicator,
                beta,
                euler,
                omega,
            )
            true = integrate(
                lambda x, eta: guided(field[None](x, eta), field[indicator](x, eta), beta),
                omega,
                euler,
            )
            plus, true_plus = a.mean((1, 2)) > 0, true.mean((1, 2)) > 0
            fraction[indicator, beta] = plus.float().mean().item()
            assert abs(fraction[indicator, beta] - true_plus.float().mean().item()) < tolerance
            # Eq. (2) is the conditional itself
            if beta == 1:
                assert abs(fraction[indicator, beta] - exact[indicator]) < tolerance
            # no sample stands between the ways: the mean over each is near its mode, and far from
            # the other
            rms = (a - LEVEL * (2.0 * plus - 1)[:, None, None]).square().mean((1, 2)).sqrt()
            assert (rms < LEVEL).float().mean() > 0.95
        # soft labels: β sharpens
        if positive_if_bad > 0:
            assert fraction[True, 1.0] + 0.05 < fraction[True, 2.0] < fraction[True, 3.0]
        # the autoregressive part: the first action token, coefficient 0 of the first joint
        for indicator in (None, True, False):
            flag, omit = torch.tensor([bool(indicator)]), torch.tensor([indicator is None])
            tokens = torch.zeros(1, policy.n_action_tokens, dtype=torch.long)
            logits = policy.action_logits(
                policy.hidden_states(one, ids, subtask, flag, omit, tokens)
            )[0, 0]
            # the upper bins are positive
            half = len(VOCABULARY) + policy.config.n_action_bins // 2
            assert abs(logits.softmax(-1)[half:].sum().item() - exact[indicator]) < tolerance

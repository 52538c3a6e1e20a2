"""value.py: the bins, Eq. (1) by hand, V against dynamic programming, one network for all tasks."""
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from helpers import PROMPT_LENGTH, STATE_DIM, TOYS, VOCABULARY, asked, encode, seen_by
from recap import answer_loss
from sim_tasks.arms import KEYPOINT_DIM, N_KEYPOINTS
from sim_tasks.cameras import CAMERAS
from value import ValueConfig, ValueFunction, discretize, expected_value, support, value_loss

TINY = ValueConfig(TOYS, width=16, layers=1, heads=2)
HALF_A_BIN = 0.5 / 200

def make_observation(B, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {
        "state": torch.randn(B, STATE_DIM, generator=g),
        "keypoints": torch.randn(B, N_KEYPOINTS, KEYPOINT_DIM, generator=g),
    }

def make_value(config=TINY, seed=0):
    """With a random head: as built, the head is zero and every output the same."""
    torch.manual_seed(seed)
    value = ValueFunction(config)
    torch.nn.init.normal_(value.head.weight, std=0.3)
    return value

def prompt_ids(*prompts):
    return torch.tensor([encode(prompt, PROMPT_LENGTH) for prompt in prompts])

def train(value, observation, prompt, row, returns, steps, batch=512, learning_rate=1e-2):
    """Minimise Eq. (1) over samples: sample i was seen at `row[i]` of the few distinct
    observations.
    """
    optimizer = torch.optim.Adam(value.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    g = torch.Generator().manual_seed(0)
    for _ in range(steps):
        index = torch.randint(len(row), (batch,), generator=g)
        loss = value_loss(value(observation, prompt)[row[index]], returns[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

# ---------------------------------------------------------------- the bins

def test_support_runs_from_minus_one_to_zero_in_even_steps():
    v = support().double().numpy()
    assert len(v) == 201 and v[0] == -1 and v[-1] == 0
    np.testing.assert_allclose(np.diff(v), 1 / 200, atol=1e-7)
    np.testing.assert_allclose(support(5).numpy(), [-1, -0.75, -0.5, -0.25, 0])

@pytest.mark.parametrize("n_bins", [2, 11, 201])
def test_discretize_finds_the_nearest_bin(n_bins):
    x = np.random.default_rng(0).uniform(-1, 0, 2000)
    x[:2] = -1, 0  # the ends
    distance = np.abs(x[:, None] - np.linspace(-1, 0, n_bins))  # (M, B), brute force
    np.testing.assert_array_equal(discretize(torch.tensor(x), n_bins).numpy(), distance.argmin(1))

def test_discretize_of_a_bin_is_that_bin():
    assert discretize(support()).tolist() == list(range(201))
    assert discretize(torch.tensor([[-1.0, 0.0], [-0.5, -0.995]])).tolist() == [[0, 200], [100, 1]]

def test_different_returns_get_different_bins_and_the_mean_survives():
    """A soft or signed assignment puts every target into one bin."""
    x = torch.rand(5000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    bins = discretize(x)
    assert discretize(-0.3) != discretize(-0.31)
    assert len(bins.unique()) == 201
    assert (support().double()[bins] - x).abs().max() <= HALF_A_BIN + 1e-7
    # 4 s.e. of U(-h, h)
    assert abs((support().double()[bins] - x).mean().item()) < 4 * HALF_A_BIN / math.sqrt(3 * 5000)

@pytest.mark.parametrize("bad", [-1.01, 0.01, 1.0, -40.0, math.nan, math.inf, -math.inf])
def test_a_return_outside_the_support_is_an_error(bad):
    with pytest.raises(ValueError, match="returns"):
        discretize(torch.tensor([-0.5, bad, -0.2]))
    with pytest.raises(ValueError, match="returns"):
        value_loss(torch.zeros(3, 201), torch.tensor([-0.5, bad, -0.2]))

def test_rounding_errors_at_the_ends_are_no_error():
    assert discretize(torch.tensor([-1 - 1e-7, 1e-7])).tolist() == [0, 200]

# ---------------------------------------------------------------- Eq. (1) and the expectation

def test_value_loss_is_the_cross_entropy_by_hand():
    rng = np.random.default_rng(0)
    logits, returns = rng.normal(size=(4, 7, 201)), rng.uniform(-1, 0, (4, 7))
    target = np.rint((returns + 1) * 200).astype(int)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -np.mean([log_p[i, j, target[i, j]] for i in range(4) for j in range(7)])
    assert value_loss(torch.tensor(logits), torch.tensor(returns)).item() == pytest.approx(
        expected, rel=1e-12
    )

def test_value_loss_is_smallest_at_the_right_bin():
    returns = torch.tensor([-0.4])
    losses = torch.stack([value_loss(5 * torch.eye(201)[b : b + 1], returns) for b in range(201)])
    assert losses.argmin() == 120  # (-0.4 + 1) · 200
    assert (losses < losses.min() + 4).sum() == 1  # and only there

def test_value_loss_has_its_minimum_at_the_distribution_of_the_returns():
    """Its gradient, softmax - empirical distribution, vanishes there: V is the mean of the
    discretised returns.
    """
    returns = torch.tensor([-1.0, -0.25, -0.25, 0.0], dtype=torch.float64)
    p = torch.full((5,), 1e-30, dtype=torch.float64).index_put_(
        (torch.tensor([0, 3, 4]),), torch.tensor([0.25, 0.5, 0.25]).double()
    )
    logits = p.log().requires_grad_()
    value_loss(logits.expand(4, 5), returns).backward()
    torch.testing.assert_close(logits.grad, torch.zeros(5).double(), atol=1e-12, rtol=0)
    assert expected_value(logits.detach()).item() == pytest.approx(returns.mean().item(), abs=1e-6)

def test_expected_value_of_one_bin_and_of_all():
    one_hot = torch.full((201, 201), -1e9).fill_diagonal_(0)
    np.testing.assert_allclose(expected_value(one_hot).numpy(), np.linspace(-1, 0, 201), atol=1e-6)
    np.testing.assert_allclose(
        expected_value(torch.full((2, 3, 11), 7.0)).numpy(), np.full((2, 3), -0.5), atol=1e-6
    )

def test_expected_value_is_the_mean_by_hand():
    logits = np.random.default_rng(0).normal(size=(3, 21)) * 2
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(
        expected_value(torch.tensor(logits)).numpy(), p @ np.linspace(-1, 0, 21), atol=1e-7
    )

@pytest.mark.parametrize("n_bins", [11, 201])
def test_targets_and_expectation_share_one_grid(n_bins):
    """Bins of B + 1 edges read from linspace(-1, 0, B) would shift V by up to half a bin."""
    # a quarter bin beside every value
    x = torch.linspace(-1, 0, 4 * (n_bins - 1) + 1, dtype=torch.float64)[1::2]
    V = expected_value(
        torch.full((len(x), n_bins), -1e9).double().scatter(1, discretize(x, n_bins)[:, None], 0.0)
    )
    np.testing.assert_allclose((V - x).abs().numpy(), 0.25 / (n_bins - 1), atol=1e-6)
    assert abs((V - x).mean().item()) < 1e-6

# ---------------------------------------------------------------- the network

def test_value_begins_at_one_half():
    V = expected_value(ValueFunction(TINY)(make_observation(6), prompt_ids(*["fold shirt"] * 6)))
    np.testing.assert_allclose(V.detach().numpy(), -0.5, atol=1e-6)

def test_value_reads_the_observation_and_every_word_of_the_prompt():
    value, observation = make_value(), make_observation(1)

    def V(o, *words):
        return expected_value(value(o, prompt_ids(" ".join(words)))).item()

    base = V(observation, "fold", "shirt", "collar")
    assert abs(V(observation, "build", "shirt", "collar") - base) > 1e-5
    assert abs(V(observation, "fold", "box", "collar") - base) > 1e-5
    assert abs(V(observation, "fold", "shirt", "sleeves") - base) > 1e-5
    for key in observation:
        assert (
            abs(V(observation | {key: observation[key] + 0.5}, "fold", "shirt", "collar") - base)
            > 1e-5
        )

def test_rows_of_a_batch_do_not_see_one_another():
    value, observation = (
        make_value().double(),
        {k: x.double() for k, x in make_observation(3).items()},
    )
    prompt = prompt_ids("fold shirt", "build box", "fold collar")
    logits = value(observation, prompt)
    for i in range(3):
        alone = value({key: x[i : i + 1] for key, x in observation.items()}, prompt[i : i + 1])
        torch.testing.assert_close(alone[0], logits[i])

def test_two_tasks_with_the_same_observation_are_told_apart_by_the_prompt():
    one = make_observation(1)
    observation = {key: x.expand(2, *x.shape[1:]) for key, x in one.items()}
    prompt, returns = prompt_ids("fold shirt", "build box"), torch.tensor([-0.2, -0.8])
    torch.manual_seed(0)
    value = ValueFunction(TINY)
    train(value, observation, prompt, torch.arange(2), returns, steps=200, batch=16)
    V = expected_value(value(observation, prompt)).detach().numpy()
    np.testing.assert_allclose(V, [-0.2, -0.8], atol=0.02)

def test_value_of_a_chain_matches_dynamic_programming():
    """States 0..4, one step at a time: on with probability 0.6, stays 0.3, fails 0.1; on from 4 is
    success.

    Eq. (5)'s reward: -1 a step, the last 0 or -C; divided by 2·C with C = 40 steps, more than any
    episode lasts.
    """
    n_states, C, p_on, p_fail, n_episodes = 5, 40, 0.6, 0.1, 4000
    # dynamic programming: V = r + P V
    P = np.diag(np.full(n_states, 1 - p_on - p_fail)) + np.diag(np.full(n_states - 1, p_on), 1)
    success = np.array([0] * (n_states - 1) + [p_on])
    # going on costs 1, failing C, success 0
    r = -P.sum(1) - C * p_fail
    V_dp = np.linalg.solve(np.eye(n_states) - P, r) / (2 * C)
    P_fail = 1 - np.linalg.solve(np.eye(n_states) - P, success)
    # Monte Carlo
    rng = np.random.default_rng(0)
    row, returns, visits = [], [], np.zeros(n_states)
    for _ in range(n_episodes):
        states = [0]
        while True:
            u = rng.random()
            if u < p_fail or (u < p_fail + p_on and states[-1] == n_states - 1):
                break
            states.append(states[-1] + (u < p_fail + p_on))
        R_end = -C if u < p_fail else 0
        row += states
        returns += [(R_end - (len(states) - 1 - t)) / (2 * C) for t in range(len(states))]
        visits[np.unique(states)] += 1
    row, returns = np.array(row), np.array(returns)
    # the network: the state is written into the keypoints
    keypoints = torch.zeros(n_states, N_KEYPOINTS, KEYPOINT_DIM)
    keypoints[:, :, 11 : 11 + n_states] = torch.eye(n_states)[:, None]
    observation = {"state": torch.zeros(n_states, STATE_DIM), "keypoints": keypoints}
    prompt = prompt_ids(*["fold shirt"] * n_states)
    torch.manual_seed(0)
    value = ValueFunction(TINY)
    train(value, observation, prompt, torch.tensor(row), torch.tensor(returns), steps=500)
    logits = value(observation, prompt).detach()
    V = expected_value(logits).numpy()
    # 4 standard errors of the mean of the returns (those of one episode count as one), half a bin,
    # the optimiser's rest
    deviation = np.array([returns[row == s].std() for s in range(n_states)])
    assert (np.abs(V - V_dp) < 4 * deviation / np.sqrt(visits) + HALF_A_BIN + 0.005).all(), (
        V,
        V_dp,
    )
    # it is a distribution: the mass at and below -1/2 is the probability of failing
    mass = logits.softmax(-1)[:, :101].sum(-1).numpy()
    assert (np.abs(mass - P_fail) < 4 * np.sqrt(P_fail * (1 - P_fail) / visits) + 0.02).all(), (
        mass,
        P_fail,
    )

# ---------------------------------------------------------------- images, and questions about them

@pytest.mark.parametrize("clock", [False, True])
def test_a_clock_tells_apart_what_looks_the_same(clock):
    """One observation at two times: late it is worth less.  Without a clock V is their mean."""
    value = make_value(replace(TINY, clock=clock))
    one = make_observation(1)
    observation = {name: torch.cat([x, x]) for name, x in one.items()}
    observation["clock"] = torch.tensor([[0.1], [0.9]])
    prompt = prompt_ids("fold shirt", "fold shirt")
    row = torch.arange(400) % 2
    train(value, observation, prompt, row, torch.where(row == 1, -0.9, -0.3), steps=150)
    early, late = expected_value(value(observation, prompt)).tolist()
    expected = (-0.3, -0.9) if clock else (-0.6, -0.6)
    assert (early, late) == pytest.approx(expected, abs=0.03)

def test_value_reads_images_of_every_camera_that_it_has():
    observation, prompt, _ = asked(3, cameras=CAMERAS)
    value = make_value(replace(TINY, interface=seen_by("base", "right_wrist")))
    logits = value(observation, prompt)
    for name, read in (
        ("base", True),
        ("left_wrist", False),
        ("right_wrist", True),
        ("state", True),
    ):
        # those of another scene
        other = observation | {name: observation[name].flip(0)}
        assert bool((value(other, prompt) - logits)[[0, 2]].abs().amax(1).min() > 1e-5) == read
        # the middle one stays where it is
        assert torch.equal(value(other, prompt)[1], logits[1])
    assert value.config.interface.cameras == ("base", "right_wrist")

def test_value_learns_from_images():
    """Four white pictures with spots, four values: nothing but the spots tells them apart.

    On the way after 250 steps.
    """
    g = torch.Generator().manual_seed(0)

    def spots():
        return torch.rand(4, 24, 24, 1, generator=g) < 0.1

    observation = {
        name: torch.where(spots(), torch.randint(0, 256, (4, 24, 24, 3), generator=g), 255).to(
            torch.uint8
        )
        for name in CAMERAS
    }
    observation["state"], prompt = torch.zeros(4, STATE_DIM), prompt_ids(*["fold shirt"] * 4)
    returns = torch.tensor([-0.9, -0.6, -0.3, 0.0])
    torch.manual_seed(0)
    value = ValueFunction(replace(TINY, interface=seen_by(*CAMERAS)))
    train(value, observation, prompt, torch.arange(4), returns, steps=250, batch=16)
    V = expected_value(value(observation, prompt)).detach().numpy()
    assert np.diff(V).min() > 0.01 and V[-1] - V[0] > 0.3, V

@pytest.mark.parametrize("cameras", [(), ("base", "left_wrist")])
def test_value_learns_to_answer_questions(cameras):
    observation, question, answer = asked(24, cameras=cameras)
    torch.manual_seed(0)
    value = ValueFunction(replace(TINY, width=32, interface=seen_by(*cameras)))
    optimizer = torch.optim.Adam(value.parameters(), 5e-3)
    losses = []
    for _ in range(80):
        losses.append(answer_loss(value, observation | {"question": question, "answer": answer}))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    # as good as guessing
    assert abs(losses[0].item() - math.log(len(VOCABULARY))) < 0.7
    words = value.answer_logits(observation, question, answer).argmax(-1)
    accuracy = (words == answer).all(1).float().mean()
    assert (
        losses[-1].item() < 0.1 and accuracy > 0.9
        if not cameras
        else losses[-1].item() < 0.5 and accuracy > 0.6
    )

def test_questions_and_values_train_one_backbone_through_two_heads():
    observation, question, answer = asked(6)
    value = make_value()
    # by hand: log-softmax of the two words, mean over words and questions
    log_p = value.answer_logits(observation, question, answer).detach().log_softmax(-1)
    expected = -np.mean([log_p[i, j, answer[i, j]].item() for i in range(6) for j in range(2)])
    loss = answer_loss(value, observation | {"question": question, "answer": answer})
    assert loss.item() == pytest.approx(expected, rel=1e-5)

    def trained():
        return {
            name
            for name, p in value.named_parameters()
            if p.grad is not None and (p.grad != 0).any()
        }

    names = {name for name, _ in value.named_parameters()}
    loss.backward()
    assert trained() == {name for name in names if not name.startswith("head.")}
    value.zero_grad()
    value_loss(value(observation, question), torch.full((6,), -0.3)).backward()
    assert trained() == {name for name in names if not name.startswith("answer.")}
    # asked for V, it does not see an answer's place: "answer:" and "value:" are different words at
    # one position
    other = answer.flip(0)
    assert torch.equal(
        value.answer_logits(observation, question, answer),
        value.answer_logits(observation, question, other),
    )

# ---------------------------------------------------------------- no setting is idle

SIZES = [f.name for f in fields(ValueConfig) if type(f.default) is int]

@pytest.mark.parametrize("name", SIZES)
def test_every_size_changes_the_network(name):
    base = make_value()
    other = make_value(replace(TINY, **{name: 2 * getattr(TINY, name)}))

    def shapes(net):
        return {key: tuple(x.shape) for key, x in net.state_dict().items()}

    if shapes(base) == shapes(other):
        other.load_state_dict(base.state_dict())
        observation, prompt = make_observation(2), prompt_ids("fold shirt", "build box")
        assert (base(observation, prompt) - other(observation, prompt)).abs().max() > 1e-4

def test_no_setting_is_without_a_test():
    # see `test_value_reads_images_...`, `test_a_clock_tells_...`
    assert {f.name for f in fields(ValueConfig)} - set(SIZES) == {"interface", "clock"}

"""baselines.py: AWR on a bandit, Eq. (11) by its stationary points, what each loss trains."""
import math
from functools import partial
from data import WORDS
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import baselines
import recap
from baselines import awr_loss, awr_weights, plain_loss, ppo_loss, spo_loss
from helpers import (
    TINY_POLICY,
    VOCABULARY,
    episode,
    make_batch,
    make_draws,
    make_policy,
    outputs,
    weights_of,
)
from policy import FLOW_WEIGHTS, VLA, draw_noise, likelihood_bound
from recap import eq3_loss, train_policy
from settings import Settings

B = 5
ADVANTAGE = torch.tensor([0.6, -0.4, 0.1, -1.2, 0.0], dtype=torch.float64)

def unconditional(policy, **more):
    """A batch as the baselines see it: never the indicator."""
    return make_batch(policy) | {"omit": torch.ones(B, dtype=torch.bool)} | more

def gradient(loss, network):
    """All gradients in a row; 0 where there is none."""
    parameters = list(network.parameters())
    grads = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, grads)]
    )

# ---------------------------------------------------------------- AWR

def test_awr_weights_by_hand():
    weights = awr_weights(torch.tensor([-1.0, -0.1, 0.0, 0.1, 0.2, 5.0]).double(), 0.1, 10.0)
    np.testing.assert_allclose(
        weights, [math.exp(-10), math.exp(-1), 1, math.e, math.exp(2), 10.0], rtol=1e-6
    )

def test_awr_weights_rise_with_the_advantage_up_to_their_limit():
    x = torch.linspace(-2, 2, 401).double()
    weights = awr_weights(x, 0.5)
    below = weights < 20 - 1e-9
    assert (weights.diff()[below[1:]] > 0).all() and (weights[~below] - 20).abs().max() < 1e-9
    # the limit begins where exp(A / T) reaches it
    assert below.sum() == (x < 0.5 * math.log(20)).sum()
    # no overflow on the way
    assert awr_weights(torch.tensor([1e6, -1e6]), 0.01).tolist() == pytest.approx([20, 0])
    # a lower temperature takes sides more
    ratio = [(w := awr_weights(torch.tensor([0.1, -0.1]), T))[0] / w[1] for T in (1.0, 0.5, 0.1)]
    assert ratio[0] < ratio[1] < ratio[2]

@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_awr_refuses_a_temperature_that_is_none(temperature):
    with pytest.raises(ValueError, match="temperature: .*expected a number above 0"):
        awr_weights(ADVANTAGE, temperature)

class Bandit(torch.nn.Module):
    """One state, K actions, a table of logits; says -log π(a) where a VLA says its terms."""

    def __init__(self, K):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(K, dtype=torch.float64))

    def terms(self, batch, omega, eta, weight):
        nll = -self.logits.log_softmax(-1)[batch["action"]]  # (B,)
        return {
            "subtask": torch.zeros_like(nll),
            "tokens": nll,
            "flow": torch.zeros(len(nll), 1).double(),
        }

@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_awr_on_a_bandit_is_the_closed_form(temperature):
    """Weighted maximum likelihood on data of π_ref has its optimum at π_ref(a) exp(A(a) / T).

    Clipped where clipped, and normalised.
    """
    counts, reward = np.array([40, 30, 20, 10]), np.array([0.0, 1.0, 2.0, -1.0])
    pi_ref = counts / counts.sum()
    action = torch.tensor(np.repeat(np.arange(4), counts))
    advantage = torch.tensor(reward - pi_ref @ reward)
    for limit in (1e9, 3.0):
        weight = awr_weights(advantage, temperature, limit)[action]
        bandit = Bandit(4)
        optimizer = torch.optim.LBFGS(
            bandit.parameters(), max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
        )

        def closure():
            optimizer.zero_grad()
            loss = awr_loss(bandit, {"action": action, "weight": weight}, None, None)
            loss.backward()
            return loss

        optimizer.step(closure)
        expected = pi_ref * np.minimum(np.exp(advantage.numpy() / temperature), limit)
        np.testing.assert_allclose(
            bandit.logits.softmax(-1).detach(), expected / expected.sum(), atol=2e-5
        )

def test_awr_with_equal_weights_is_imitation_and_a_weight_of_zero_is_absence():
    policy, draws = make_policy(), make_draws(make_policy())
    batch = unconditional(policy)

    def one(w):
        return batch | {"weight": torch.as_tensor(w).double()}

    plain = plain_loss(policy, batch, *draws)
    assert awr_loss(policy, one([1] * B), *draws).item() == pytest.approx(plain.item(), rel=1e-12)
    assert awr_loss(policy, one([2.5] * B), *draws).item() == pytest.approx(
        2.5 * plain.item(), rel=1e-12
    )
    # step 1 without weight: whatever happened there, the gradient is that of the others alone
    weights, others = [0.3, 0.0, 2.0, 1.0, 0.7], [0, 2, 3, 4]
    spoilt = {key: x.clone() for key, x in one(weights).items()}
    spoilt["chunk"][1] += 3
    spoilt["tokens"][1] = (spoilt["tokens"][1] + 1) % TINY_POLICY.n_action_bins
    spoilt["subtask"][1] = 5
    ours = gradient(awr_loss(policy, one(weights), *draws), policy)
    torch.testing.assert_close(gradient(awr_loss(policy, spoilt, *draws), policy), ours)
    without = {key: x[others] for key, x in one(weights).items()}
    alone = gradient(awr_loss(policy, without, *(x[others] for x in draws)), policy)
    # the mean is over all five
    torch.testing.assert_close(ours, alone * 4 / 5)
    # and linear in the weights: by hand
    terms = [
        plain_loss(
            policy, {key: x[i : i + 1] for key, x in batch.items()}, *(x[i : i + 1] for x in draws)
        ).item()
        for i in range(B)
    ]
    assert awr_loss(policy, one(weights), *draws).item() == pytest.approx(
        np.mean(np.multiply(weights, terms)), rel=1e-9
    )

# ---------------------------------------------------------------- imitation

def test_plain_loss_is_eq_3_without_the_indicator():
    policy, draws = make_policy(), make_draws(make_policy())
    batch = unconditional(policy)
    terms = policy.terms(batch, *draws)
    by_hand = np.mean(
        [
            (terms["subtask"][i] + terms["tokens"][i] + 10 * terms["flow"][i].mean()).item()
            for i in range(B)
        ]
    )
    plain = plain_loss(policy, batch, *draws)
    assert plain.item() == pytest.approx(by_hand, rel=1e-12)
    torch.testing.assert_close(
        gradient(plain, policy), gradient(eq3_loss(policy, batch, *draws), policy)
    )

def test_eq3_loss_weighs_its_three_terms():
    """And a weight of 0 of the tokens leaves no trace of them: not in the loss, not in any
    gradient (--no-token-loss).
    """
    policy, draws = make_policy(), make_draws(make_policy())
    batch = make_batch(policy)
    terms = policy.terms(batch, *draws)
    for tokens in (1.0, 0.0, 0.5):
        expected = (
            terms["subtask"].mean() + tokens * terms["tokens"].mean() + 10 * terms["flow"].mean()
        )
        assert eq3_loss(policy, batch, *draws, tokens=tokens).item() == pytest.approx(
            expected.item(), rel=1e-12
        )
    other = batch | {"tokens": (batch["tokens"] + 3) % TINY_POLICY.n_action_bins}
    without = [eq3_loss(policy, b, *draws, tokens=0.0) for b in (batch, other)]
    assert without[0] == without[1]
    torch.testing.assert_close(*(gradient(loss, policy) for loss in without), rtol=0, atol=0)
    policy.zero_grad()
    without[0].backward()
    # embeddings of action tokens
    assert policy.backbone.token.weight.grad[len(VOCABULARY) :].abs().max() == 0
    # and where they stand
    assert policy.backbone.position.grad[policy.at_action :].abs().max() == 0
    # all that is left: words and flow
    words = make_policy()
    words.zero_grad()
    terms = words.terms(batch, *draws)
    (terms["subtask"].mean() + 10 * terms["flow"].mean()).backward()
    for p, q in zip(policy.parameters(), words.parameters()):
        torch.testing.assert_close(p.grad, q.grad)
    # α_η reaches the flow term and no other
    alpha = FLOW_WEIGHTS["paper"]
    difference = eq3_loss(policy, batch, *draws, weight=alpha) - eq3_loss(policy, batch, *draws)
    expected = (
        10
        * (policy.terms(batch, *draws, alpha)["flow"] - policy.terms(batch, *draws)["flow"]).mean()
    )
    assert difference.item() == pytest.approx(expected.item(), rel=1e-9) and abs(expected) > 1e-3

# ---------------------------------------------------------------- Eq. (11): one brace

def slope(loss, at, h=1e-6):
    return (loss(at + h) - loss(at - h)) / (2 * h)

@pytest.mark.parametrize("advantage", [0.7, -0.7, 0.0])
def test_spo_begins_as_the_policy_gradient(advantage):
    """At r = 1 the penalty is flat: d loss / d log r = -A."""
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    loss = spo_loss(x, torch.full((3,), advantage).double(), 0.2)
    loss.backward()
    # a mean over three
    np.testing.assert_allclose(x.grad, -advantage / 3, atol=1e-12)
    assert loss.item() == pytest.approx(-advantage)

@pytest.mark.parametrize("epsilon", [0.05, 0.3])
@pytest.mark.parametrize("advantage", [0.7, -0.7])
def test_spo_has_its_minimum_at_the_edge_of_the_trust_region(advantage, epsilon):
    """On a grid of ratios, and by the slope there.

    Without the square there would be no minimum within reach.
    """

    def loss(r):
        return spo_loss(
            torch.tensor([math.log(r)]).double(), torch.tensor([advantage]).double(), epsilon
        ).item()

    ratios = np.linspace(0.02, 4, 2000)
    best = ratios[np.argmin([loss(r) for r in ratios])]
    edge = 1 + epsilon * math.copysign(1, advantage)
    assert best == pytest.approx(edge, abs=2e-3)
    assert slope(loss, edge) == pytest.approx(0, abs=1e-6)
    # a minimum, on both sides
    assert slope(loss, edge - 0.01) < -1e-4 and slope(loss, edge + 0.01) > 1e-4
    # by the definition, anywhere
    for r in (0.3, 0.9, 1.0, 2.5):
        assert loss(r) == pytest.approx(
            -(r * advantage - abs(advantage) / (2 * epsilon) * (r - 1) ** 2)
        )

def test_without_a_trust_region_spo_is_linear_in_the_ratio():
    """epsilon = inf: -mean(r A), the policy gradient with its ratio."""
    x, A = torch.tensor([0.3, -2.0, 9.0]).double(), torch.tensor([1.0, 0.5, -0.7]).double()
    assert spo_loss(x, A, math.inf).item() == pytest.approx(
        -(1.349858807576 + 0.5 * 0.135335283237 - 0.7 * 8103.083927575384) / 3
    )

def test_spo_refuses_a_trust_region_that_is_none():
    for epsilon in (0.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="epsilon"):
            spo_loss(torch.zeros(2), torch.ones(2), epsilon)

# ---------------------------------------------------------------- Eq. (11): both braces

def by_definition(policy, batch, omega, eta, alpha=None):
    """The two terms of the bound, written out, the mean over draws.

    Σ log p of the action tokens, -Σ α_η (ω - a - f)².  alpha: α_η by η; None is (1 - η)².
    """
    alpha = (1 - eta) ** 2 if alpha is None else alpha(eta)
    a, e = batch["chunk"][:, None], eta[..., None, None]
    _, bins, f = outputs(policy, batch, e * a + (1 - e) * omega, eta)
    log_p = -F.cross_entropy(
        bins.transpose(1, 2), batch["tokens"] + len(VOCABULARY), reduction="none"
    ).sum(1)
    # (B,) each
    return log_p, -(alpha * ((omega - a - f) ** 2).sum((2, 3))).mean(1)

@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_ppo_where_the_policy_is_its_reference(monkeypatch, alpha):
    """The same draws on both sides: all log-ratios are exactly 0, and the gradient is -A times
    that of the bound.
    """
    policy, draws, seen = make_policy(), make_draws(make_policy()), []

    def spy(log_ratio, A, epsilon):
        return seen.append((log_ratio.detach(), epsilon)) or spo_loss(log_ratio, A, epsilon)

    monkeypatch.setattr(baselines, "spo_loss", spy)
    batch = unconditional(policy, advantage=ADVANTAGE)
    loss = ppo_loss(policy, batch, *draws, make_policy(), 0.2, 0.05, alpha)
    assert [epsilon for _, epsilon in seen] == [0.2, 0.05]
    assert all((log_ratio == 0).all() for log_ratio, _ in seen)
    assert loss.item() == pytest.approx(-(1 + alpha) * ADVANTAGE.mean().item())
    log_p, flow = by_definition(policy, batch, *draws)
    expected = -(ADVANTAGE * (log_p + alpha * flow)).mean()
    torch.testing.assert_close(gradient(loss, policy), gradient(expected, policy))
    assert gradient(loss, policy).abs().max() > 1e-3

def test_ppo_against_its_formula():
    """A policy beside its reference: new minus old, each brace with its own trust region, and no
    indicator (Eq. 10).
    """
    policy, reference, draws = make_policy(seed=1), make_policy(), make_draws(make_policy())
    policy.load_state_dict(
        {
            key: x if x.dtype == torch.bool else 0.1 * policy.state_dict()[key] + 0.9 * x
            for key, x in reference.state_dict().items()
        }
    )
    batch = unconditional(policy, advantage=ADVANTAGE)
    new, old = by_definition(policy, batch, *draws), by_definition(reference, batch, *draws)
    braces = []
    for n, o, epsilon in zip(new, old, (0.2, 0.05)):
        r, x = np.exp((n - o).numpy(force=True)), ADVANTAGE.numpy()
        assert np.abs(r - 1).min() > 1e-4
        braces.append(np.mean(r * x - np.abs(x) * (r - 1) ** 2 / (2 * epsilon)))
    loss = ppo_loss(policy, batch, *draws, reference, 0.2, 0.05, 0.7)
    assert loss.item() == pytest.approx(-(braces[0] + 0.7 * braces[1]), rel=1e-9)
    # the reference stays as it is
    loss.backward()
    assert all(p.grad is None for p in reference.parameters())
    assert policy.backbone.position.grad[policy.at_action :].abs().max() > 0
    trained = {
        name
        for name, p in policy.named_parameters()
        if p.grad is not None and p.grad.abs().max() > 0
    }
    assert {"expert.outward.weight", "text_head.weight", "backbone.token.weight"} <= trained

def test_a_ratio_above_e_20_counts_as_e_20_and_has_no_gradient(monkeypatch):
    """Without trust regions, where the loss is -r A."""
    x = torch.tensor([20.5, 3.0], dtype=torch.float64, requires_grad=True)

    def bound(network, *given):
        return (x, 2 * x) if network == "new" else (0 * x, 0 * x)

    monkeypatch.setattr(baselines, "likelihood_bound", bound)
    batch = {"advantage": torch.tensor([0.5, -2.0], dtype=torch.float64)}
    loss = ppo_loss("new", batch, None, None, "old", math.inf, math.inf, alpha=0.5)
    tokens = 0.5 * math.e**20 - 2 * math.e**3
    flow = 0.5 * math.e**20 - 2 * math.e**6
    assert loss.item() == pytest.approx(-(tokens + 0.5 * flow) / 2, rel=1e-12)
    (slope,) = torch.autograd.grad(loss, x)
    assert slope.tolist() == pytest.approx([0, math.e**3 + 0.5 * 2 * math.e**6])

def test_ppo_makes_better_actions_likelier_and_worse_ones_less():
    """With the ratio upside down, steps along the gradient would do the opposite."""
    reference = make_policy()
    policy, draws = make_policy(), make_draws(make_policy())
    batch = unconditional(policy, advantage=torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]).double())
    optimizer = torch.optim.SGD(policy.parameters(), 1e-4)
    for _ in range(5):
        optimizer.zero_grad()
        ppo_loss(policy, batch, *draws, reference, 0.2, 0.2).backward()
        optimizer.step()
    new, old = by_definition(policy, batch, *draws), by_definition(reference, batch, *draws)
    gain = sum(n - o for n, o in zip(new, old)).detach()
    assert (gain * batch["advantage"]).mean() > 0 and (gain * batch["advantage"] > 0).sum() >= 4

    # ... and at a fixed ratio above 1 the loss says so itself: good actions that became likelier
    # pay
    def loss(A):
        return spo_loss(torch.tensor([0.05]), torch.tensor([A]), 0.2).item()

    assert loss(1.0) < -1.0 and loss(-1.0) > 1.0

class TwoModes:
    """The best policy where half of the data, of one number, are 1 and half -1: â = E[a | a^η]."""

    def terms(self, batch, omega, eta, weight):
        a_eta = eta[..., None, None] * batch["chunk"][:, None] + (1 - eta[..., None, None]) * omega
        clean = torch.tanh((eta / (1 - eta) ** 2)[..., None, None] * a_eta)
        error = ((batch["chunk"][:, None] - clean) ** 2).mean((2, 3))
        # Eq. 4 with f = (a^η - â) / (1 - η) is the error of â times α_η / (1 - η)².
        alpha = 1 if weight is None else weight(eta) / (1 - eta) ** 2
        return {"tokens": torch.zeros(len(eta)), "flow": alpha * error}

def test_the_weight_decides_whether_the_bound_knows_what_is_likely():
    """What `ppo_loss` says of its weight: under (1 - η)² the middle is "likelier" than the modes.

    Nothing of the data lies there.  The paper's weight has it far below them.
    """
    modes_and_middle = torch.tensor([1.0, -1.0, 0.0]).double()[:, None, None]
    g = torch.Generator().manual_seed(0)
    omega, eta = draw_noise(torch.zeros(4000, 1, 1).double(), g)
    omega = omega[None].expand(3, -1, -1, -1)
    bound = {}
    for name, weight in FLOW_WEIGHTS.items():
        batch = {"chunk": modes_and_middle}
        bound[name] = likelihood_bound(TwoModes(), batch, omega, eta.expand(3, -1), weight)[1]
    assert bound["clean"][2] > bound["clean"][:2].max() + 0.2
    for name in ("paper", "constant"):
        assert bound[name][2] < bound[name][:2].min() - 5

# ---------------------------------------------------------------- in the loop that all share

def dataset():
    return [episode(12, seed=i, success=i % 2 == 0) for i in range(4)], [np.ones(12, bool)] * 4

def small(seed=0):
    torch.manual_seed(seed)
    return VLA(TINY_POLICY)

def spy_on(drawn):
    """How often train_policy's batches drew each step, (48,)."""
    D, I = dataset()
    seen = []

    def loss(policy, batch, omega, eta, **weights):
        seen.append(batch["state"].clone())
        return policy.text_head.weight.sum() * 0

    train_policy(small(), D, I, Settings(batch=32), 20, loss=loss, drawn=drawn)
    states = np.concatenate([e.observations["state"] for e in D])  # (48, 6)
    rows = {tuple(row): i for i, row in enumerate(states.tolist())}
    found = [rows[tuple(row)] for row in torch.cat(seen).tolist()]
    assert len(found) == 640
    return np.bincount(found, minlength=48)

def test_keep_says_which_steps_are_drawn():
    keep = np.arange(48) % 3 == 1
    drawn = spy_on(keep)
    # 640 draws of 16 steps, all of them alike.
    assert (drawn[~keep] == 0).all() and (drawn[keep] > 0).all()
    assert np.abs(drawn[keep] - 40).max() < 5 * 40**0.5
    assert (spy_on(None) > 0).sum() == 48
    with pytest.raises(ValueError, match="drawn: none of 48 steps"):
        spy_on(np.zeros(48, bool))

@pytest.mark.parametrize("token_loss", [True, False])
@pytest.mark.parametrize("name", FLOW_WEIGHTS)
def test_a_weight_of_the_loss_is_recaps_and_its_rivals_alike(name, token_loss, monkeypatch):
    """--flow-weight and --no-token-loss, against the terms of the first batch of each."""
    D, I = dataset()
    s = Settings(batch=8, draws=2, token_loss=token_loss, flow_weight=name)
    alpha = FLOW_WEIGHTS[name]
    found = []

    def optimise(network, draw_loss, *rest):
        found.append(draw_loss().item())
        return network.eval()

    monkeypatch.setattr(recap, "optimise", optimise)
    first = []  # batch, ω and η of the newest training
    reference = small(1)
    ppo = partial(ppo_loss, reference=reference, epsilon_ar=0.2, epsilon_flow=0.05, alpha=0.7)
    columns = {"weight": np.linspace(0, 2, 48), "advantage": np.linspace(-1, 1, 48)}
    for loss in (None, plain_loss, awr_loss, ppo):
        policy = small()
        real = policy.terms

        def terms(batch, omega, eta, weight=None, real=real):
            first[:] = batch, omega, eta
            return real(batch, omega, eta, weight)

        policy.terms = terms
        train_policy(policy, D, I, s, 1, loss=loss, columns=columns)
        if loss is ppo:
            A = first[0]["advantage"]
            new = by_definition(policy, *first, alpha)
            old = by_definition(reference, *first, alpha)
            expected = 0
            for part, n, o, epsilon in zip((token_loss, 0.7), new, old, (0.2, 0.05)):
                r = (n - o).clamp(max=20).exp()
                expected -= part * (r * A - A.abs() * (r - 1) ** 2 / (2 * epsilon)).mean()
        else:
            parts = real(*first, alpha)
            each = parts["subtask"] + token_loss * parts["tokens"] + 10 * parts["flow"].mean(1)
            expected = (each * first[0]["weight"] if loss is awr_loss else each).mean()
        assert found[-1] == pytest.approx(expected.item(), rel=1e-5)

def test_the_baselines_train_in_recaps_loop():
    """Each for a few steps: finite, different from one another, and never shown the indicator."""
    D, I = dataset()
    advantage = np.linspace(-1, 1, 48).astype(np.float32)
    weight = awr_weights(torch.tensor(advantage), 0.5).numpy()
    s = Settings(batch=16, draws=2, fine_tuning_rate=1e-3)
    reference = train_policy(small(), D, I, s, 3)
    ppo = partial(ppo_loss, reference=reference, epsilon_ar=0.2, epsilon_flow=0.2)
    ends = {}
    for name, more in (
        ("recap", dict()),
        ("imitation", dict(loss=plain_loss)),
        ("positives only", dict(loss=plain_loss, drawn=advantage > 0.4)),
        ("awr", dict(loss=awr_loss, columns={"weight": weight})),
        ("ppo", dict(loss=ppo, columns={"advantage": advantage})),
    ):
        policy = small(1)
        policy.load_state_dict(reference.state_dict())
        shown = I if name == "recap" else None
        assert train_policy(policy, D, shown, s, 4, **more) is policy
        ends[name] = weights_of(policy)
        assert torch.isfinite(ends[name]).all()
        # Where the indicator's word is never read, its embedding only decays: all of it by one
        # factor.
        word = WORDS.index("positive")
        factor = policy.backbone.token.weight[word] / reference.backbone.token.weight[word]
        assert (factor.std().item() < 1e-5) == (name != "recap"), name
    for one, other in combinations(ends, 2):
        assert (ends[one] - ends[other]).abs().max() > 1e-5

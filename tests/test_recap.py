"""recap.py: Algorithm 1 line by line, what V and π are trained on, the optimiser, every setting."""
import copy
import json
import math
import os
import shutil
import tempfile
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

import collection
import data as data_module
import recap
from data import UserError, balanced_draw, generator, web_batches
from helpers import (
    PROMPT_LENGTH,
    SMALL_VALUE,
    TINY_POLICY,
    TINY_RUN,
    TOYS,
    VOCABULARY,
    described,
    encode,
    episode,
    fresh,
    pictured,
    seen_by,
    toy_policy,
    weights_of,
)
from lab import evaluation
from lab.files import load_dataset, load_network
from lab.run import Run
from policy import FLOW_WEIGHTS, VLA, draw_noise
from recap import train_policy, train_value
from settings import Settings
from sim_tasks.cameras import cameras as photograph
from value import ValueFunction, predict_values

# ---------------------------------------------------------------- training π (Eq. 3)

def recorder():
    """(a loss that trains nothing, the list of the batches that it was given)."""
    seen = []

    def loss(policy, batch, omega, eta, **rest):
        seen.append({name: x.clone() for name, x in batch.items()})
        return policy.text_head.weight.sum() * 0

    return loss, seen

def spy_training(I="every fourth", seed=0, **arguments):
    """The batches of 60 steps of train_policy in a row: {name: (60 * 64, ...)}."""
    loss, seen = recorder()
    D = [episode(40, seed=i) for i in range(5)]
    if I == "every fourth":
        I = [np.arange(40) % 4 == 0] * 5
    train_policy(toy_policy(), D, I, Settings(batch=64, seed=seed), 60, loss=loss, **arguments)
    assert len(seen) == 60
    return {name: torch.cat([batch[name] for batch in seen]) for name in seen[0]}

def test_the_indicator_is_omitted_30_percent_of_the_time_positive_or_negative():
    seen = spy_training()
    for sign in (True, False):
        omitted = seen["omit"][seen["positive"] == sign].float()
        # Four standard errors.
        assert abs(omitted.mean() - 0.3) < 4 * (0.21 / len(omitted)) ** 0.5
    assert spy_training(I=None)["omit"].all()

def test_a_balanced_draw_is_of_the_steps_that_show_the_indicator_in_fine_tuning():
    D = [episode(40, seed=i) for i in range(5)]
    I = [np.arange(40) % 4 == 0] * 5
    s = Settings(batch=64, balance=0.6)
    for fitted, expected in ((True, 0.6), (False, 0.25)):  # pre-training stays as the data are
        policy = toy_policy()
        policy.fitted.fill_(fitted)
        loss, seen = recorder()
        train_policy(policy, D, I, s, 60, loss=loss)
        seen = {name: torch.cat([batch[name] for batch in seen]) for name in ("omit", "positive")}
        for omit, share in ((False, expected), (True, 0.25)):
            positive = seen["positive"][seen["omit"] == omit].float()
            assert abs(positive.mean() - share) < 4 * (0.25 / len(positive)) ** 0.5
        assert abs(seen["omit"].float().mean() - 0.3) < 4 * (0.21 / 3840) ** 0.5
    # Each step is drawn as often as others of its kind.
    count = torch.bincount(balanced_draw(I[0], 0.6, 100_000, generator(0, "x"))(), minlength=40)
    expected = torch.where(torch.as_tensor(I[0]), 60_000 / 10, 40_000 / 30)
    assert ((count - expected).abs() < 5 * expected.sqrt()).all()
    # Of the steps that may be drawn only; where all are positive nothing is to be balanced.
    kept = np.arange(200) % 8 < 5
    loss, seen = recorder()
    train_policy(policy, D, I, s, 9, loss=loss, columns={"kept": kept}, drawn=kept)
    assert all(batch["kept"].all() for batch in seen)
    assert balanced_draw(np.ones(4, bool), 0.5, 8, generator(0, "x")) is None

def test_the_dropout_is_drawn_from_the_seed_of_the_run_and_nothing_else():
    """The stream "policy M" as documented: index, omit, ω, η; the global generator has no part."""
    torch.manual_seed(1)
    first = spy_training()
    torch.manual_seed(2)
    again = spy_training()
    assert all(torch.equal(x, again[name]) for name, x in first.items())
    other = spy_training(seed=1)
    assert not torch.equal(first["omit"], other["omit"])
    by_hand = []
    g = generator(0, "policy 200")
    for _ in range(60):
        torch.randint(200, (64,), generator=g)
        by_hand.append(torch.rand(64, generator=g) < 0.3)
        draw_noise(torch.zeros(64 * 4, 8, 6), g)
    assert torch.equal(first["omit"], torch.cat(by_hand))
    for omit in (first["omit"], other["omit"]):
        for sign in (True, False):
            share = omit[first["positive"] == sign].float().mean()
            assert abs(share - 0.3) < 0.07
    # Another dataset, other draws.
    loss, seen = recorder()
    D = [episode(39, seed=0)]
    train_policy(toy_policy(), D, [np.ones(39, bool)], Settings(batch=64), 1, loss=loss)
    assert not torch.equal(seen[0]["omit"], first["omit"][:64])

def test_labels_and_columns_stay_with_their_steps():
    column = np.arange(200.0)
    seen = spy_training(columns={"number": column})
    step = seen["number"].long() % 40
    assert torch.equal(seen["positive"], step % 4 == 0)
    states = np.concatenate([episode(40, seed=i).observations["state"] for i in range(5)])
    assert np.array_equal(seen["state"].numpy(), states[seen["number"].long().numpy()])

def test_one_step_has_no_spread_to_normalise_by():
    """Its standard deviation is NaN, and so would all weights be."""
    with pytest.raises(UserError, match="actions: 1 step in all, expected two or more"):
        train_policy(fresh(VLA, TINY_POLICY), [episode(1)], [np.ones(1, bool)], Settings(), 1)

def test_training_overfits_a_handful_of_steps():
    """One batch, learned by heart: subtask certain, tokens and flow far below where they began."""
    torch.manual_seed(0)
    subtask = np.array(["stack shirt"] * 3 + ["fold sleeves"] * 3)
    D = [replace(episode(6, seed=1), subtask=subtask)]
    records = []

    def loss(policy, batch, omega, eta, **weights):
        terms = {name: x.mean() for name, x in policy.terms(batch, omega, eta).items()}
        records.append({name: x.item() for name, x in terms.items()})
        return sum(terms.values())

    s = Settings(batch=8, draws=1, learning_rate=2e-2)
    train_policy(fresh(VLA, TINY_POLICY), D, [np.ones(6, bool)], s, 150, loss=loss)
    first = records[0]
    last = {name: np.mean([r[name] for r in records[-10:]]) for name in first}
    assert last["subtask"] < 0.05
    assert last["tokens"] < 0.1 * first["tokens"]
    assert last["flow"] < 0.4 * first["flow"]

def test_token_loss_off_leaves_the_action_tokens_untrained():
    """Their embeddings then only decay, all by one factor.

    The subtask's words and the expert learn as ever.
    """
    D = [episode(20, seed=i) for i in range(2)]
    I = [np.ones(20, bool)] * 2
    ends = {}
    for on in (True, False):
        before = fresh(VLA, TINY_POLICY)
        s = Settings(batch=16, token_loss=on)
        after = train_policy(copy.deepcopy(before), D, I, s, 5)
        ends[on] = after
        factor = {name: p.detach() for name, p in after.named_parameters()}
        for name, p in before.named_parameters():
            factor[name] = (factor[name] / p.detach()).flatten()
        width = TINY_POLICY.width
        bins = factor["backbone.token.weight"][len(VOCABULARY) * width :]
        assert (bins.std() < 1e-5) == (not on)
        assert factor["text_head.weight"].std() > 1e-3
        assert factor["expert.arm"].std() > 1e-3
    assert not torch.equal(ends[True].text_head.weight, ends[False].text_head.weight)

def first_losses(monkeypatch):
    """A list to which every training adds the loss of its first batch, in the place of training."""
    found = []

    def optimise(network, draw_loss, n_steps, learning_rate, name, watch, bf16):
        found.append(draw_loss().item())
        return network.eval()

    monkeypatch.setattr(recap, "optimise", optimise)
    return found

def test_the_default_loss_is_eq_3_with_the_weights_that_were_set(monkeypatch):
    """train_policy without `loss`: against the terms, for all token_loss and flow_weight."""
    D = [episode(20, seed=0)]
    I = [np.ones(20, bool)]
    seen = first_losses(monkeypatch)
    for token_loss in (True, False):
        for name, alpha in FLOW_WEIGHTS.items():
            policy = fresh(VLA, TINY_POLICY)
            draws = []
            real = policy.terms
            monkeypatch.setattr(policy, "terms", lambda *given: draws.append(given) or real(*given))
            s = Settings(batch=8, token_loss=token_loss, flow_weight=name)
            train_policy(policy, D, I, s, 1)
            terms = {key: x.mean() for key, x in real(*draws[0][:3], alpha).items()}
            expected = terms["subtask"] + token_loss * terms["tokens"] + 10 * terms["flow"]
            assert seen[-1] == pytest.approx(expected.item(), rel=1e-5)
    assert len(set(seen)) == 6

def test_networks_are_built_as_set():
    policy = recap.new_policy(Settings()).config
    value = recap.new_value(Settings()).config
    assert (policy.interface, policy.output, policy.insulation) == (TOYS, "clean", True)
    assert value.interface == TOYS
    for change, of_policy, of_value in (
        (dict(output="velocity"), dict(output="velocity"), {}),
        (dict(insulation=False), dict(insulation=False), {}),
        (dict(vision=True, cameras="base"), *2 * [dict(interface=seen_by("base"))]),
        (dict(cameras="base"), {}, {}),
    ):
        s = Settings(**change)
        assert recap.new_policy(s).config == replace(policy, **of_policy)
        assert recap.new_value(s).config == replace(value, **of_value)
    # Weights are drawn from the seed of the run, and sizes are given by name.
    torch.manual_seed(5)
    one = weights_of(recap.new_policy(Settings(seed=3)))
    torch.manual_seed(6)
    assert torch.equal(one, weights_of(recap.new_policy(Settings(seed=3))))
    assert not torch.equal(one, weights_of(recap.new_policy(Settings(seed=4))))
    assert recap.new_policy(Settings(), width=32).config == replace(policy, width=32)

# ---------------------------------------------------------------- training both

def test_value_on_corrections_changes_the_data_of_v_and_nothing_else():
    """Off, V is as if the corrected episodes were not there; the policy is the same, to the bit."""
    kept = [episode(20, seed=i, success=i % 2 == 0) for i in range(3)]
    kept.append(episode(20, source="demonstration", iteration=0, seed=7))
    D = kept[:2] + [episode(20, source="corrected", seed=8)] + kept[2:]
    on = Settings(value_batch=8, batch=8)
    off = replace(on, value_on_corrections=False)

    def train(D, s):
        return weights_of(train_value(fresh(ValueFunction, SMALL_VALUE), D, s, 4))

    assert torch.equal(train(D, off), train(kept, on))
    assert not torch.equal(train(D, off), train(D, on))
    I = [np.ones(20, bool)] * 5
    policies = [train_policy(fresh(VLA, TINY_POLICY), D, I, s, 3) for s in (on, off)]
    assert torch.equal(*map(weights_of, policies))

@pytest.mark.parametrize("metadata, share", [(False, 0.0), (True, 0.7)])
def test_training_sees_metadata_when_asked_to_and_drops_them_at_its_own_rate(
    metadata, share
):
    """In batches of π: the prompt with s in 1 - metadata_dropout of the steps.

    Independently of the indicator.
    """
    s = Settings(metadata=metadata, metadata_dropout=0.3, batch=64)
    D = [described(20, "fast careful", 0), described(20, "slow careless", 1)]
    M = 40 * 64

    def four_errors(p):
        return 4 * (p * (1 - p) / M) ** 0.5

    loss, seen = recorder()
    train_policy(fresh(VLA, TINY_POLICY), D, [np.ones(20, bool)] * 2, s, 40, loss=loss)
    batch = {name: torch.cat([b[name] for b in seen]) for name in seen[0]}
    has_s = (batch["prompt"] == batch["described"]).all(1)
    assert len(has_s) == M
    plain = torch.tensor(encode("fold collar up", PROMPT_LENGTH))
    expected = torch.where(has_s[:, None], batch["described"], plain)
    assert torch.equal(batch["prompt"], expected)
    assert abs(has_s.float().mean() - share) <= four_errors(share)
    assert abs(batch["omit"].float().mean() - 0.3) < four_errors(0.3)
    both = (has_s & batch["omit"]).float().mean()
    assert abs(both - 0.3 * share) <= four_errors(0.3 * share or 1)

def test_metadata_change_nothing_of_v_neither_in_training_nor_in_what_it_says():
    """Else a slow operator would be judged by the slow."""
    told = [described(20, "fast careful", 0), described(20, "slow careless", 1)]
    untold = [replace(e, metadata="") for e in told]
    s = Settings(metadata=True, metadata_dropout=0.3, value_batch=8)
    V = train_value(fresh(ValueFunction, SMALL_VALUE), told, s, 5)
    plain = replace(s, metadata=False)
    same = train_value(fresh(ValueFunction, SMALL_VALUE), untold, plain, 5)
    assert torch.equal(weights_of(V), weights_of(same))
    for values, others in zip(predict_values(V, told), predict_values(same, untold)):
        assert np.array_equal(values, others)

def test_both_networks_train_on_pictures_and_keypoints_are_not_read(monkeypatch):
    """Data whose pictures are made beforehand: other keypoints, or none, change no weight."""
    D = [pictured(9, 0), pictured(7, 1)]
    s = Settings(batch=8, value_batch=8)
    I = [np.arange(9) % 2 == 0, np.arange(7) % 2 == 0]

    def train(D):
        config = replace(SMALL_VALUE, interface=seen_by("base"))
        V = train_value(fresh(ValueFunction, config), D, s, 3)
        policy = fresh(VLA, replace(TINY_POLICY, interface=seen_by("base", "left_wrist")))
        pi = train_policy(policy, D, I, s, 3)
        values = predict_values(V, D)
        assert [len(v) for v in values] == [9, 7] and all(np.isfinite(v).all() for v in values)
        return weights_of(V), weights_of(pi)

    first = train(D)
    assert all(torch.equal(x, y) for x, y in zip(first, train(D)))
    names = ("state", "keypoints")
    scenes = {name: np.concatenate([e.observations[name] for e in D]) for name in names}
    pictures = photograph(**scenes)
    monkeypatch.setattr(data_module, "render", lambda state, keypoints, side: pictures)
    blind = []
    for e in D:
        nothing = {"keypoints": 0 * e.observations["keypoints"]}
        blind.append(replace(e, observations=e.observations | nothing))
    assert all(torch.equal(x, y) for x, y in zip(first, train(blind)))

@pytest.mark.parametrize("kind", ["value", "policy"])
def test_web_questions_are_learned_beside_the_data_and_only_when_asked(
    few_questions, kind, monkeypatch
):
    """The loss of one step is that of the data plus that of the answers.

    web = 0 is training without them, bit for bit.
    """
    D = [episode(20, seed=i) for i in range(2)]
    n_steps = {"value": 25, "policy": 60}[kind]

    def untrained():
        if kind == "value":
            return fresh(ValueFunction, SMALL_VALUE)
        return fresh(VLA, TINY_POLICY)

    def train(s):
        if kind == "value":
            return train_value(untrained(), D, s, n_steps)
        return train_policy(untrained(), D, [np.ones(20, bool)] * 2, s, n_steps)

    s = Settings(
        batch=16, value_batch=16, draws=1, web=1.0, learning_rate=1e-2, value_learning_rate=1e-2
    )
    losses = []
    real = recap.answer_loss
    monkeypatch.setattr(
        recap, "answer_loss", lambda network, web: losses.append(real(network, web)) or losses[-1]
    )
    network = train(s)
    assert len(losses) == n_steps
    assert np.mean([x.item() for x in losses[-5:]]) < 0.75 * losses[0].item()
    # What counts is on new questions.
    held_out = web_batches(Settings(seed=9, web=1.0), TOYS, 200, "held out")()
    assert real(network, held_out) < 0.8 * real(untrained(), held_out)
    losses.clear()
    without = train(replace(s, web=0.0))
    assert not losses
    assert (weights_of(without) - weights_of(network)).abs().max() > 1e-4
    # A head that nobody trained.
    assert real(without, held_out) > 0.95 * real(untrained(), held_out)
    # One term beside the other, with equal weights.
    def two(policy, *rest, **more):
        return policy.text_head.weight.sum() * 0 + 2.0

    monkeypatch.setattr(recap, "value_loss", lambda logits, R: logits.sum() * 0 + 2.0)
    monkeypatch.setattr(recap, "eq3_loss", two)
    monkeypatch.setattr(recap, "answer_loss", lambda network, web: real(network, web) * 0 + 0.5)
    total = first_losses(monkeypatch)
    train(s)
    train(replace(s, web=0.0))
    assert total == [2.5, 2.0]

# ---------------------------------------------------------------- the optimiser

@pytest.mark.parametrize("n_steps, warmup", [(7, 1), (60, 7), (490, 50), (1000, 50)])
def test_the_learning_rate_warms_up_to_its_peak_and_falls_to_zero_along_a_cosine(n_steps, warmup):
    """One weight with a gradient of 1: Adam moves it by the learning rate, AdamW decays it, too."""
    peak = 0.003
    network = torch.nn.Linear(1, 1, bias=False).double()
    seen = []

    def draw_loss():
        seen.append(network.weight.item())
        return network.weight.sum()

    assert recap.optimise(network, draw_loss, n_steps, peak, "policy") is network
    seen.append(network.weight.item())
    assert len(seen) == n_steps + 1 and not network.training
    moved = []
    for before, after in zip(seen[:-1], seen[1:]):
        # w' = w (1 - 0.01 rate) - rate
        moved.append((before - after) / (1 + 0.01 * before))
    expected = []
    for i in range(n_steps):
        rate = peak * (1 + math.cos(math.pi * i / n_steps)) / 2
        if i + 1 < warmup:
            rate *= (i + 1) / warmup
        expected.append(rate)
    np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-9)
    assert 0.97 * peak < max(moved) < 1.0001 * peak or n_steps == 7

def test_large_gradients_are_clipped_before_they_reach_adam():
    """A spike of 1000 among gradients of 1 counts as one of norm 1."""

    def path(spike):
        network = torch.nn.Linear(1, 1, bias=False).double()
        torch.nn.init.ones_(network.weight)
        scales = iter([1.0, spike, 1.0, 1.0, 1.0])
        recap.optimise(network, lambda: next(scales) * network.weight.sum(), 5, 0.01, "policy")
        return network.weight.item()

    assert path(1000.0) == pytest.approx(path(1.0), rel=1e-5)
    assert abs(path(0.1) - path(1.0)) > 1e-4  # smaller ones stay what they are

def test_steps_are_adamw_by_its_formula():
    """Moments with 0.9 and 0.98, without their bias; gradients are too small to be clipped."""
    n, peak = 12, 0.01
    gradients = 0.5 * np.random.default_rng(0).normal(size=n).clip(-1, 1)
    network = torch.nn.Linear(1, 1, bias=False).double()
    w = network.weight.item()
    drawn = iter(gradients)
    recap.optimise(network, lambda: next(drawn) * network.weight.sum(), n, peak, "policy")
    m = v = 0.0
    for i, g in enumerate(gradients):
        rate = peak * min((i + 1) / 2, 1) * 0.5 * (1 + math.cos(math.pi * i / n))
        m = 0.9 * m + 0.1 * g
        v = 0.98 * v + 0.02 * g**2
        step = m / (1 - 0.9 ** (i + 1)) / (math.sqrt(v / (1 - 0.98 ** (i + 1))) + 1e-8)
        w = w * (1 - rate * 0.01) - rate * step
    assert network.weight.item() == pytest.approx(w, rel=1e-9)

def test_a_diverging_training_stops():
    """It is noticed where the numbers are read: every 2,000 / 40 steps."""
    network = torch.nn.Linear(1, 1)
    steps = iter(range(2000))

    def draw_loss():
        return network.weight.sum() * (float("nan") if next(steps) == 110 else 1)

    with pytest.raises(UserError, match="policy: gradient norm nan by step 149, expected"):
        recap.optimise(network, draw_loss, 2000, 1e-3, "policy")

@pytest.mark.parametrize("n_steps, calls", [(3, 3), (100, 50), (2100, 42)])
def test_whoever_watches_a_training_is_told_the_means_of_all_its_steps(n_steps, calls):
    """The loss of step i is i + 0 * w, and its gradient norm 2 i, before it is clipped."""
    network = torch.nn.Linear(1, 1, bias=False).double()
    steps = iter(range(n_steps))
    told = []

    def draw_loss():
        i = next(steps)
        return i + 2 * i * (network.weight - network.weight.detach()).sum()

    recap.optimise(network, draw_loss, n_steps, 0.01, "policy", lambda *x: told.append(x))
    each = n_steps // calls
    assert [n for n, _, _ in told] == list(range(each, n_steps + 1, each))
    for n, loss, norm in told:
        mean = n - 1 - (each - 1) / 2
        assert (loss, norm) == pytest.approx((mean, 2 * mean))

@pytest.mark.parametrize("fitted", [False, True])
def test_pre_training_and_fine_tuning_have_each_its_learning_rate(monkeypatch, fitted):
    """And V its own: what reaches the optimiser."""
    asked = []

    def optimise(network, draw_loss, n_steps, learning_rate, name, watch, bf16):
        asked.append((n_steps, learning_rate, name))
        return network

    monkeypatch.setattr(recap, "optimise", optimise)
    s = Settings(learning_rate=0.1, fine_tuning_rate=0.2, value_learning_rate=0.3)
    policy = fresh(VLA, TINY_POLICY)
    policy.fitted.fill_(fitted)
    D = [episode(9)]
    train_policy(policy, D, None, s, 11)
    train_value(fresh(ValueFunction, SMALL_VALUE), D, s, 12)
    assert asked == [(11, 0.2 if fitted else 0.1, "policy"), (12, 0.3, "value")]

# ---------------------------------------------------------------- Algorithm 1

def same_weights(one, other):
    """Bit for bit, buffers included."""
    a = one.state_dict()
    b = other.state_dict()
    return set(a) == set(b) and all(torch.equal(x, b[name]) for name, x in a.items())

class Interrupted(Exception):
    """In the place of Ctrl-C."""

def until(run, last):
    """`run.keep`, up to the product of that name."""

    def keep(name, make, *arguments):
        if name == last:
            raise Interrupted
        return run.keep(name, make, *arguments)

    return keep

@pytest.mark.slow
def test_alone_in_a_folder_and_resumed_the_algorithm_gives_the_same_bits(
    tiny, tmp_path, monkeypatch
):
    """`recap(Settings())` in a notebook, through lab.run.Run, and after two interruptions."""
    s = Settings(**TINY_RUN)
    torch.manual_seed(123)  # what came before has no part in it
    pi, V = recap.recap(s)
    assert same_weights(pi, load_network(os.path.join(tiny[0], "pi_1.npz")))
    assert same_weights(V, load_network(os.path.join(tiny[0], "V_1.npz")))
    # In the place of an evaluation, another use of the global generator.
    monkeypatch.setattr(Run, "evaluate", lambda *given, **more: torch.rand(1))
    for last in ("pi_0", "V_1"):
        torch.manual_seed(len(last))
        with pytest.raises(Interrupted):
            recap.recap(s, until(Run(s, str(tmp_path)), last))
        assert not os.path.exists(tmp_path / f"{last}.npz")
    resumed = recap.recap(s, Run(s, str(tmp_path)).keep)
    assert same_weights(pi, resumed[0]) and same_weights(V, resumed[1])
    # ... and the data on which they were trained.
    for name in ("D_demo", "D_0", "D_1"):
        one = load_dataset(os.path.join(tiny[0], f"{name}.npz"))
        other = load_dataset(tmp_path / f"{name}.npz")
        assert [e.actions.tobytes() for e in one] == [e.actions.tobytes() for e in other]

def test_the_products_of_algorithm_1_come_in_its_order_from_the_right_things(monkeypatch):
    """Names, makers and arguments of `keep`, and labels by the value function of the same line."""
    labelled = []
    monkeypatch.setattr(recap, "predict_values", lambda value, D: [(value, tuple(D))])

    def label(values, D, s, iteration):
        labelled.append((values[0][0], tuple(D), iteration))
        assert values[0][1] == tuple(D)
        return f"I_{iteration}"

    monkeypatch.setattr(recap, "label", label)
    monkeypatch.setattr(recap, "all_positive", lambda D: "all positive")
    monkeypatch.setattr(recap.copy, "deepcopy", lambda network: f"copy of {network}")
    monkeypatch.setattr(recap, "new_value", lambda s: "new V")
    monkeypatch.setattr(recap, "new_policy", lambda s: "new pi")
    made = []

    def keep(name, make, *arguments):
        made.append((name, make, *arguments))
        return [name] if name.startswith("D") else name

    s = Settings(iterations=2)
    assert recap.recap(s, keep) == ("pi_2", "V_2")
    V, pi = recap.train_value, recap.train_policy
    D1 = ["D_0", "D_1"]
    D2 = ["D_0", "D_1", "D_2"]
    assert made == [
        ("D_demo", recap.demonstrations, s),
        ("V_pre", V, "new V", ["D_demo"], s, s.value_pretraining_steps),
        ("pi_pre", pi, "new pi", ["D_demo"], "I_0", s, s.pretraining_steps),
        ("D_0", recap.task_demonstrations, s),
        ("V_0", V, "copy of V_pre", ["D_0"], s, s.value_steps),
        ("pi_0", pi, "copy of pi_pre", ["D_0"], "all positive", s, s.sft_steps),
        ("D_1", recap.collect_iteration, s, "pi_0", 1),
        ("V_1", V, "copy of V_pre", D1, s, s.value_steps),
        ("pi_1", pi, "copy of pi_pre", D1, "I_1", s, s.policy_steps),
        ("D_2", recap.collect_iteration, s, "pi_1", 2),
        ("V_2", V, "copy of V_pre", D2, s, s.value_steps),
        ("pi_2", pi, "copy of pi_pre", D2, "I_2", s, s.policy_steps),
    ]
    assert labelled == [("V_pre", ("D_demo",), 0), ("V_1", tuple(D1), 1), ("V_2", tuple(D2), 2)]

def test_supervised_never_shows_the_indicator(monkeypatch):
    """π_0.6: no labels are made, the indicator is left out of every step of every batch."""
    loss, seen = recorder()
    monkeypatch.setattr(recap, "eq3_loss", loss)
    for name in ("label", "all_positive", "train_value"):
        monkeypatch.setattr(recap, name, lambda *given: pytest.fail("no labels here"))
    made = {}
    given = {}

    def keep(name, make, *arguments):
        if make is train_policy:
            policy, D, I, _, n_steps = arguments
            given[name] = (weights_of(policy).clone(), I, n_steps, len(seen))
        made[name] = make(*arguments)
        return made[name]

    s = Settings(**TINY_RUN)
    pi = recap.supervised(s, keep)
    names = ["D_demo", "supervised_small", "supervised_pre", "D_0", "supervised_sft"]
    assert list(made) == names and pi is made["supervised_sft"]
    assert len(seen) == 2 * s.pretraining_steps + s.sft_steps
    assert all(len(batch["omit"]) == s.batch and batch["omit"].all() for batch in seen)
    assert all(I is None for _, I, _, _ in given.values())
    assert [n for _, _, n, _ in given.values()] == [3, 3, 2]
    # SFT goes on from pre-training, on a copy; the small one stands for π_0.5.
    assert torch.equal(given["supervised_sft"][0], weights_of(made["supervised_pre"]))
    assert pi is not made["supervised_pre"]
    small = made["supervised_small"].config
    assert (small.width, small.layers, small.expert_width) == (32, 1, 32)
    assert made["supervised_pre"].config == recap.new_policy(s).config

def weights_in(folder, name):
    return weights_of(load_network(os.path.join(folder, f"{name}.npz")))

def test_every_iteration_restarts_from_the_pretrained_networks_and_data_only_grow(
    monkeypatch, tmp_path
):
    calls = []
    real_policy = recap.train_policy
    real_value = recap.train_value

    def policy_spy(policy, D, I, s, n_steps):
        calls.append(("policy", weights_of(policy), D, I))
        return real_policy(policy, D, I, s, n_steps)

    def value_spy(value, D, s, n_steps):
        calls.append(("value", weights_of(value), D, None))
        return real_value(value, D, s, n_steps)

    monkeypatch.setattr(recap, "train_policy", policy_spy)
    monkeypatch.setattr(recap, "train_value", value_spy)
    for name in ("evaluate", "check_value"):
        monkeypatch.setattr(Run, name, lambda *given, **more: None)
    run = Run(Settings(**(TINY_RUN | dict(iterations=2))), str(tmp_path))
    recap.recap(run.settings, run.keep)
    assert len(run.labels) == 2
    # ε_ℓ is that of the newest rollouts.  An untrained policy stands still at the joint limits:
    # some advantages tie at ε_ℓ, and ties are not positive.
    for labels in run.labels:
        assert labels["positive_fraction_rollouts"] == pytest.approx(0.2, abs=0.02)
    kinds = [kind for kind, *_ in calls]
    assert kinds == ["value", "policy"] * 4  # pre-training, SFT, k = 1, k = 2
    for kind, name in (("policy", "pi_pre"), ("value", "V_pre")):
        pretrained = weights_in(tmp_path, name)
        for _, begin, *_ in [c for c in calls if c[0] == kind][1:]:
            assert torch.equal(begin, pretrained)
    sft = calls[3]
    assert all(p.all() for p in sft[3])  # I = True
    for kind in ("policy", "value"):
        sets = [c[2] for c in calls if c[0] == kind][1:]
        for before, after in zip(sets[:-1], sets[1:]):
            assert len(after) > len(before)
            assert all(np.array_equal(x.actions, y.actions) for x, y in zip(before, after))

@pytest.mark.parametrize("restart", ["pretrained", "last", "all"])
def test_where_pi_k_and_v_k_start(monkeypatch, restart):
    begun = []
    ended = []

    def train(kind, network):
        begun.append((kind, weights_of(network)))
        with torch.no_grad():
            next(network.parameters()).add_(1.0)
        ended.append((kind, weights_of(network)))
        return network

    monkeypatch.setattr(recap, "train_policy", lambda pi, D, I, s, n: train("policy", pi))
    monkeypatch.setattr(recap, "train_value", lambda V, D, s, n: train("value", V))
    recap.recap(Settings(**(TINY_RUN | dict(iterations=2, restart=restart))))
    for kind, follows in (("policy", restart != "pretrained"), ("value", restart == "all")):
        begins = [weights for what, weights in begun if what == kind]
        ends = [weights for what, weights in ended if what == kind]
        for k in (2, 3):  # after pre-training and SFT
            assert torch.equal(begins[k], ends[k - 1 if follows else 0])

def test_restart_changes_from_which_weights_pi_k_starts_and_nothing_else(
    tiny, tmp_path, monkeypatch
):
    """The finished run goes on to k = 2 from its D_1 and V_1, either way."""
    real_policy = recap.train_policy
    real_value = recap.train_value
    monkeypatch.setattr(Run, "measure", lambda *given: None)
    first = []
    for restart, expected in (("pretrained", ("pi_pre", "pi_pre")), ("last", ("pi_0", "pi_1"))):
        out = tmp_path / restart
        calls = []
        shutil.copytree(tiny[0], out)
        (out / "pi_1.npz").unlink()

        def policy_spy(policy, D, I, s, n_steps):
            calls.append((weights_of(policy), n_steps, I, [e.actions.tobytes() for e in D]))
            return real_policy(policy, D, I, s, n_steps)

        def value_spy(value, *rest):
            assert torch.equal(weights_of(value), weights_in(out, "V_pre"))  # V: always
            return real_value(value, *rest)

        monkeypatch.setattr(recap, "train_policy", policy_spy)
        monkeypatch.setattr(recap, "train_value", value_spy)
        s = Settings(**(TINY_RUN | dict(iterations=2, restart=restart)))
        recap.recap(s, Run(s, str(out)).keep)
        assert len(calls) == 2
        for name, (begin, *_) in zip(expected, calls):
            assert torch.equal(begin, weights_in(out, name))
        first.append(calls[0])
    (begin, n_steps, I, D), (other_begin, other_n_steps, other_I, other_D) = first
    assert n_steps == other_n_steps and D == other_D
    assert all(np.array_equal(p, q) for p, q in zip(I, other_I, strict=True))
    assert not torch.equal(begin, other_begin)

# ---------------------------------------------------------------- every setting

# What each product of a run is made from: what a setting changes, it changes from there on.
MADE_FROM = {
    "D_demo": [],
    "V_pre": ["D_demo"],
    "pi_pre": ["D_demo", "V_pre"],
    "D_0": [],
    "V_0": ["D_0", "V_pre"],
    "pi_0": ["D_0", "pi_pre"],
    "D_1": ["pi_0"],
    "V_1": ["V_pre", "D_0", "D_1"],
    "pi_1": ["pi_pre", "D_0", "D_1", "V_1"],
}

# Setting -> another value, the products in which it must show first ("" for none: it shows in the
# evaluation), other settings without which it does nothing.
KNOBS = {
    "task": ("box", "D_0", dict(pretraining_tasks="fold_collar box")),
    "seed": (1, "D_demo D_0"),
    "demonstrations": (5, "D_demo D_0"),
    "pretraining_tasks": ("box", "D_demo"),
    "bodies": (True, "D_demo"),
    "iterations": (2, ""),
    "beta": (2.5, ""),
    "evaluation_episodes": (7, ""),
    "supervised": (True, ""),
    "vision": (True, "V_pre pi_pre"),
    "cameras": ("base", "V_pre pi_pre", dict(vision=True)),
    "metadata": (True, "pi_pre"),
    "metadata_dropout": (0.9, "pi_pre", dict(metadata=True)),
    "evaluation_metadata": ("fast careful", "", dict(metadata=True)),
    "web": (0.5, "V_pre V_0 V_1 pi_pre pi_0 pi_1"),
    "autonomous": (6, "D_1"),
    "corrected": (4, "D_1"),
    "execute": (3, "D_1"),
    "horizon": (6, "pi_pre", dict(execute=4)),
    "size": ("small", "V_pre pi_pre"),
    "value_clock": (True, "V_pre V_0 V_1"),
    "bf16": (True, "V_pre pi_pre"),
    "euler": (2, "D_1"),
    "subtask_every": (1, ""),
    "lookahead": (3, "pi_1"),
    "positive": (0.7, "pi_1"),
    "force_corrections": (False, "pi_1", dict(positive=0.05, policy_steps=20)),
    "restart": ("last", "pi_1"),
    "policy_steps": (4, "pi_1"),
    "balance": (0.5, "pi_1"),
    "value_on_corrections": (False, "V_1"),
    "value_steps": (3, "V_0 V_1"),
    "positive_pretraining": (0.6, "pi_pre"),
    "dropout": (0.6, "pi_pre pi_0"),
    "batch": (9, "pi_pre pi_0"),
    "draws": (2, "pi_pre pi_0"),
    "learning_rate": (1e-3, "pi_pre"),
    "pretraining_steps": (4, "pi_pre"),
    "fine_tuning_rate": (1e-3, "pi_0 pi_1"),
    "sft_steps": (3, "pi_0"),
    "token_loss": (False, "pi_pre pi_0"),
    "insulation": (False, "pi_pre pi_0"),
    "output": ("velocity", "pi_pre pi_0"),
    "flow_weight": ("paper", "pi_pre pi_0"),
    "c_fail": (2.0, "V_pre"),
    "clip_returns": (True, "V_pre"),
    "value_learning_rate": (5e-4, "V_pre V_0"),
    "value_pretraining_steps": (4, "V_pre"),
    "value_batch": (9, "V_pre V_0"),
}

def test_every_setting_is_in_the_table_of_knobs():
    # "data": test_given.py
    assert set(KNOBS) == set(asdict(Settings())) - {"device", "data"}

@pytest.mark.slow
def test_every_setting_is_read(tmp_path, monkeypatch):
    """Change each field, and something that the run leaves changes: what should, nothing before it.

    Compared are the products bit for bit, and of the evaluations the actions sent and how often
    the subtask was asked for.
    """
    acted = []
    real_play = collection.play
    real_subtask = collection.predict_subtask

    def play_spy(*given, **more):
        episodes = real_play(*given, **more)
        acted.append(float(sum(np.abs(e.actions).sum() for e in episodes)))
        return episodes

    def subtask_spy(*given):
        acted.append(0.0)
        return real_subtask(*given)

    monkeypatch.setattr(collection, "play", play_spy)
    monkeypatch.setattr(collection, "predict_subtask", subtask_spy)
    monkeypatch.setattr(evaluation, "predict_subtask", subtask_spy)

    def run(**change):
        s = Settings(**(TINY_RUN | change))
        run = Run(s, tempfile.mkdtemp(dir=tmp_path))
        acted.clear()
        if s.supervised:
            recap.supervised(s, run.keep)
        recap.recap(s, run.keep)
        stages = [{key: x for key, x in row.items() if key != "seconds"} for row in run.stages]
        products = {}
        for name in MADE_FROM:
            with np.load(run.path(f"{name}.npz")) as file:
                arrays = {key: file[key].tobytes() for key in file.files if key != "config"}
            products[name] = arrays
        return products, json.dumps([stages, run.labels, run.value_report, acted])

    bases = {}
    wrong = {}
    for name, (value, first, *rest) in KNOBS.items():
        needed = rest[0] if rest else {}
        key = json.dumps(needed)
        if key not in bases:
            bases[key] = run(**needed)
            assert run(**needed) == bases[key]  # or nothing below means anything
        products, results = run(**needed, **{name: value})
        changed = {x for x in MADE_FROM if products[x] != bases[key][0][x]}
        may = set(first.split())
        if not first and name == "subtask_every":
            # If the policy changes its mind within two chunks.
            may = {"D_1"}
        # In order: what is made of changed things may change.
        for product, sources in MADE_FROM.items():
            if may & set(sources):
                may.add(product)
        if not (set(first.split()) <= changed <= may) or results == bases[key][1]:
            wrong[name] = changed
    assert not wrong

"""recap.py: labels against brute force, the improvement theorem, the data pipeline, Algorithm 1, resume, bad input."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

import recap
import runs
import sim_tasks
from backbone import KEYPOINT_DIM, N_KEYPOINTS, PROMPT_LENGTH, encode
from data import Episode, load_dataset, load_network
from policy import VLA, PolicyConfig
from recap import (Labels, Settings, advantages, collect, episode_seeds, indicators, label, outcome_auc, returns, rewards,
                   score, stack_steps, threshold, train_policy)
from sim_tasks.arms import Item, World
from sim_tasks.demonstrator import COACH, MIXED, Operator
from value import ValueConfig, ValueFunction, expected_value

ROOT = os.path.join(os.path.dirname(__file__), "..")
TINY = dict(task="fold_collar", iterations=1, demonstrations=4, autonomous=5, corrected=3, episodes=6, pretraining_steps=3,
            sft_steps=2, policy_steps=3, value_pretraining_steps=3, value_steps=2, batch=8, value_batch=8)


def episode(T, success=True, task="fold_shirt", source="autonomous", iteration=1, intervention=None, seed=0):
    """A made-up episode of T steps; its observations are noise."""
    rng = np.random.default_rng(seed)
    return Episode(task=task, prompt="fold shirt", max_length=50,
                   observations={"state": rng.normal(size=(T, 6)).astype(np.float32),
                                 "keypoints": rng.normal(size=(T, N_KEYPOINTS, KEYPOINT_DIM)).astype(np.float32)},
                   actions=rng.normal(size=(T, 6)).astype(np.float32), subtask=np.array(["stack shirt"] * T),
                   intervention=np.zeros(T, bool) if intervention is None else intervention, success=success,
                   stages=np.array([success]), source=source, iteration=iteration)


# ---------------------------------------------------------------- rewards, returns (Eq. 5, Sec. V-C)

def test_rewards_are_eq_5():
    assert rewards(4, True, 9).tolist() == [-1, -1, -1, 0]
    assert rewards(4, False, 9).tolist() == [-1, -1, -1, -9]


@pytest.mark.parametrize("success", [True, False])
@pytest.mark.parametrize("length, limit, c_fail", [(1, 10, None), (7, 10, None), (10, 10, None), (5, 20, 30), (5, 20, 3), (5, 20, 0)])
def test_returns_are_the_normalised_sums(success, length, limit, c_fail):
    c = limit if c_fail is None else c_fail
    expected = [(-(length - 1 - t) - (0 if success else c)) / (limit + c) for t in range(length)]
    assert np.allclose(returns(length, success, limit, c_fail), expected)


def test_no_failure_outranks_a_success():
    limit = 13
    worst_success = min(returns(T, True, limit).min() for T in range(1, limit + 1))
    best_failure = max(returns(T, False, limit).max() for T in range(1, limit + 1))
    assert best_failure <= worst_success
    assert -1 <= returns(limit, False, limit).min() and returns(limit, True, limit).max() == 0
    # ... and that is what C_fail < limit gives up (DESIGN of the default)
    assert returns(1, False, limit, 3).max() > returns(limit, True, limit, 3).min()


def test_clipped_returns_put_failures_at_minus_one():
    assert (returns(6, False, 10, clip=True) == -1).all()
    assert np.allclose(returns(6, True, 10, clip=True), [-0.5, -0.4, -0.3, -0.2, -0.1, 0])


def test_returns_refuse_a_missing_label_and_a_too_long_episode():
    for unlabelled in (lambda: returns(3, None, 10), lambda: rewards(3, None, 10)):
        with pytest.raises(ValueError, match="success: None"):
            unlabelled()
    with pytest.raises(ValueError, match="length: 11"):
        returns(11, True, 10)


def test_returns_are_normalised_by_each_tasks_own_limit():
    s = Settings()
    short, long = replace(episode(5), max_length=10), replace(episode(5), max_length=40)
    R = recap.episode_returns([short, long], s)
    assert np.isclose(R[0][0], -4 / 20) and np.isclose(R[1][0], -4 / 80)


# ---------------------------------------------------------------- advantages (App. F)

@pytest.mark.parametrize("success", [True, False])
@pytest.mark.parametrize("n", [1, 3, 10, 12, 13, 40, None])
def test_advantages_are_the_n_step_sums(success, n):
    T, limit = 12, 20
    R, V = returns(T, success, limit), np.random.default_rng(0).uniform(-1, 0, T)
    r = rewards(T, success, limit) / (2 * limit)              # normalised as the returns are
    N = T if n is None else n
    expected = []
    for t in range(T):                                        # the sum of the paper, term by term
        total = sum(r[i] for i in range(t, min(t + N, T)))
        expected.append(total + (V[t + N] if t + N < T else 0.0) - V[t])
    assert np.allclose(advantages(R, V, n), expected)


def test_a_perfect_value_function_leaves_no_advantage():
    R = returns(15, False, 20)
    assert np.allclose(advantages(R, R, 4), 0) and np.allclose(advantages(R, R), 0)


def test_advantages_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="n: 0"):
        advantages(np.zeros(3), np.zeros(3), 0)
    with pytest.raises(ValueError, match="values: shape"):
        advantages(np.zeros(3), np.zeros(4))


# ---------------------------------------------------------------- thresholds and indicators (App. F, Eq. 3)

@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.3, 0.4, 0.77, 1.0])
def test_the_positive_fraction_is_the_one_asked_for(fraction):
    A = np.random.default_rng(1).normal(size=1000)
    assert indicators(A, threshold(A, fraction)).mean() == pytest.approx(fraction, abs=1e-9)


def test_positive_are_the_largest_advantages():
    A = np.arange(10.0)
    assert np.flatnonzero(indicators(A, threshold(A, 0.3))).tolist() == [7, 8, 9]


def test_ties_at_the_threshold_are_negative():
    A = np.array([0, 0, 0, 0, 1.0])
    assert indicators(A, threshold(A, 0.4)).tolist() == [False, False, False, False, True]


def test_corrections_are_forced_positive():
    positive = indicators(np.array([1.0, -1, -1]), 0.0, np.array([False, False, True]))
    assert positive.tolist() == [True, False, True]


def test_threshold_refuses_what_cannot_be():
    for bad, fraction, message in (([], 0.3, "advantages: 0"), ([1.0, np.nan], 0.3, "finite"), ([1.0], 1.3, "1.3")):
        with pytest.raises(ValueError, match=message):
            threshold(bad, fraction)


def made_up_values(monkeypatch):
    rng = np.random.default_rng(3)
    monkeypatch.setattr(recap, "predict_values", lambda value, episodes: [rng.uniform(-1, 0, len(e)) for e in episodes])


def test_fine_tuning_labels_40_percent_of_the_newest_autonomous_steps(monkeypatch):
    """Demonstrations, older rollouts and corrected episodes do not enter ε_ℓ; corrections are True all the same."""
    made_up_values(monkeypatch)
    forced = np.arange(30) < 20
    data = ([episode(30, source="demonstration", iteration=0, seed=i) for i in range(10)]
            + [episode(30, success=False, iteration=1, seed=i) for i in range(10)]
            + [episode(30, success=i % 2 == 0, iteration=2, seed=i) for i in range(10)]
            + [episode(30, source="corrected", iteration=2, intervention=forced, seed=i) for i in range(5)])
    labels = label(None, data, Settings(positive=0.4), iteration=2)
    newest = [p for p, e in zip(labels.positive, data) if e.source == "autonomous" and e.iteration == 2]
    assert np.concatenate(newest).mean() == pytest.approx(0.4, abs=0.002)
    corrected = [p for p, e in zip(labels.positive, data) if e.source == "corrected"]
    assert all(p[:20].all() for p in corrected) and not all(p.all() for p in corrected)


def test_pre_training_labels_30_percent_of_every_task(monkeypatch):
    made_up_values(monkeypatch)
    data = ([episode(20, task="a", success=True, source="demonstration", iteration=0) for _ in range(20)]
            + [episode(20, task="b", success=False, source="demonstration", iteration=0) for _ in range(20)])
    labels = label(None, data, Settings(), iteration=0)
    for task in "ab":       # b's advantages all lie far below a's: a pooled threshold would leave it no positives
        mine = np.concatenate([p for p, e in zip(labels.positive, data) if e.task == task])
        assert mine.mean() == pytest.approx(0.3, abs=0.003)
    assert labels.epsilon["a"] > labels.epsilon["b"]


def test_pre_training_uses_the_whole_return_and_fine_tuning_n_steps(monkeypatch):
    e = episode(30, iteration=1)
    V = np.linspace(-0.9, -0.1, 30)
    monkeypatch.setattr(recap, "predict_values", lambda value, episodes: [V])
    R = returns(30, True, 50)
    assert label(None, [e], Settings(), 0).epsilon["fold_shirt"] == pytest.approx(threshold(R - V, 0.3))
    assert label(None, [e], Settings(lookahead=7, positive=0.4), 1).epsilon["fold_shirt"] == pytest.approx(threshold(advantages(R, V, 7), 0.4))


# ---------------------------------------------------------------- Sec. III: the improvement theorem, exactly, on a bandit

@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0, 4.0])
def test_improvement_theorem_on_a_bandit(beta):
    """π̂ ∝ π_ref p(I | A)^β with p(I | A) increasing in A: J(π̂) >= J(π_ref), for random π_ref and rewards."""
    rng = np.random.default_rng(0)
    gains = []
    for _ in range(200):
        pi_ref, r = rng.dirichlet(np.ones(6)), rng.normal(size=6)
        A = r - pi_ref @ r
        p_improve = 1 / (1 + np.exp(-3 * A))                  # soft and increasing
        pi_hat = pi_ref * p_improve ** beta
        pi_hat /= pi_hat.sum()
        gains.append(pi_hat @ r - pi_ref @ r)
    assert min(gains) >= -1e-12 and np.mean(gains) > 0.05


def test_bayes_form_of_eq_2_is_the_same_policy():
    """Eq. (2): π_ref (π_ref(a | I) / π_ref(a))^β equals π_ref p(I | A)^β; a hard indicator makes β irrelevant."""
    rng = np.random.default_rng(1)
    pi_ref, A = rng.dirichlet(np.ones(8)), rng.normal(size=8)
    for p in (1 / (1 + np.exp(-A)), (A > 0).astype(float)):
        conditional = pi_ref * p / (pi_ref @ p)               # π_ref(a | I)
        policies = []
        for beta in (0.5, 1.0, 3.0):
            eq2 = pi_ref * (conditional / pi_ref) ** beta
            direct = pi_ref * p ** beta
            policies.append(eq2 / eq2.sum())
            assert np.allclose(policies[-1], direct / direct.sum())
        same = np.allclose(policies[0], policies[2])
        assert same == (set(p) <= {0.0, 1.0})


# ---------------------------------------------------------------- episodes as tensors, and training

def test_chunks_are_the_coming_actions_of_the_same_episode():
    data = [episode(11, seed=0), episode(3, seed=1)]
    steps = stack_steps(data)
    H = PolicyConfig().horizon
    row = 0
    for e in data:
        for t in range(len(e)):
            expected = [e.actions[min(t + h, len(e) - 1)] for h in range(H)]
            assert np.array_equal(steps["actions"][row].numpy(), expected)
            assert np.array_equal(steps["state"][row].numpy(), e.observations["state"][t])
            row += 1
    assert row == len(steps["actions"])


def test_empty_dataset_is_refused():
    with pytest.raises(ValueError, match="empty dataset"):
        stack_steps([])


def spy_training(dropout, **arguments):
    """Run train_policy with a loss that records its batches."""
    seen = []

    def loss(policy, batch, omega, eta):
        seen.append({key: x.clone() for key, x in batch.items()})
        return policy.text_head.weight.sum() * 0
    data = [episode(40, seed=i) for i in range(5)]
    labels = Labels([np.arange(40) % 4 == 0] * 5, {})
    s = Settings(batch=64)
    train_policy(VLA(), data, s, 60, labels, loss=loss, dropout=dropout, **arguments)
    return {key: torch.cat([batch[key] for batch in seen[:60]]) for key in seen[0]}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_indicator_is_omitted_30_percent_of_the_time_positive_or_negative():
    seen = spy_training(None)
    for sign in (True, False):
        omitted = seen["omit"][seen["positive"] == sign].float()
        assert abs(omitted.mean() - 0.3) < 4 * (0.21 / len(omitted)) ** 0.5      # four standard errors
    assert spy_training(1.0)["omit"].all()


def test_labels_and_columns_stay_with_their_steps():
    column = np.arange(200.0)
    seen = spy_training(None, columns={"number": column})
    step = seen["number"].long() % 40
    assert torch.equal(seen["positive"], step % 4 == 0)
    states = np.concatenate([episode(40, seed=i).observations["state"] for i in range(5)])
    assert np.array_equal(seen["state"].numpy(), states[seen["number"].long().numpy()])


def test_training_overfits_a_handful_of_steps():
    """One batch, learned by heart: subtask certain, tokens and flow far below where they began."""
    torch.manual_seed(0)
    data = [replace(episode(6, seed=1), subtask=np.array(["stack shirt"] * 3 + ["fold sleeves"] * 3))]
    s, policy = Settings(batch=8), VLA()
    records = []

    def loss(policy, batch, omega, eta):
        terms = {key: x.mean() for key, x in policy.terms(batch, omega, eta).items()}
        records.append({key: x.item() for key, x in terms.items()})
        return sum(terms.values())
    train_policy(policy, data, s, 150, Labels([np.ones(6, bool)], {}), loss=loss)
    first, last = records[0], {key: np.mean([r[key] for r in records[-10:]]) for key in records[0]}
    assert last["subtask"] < 0.05 and last["tokens"] < 0.1 * first["tokens"] and last["flow"] < 0.4 * first["flow"]


# ---------------------------------------------------------------- acting

def test_recorded_episodes_replay_to_the_same_end():
    """Actions as sent, true lengths, no reset observation at the end: replaying reproduces every observation."""
    s, spec = Settings(), sim_tasks.TASKS["fold_collar"]
    torch.manual_seed(0)
    policy = VLA().eval()
    for kind in (dict(policy=policy), dict(policy=policy, coach=True), dict(operator_skill=MIXED)):
        seeds = [3, 4, 5, 6]
        episodes = collect(s, spec, seeds, **kind)
        for seed, e in zip(seeds, episodes):
            world = World(spec, [seed])
            for t in range(len(e)):
                seen = world.observe()
                assert all(np.array_equal(seen[key][0], e.observations[key][t]) for key in seen)
                assert not world.done[0]
                world.step(e.actions[t][None])
            assert world.done[0] and bool(world.success[0]) == e.success


def test_corrected_steps_are_the_operators():
    """Where the flag says so the coach acted, elsewhere the policy; untrained, the policy stalls and is helped."""
    s, spec = Settings(), sim_tasks.TASKS["fold_collar"]
    torch.manual_seed(1)                                       # one that leaves the coach the time: others flee to the limits
    policy = VLA().eval()
    episodes = collect(s, spec, [1, 2, 3, 4, 5], policy, coach=True)
    flags = np.concatenate([e.intervention for e in episodes])
    assert 0.2 < flags.mean() < 1 and all(e.source == "corrected" for e in episodes)
    assert sum(e.success for e in episodes) >= 4               # a coach saves nearly all
    e = episodes[0]
    world = World(spec, [1])
    coach = Operator(world, [1], COACH)
    for t in range(len(e)):
        sent = coach.act(world)[0].astype(np.float32)
        assert np.array_equal(sent, e.actions[t]) == bool(e.intervention[t])
        world.step(e.actions[t][None])
    assert not any(x.intervention.any() for x in collect(s, spec, [1, 2], policy))


def test_chunks_are_executed_for_the_first_steps_and_then_replaced(monkeypatch):
    """Of each chunk of 8, s.execute are sent; the subtask is predicted every s.subtask_every chunks."""
    calls, predictions = [], []

    def sample(policy, observation, prompt, subtask, *rest):
        chunk = torch.full((len(prompt), 8, 6), float(len(calls))) + torch.arange(8.0)[:, None] / 10
        calls.append(len(prompt))
        return chunk
    monkeypatch.setattr(recap, "sample_actions", sample)
    monkeypatch.setattr(recap, "predict_subtask", lambda policy, o, prompt: predictions.append(1) or torch.zeros(len(prompt), 2).long())
    e = collect(Settings(execute=3, subtask_every=2), sim_tasks.TASKS["fold_collar"], [0], VLA())[0]
    t = np.arange(len(e))
    assert np.allclose(e.actions[:, 0], t // 3 + (t % 3) / 10)
    assert len(predictions) == -(-len(calls) // 2)


def test_collect_acts_with_the_indicator_and_guidance_it_was_asked_for(monkeypatch):
    asked = []

    def sample(policy, observation, prompt, subtask, indicator, beta, steps, omega):
        asked.append((indicator, beta, steps))
        return torch.zeros(len(prompt), 8, 6)
    monkeypatch.setattr(recap, "sample_actions", sample)
    collect(Settings(euler=3), sim_tasks.TASKS["fold_collar"], [0], VLA(), beta=2.5, indicator=False)
    assert set(asked) == {(False, 2.5, 3)}


def test_score_against_a_bootstrap():
    rng = np.random.default_rng(0)
    episodes = [episode(int(T), success=bool(ok)) for T, ok in zip(rng.integers(10, 50, 300), rng.random(300) < 0.7)]
    result = score(episodes)
    T, ok = np.array([len(e) for e in episodes]), np.array([e.success for e in episodes])
    assert result["success"] == pytest.approx(ok.mean())
    assert result["throughput"] == pytest.approx(ok.sum() / (T.sum() / 36000))      # 10 Hz
    assert result["mean_seconds"] == pytest.approx(T[ok].mean() / 10)
    ended = [episode(50, success=False), episode(49, success=False), episode(20, success=False), episode(50), episode(30)]
    assert score(ended)["failed_early"] == 2 / 5              # the first one ran out of time: its limit is 50
    picks = rng.integers(0, 300, (2000, 300))
    throughputs = ok[picks].sum(1) / (T[picks].sum(1) / 36000)
    assert result["throughput_se"] == pytest.approx(throughputs.std(), rel=0.1)
    assert result["success_se"] == pytest.approx(ok[picks].mean(1).std(), rel=0.1)


def test_outcome_auc_by_counting_pairs(monkeypatch):
    """At one common step, here 5 // 2 = 2; an episode that is over by then does not count."""
    episodes = [episode(T, success=ok) for T, ok in ((5, True), (4, True), (9, False), (6, False), (2, False))]
    at_2 = [-0.1, -0.5, -0.5, -0.9, None]
    values = [np.where(np.arange(len(e)) == 2, m or 0, -np.arange(len(e)) * 1.0) for e, m in zip(episodes, at_2)]
    monkeypatch.setattr(recap, "predict_values", lambda v, es: values[:len(es)])
    assert outcome_auc(None, episodes) == (1 + 1 + 0.5 + 1) / 4
    assert outcome_auc(None, episodes[:2]) is None


def test_unlabelled_or_no_episodes_have_no_score():
    with pytest.raises(ValueError, match="labelled"):
        score([episode(3, success=None)])
    with pytest.raises(ValueError, match="labelled"):
        score([])


def test_a_diverging_training_stops_before_it_ruins_the_weights():
    network = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="gradient norm nan at step 0"):
        recap.optimise(network, lambda: network.weight.sum() * float("nan"), 3, 1e-3, "policy")
    assert torch.isfinite(network.weight).all()


def test_seeds_of_different_purposes_do_not_meet():
    purposes = ["evaluation", "autonomous 1", "autonomous 2", "held out 1", "sft fold_shirt", "pretraining fold_shirt"]
    drawn = [set(episode_seeds(seed, purpose, 500)) for seed in (0, 1) for purpose in purposes]
    assert len(set.union(*drawn)) == 500 * len(drawn)
    assert episode_seeds(0, "evaluation", 5) == episode_seeds(0, "evaluation", 500)[:5]


def test_subtask_accuracy_against_a_slow_loop(monkeypatch):
    """ℓ̂ is what the policy said at the last prediction before: here one that knows the truth of its own moment."""
    rng = np.random.default_rng(0)
    names = np.array(["fold collar", "stack shirt", "pick sheet"])
    data = [replace(episode(T, seed=i), subtask=names[np.cumsum(rng.random(T) < 0.2) % 3]) for i, T in enumerate((23, 1, 8, 17))]
    truth = {tuple(state): name for e in data for state, name in zip(e.observations["state"].tolist(), e.subtask)}
    prompts = []

    def knows(policy, seen, prompt):
        prompts.append(prompt)
        return torch.tensor([encode(truth[tuple(state)], 2) for state in seen["state"].tolist()])
    monkeypatch.setattr(recap, "predict_subtask", knows)
    for execute, every in ((4, 2), (1, 1), (3, 1), (2, 5)):
        right = [e.subtask[t] == e.subtask[t - t % (execute * every)] for e in data for t in range(len(e))]
        accuracy = recap.subtask_accuracy(VLA(), data, Settings(execute=execute, subtask_every=every))
        assert accuracy == pytest.approx(np.mean(right)) and (accuracy == 1) == (execute * every == 1)
    # what is not true of its moment is not counted as right
    monkeypatch.setattr(recap, "predict_subtask", lambda policy, seen, prompt: knows(policy, seen, prompt) * torch.tensor([1, 0]))
    assert recap.subtask_accuracy(VLA(), data, Settings()) == 0                              # one word of two is not enough
    # asked with s in the prompt where the policy acts with it
    monkeypatch.setattr(recap, "predict_subtask", knows)
    for ask, expected in (("", "fold shirt"), ("fast", "fold shirt fast")):
        prompts.clear()
        recap.subtask_accuracy(VLA(), [replace(e, metadata="fast") for e in data], Settings(metadata=True, ask=ask))
        assert all((p == torch.tensor(encode(expected, PROMPT_LENGTH))).all() for p in prompts)


def test_mean_value_loss_and_correlation_against_a_loop():
    data, s = [episode(T, success=T % 2 == 0, seed=T) for T in (1, 9, 14)], Settings()
    torch.manual_seed(0)
    value = ValueFunction(ValueConfig(width=16, layers=1))
    torch.nn.init.normal_(value.head.weight, std=0.3)
    losses, V, R = [], [], []
    for e in data:
        for t, r in enumerate(returns(len(e), e.success, e.max_length)):
            one = {key: torch.tensor(x[t:t + 1]) for key, x in e.observations.items()}
            p = value(one, torch.tensor([encode(e.prompt, PROMPT_LENGTH)])).softmax(-1)[0].double().numpy(force=True)   # (201,)
            losses.append(-np.log(p[round((r + 1) * 200)]))
            V.append(p @ np.linspace(-1, 0, 201))
            R.append(r)
    assert recap.mean_value_loss(value, data, s) == pytest.approx(np.mean(losses), rel=1e-5)
    assert recap.correlation(value, data, s) == pytest.approx(np.cov(V, R)[0, 1] / np.std(V, ddof=1) / np.std(R, ddof=1), rel=1e-4)
    assert recap.mean_value_loss(ValueFunction(), data, s) == pytest.approx(np.log(201), rel=1e-6)     # a uniform one


def with_items():
    """fold_collar with two items that lie elsewhere and have other names; the second is the measured one."""
    spec, away = sim_tasks.TASKS["fold_collar"], ((-0.15, 0.40), (0.15, 0.40))
    items = (Item("shirt", spec.stages), Item("sheet", (replace(spec.stages[0], handles=away),)))
    return replace(spec, prompt="fold", items=items, measured="sheet")


def test_tasks_with_items_are_measured_on_one_and_reported_for_each(monkeypatch, tmp_path):
    """Success as the world has it: made-up rollouts, in which episode i succeeds with shirts, and one sheet in three."""
    spec, s, asked = with_items(), Settings(task="fold_collar", episodes=30, metadata=True, ask="fast"), []
    monkeypatch.setitem(sim_tasks.TASKS, "fold_collar", spec)

    def rollouts(s, spec, seeds, policy, beta, indicator, item=None, ask=""):
        asked.append((item, tuple(seeds), beta, ask))
        prompts = World(spec, seeds, item=item).prompts().tolist()
        return [replace(episode(10, success=prompt == "fold shirt" or i % 3 == 0, task="fold_collar"), prompt=prompt)
                for i, prompt in enumerate(prompts)]
    monkeypatch.setattr(recap, "collect", rollouts)
    run = recap.Run(s, str(tmp_path), recap.KINDS)
    recap.evaluate(run, "x", VLA(), beta=2.0)
    stage, seeds = run.stages[0], tuple(episode_seeds(0, "evaluation", 30))
    assert asked == [("sheet", seeds, 2.0, "fast"), (None, seeds, 2.0, "fast")]
    assert stage["success"] == 10 / 30
    prompts = World(spec, seeds).prompts()
    sheets = np.flatnonzero(prompts == "fold sheet")
    assert 5 < len(sheets) < 25 and set(stage["items"]) == {"shirt", "sheet"}
    assert stage["items"]["sheet"] == score([episode(10, success=i % 3 == 0) for i in sheets])
    assert stage["items"]["shirt"]["success"] == 1 and stage["items"]["shirt"]["episodes"] == 30 - len(sheets)
    # a task without items has no such report, and one collection
    monkeypatch.undo()
    monkeypatch.setattr(recap, "collect", lambda *given, **more: asked.append(more["item"]) or [episode(10)])
    asked.clear()
    recap.evaluate(run, "y", VLA())
    assert "items" not in run.stages[1] and asked == [None]


def test_each_item_is_collected_with_its_own_prompt():
    episodes = collect(Settings(), with_items(), range(12), operator_skill=COACH)
    world = World(with_items(), range(12))
    assert [e.prompt for e in episodes] == world.prompts().tolist() and len({e.prompt for e in episodes}) == 2
    for e, handles in zip(episodes, world.observe()["keypoints"][:, :2, :2]):
        assert np.array_equal(e.observations["keypoints"][0, :2, :2], handles)
    assert {e.prompt for e in collect(Settings(), with_items(), range(3), operator_skill=COACH, item="sheet")} == {"fold sheet"}


# ---------------------------------------------------------------- Algorithm 1, resume

def comparable(metrics):
    """The numbers of a run without its wall-clock times."""
    return [{key: x for key, x in stage.items() if key != "seconds"} for stage in metrics["stages"]], \
        metrics["value"], metrics["labels"], metrics["settings"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """One whole run at the smallest size."""
    out = str(tmp_path_factory.mktemp("run") / "out")
    arguments = [x for key, value in TINY.items() for x in ("--" + key.replace("_", "-"), str(value))]
    assert recap.main([*arguments, "--out", out]) == 0
    with open(os.path.join(out, "metrics.json")) as file:
        return out, json.load(file)


def test_a_run_leaves_what_it_promises(tiny):
    out, metrics = tiny
    assert [(s["name"], s["beta"]) for s in metrics["stages"]] == [
        ("demonstrations", None), ("rl_pretrained", 1), ("offline_rl_sft", 1), ("recap_1", 1), ("recap_1", 1.5)]
    # an untrained policy stands still at the joint limits: some advantages tie at ε_ℓ, and ties are not positive
    assert metrics["labels"][0]["positive_fraction_rollouts"] == pytest.approx(0.4, abs=0.02)
    assert metrics["settings"] == asdict(Settings(**TINY))
    for name in ("learning_curve.png", "value_trace.png", "before.gif", "after.gif", "D_demo.npz", "D_0.npz", "D_1.npz",
                 "V_pre.npz", "pi_pre.npz", "V_0.npz", "pi_0.npz", "V_1.npz", "pi_1.npz"):
        assert os.path.getsize(os.path.join(out, name)) > 0
    assert {e.source for e in load_dataset(os.path.join(out, "D_1.npz"))} == {"autonomous", "corrected"}


@pytest.mark.parametrize("lost", [
    ["pi_1.npz", "eval_recap_1*"], ["D_1.npz", "V_1.npz", "value_1.json", "pi_1.npz", "eval_recap_1*"]])
def test_resume_ends_with_the_same_numbers(tiny, tmp_path, lost):
    """An interruption leaves a prefix of the files; the rest is made again, bit for bit."""
    out, metrics = tiny
    copied = tmp_path / "out"
    shutil.copytree(out, copied)
    for pattern in [*lost, "metrics.json", "seconds.json", "*.png", "*.gif"]:
        for path in copied.glob(pattern):
            path.unlink()
    assert recap.main(["--resume", str(copied)]) == 0
    assert comparable(json.loads((copied / "metrics.json").read_text())) == comparable(metrics)
    for name in ("pi_1.npz", "V_1.npz"):
        a, b = (np.load(os.path.join(folder, name)) for folder in (out, copied))
        assert all(np.array_equal(a[key], b[key]) for key in a.files)


def test_resume_after_kill_9(tiny, tmp_path):
    out, metrics = tiny
    killed = str(tmp_path / "killed")
    arguments = [x for key, value in TINY.items() for x in ("--" + key.replace("_", "-"), str(value))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    process = subprocess.Popen([sys.executable, "recap.py", *arguments, "--out", killed], cwd=ROOT, env=environment,
                               stdout=subprocess.DEVNULL)
    while process.poll() is None and not os.path.exists(os.path.join(killed, "D_0.npz")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not os.path.exists(os.path.join(killed, "metrics.json"))
    assert recap.main(["--resume", killed]) == 0
    with open(os.path.join(killed, "metrics.json")) as file:
        assert comparable(json.load(file)) == comparable(metrics)


def test_every_iteration_restarts_from_the_pretrained_networks_and_data_only_grow(monkeypatch, tmp_path):
    calls = []
    real_policy, real_value = recap.train_policy, recap.train_value
    weights = lambda network: torch.cat([p.detach().flatten() for p in network.parameters()])

    def policy_spy(policy, episodes, s, n_steps, labels, **rest):
        calls.append(("policy", weights(policy), episodes, labels))
        return real_policy(policy, episodes, s, n_steps, labels, **rest)

    def value_spy(value, episodes, s, n_steps):
        calls.append(("value", weights(value), episodes, None))
        return real_value(value, episodes, s, n_steps)
    monkeypatch.setattr(recap, "train_policy", policy_spy)
    monkeypatch.setattr(recap, "train_value", value_spy)
    out = str(tmp_path)
    run = recap.Run(Settings(**(TINY | dict(iterations=2))), out, recap.KINDS)
    recap.recap(run)
    for labels in run.labels:                                              # ε_ℓ is that of the newest rollouts
        assert labels["positive_fraction_rollouts"] == pytest.approx(0.4, abs=0.02)      # ties, as above
    kinds = [kind for kind, *_ in calls]
    assert kinds == ["value", "policy"] * 4                                # pre-training, SFT, k = 1, k = 2
    for kind, name in (("policy", "pi_pre"), ("value", "V_pre")):
        pretrained = weights(load_network(os.path.join(out, f"{name}.npz"), recap.KINDS)[0])
        for _, begin, *_ in [c for c in calls if c[0] == kind][1:]:
            assert torch.equal(begin, pretrained)
    sft = calls[3]
    assert all(p.all() for p in sft[3].positive)                           # I = True
    for kind in ("policy", "value"):
        sets = [c[2] for c in calls if c[0] == kind][1:]
        for before, after in zip(sets[:-1], sets[1:]):
            assert len(after) > len(before)
            assert all(np.array_equal(x.actions, y.actions) for x, y in zip(before, after))


def test_restart_changes_from_which_weights_pi_k_starts_and_nothing_else(tiny, tmp_path, monkeypatch):
    """The finished run goes on to k = 2 from its D_1 and V_1, either way."""
    real_policy, real_value = recap.train_policy, recap.train_value
    weights = lambda network: torch.cat([p.detach().flatten() for p in network.parameters()])
    monkeypatch.setattr(recap, "evaluate", lambda *given, **more: None)
    monkeypatch.setattr(recap, "check_value", lambda *given: None)
    first = []
    for restart, expected in (("pretrained", ("pi_pre", "pi_pre")), ("last", ("pi_0", "pi_1"))):
        out, calls = tmp_path / restart, []
        shutil.copytree(tiny[0], out)
        (out / "pi_1.npz").unlink()

        def policy_spy(policy, episodes, s, n_steps, labels):
            calls.append((weights(policy), n_steps, labels, [e.actions.tobytes() for e in episodes]))
            return real_policy(policy, episodes, s, n_steps, labels)

        def value_spy(value, *rest):
            assert torch.equal(weights(value), weights(load_network(out / "V_pre.npz", recap.KINDS)[0]))     # V: always
            return real_value(value, *rest)
        monkeypatch.setattr(recap, "train_policy", policy_spy)
        monkeypatch.setattr(recap, "train_value", value_spy)
        recap.recap(recap.Run(Settings(**(TINY | dict(iterations=2, restart=restart))), str(out), recap.KINDS))
        assert len(calls) == 2
        for name, (begin, *_) in zip(expected, calls):
            assert torch.equal(begin, weights(load_network(out / f"{name}.npz", recap.KINDS)[0]))
        first.append(calls[0])
    (begin, *one), (other_begin, *other) = first
    assert one[0] == other[0] and one[2] == other[2]
    assert all(np.array_equal(p, q) for p, q in zip(one[1].positive, other[1].positive)) and one[1].epsilon == other[1].epsilon
    assert not torch.equal(begin, other_begin)


@pytest.fixture(scope="module")
def another(tmp_path_factory):
    """A second finished run, of another task; its pictures would take as long as the rest of it."""
    out = str(tmp_path_factory.mktemp("run") / "shirt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recap, "draw_pictures", lambda run, metrics: None)
        few = dict(task="fold_shirt", pretraining_tasks="", demonstrations=3, autonomous=3, corrected=1, episodes=2, execute=8, euler=1)
        arguments = [x for key, value in (TINY | few).items() for x in ("--" + key.replace("_", "-"), str(value))]
        assert recap.main([*arguments, "--out", out]) == 0
    return out


def test_the_generalist_learns_from_all_runs_and_stands_beside_their_last_stages(tiny, another, tmp_path, monkeypatch, capsys):
    trained = []
    real_policy, real_value = recap.train_policy, recap.train_value

    def policy_spy(policy, episodes, s, n_steps, labels):
        trained.append((episodes, n_steps, labels, bool(policy.fitted)))
        return real_policy(policy, episodes, s, n_steps, labels)

    def value_spy(value, episodes, s, n_steps):
        trained.append((episodes, n_steps, None, bool((value.head.weight != 0).any())))
        return real_value(value, episodes, s, n_steps)
    monkeypatch.setattr(recap, "train_policy", policy_spy)
    monkeypatch.setattr(recap, "train_value", value_spy)
    out = str(tmp_path / "generalist")
    options = ["--episodes", "3", "--pretraining-steps", "3", "--value-pretraining-steps", "2", "--batch", "8", "--value-batch", "8",
               "--execute", "8", "--euler", "1"]
    assert recap.main(["--generalist", tiny[0], another, *options, "--out", out]) == 0
    expected = [e for folder in (tiny[0], another) for k in (0, 1) for e in load_dataset(os.path.join(folder, f"D_{k}.npz"))]
    assert [n for _, n, *_ in trained] == [2, 3] and not any(begun for *_, begun in trained)     # V, then π, both from scratch
    for episodes, *_ in trained:
        assert [e.actions.tobytes() for e in episodes] == [e.actions.tobytes() for e in expected]
    labels = trained[1][2]
    assert set(labels.epsilon) == {"fold_collar", "fold_shirt"} and not all(p.all() for p in labels.positive)
    with open(os.path.join(out, "metrics.json")) as file:
        metrics = json.load(file)
    assert [(s["name"], s["beta"], s["episodes"]) for s in metrics["stages"]] == [("generalist_fold_collar", 1.5, 3), ("generalist_fold_shirt", 2.0, 3)]
    for folder, task in ((tiny[0], "fold_collar"), (another, "fold_shirt")):
        with open(os.path.join(folder, "metrics.json")) as file:
            assert metrics["specialists"][task] == json.load(file)["stages"][-1]
    for stage, task in zip(metrics["stages"], ("fold_collar", "fold_shirt")):      # each in its own task
        assert len(stage["per_stage_success"]) == len(sim_tasks.TASKS[task].stages)
    lines = capsys.readouterr().out.strip().splitlines()[-4:]
    assert [line.split()[:2] for line in lines] == [[t, kind] for t in ("fold_collar", "fold_shirt") for kind in ("specialist", "generalist")]
    # resume: what is lost is made again with the same numbers, from the folders that the run remembers
    for name in ("pi_generalist.npz", "eval_generalist_fold_shirt_beta2.json", "metrics.json"):
        os.remove(os.path.join(out, name))
    assert recap.main(["--resume", out]) == 0
    without_times = lambda m: [{key: x for key, x in stage.items() if key != "seconds"} for stage in m["stages"]]
    with open(os.path.join(out, "metrics.json")) as file:
        assert without_times(json.load(file)) == without_times(metrics)


def test_a_generalist_needs_finished_runs(tiny, capsys, tmp_path):
    assert "there is no" in (line := complaint(capsys, "--generalist", str(tmp_path), "--out", str(tmp_path / "a"))) and "metrics.json" in line
    shutil.copytree(tiny[0], tmp_path / "b")
    (tmp_path / "b" / "D_1.npz").unlink()
    line = complaint(capsys, "--generalist", tiny[0], str(tmp_path / "b"), "--out", str(tmp_path / "c"))
    assert str(tmp_path / "b" / "D_1.npz") in line and "finished run" in line
    assert "no other option" in complaint(capsys, "--resume", tiny[0], "--generalist", tiny[0])
    assert "not an empty folder" in complaint(capsys, "--generalist", tiny[0], "--out", tiny[0])


# What each product of a run is made from: what a setting changes, it changes from there on
MADE_FROM = {"D_demo": [], "V_pre": ["D_demo"], "pi_pre": ["D_demo", "V_pre"], "D_0": [], "V_0": ["D_0", "V_pre"], "pi_0": ["D_0", "pi_pre"],
             "D_1": ["pi_0"], "V_1": ["V_pre", "D_0", "D_1"], "pi_1": ["pi_pre", "D_0", "D_1", "V_1"]}
NETWORKS = ("V_pre", "pi_pre", "V_0", "pi_0", "V_1", "pi_1")

# Setting -> another value, the products in which it must show first ("" for none: it shows in the evaluation), other settings
# without which it does nothing
KNOBS = {
    "task": ("box", "D_0"), "seed": (1, "D_demo D_0"), "demonstrations": (5, "D_demo D_0"), "pretraining_tasks": ("box", "D_demo"),
    "bodies": (True, "D_demo"), "iterations": (2, ""), "beta": (2.5, ""), "episodes": (7, ""), "supervised": (True, ""),
    "vision": (True, "V_pre pi_pre"), "cameras": ("base", "V_pre pi_pre", dict(vision=True)), "metadata": (True, "V_pre pi_pre"),
    "metadata_dropout": (0.9, "V_pre pi_pre", dict(metadata=True)), "ask": ("fast careful", "", dict(metadata=True)),
    "web": (0.5, "V_pre V_0 V_1 pi_pre pi_0 pi_1"),
    "autonomous": (6, "D_1"), "corrected": (4, "D_1"), "execute": (3, "D_1"), "euler": (2, "D_1"), "subtask_every": (1, ""),
    "lookahead": (3, "pi_1"), "positive": (0.7, "pi_1"), "force_corrections": (False, "pi_1", dict(positive=0.05, policy_steps=20)), "restart": ("last", "pi_1"),
    "policy_steps": (4, "pi_1"), "value_on_corrections": (False, "V_1"), "value_steps": (3, "V_0 V_1"),
    "positive_pretraining": (0.6, "pi_pre"), "dropout": (0.6, "pi_pre pi_0"), "batch": (9, "pi_pre pi_0"), "draws": (2, "pi_pre pi_0"),
    "learning_rate": (1e-3, "pi_pre"), "pretraining_steps": (4, "pi_pre"), "fine_tuning_rate": (1e-3, "pi_0 pi_1"), "sft_steps": (3, "pi_0"),
    "token_loss": (False, "pi_pre pi_0"), "insulation": (False, "pi_pre pi_0"), "output": ("velocity", "pi_pre pi_0"),
    "flow_weight": ("paper", "pi_pre pi_0"), "c_fail": (2.0, "V_pre"), "clip_returns": (True, "V_pre"), "value_learning_rate": (5e-4, "V_pre V_0"),
    "value_pretraining_steps": (4, "V_pre"), "value_batch": (9, "V_pre V_0")}


def test_every_setting_is_in_the_table_of_knobs():
    assert set(KNOBS) == set(asdict(Settings())) - {"device"}


@pytest.mark.slow
def test_every_setting_is_read(tmp_path, monkeypatch):
    """PITFALLS A19: change each field, and something that the run leaves changes: what should, and nothing before it.

    Compared are the products bit for bit, and of the evaluations the actions sent and how often the subtask was asked for.
    """
    acted, real_collect, real_subtask = [], recap.collect, recap.predict_subtask

    def collect_spy(*given, **more):
        episodes = real_collect(*given, **more)
        acted.append(float(sum(np.abs(e.actions).sum() for e in episodes)))
        return episodes
    monkeypatch.setattr(recap, "collect", collect_spy)
    monkeypatch.setattr(recap, "predict_subtask", lambda *given: acted.append(0.0) or real_subtask(*given))

    def run(**change):
        out = tempfile.mkdtemp(dir=tmp_path)
        acted.clear()
        run = recap.Run(Settings(**(TINY | change)), out, recap.KINDS)
        recap.recap(run)
        stages = [{key: x for key, x in stage.items() if key != "seconds"} for stage in run.stages]
        products = {}
        for name in MADE_FROM:
            with np.load(os.path.join(out, f"{name}.npz")) as file:
                products[name] = {key: file[key].tobytes() for key in file.files if key not in ("log", "config")}
        return products, json.dumps([stages, run.labels, run.value_report, acted])

    bases, wrong = {}, {}
    for name, (value, first, *rest) in KNOBS.items():
        needed = rest[0] if rest else {}
        key = json.dumps(needed)
        if key not in bases:
            bases[key] = run(**needed)
            assert run(**needed) == bases[key]                     # or nothing below means anything
        products, results = run(**needed, **{name: value})
        changed = {x for x in MADE_FROM if products[x] != bases[key][0][x]}
        may = set(first.split())
        if not first and name == "subtask_every":
            may = {"D_1"}                                          # if the policy changes its mind within two chunks
        for product, sources in MADE_FROM.items():                 # in order: what is made of changed things may change
            if may & set(sources):
                may.add(product)
        if not (set(first.split()) <= changed <= may) or results == bases[key][1]:
            wrong[name] = changed
    assert not wrong


def test_prompt_effect_is_the_change_of_v_under_another_prompt():
    """Against V computed step by step; a value function whose words all mean the same has none."""
    torch.manual_seed(0)
    value = ValueFunction().eval()
    torch.nn.init.normal_(value.head.weight, std=0.5)
    data, s = [episode(7, seed=i) for i in range(3)], Settings(task="fold_shirt", pretraining_tasks="box")
    changes = []
    for e in data:
        for t in range(len(e)):
            seen = {key: torch.as_tensor(x[t:t + 1]) for key, x in e.observations.items()}
            V = [expected_value(value(seen, torch.tensor([encode(text, 5)]))).item() for text in ("fold shirt", "build box")]
            changes.append(abs(V[0] - V[1]))
    assert recap.prompt_effect(value, data, s) == pytest.approx(np.mean(changes), rel=1e-4) and np.mean(changes) > 1e-3
    value.backbone.token.weight.data[:] = value.backbone.token.weight.data[:1]
    assert recap.prompt_effect(value, data, s) == 0
    assert recap.prompt_effect(value, data, Settings(task="fold_shirt", pretraining_tasks="fold_shirt")) is None


# ---------------------------------------------------------------- bad input

def complaint(capsys, *arguments):
    """Exit code 2 and one line on stderr; returns the line."""
    try:
        code = recap.main(list(arguments))
    except SystemExit as leave:         # argparse
        code = leave.code
    error = capsys.readouterr().err.strip()
    assert code == 2
    return error.splitlines()[-1]


@pytest.mark.parametrize("arguments, words", [
    (["--task", "juggle"], ["task", "juggle", "fold_shirt"]), (["--iterations", "-1"], ["iterations", "-1", ">= 0"]),
    (["--beta", "-0.5"], ["beta", "-0.5", ">= 0"]), (["--beta", "nan"], ["beta", "nan"]), (["--device", "tpu"], ["device", "tpu"]),
    (["--positive", "1.5"], ["positive", "1.5"]), (["--batch", "0"], ["batch", "0"]), (["--seed", "x"], ["seed", "x"]),
    (["--execute", "9"], ["execute", "9", "8"]), (["--dropout", "0"], ["dropout", "(0, 1)"])])
def test_bad_arguments(capsys, arguments, words, tmp_path):
    line = complaint(capsys, *arguments, "--out", str(tmp_path / "new"))
    assert all(word in line for word in words), line
    assert not (tmp_path / "new").exists()


def test_a_device_that_is_not_there_is_refused_before_anything_is_made(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "cuda is not available" in complaint(capsys, "--device", "cuda", "--out", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_a_folder_with_something_in_it_is_left_alone(capsys, tiny, tmp_path):
    out, _ = tiny
    before = {name: os.stat(os.path.join(out, name)).st_mtime_ns for name in os.listdir(out)}
    assert "--resume" in complaint(capsys, "--quick", "--out", out)
    assert before == {name: os.stat(os.path.join(out, name)).st_mtime_ns for name in os.listdir(out)}
    assert "settings.json" in complaint(capsys, "--resume", str(tmp_path))
    assert "no other option" in complaint(capsys, "--resume", out, "--seed", "3")


@pytest.mark.parametrize("name", ["pi_pre.npz", "D_demo.npz"])
@pytest.mark.parametrize("damage", ["truncated", "foreign"])
def test_damaged_files_are_named_and_kept(capsys, tiny, tmp_path, name, damage):
    copied = tmp_path / "out"
    shutil.copytree(tiny[0], copied)
    path = copied / name
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:len(path.read_bytes()) // 2])
    else:
        np.savez(path, something=np.arange(3))
    content = path.read_bytes()
    line = complaint(capsys, "--resume", str(copied))
    assert name in line and ("dataset" in line or "checkpoint" in line)
    assert path.read_bytes() == content


def test_an_unlabelled_episode_is_refused_where_a_label_is_needed():
    data = [episode(10, success=None)]
    with pytest.raises(ValueError, match="success: None"):
        recap.episode_returns(data, Settings())


def test_summary_of_runs_by_hand(tmp_path):
    """Two seeds: 60 and 80 % (mean 70 ± 10), throughput 2 and 3 times that of SFT (2.50 ± 0.50), failures 0.8 and 0.4 of its own."""
    def write(name, success, throughput, task="box", K=1):
        stage = lambda name, success, throughput: {"name": name, "beta": 1.0, "success": success, "throughput": throughput,
                                                   "failed_early": 0.0, "episodes": 10}
        stages = [stage("offline_rl_sft", 0.5, 100.0), *(stage(f"recap_{k + 1}", success, throughput) for k in range(K))]
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps({"task": task, "stages": stages, "value": {"heldout_correlation": 0.5}}))
        return str(tmp_path / name)
    a, b = write("a", 0.6, 200.0), write("b", 0.8, 300.0)
    line = next(line for line in runs.summary([a, b]).splitlines() if line.startswith("recap_1"))
    assert [x.strip() for x in re.split(r"\s{2,}", line.strip())][1:] == ["70.0 ± 10.0", "0.0 ± 0.0", "250 ± 50", "2.50 ± 0.50", "0.60 ± 0.20", "2.50 ± 0.50"]
    for other, message in ((write("c", 0.6, 1.0, task="espresso"), "runs of box, espresso, expected one task"),
                           (write("d", 0.6, 1.0, K=2), "runs of different stages"), (str(tmp_path / "none"), "holds no metrics.json")):
        with pytest.raises(ValueError, match=message):
            runs.summary([a, other])

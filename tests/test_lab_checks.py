"""lab/evaluation.py and lab/checks.py: every number of a run against a slow calculation."""
from dataclasses import replace

import numpy as np
import pytest
import torch

import sim_tasks
from data import episode_seeds, generator
from helpers import (
    PROMPT_LENGTH,
    SUBTASK_LENGTH,
    TINY_POLICY,
    TOYS,
    encode,
    episode,
    toy_policy,
    toy_value,
    with_items,
)
from labels import episode_returns, returns
from lab import checks, evaluation
from lab.checks import calibration, correlation, count_labels, flow_loss_by_eta, mean_value_loss
from lab.checks import outcome_auc, prompt_effect
from lab.evaluation import evaluate, score, subtask_accuracy
from policy import VLA, draw_noise
from settings import Settings
from sim_tasks.arms import World
from value import ValueConfig, ValueFunction, expected_value

SHIRT = sim_tasks.TASKS["fold_shirt"]

# ---------------------------------------------------------------- success and throughput

def test_score_against_a_bootstrap():
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, 50, 300)
    succeeds = rng.random(300) < 0.7
    episodes = [episode(int(T), success=bool(ok)) for T, ok in zip(lengths, succeeds)]
    result = score(episodes)
    T = np.array([len(e) for e in episodes])
    ok = np.array([e.success for e in episodes])
    assert result["success"] == pytest.approx(ok.mean())
    assert result["throughput"] == pytest.approx(ok.sum() / (T.sum() / 36000))  # 10 Hz
    assert result["mean_seconds"] == pytest.approx(T[ok].mean() / 10)
    ended = [episode(T, success=False) for T in (50, 49, 20)] + [episode(50), episode(30)]
    # The first one ran out of time: its limit is 50.
    assert score(ended)["failed_early"] == 2 / 5
    # The clock is each episode's own: five times as fast, five times as many per hour.
    fast = score([replace(e, hz=50.0) for e in episodes])
    for name in ("throughput", "throughput_se"):
        assert fast[name] == pytest.approx(5 * result[name])
    assert fast["mean_seconds"] == pytest.approx(result["mean_seconds"] / 5)
    mixed = score([replace(episode(30), hz=10), replace(episode(30), hz=50.0)])
    assert mixed["throughput"] == pytest.approx(2 * 3600 / (30 / 10 + 30 / 50))
    picks = rng.integers(0, 300, (2000, 300))
    throughputs = ok[picks].sum(1) / (T[picks].sum(1) / 36000)
    assert result["throughput_se"] == pytest.approx(throughputs.std(), rel=0.1)
    assert result["success_se"] == pytest.approx(ok[picks].mean(1).std(), rel=0.1)

@pytest.mark.parametrize("lengths", [[40], [40, 25], [40, 25, 31]])
def test_the_error_of_few_episodes_is_that_of_a_sample(lengths):
    """The deviation of what an episode has more than its time is worth, with n - 1, over √n."""
    succeeds = [True, False, True][: len(lengths)]
    result = score([episode(T, success=ok) for T, ok in zip(lengths, succeeds)])
    hours = np.array(lengths) / 36000
    more = succeeds - result["throughput"] * hours
    assert more.mean() == pytest.approx(0)
    n = len(lengths)
    error = np.std(more, ddof=1) / n**0.5 / hours.mean() if n > 1 else 0
    assert result["throughput_se"] == pytest.approx(error, abs=1e-9)

def test_unlabelled_or_no_episodes_have_no_score():
    with pytest.raises(ValueError, match="labelled"):
        score([episode(3), episode(3, success=None)])
    with pytest.raises(ValueError, match="labelled"):
        score([])

def test_subtask_accuracy_against_a_slow_loop(monkeypatch):
    """ℓ̂ is what the policy said at the last prediction before.

    Here is one that knows the truth of its own moment.
    """
    rng = np.random.default_rng(0)
    names = np.array(["fold collar", "stack shirt", "pick sheet"])
    data = []
    for i, T in enumerate((23, 1, 8, 17)):
        subtask = names[np.cumsum(rng.random(T) < 0.2) % 3]
        data.append(replace(episode(T, seed=i), subtask=subtask))
    truth = {}
    for e in data:
        states = e.observations["state"].tolist()
        truth |= {tuple(state): name for state, name in zip(states, e.subtask)}
    prompts = []

    def knows(policy, seen, prompt):
        prompts.append(prompt)
        return torch.tensor([encode(truth[tuple(state)], 2) for state in seen["state"].tolist()])

    def knows_one_word(policy, seen, prompt):
        return knows(policy, seen, prompt) * torch.tensor([1, 0])

    monkeypatch.setattr(evaluation, "predict_subtask", knows)
    for execute, every in ((4, 2), (1, 1), (3, 1), (2, 5)):
        right = []
        for e in data:
            for t in range(len(e)):
                right.append(e.subtask[t] == e.subtask[t - t % (execute * every)])
        s = Settings(execute=execute, subtask_every=every)
        accuracy = subtask_accuracy(toy_policy(), data, s)
        assert accuracy == pytest.approx(np.mean(right))
        assert (accuracy == 1) == (execute * every == 1)
    # What is not true of its moment is not counted as right: one word of two is not enough.
    monkeypatch.setattr(evaluation, "predict_subtask", knows_one_word)
    assert subtask_accuracy(toy_policy(), data, Settings()) == 0
    # Asked with s in the prompt where the policy acts with it.
    monkeypatch.setattr(evaluation, "predict_subtask", knows)
    data = [replace(e, metadata="fast") for e in data]
    for said, expected in (("", "fold shirt"), ("fast", "fold shirt fast")):
        prompts.clear()
        subtask_accuracy(toy_policy(), data, Settings(metadata=True, evaluation_metadata=said))
        ids = torch.tensor(encode(expected, PROMPT_LENGTH))
        assert prompts and all((p == ids).all() for p in prompts)

def test_tasks_with_items_are_measured_on_one_and_reported_for_each(monkeypatch):
    """Success as the world has it, in made-up rollouts.

    Episode i succeeds with shirts, and with one sheet in three.
    """
    spec = with_items()
    s = Settings(
        task="fold_collar", evaluation_episodes=30, metadata=True, evaluation_metadata="fast"
    )
    asked = []
    monkeypatch.setitem(sim_tasks.TASKS, "fold_collar", spec)

    def rollouts(s, spec, seeds, policy, beta, indicator, item=None, metadata=""):
        asked.append((item, tuple(seeds), beta, indicator, metadata))
        episodes = []
        for i, prompt in enumerate(World(spec, seeds, item=item).prompts().tolist()):
            success = prompt == "fold shirt" or i % 3 == 0
            made_up = episode(10, success=success, task="fold_collar")
            episodes.append(replace(made_up, prompt=prompt))
        return episodes

    monkeypatch.setattr(evaluation, "roll_out", rollouts)
    row = evaluate(s, "x", toy_policy(), beta=2.0)
    seeds = tuple(episode_seeds(0, "evaluation", 30))
    how = (seeds, 2.0, True, "fast")
    assert asked == [("sheet", *how), (None, *how)]
    assert (row["name"], row["beta"], row["success"]) == ("x", 2.0, 10 / 30)
    prompts = World(spec, seeds).prompts()
    sheets = np.flatnonzero(prompts == "fold sheet")
    assert 5 < len(sheets) < 25 and set(row["items"]) == {"shirt", "sheet"}
    assert row["items"]["sheet"] == score([episode(10, success=i % 3 == 0) for i in sheets])
    assert row["items"]["shirt"]["success"] == 1
    assert row["items"]["shirt"]["episodes"] == 30 - len(sheets)
    # A task without items has no such report, and one collection.
    monkeypatch.undo()
    monkeypatch.setattr(
        evaluation, "roll_out", lambda *given, **more: asked.append(more["item"]) or [episode(10)]
    )
    asked.clear()
    assert "items" not in evaluate(s, "y", toy_policy()) and asked == [None]

# ---------------------------------------------------------------- the value function

def test_calibration_is_the_mean_of_v_and_of_r_in_groups_by_v(monkeypatch):
    s = Settings()
    episodes = [episode(7, seed=1), episode(13, seed=2, success=False)]
    R = np.concatenate(episode_returns(episodes, s))
    order = np.random.default_rng(0).permutation(20)
    V = np.linspace(-0.9, -0.1, 20)[order]
    monkeypatch.setattr(checks, "predict_values", lambda value, D: [V[:7], V[7:]])
    found = calibration(None, episodes, s, n=4)
    for g, (mean_v, mean_r) in enumerate(found):
        rows = [i for i in range(20) if 5 * g <= order[i] < 5 * g + 5]
        assert mean_v == pytest.approx(np.mean([V[i] for i in rows]))
        assert mean_r == pytest.approx(np.mean([R[i] for i in rows]))
    # A perfect V is calibrated.
    monkeypatch.setattr(checks, "predict_values", lambda value, D: [R[:7], R[7:]])
    assert all(a == b for a, b in calibration(None, episodes, s))

def test_outcome_auc_by_counting_pairs(monkeypatch):
    """At one common step, here 5 // 2 = 2; an episode that is over by then does not count."""
    kinds = ((5, True), (4, True), (9, False), (6, False), (2, False))
    episodes = [episode(T, success=ok) for T, ok in kinds]
    values = []
    for e, at_2 in zip(episodes, (-0.1, -0.5, -0.5, -0.9, 0)):
        values.append(np.where(np.arange(len(e)) == 2, at_2, -np.arange(len(e)) * 1.0))
    monkeypatch.setattr(checks, "predict_values", lambda value, D: values[: len(D)])
    assert outcome_auc(None, episodes) == (1 + 1 + 0.5 + 1) / 4
    assert outcome_auc(None, episodes[:2]) is None

def random_value(config=ValueConfig(TOYS), std=0.5):
    torch.manual_seed(0)
    value = ValueFunction(config).eval()
    torch.nn.init.normal_(value.head.weight, std=std)
    return value

def test_mean_value_loss_and_correlation_against_a_loop():
    data = [episode(T, success=T % 2 == 0, seed=T) for T in (1, 9, 14)]
    s = Settings()
    value = random_value(ValueConfig(TOYS, width=16, layers=1), 0.3)
    losses = []
    V = []
    R = []
    for e in data:
        prompt = torch.tensor([encode(e.prompt, PROMPT_LENGTH)])
        for t, r in enumerate(returns(len(e), e.success, e.max_length)):
            one = {name: torch.tensor(x[t : t + 1]) for name, x in e.observations.items()}
            p = value(one, prompt).softmax(-1)[0].double().numpy(force=True)  # (201,)
            losses.append(-np.log(p[round((r + 1) * 200)]))
            V.append(p @ np.linspace(-1, 0, 201))
            R.append(r)
    assert mean_value_loss(value, data, s) == pytest.approx(np.mean(losses), rel=1e-5)
    pearson = np.cov(V, R)[0, 1] / np.std(V, ddof=1) / np.std(R, ddof=1)
    assert correlation(value, data, s) == pytest.approx(pearson, rel=1e-4)
    # A uniform one: every bin is as likely, and V is constant.
    assert mean_value_loss(toy_value(), data, s) == pytest.approx(np.log(201), rel=1e-6)

def test_prompt_effect_is_the_change_of_v_under_another_prompt():
    """Against V computed step by step; a value function whose words all mean the same has none."""
    value = random_value()
    data = [episode(7, seed=i) for i in range(3)]
    s = Settings(task="fold_shirt", pretraining_tasks="box")
    changes = []
    for e in data:
        for t in range(len(e)):
            seen = {name: torch.as_tensor(x[t : t + 1]) for name, x in e.observations.items()}
            V = []
            for text in ("fold shirt", "build box"):
                prompt = torch.tensor([encode(text, 5)])
                V.append(expected_value(value(seen, prompt)).item())
            changes.append(abs(V[0] - V[1]))
    assert prompt_effect(value, data, s) == pytest.approx(np.mean(changes), rel=1e-4)
    assert np.mean(changes) > 1e-3
    value.backbone.token.weight.data[:] = value.backbone.token.weight.data[:1]
    assert prompt_effect(value, data, s) == 0
    assert prompt_effect(value, data, replace(s, pretraining_tasks="fold_shirt")) is None

# ---------------------------------------------------------------- the labels

# Columns of the keypoints: a handle is held by its edge, or well.
EDGE = 7
WELL = 8

def watched(T=30, seed=0):
    """An episode in which nothing is held, and everything moves."""
    e = episode(T, seed=seed)
    e.observations["keypoints"][..., [EDGE, WELL]] = 0
    e.observations["state"][:] = np.arange(T)[:, None] * 0.02 + np.arange(6)
    return e

def hold(e, arm, column, steps):
    e.observations["keypoints"][steps, arm, column] = 1

def stand(e, steps, joints=slice(None)):
    """Nothing moves between these steps but the noise of joints, ± 0.006."""
    state = e.observations["state"]
    for t in steps[1:]:
        state[t, joints] = state[steps[0], joints] + 0.006 * (-1) ** t

def test_visible_quality_is_what_anyone_sees():
    """A good grasp, an edge grasp, both at once, a pause: exact steps, one before it happens."""
    e = watched()
    hold(e, 0, WELL, slice(4, 9))  # from step 4 on: about to happen at 3
    hold(e, 1, EDGE, slice(10, 13))  # at 9
    hold(e, 0, WELL, slice(16, 20))  # at 15, while ...
    hold(e, 1, EDGE, slice(16, 20))  # ... the other arm takes the edge: not good
    hold(e, 1, WELL, slice(0, 2))  # held from the beginning on: nobody saw it happen
    stand(e, range(22, 27))  # nothing moves after 22 ... 25: 23 and 24 have such steps beside them
    good, bad = SHIRT.visible_quality(e.observations)
    assert good.dtype == bad.dtype == bool and len(good) == len(bad) == 30
    assert np.flatnonzero(good).tolist() == [3]
    assert np.flatnonzero(bad).tolist() == [9, 15, 23, 24]

def test_a_pause_is_both_arms_and_three_steps_in_a_row():
    e = watched()
    stand(e, range(3, 6))  # two still steps only, 3 and 4
    stand(e, range(8, 16), joints=slice(0, 3))  # the left arm alone
    stand(e, range(26, 30))  # to the end: 26, 27, 28, after which nobody knows
    good, bad = SHIRT.visible_quality(e.observations)
    assert not good.any() and np.flatnonzero(bad).tolist() == [27]
    e = watched()
    stand(e, range(0, 4))  # from the beginning: 0, before which nobody knows, 1, 2
    assert np.flatnonzero(SHIRT.visible_quality(e.observations)[1]).tolist() == [1]

def test_rows_of_goals_are_no_grasps():
    e = watched()
    e.observations["keypoints"][5:9, 2:, [EDGE, WELL]] = 1
    good, bad = SHIRT.visible_quality(e.observations)
    assert not good.any() and not bad.any()

def test_labels_are_counted_among_the_episodes_that_they_are_about(monkeypatch):
    """Each share over its own kind of episodes, of the newest iteration but for demonstrations."""
    rng = np.random.default_rng(0)
    taken = rng.random(30) < 0.4
    data = [
        replace(watched(), source="demonstration", iteration=0),
        watched(),
        replace(watched(), source="corrected", intervention=~taken),
        replace(watched(), iteration=2),
        replace(watched(), iteration=2, success=False),  # before its limit, 50
        replace(watched(), source="corrected", iteration=2, intervention=taken, success=False),
    ]
    hold(data[3], 0, WELL, slice(4, 9))
    hold(data[4], 0, WELL, slice(6, 9))
    hold(data[4], 0, EDGE, slice(20, 22))
    hold(data[1], 0, WELL, slice(8, 9))  # of an older iteration
    I = [rng.random(30) < share for share in (0.9, 0.1, 0.5, 0.3, 0.3, 0.5)]
    I[3][3] = True
    I[4][5] = False
    I[4][19] = True
    values = [rng.uniform(-1, 0, 30) for _ in data]
    monkeypatch.setattr(checks, "predict_values", lambda value, D: values)
    s = Settings(positive=0.3)
    found = count_labels("V", I, data, s, 2)
    newest = []
    for e, V in zip(data[3:5], values[3:5]):
        R = returns(30, len(newest) == 0, 50)
        ahead = np.append(V[10:] - R[10:], np.zeros(10))
        newest.append(R - V + ahead)
    epsilon = np.sort(np.concatenate(newest))[60 - 18 - 1]
    assert found == {
        "iteration": 2,
        "epsilon": pytest.approx(epsilon),
        "positive_fraction_rollouts": pytest.approx((I[3].sum() + I[4].sum()) / 60),
        "positive_fraction_successes": pytest.approx(I[3].mean()),
        "positive_fraction_failures": pytest.approx(I[4].mean()),
        "positive_fraction_demonstrations": pytest.approx(I[0].mean()),
        "corrected_fraction": pytest.approx(taken.mean()),
        "positive_given_good": 0.5,
        "positive_given_bad": 1.0,
        "positive_before_failure": pytest.approx(I[4][-10:].mean()),
    }
    # None where there is nothing to count.
    alone = count_labels("V", I[1:2], data[1:2], s, 1)
    assert alone["corrected_fraction"] is alone["positive_fraction_demonstrations"] is None
    # A success.
    assert alone["positive_before_failure"] is alone["positive_fraction_failures"] is None
    late = [replace(data[1], success=False, max_length=30)]
    assert count_labels("V", I[1:2], late, s, 1)["positive_before_failure"] is None
    assert alone["positive_given_bad"] is None and alone["positive_given_good"] == float(I[1][7])

# ---------------------------------------------------------------- the flow

def test_flow_loss_by_eta_against_a_loop():
    """‖a - â‖² per number of a chunk, in bins of η, every step told that it is positive."""
    torch.manual_seed(0)
    policy = VLA(TINY_POLICY).eval()
    e = episode(9, seed=3)
    H = TINY_POLICY.horizon
    chunks = torch.tensor(np.array([e.actions[np.minimum(t + np.arange(H), 8)] for t in range(9)]))
    states = torch.tensor(e.observations["state"])
    policy.fit_normalizer(chunks, states)
    targets = policy.normalize(chunks, states)
    found = flow_loss_by_eta(policy, [e], Settings(seed=2), n_batches=2, edges=(0, 0.3, 1))
    assert list(found) == ["0-0.3", "0.3-1"]
    g = generator(2, "flow loss by η")
    prompt = torch.tensor([encode(e.prompt, PROMPT_LENGTH)])
    subtask = torch.tensor([encode("stack shirt", SUBTASK_LENGTH)])
    yes = torch.tensor([True])
    errors = {"0-0.3": [], "0.3-1": []}
    for _ in range(2):
        index = torch.randint(9, (128,), generator=g)
        omega, eta = draw_noise(targets[index], g)
        for t, w, x in zip(index.tolist(), omega, eta):
            seen = {name: torch.tensor(o[t : t + 1]) for name, o in e.observations.items()}
            with torch.no_grad():
                hidden = policy.hidden_states(seen, prompt, subtask, yes, ~yes)
                a_eta = (x * targets[t] + (1 - x) * w)[None, None]
                a_hat = policy.expert(*policy.context(hidden, ~yes), a_eta, x.view(1, 1))
            name = "0-0.3" if x < 0.3 else "0.3-1"
            errors[name].append(((a_hat[0, 0] - targets[t]) ** 2).mean().item())
    for name, x in errors.items():
        assert found[name] == pytest.approx(np.mean(x), abs=1e-4)

def test_v_is_checked_on_the_items_that_its_data_are_of(monkeypatch):
    """Half of what is collected of FoldDiverse is about the measured item, so is what is held out.

    On seeds of its own, each once.
    """
    asked = []

    def noted(s, task, seeds, policy, iteration, item):
        asked.append((item, list(seeds)))
        return [f"{item} {seed}" for seed in seeds]

    monkeypatch.setattr(checks, "roll_out", noted)
    s = Settings(task="fold_diverse", evaluation_episodes=9)
    episodes = checks.heldout_rollouts(s, "policy", 2)
    seeds = episode_seeds(s.seed, "held out 2", 9)
    assert asked == [("button-up shirt", list(seeds[::2])), (None, list(seeds[1::2]))]
    assert len(set(episodes)) == 9

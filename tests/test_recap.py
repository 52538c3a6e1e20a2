"""recap.py: labels against brute force, the improvement theorem, the data pipeline, Algorithm 1, resume, bad input."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

import recap
import sim_tasks
from backbone import KEYPOINT_DIM, N_KEYPOINTS
from data import Episode, load_dataset, load_network
from policy import VLA, PolicyConfig
from recap import (Labels, Settings, advantages, collect, episode_seeds, indicators, label, outcome_auc, returns, rewards,
                   score, stack_steps, threshold, train_policy)
from sim_tasks.arms import World
from sim_tasks.demonstrator import COACH, MIXED, Operator

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
@pytest.mark.parametrize("length, limit, c_fail", [(1, 10, None), (7, 10, None), (10, 10, None), (5, 20, 30), (5, 20, 3)])
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


@pytest.mark.slow
def test_every_setting_is_read(tmp_path):
    """PITFALLS A19: change each field, and something that the run leaves changes."""
    def run(name, **change):
        out = str(tmp_path / name)
        os.makedirs(out)
        run = recap.Run(Settings(**(TINY | change)), out, recap.KINDS)
        recap.recap(run)
        networks = [load_network(os.path.join(out, f"{n}.npz"), recap.KINDS)[0] for n in ("pi_1", "V_1")]
        total = [float(sum(p.detach().abs().sum() for p in network.parameters())) for network in networks]
        stages = [{key: x for key, x in stage.items() if key != "seconds"} for stage in run.stages]
        return json.dumps([stages, run.labels, run.value_report, total])
    base = run("base")
    assert run("again") == base
    changes = dict(task="box", iterations=2, seed=1, beta=2.5, supervised=True, demonstrations=5, autonomous=6, corrected=4,
                   episodes=7, lookahead=3, positive_pretraining=0.6, positive=0.7, dropout=0.6, c_fail=2.0, batch=9, draws=2,
                   learning_rate=1e-3, fine_tuning_rate=1e-3, pretraining_steps=4, sft_steps=3, policy_steps=4, value_learning_rate=5e-4,
                   value_pretraining_steps=4, value_steps=3, value_batch=9, execute=3, euler=2, subtask_every=1)
    assert set(changes) == set(asdict(Settings())) - {"device"}
    unread = [name for name, value in changes.items() if run(name, **{name: value}) == base]
    # the subtask's frequency shows only where the prediction changes within two chunks, which 3 steps do not teach
    assert unread in ([], ["subtask_every"])


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

"""labels.py: Eq. 5, returns, advantages, ε_ℓ and I_t against brute force; Sec. III's theorem."""
import ast
import os
import sys
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest

import labels
import sim_tasks
from helpers import ROOT, episode
from labels import advantages, episode_returns, indicators, label, returns, rewards
from labels import step_advantages, threshold, thresholds
from settings import Settings

# ---------------------------------------------------------------- rewards, returns (Eq. 5)

def test_rewards_are_eq_5():
    assert rewards(4, True, 9).tolist() == [-1, -1, -1, 0]
    assert rewards(4, False, 9).tolist() == [-1, -1, -1, -9]

@pytest.mark.parametrize("success", [True, False])
@pytest.mark.parametrize(
    "length, limit, c_fail",
    [(1, 10, None), (7, 10, None), (10, 10, None), (5, 20, 30), (5, 20, 3), (5, 20, 0)],
)
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
    # ... and that is what C_fail < limit gives up (the reason for the default)
    assert returns(1, False, limit, 3).max() > returns(limit, True, limit, 3).min()

def test_clipped_returns_put_failures_at_minus_one():
    assert (returns(6, False, 10, clip=True) == -1).all()
    assert np.allclose(returns(6, True, 10, clip=True), [-0.5, -0.4, -0.3, -0.2, -0.1, 0])

@pytest.mark.parametrize("clip", [False, True])
def test_where_all_run_out_of_time_failing_at_once_is_an_advantage(clip):
    """Eq. 5: both are paid -C_fail, and who fails at once is spared the -1s.  Not if clipped."""
    limit, dropped, n = 20, 6, 4
    V = returns(limit, False, limit, clip=clip)  # what V learns from nothing but time-outs
    A = advantages(returns(dropped, False, limit, clip=clip), V[:dropped], n)
    spared = limit - dropped
    assert np.allclose(A[-n:], 0 if clip else spared / (2 * limit))
    assert np.allclose(A[:-n], 0)

def test_returns_refuse_a_missing_label_and_a_too_long_episode():
    for unlabelled in (lambda: returns(3, None, 10), lambda: rewards(3, None, 10)):
        with pytest.raises(ValueError, match="success: None"):
            unlabelled()
    with pytest.raises(ValueError, match="length: 11"):
        returns(11, True, 10)

def test_an_unlabelled_episode_is_refused_where_a_label_is_needed():
    data = [episode(10, success=None)]
    with pytest.raises(ValueError, match="success: None"):
        episode_returns(data, Settings())

def test_returns_are_normalised_by_each_tasks_own_limit():
    s = Settings()
    short, long = replace(episode(5), max_length=10), replace(episode(5), max_length=40)
    R = episode_returns([short, long], s)
    assert np.isclose(R[0][0], -4 / 20) and np.isclose(R[1][0], -4 / 80)

def test_clip_returns_is_the_other_range():
    data = [
        replace(episode(T, success=ok), max_length=limit)
        for T, ok, limit in ((9, True, 10), (9, False, 10), (20, False, 40))
    ]
    for c_fail in (0.5, 1.0, 2.0):
        clipped, filled = (
            episode_returns(data, Settings(clip_returns=x, c_fail=c_fail))
            for x in (True, False)
        )
        for e, one, other in zip(data, clipped, filled):
            # steps and C_fail still to pay
            to_go = np.arange(len(e))[::-1] + (0 if e.success else c_fail * e.max_length)
            np.testing.assert_allclose(one, -np.minimum(to_go / e.max_length, 1))
            np.testing.assert_allclose(other, -to_go / (e.max_length * (1 + c_fail)))

def test_a_step_costs_a_failure_as_much_as_a_success_when_returns_are_clipped():
    """With V constant A is Σ r alone: -N / limit, but at the end, where all rewards are counted."""
    limit, n = 40, 4
    data = [
        replace(episode(limit, success=False), max_length=limit),
        replace(episode(30, success=True), max_length=limit),
    ]
    s = Settings(clip_returns=True, lookahead=n)
    V = [np.full(len(e), -0.5) for e in data]
    failure, success = step_advantages(V, data, s, 1)
    np.testing.assert_allclose(failure[:-n], -n / limit)
    np.testing.assert_allclose(success[:-n], -n / limit)
    np.testing.assert_allclose(failure[-n:], 0.5 - (np.arange(n)[::-1] + limit) / limit)
    np.testing.assert_allclose(success[-n:], 0.5 - np.arange(n)[::-1] / limit)

# ---------------------------------------------------------------- advantages (App. F)

@pytest.mark.parametrize("success", [True, False])
@pytest.mark.parametrize("n", [1, 3, 10, 12, 13, 40, None])
def test_advantages_are_the_n_step_sums(success, n):
    T, limit = 12, 20
    R, V = returns(T, success, limit), np.random.default_rng(0).uniform(-1, 0, T)
    r = rewards(T, success, limit) / (2 * limit)  # normalised as the returns are
    N = T if n is None else n
    expected = []
    for t in range(T):  # the sum of the paper, term by term
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

# ---------------------------------------------------------------- ε_ℓ and I_t (App. F, Eq. 3)

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
    for bad, fraction, message in (
        ([], 0.3, "advantages: 0"),
        ([1.0, np.nan], 0.3, "finite"),
        ([1.0], 1.3, "1.3"),
    ):
        with pytest.raises(ValueError, match=message):
            threshold(bad, fraction)

# ---------------------------------------------------------------- a dataset

def made_up_values(data):
    """V of every step, independent of the data."""
    rng = np.random.default_rng(3)
    return [rng.uniform(-1, 0, len(e)) for e in data]

def judge(values, data, s, iteration):
    """(I, ε_ℓ) of a dataset, by `label` and by its parts, which agree."""
    A = step_advantages(values, data, s, iteration)
    return label(values, data, s, iteration), thresholds(A, data, s, iteration)

def chosen(arrays, data, **fields):
    """Those arrays in a row whose episode has these fields."""
    return np.concatenate([
        x for x, e in zip(arrays, data) if all(getattr(e, f) == v for f, v in fields.items())
    ])

def test_fine_tuning_labels_40_percent_of_the_newest_autonomous_steps():
    """Demonstrations, older rollouts and corrected episodes do not enter ε_ℓ.

    Corrections are True all the same.
    """
    forced = np.arange(30) < 20
    data = [episode(30, source="demonstration", iteration=0, seed=i) for i in range(10)]
    data += [episode(30, success=False, iteration=1, seed=i) for i in range(10)]
    data += [episode(30, success=i % 2 == 0, iteration=2, seed=i) for i in range(10)]
    more = dict(source="corrected", iteration=2, intervention=forced)
    data += [episode(30, seed=i, **more) for i in range(5)]
    I = label(made_up_values(data), data, Settings(positive=0.4), iteration=2)
    newest = chosen(I, data, source="autonomous", iteration=2)
    assert newest.mean() == pytest.approx(0.4, abs=0.002)
    corrected = [p for p, e in zip(I, data) if e.source == "corrected"]
    assert all(p[:20].all() for p in corrected) and not all(p.all() for p in corrected)

def test_pre_training_labels_30_percent_of_every_task():
    kind = dict(source="demonstration", iteration=0)
    data = [episode(20, task="a", success=True, **kind) for _ in range(20)]
    data += [episode(20, task="b", success=False, **kind) for _ in range(20)]
    I, epsilon = judge(made_up_values(data), data, Settings(), 0)
    # b's advantages all lie far below a's: a pooled threshold would leave it no positives.
    for task in "ab":
        assert chosen(I, data, task=task).mean() == pytest.approx(0.3, abs=0.003)
    assert epsilon["a"] > epsilon["b"]

def test_pre_training_uses_the_whole_return_and_fine_tuning_n_steps():
    e = episode(30, iteration=1)
    V = np.linspace(-0.9, -0.1, 30)
    R = returns(30, True, 50)
    for s, iteration, A, share in (
        (Settings(), 0, R - V, 0.3),
        (Settings(lookahead=7, positive=0.4), 1, advantages(R, V, 7), 0.4),
    ):
        I, epsilon = judge([V], [e], s, iteration)
        assert epsilon["fold_shirt"] == pytest.approx(threshold(A, share))
        assert np.array_equal(I[0], A > threshold(A, share))

def corrected_data():
    """Autonomous and corrected episodes of iteration 1, and made-up values."""
    forced = np.arange(30) % 3 == 0
    data = [episode(30, success=i % 2 == 0, seed=i) for i in range(6)]
    for i in range(6):
        corrected = dict(source="corrected", intervention=np.roll(forced, i))
        data.append(episode(30, success=i % 2 == 0, seed=10 + i, **corrected))
    values = [np.random.default_rng(i).uniform(-1, 0, 30) for i in range(len(data))]
    return data, values

def test_force_corrections_changes_the_labels_of_corrections_and_nothing_else():
    data, values = corrected_data()
    s = Settings(positive=0.4)
    forced, epsilon = judge(values, data, s, 1)
    free, epsilon_free = judge(values, data, replace(s, force_corrections=False), 1)
    assert epsilon == epsilon_free
    R = episode_returns(data, s)
    changed = 0
    for one, other, e, r, V in zip(forced, free, data, R, values):
        judged = advantages(r, V, s.lookahead) > epsilon["fold_shirt"]
        assert np.array_equal(other, judged) and np.array_equal(one, judged | e.intervention)
        changed += (one != other).sum()
    assert 0 < changed == sum((~p & e.intervention).sum() for p, e in zip(free, data))

def test_generalist_labels_judge_every_task_by_its_own_newest_rollouts(monkeypatch):
    """iteration=None.  One task's newest is 2, the other's is 1.

    Older rollouts, corrections and demonstrations set no ε_ℓ.
    """
    other = replace(sim_tasks.TASKS["fold_collar"], positive=0.4)
    monkeypatch.setitem(sim_tasks.TASKS, "fold_collar", other)
    rng = np.random.default_rng(5)

    def of(task, iteration, source="autonomous"):
        kind = dict(task=task, iteration=iteration, source=source)
        return [episode(30, success=bool(rng.random() < 0.5), seed=i, **kind) for i in range(8)]

    data = of("fold_collar", 0, "demonstration") + of("fold_collar", 1) + of("fold_collar", 2)
    data += of("fold_collar", 2, "corrected")
    data += of("fold_shirt", 0, "demonstration") + of("fold_shirt", 1)
    values = [rng.uniform(-1, 0, 30) - 0.1 * e.iteration for e in data]
    s = Settings(task="fold_shirt", positive=0.3)
    I, epsilon = judge(values, data, s, None)
    A = [advantages(R, V, s.lookahead) for R, V in zip(episode_returns(data, s), values)]
    # The task's own, and as set for the target.
    for task, newest, fraction in (("fold_collar", 2, 0.4), ("fold_shirt", 1, 0.3)):
        kind = dict(task=task, iteration=newest, source="autonomous")
        assert epsilon[task] == threshold(chosen(A, data, **kind), fraction)
        own = chosen(I, data, **kind)
        assert own.mean() == pytest.approx(fraction, abs=0.5 / len(own) + 1e-9)
    for p, a, e in zip(I, A, data):
        assert np.array_equal(p, indicators(a, epsilon[e.task]))
    data = of("fold_shirt", 0, "demonstration") + of("fold_shirt", 1, "corrected")
    with pytest.raises(ValueError, match="no autonomous one of task 'fold_shirt' in iteration"):
        label(made_up_values(data), data, s, None)

# ---------------------------------------------------------------- a file to copy

def test_labels_needs_numpy_alone():
    """Somebody with a VLA of their own can copy that one file: it imports nothing of ours."""
    with open(os.path.join(ROOT, "labels.py"), encoding="utf-8") as file:
        tree = ast.parse(file.read())
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module.split(".")[0])
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            assert name not in ("__import__", "import_module", "exec", "eval")
    assert "numpy" in imported and imported - {"numpy"} <= set(sys.stdlib_module_names)

@dataclass
class Attempt:
    """What somebody else's episode may look like: the fields that labels.py reads, and no more."""

    T: int
    success: bool
    iteration: int
    source: str
    task: str = "open a door"
    max_length: int = 40
    intervention: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def __len__(self):
        return self.T

def test_labels_work_on_an_episode_class_of_somebody_else():
    """None of our modules, settings included: every step against sums written out by hand."""
    share = 0.25
    theirs = SimpleNamespace(
        seed=0, lookahead=3, c_fail=1.0, clip_returns=False, force_corrections=True,
        positive_pretraining=share, positive_for=lambda task: share,
    )  # fmt: skip
    taken = np.arange(10) > 6
    data = [Attempt(12, True, 0, "demonstration"), Attempt(40, False, 1, "autonomous")]
    data += [Attempt(20, True, 1, "autonomous"), Attempt(10, True, 1, "corrected")]
    data[3].intervention = taken
    data = [replace(e, intervention=np.resize(e.intervention, len(e))) for e in data[:3]] + data[3:]
    values = made_up_values(data)
    A = []
    for e, V in zip(data, values):
        r = [-1 / 80] * len(e)
        r[-1] = 0 if e.success else -40 / 80
        a = []
        for t in range(len(e)):
            beyond = V[t + 3] if t + 3 < len(e) else 0
            a.append(sum(r[t : t + 3]) + beyond - V[t])
        A.append(np.array(a))
    pool = np.sort(np.concatenate([A[1], A[2]]))  # 60 steps, 15 of them above ε
    expected = [a > pool[44] + 1e-12 for a in A]
    expected[3] |= taken
    for I, p in zip(label(values, data, theirs, 1), expected, strict=True):
        assert np.array_equal(I, p)
    assert all(I.dtype == bool and I.all() for I in labels.all_positive(data))
    assert [len(I) for I in labels.all_positive(data)] == [12, 40, 20, 10]

# ---------------------------------------------------------------- Sec. III: the theorem on a bandit

@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0, 4.0])
def test_improvement_theorem_on_a_bandit(beta):
    """π̂ ∝ π_ref p(I | A)^β, p(I | A) increasing in A: J(π̂) >= J(π_ref), for random π_ref and r."""
    rng = np.random.default_rng(0)
    gains = []
    for _ in range(200):
        pi_ref, r = rng.dirichlet(np.ones(6)), rng.normal(size=6)
        A = r - pi_ref @ r
        p_improve = 1 / (1 + np.exp(-3 * A))  # soft and increasing
        pi_hat = pi_ref * p_improve**beta
        pi_hat /= pi_hat.sum()
        gains.append(pi_hat @ r - pi_ref @ r)
    assert min(gains) >= -1e-12 and np.mean(gains) > 0.05

def test_bayes_form_of_eq_2_is_the_same_policy():
    """Eq. 2: π_ref (π_ref(a | I) / π_ref(a))^β equals π_ref p(I | A)^β.

    A hard indicator makes β irrelevant.
    """
    rng = np.random.default_rng(1)
    pi_ref, A = rng.dirichlet(np.ones(8)), rng.normal(size=8)
    for p in (1 / (1 + np.exp(-A)), (A > 0).astype(float)):
        conditional = pi_ref * p / (pi_ref @ p)  # π_ref(a | I)
        policies = []
        for beta in (0.5, 1.0, 3.0):
            eq2 = pi_ref * (conditional / pi_ref) ** beta
            direct = pi_ref * p**beta
            policies.append(eq2 / eq2.sum())
            assert np.allclose(policies[-1], direct / direct.sum())
        same = np.allclose(policies[0], policies[2])
        assert same == (set(p) <= {0.0, 1.0})

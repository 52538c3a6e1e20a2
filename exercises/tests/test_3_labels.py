"""Exercise 3: from advantages to labels."""
import numpy as np
import pytest

import parameters as P
import recap
from checks import check, close
from data import Episode

T = 40      # steps of every made-up episode


@pytest.mark.parametrize("fraction", P.FRACTIONS)
def test_the_positive_fraction_is_the_one_asked_for(fraction):
    A = np.random.default_rng(P.SEED).normal(size=1000)
    close((A > recap.threshold(A, fraction)).mean(), fraction, f"a fraction of {fraction} lies above the "
          f"{1 - fraction:g} quantile, not above the {fraction:g} quantile; none above the largest, all above -inf", 1e-9)


@pytest.mark.parametrize("bad", [[], [0.5, np.nan]])
def test_thresholds_need_advantages(bad):
    try:
        recap.threshold(np.array(bad), 0.3)
    except ValueError:
        return
    check(False, f"{bad} has no quantile: raise ValueError")


def test_positive_is_strictly_above():
    epsilon = 0.1 * P.SEED
    close(recap.indicators(np.array([epsilon - 1, epsilon, epsilon + 1]), epsilon), [False, False, True],
          "A > ε: with >= all ties at the quantile are positive, and the fraction is no longer the one asked for")


def test_corrections_are_positive():
    A, correction = np.array([1.0, -1.0, -1.0, 1.0]), np.array([False, False, True, True])
    close(recap.indicators(A, 0.0, correction), [True, False, True, True], "what the operator did counts as good, whatever A says")


def test_no_indicator_for_nan():
    try:
        recap.indicators(np.array([0.1, np.nan]), 0.0)
    except ValueError:
        return
    check(False, "NaN > ε is False: a step without an advantage would become a negative example; raise ValueError")


# ---------------------------------------------------------------- label, with made-up values

def episode(rng, success=True, task="fold_shirt", source="autonomous", iteration=1, intervention=None):
    return Episode(task=task, prompt="fold shirt", max_length=2 * T,
                   observations={"state": np.zeros((T, 6), np.float32), "keypoints": np.zeros((T, 4, 20), np.float32)},
                   actions=rng.normal(size=(T, 6)).astype(np.float32), subtask=np.array(["stack shirt"] * T),
                   intervention=np.zeros(T, bool) if intervention is None else intervention,
                   success=success, stages=np.array([success]), source=source, iteration=iteration)


@pytest.fixture
def made_up(monkeypatch):
    """V of every step is drawn once per episode, so that no network is needed."""
    rng, drawn = np.random.default_rng(P.SEED), {}
    V = lambda e: drawn.setdefault(e.actions.tobytes(), rng.uniform(-1, 0, len(e)))
    monkeypatch.setattr(recap, "predict_values", lambda value, episodes: [V(e) for e in episodes])
    return rng


def mean_label(labels, data, keep):
    return np.concatenate([p for p, e in zip(labels.positive, data) if keep(e)]).mean()


FORCED = np.arange(T) < T // 2


def rollouts(rng):
    return ([episode(rng, source="demonstration", iteration=0) for _ in range(8)]
            + [episode(rng, success=False, iteration=P.ITERATION - 1) for _ in range(8)]
            + [episode(rng, success=i % 2 == 0, iteration=P.ITERATION) for i in range(8)]
            + [episode(rng, source="corrected", iteration=P.ITERATION, intervention=FORCED) for _ in range(8)])


def test_thresholds_come_from_the_newest_autonomous_steps(made_up):
    data = rollouts(made_up)
    labels = recap.label(None, data, recap.Settings(positive=P.POSITIVE), P.ITERATION)
    newest = lambda e: e.source == "autonomous" and e.iteration == P.ITERATION
    close(mean_label(labels, data, newest), P.POSITIVE, "ε_ℓ is taken over the autonomous episodes of this iteration only: "
          "not older ones, not demonstrations, not corrected ones (which are True anyway)", 2 / (8 * T))
    check(len(labels.positive) == len(data) and all(len(p) == T for p in labels.positive), "labels for every step of every episode")


def test_every_task_has_its_own_threshold(made_up):
    data = ([episode(made_up, task="a", source="demonstration", iteration=0) for _ in range(15)]
            + [episode(made_up, task="b", success=False, source="demonstration", iteration=0) for _ in range(15)])
    labels = recap.label(None, data, recap.Settings(positive_pretraining=P.POSITIVE_PRETRAINING), 0)
    for task in "ab":
        close(mean_label(labels, data, lambda e: e.task == task), P.POSITIVE_PRETRAINING,
              "all of task b failed: one threshold over both tasks leaves b next to no positives", 2 / (15 * T))
    check(set(labels.epsilon) == {"a", "b"}, "Labels.epsilon has one entry per task")


def test_pretraining_looks_to_the_end_and_fine_tuning_n_steps_ahead(made_up):
    e = episode(made_up)
    s = recap.Settings(positive=P.POSITIVE, positive_pretraining=P.POSITIVE_PRETRAINING, lookahead=P.LOOKAHEAD)
    V, R, N = recap.predict_values(None, [e])[0], -np.arange(T)[::-1] / (4 * T), P.LOOKAHEAD
    later = np.append(V[N:] - R[N:], np.zeros(N))                                        # V(o_t+N) - R_t+N, nothing past the end
    for iteration, A, fraction in ((0, R - V, P.POSITIVE_PRETRAINING), (1, R - V + later, P.POSITIVE)):
        positive = recap.label(None, [e], s, iteration).positive[0]
        close(positive, np.argsort(np.argsort(A)) >= T - round(fraction * T), f"iteration {iteration}: "
              "N = T in pre-training (0), s.lookahead later; and s.positive_pretraining or s.positive_for(task)")


def test_labels_force_corrections(made_up):
    data = rollouts(made_up)
    corrected = lambda s: np.array([p for p, e in zip(recap.label(None, data, s, P.ITERATION).positive, data)
                                    if e.source == "corrected"])[:, FORCED]
    check(corrected(recap.Settings()).all(), "steps of the operator (e.intervention) are True")
    check(not corrected(recap.Settings(force_corrections=False)).all(), "... unless s.force_corrections is off")

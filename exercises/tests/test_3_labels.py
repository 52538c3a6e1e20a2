"""Exercise 3: from advantages to labels."""
import numpy as np
import pytest

import parameters as P
from checks import check, close, refused
import labels
from data import Episode
from settings import Settings

T = 40  # steps of every made-up episode

@pytest.mark.parametrize("fraction", P.FRACTIONS)
def test_the_positive_fraction_is_the_one_asked_for(fraction):
    A = np.random.default_rng(P.SEED).normal(size=1000)
    hint = f"a fraction of {fraction} lies above the {1 - fraction:g} quantile, not above the"
    hint += f" {fraction:g} quantile; none above the largest, all above -inf"
    close((A > labels.threshold(A, fraction)).mean(), fraction, hint, 1e-9)

@pytest.mark.parametrize("bad", [[], [0.5, np.nan]])
def test_thresholds_need_advantages(bad):
    hint = f"{bad} has no quantile: raise ValueError"
    refused(hint, labels.threshold, np.array(bad), 0.3)

def test_positive_is_strictly_above():
    epsilon = 0.1 * P.SEED
    A = np.array([epsilon - 1, epsilon, epsilon + 1])
    hint = "A > ε: with >= all ties at the quantile are positive, and the fraction is no longer"
    close(labels.indicators(A, epsilon), [False, False, True], f"{hint} the one asked for")

def test_corrections_are_positive():
    A = np.array([1.0, -1.0, -1.0, 1.0])
    correction = np.array([False, False, True, True])
    hint = "what the operator did counts as good, whatever A says"
    close(labels.indicators(A, 0.0, correction), [True, False, True, True], hint)

def test_no_indicator_for_nan():
    hint = "NaN > ε is False: a step without an advantage would become a negative example;"
    refused(f"{hint} raise ValueError", labels.indicators, np.array([0.1, np.nan]), 0.0)

# ---------------------------------------------------------------- a dataset, with made-up numbers

def episode(success=True, task="fold_shirt", source="autonomous", iteration=1, forced=()):
    intervention = np.zeros(T, bool)
    intervention[list(forced)] = True
    observations = {
        "state": np.zeros((T, 6), np.float32),
        "keypoints": np.zeros((T, 4, 20), np.float32),
    }
    return Episode(
        task=task, prompt="fold shirt", max_length=2 * T, observations=observations,
        actions=np.zeros((T, 6), np.float32), subtask=np.array(["stack shirt"] * T),
        intervention=intervention, success=success, stages=np.array([success]), source=source,
        iteration=iteration, hz=10,
    )  # fmt: skip

FORCED = range(T // 2)

def rollouts():
    """Demonstrations, older rollouts, the newest ones, corrected ones: eight of each."""
    episodes = []
    for i in range(8):
        episodes += [
            episode(source="demonstration", iteration=0),
            episode(success=False, iteration=P.ITERATION - 1),
            episode(success=i % 2 == 0, iteration=P.ITERATION),
            episode(source="corrected", iteration=P.ITERATION, forced=FORCED),
        ]
    return episodes

def made_up(episodes):
    """A number in [-1, 0] for every step: a list of (T,), one array per episode."""
    rng = np.random.default_rng(P.SEED)
    return [rng.uniform(-1, 0, len(e)) for e in episodes]

def is_newest(e):
    return e.source == "autonomous" and e.iteration == P.ITERATION

def test_thresholds_come_from_the_newest_autonomous_steps():
    episodes = rollouts()
    # Each kind of episode has advantages of its own: the wrong ones give another threshold.
    shift = {"demonstration": 0.7, "autonomous": 0.0, "corrected": -0.4}
    A = []
    for a, e in zip(made_up(episodes), episodes):
        A.append(a + shift[e.source] + 0.2 * (P.ITERATION - e.iteration))
    epsilon = labels.thresholds(A, episodes, Settings(positive=P.POSITIVE), P.ITERATION)
    newest = np.concatenate([a for a, e in zip(A, episodes) if is_newest(e)])
    hint = "ε_ℓ is taken over the autonomous episodes of this iteration only: not older ones, not"
    hint += " demonstrations, not corrected ones (which are True anyway)"
    close((newest > epsilon["fold_shirt"]).mean(), P.POSITIVE, hint, 2 / (8 * T))

def test_every_task_has_its_own_threshold():
    episodes = []
    for task in ("a", "b"):
        episodes += [episode(task=task, source="demonstration", iteration=0)] * 15
    # All of task b failed: its advantages are lower.
    A = [a - 0.5 * (e.task == "b") for a, e in zip(made_up(episodes), episodes)]
    s = Settings(positive_pretraining=P.POSITIVE_PRETRAINING)
    epsilon = labels.thresholds(A, episodes, s, 0)
    check(set(epsilon) == {"a", "b"}, "one entry per task: {task: ε_ℓ}")
    for task in ("a", "b"):
        own = np.concatenate([a for a, e in zip(A, episodes) if e.task == task])
        hint = "one threshold over both tasks leaves b next to no positives; and iteration 0 is"
        hint += " pre-training: s.positive_pretraining of all steps"
        close((own > epsilon[task]).mean(), P.POSITIVE_PRETRAINING, hint, 2 / (15 * T))

def test_pretraining_looks_to_the_end_and_fine_tuning_n_steps_ahead():
    e = episode(source="demonstration", iteration=0)  # what pre-training has
    rollout = episode()
    N = P.LOOKAHEAD
    s = Settings(
        positive=P.POSITIVE, positive_pretraining=P.POSITIVE_PRETRAINING, lookahead=N
    )
    V = made_up([e])[0]
    R = -np.arange(T)[::-1] / (4 * T)
    later = np.append(V[N:] - R[N:], np.zeros(N))  # V(o_t+N) - R_t+N, nothing past the end
    cases = ((0, e, R - V, P.POSITIVE_PRETRAINING), (1, rollout, R - V + later, P.POSITIVE))
    for iteration, own, A, fraction in cases:
        positive = labels.label([V], [own], s, iteration)[0]
        rank = np.argsort(np.argsort(A))
        hint = f"iteration {iteration}: N = T in pre-training (0), s.lookahead later; and"
        hint += " s.positive_pretraining or s.positive_for(task)"
        close(positive, rank >= T - round(fraction * T), hint)

def test_labels_force_corrections():
    episodes = rollouts()
    V = made_up(episodes)
    for force in (True, False):
        s = Settings(positive=P.POSITIVE, force_corrections=force)
        I = labels.label(V, episodes, s, P.ITERATION)
        hint = "labels for every step of every episode"
        check(len(I) == len(episodes) and all(len(positive) == T for positive in I), hint)
        newest = np.concatenate([p for p, e in zip(I, episodes) if is_newest(e)])
        hint = "indicators of every episode by the threshold of its task"
        close(newest.mean(), P.POSITIVE, hint, 2 / (8 * T))
        hands = [p[: T // 2] for p, e in zip(I, episodes) if e.source == "corrected"]
        hint = "steps of the operator (e.intervention) are True if s.force_corrections, else not"
        check(np.concatenate(hands).all() == force, hint)

"""Exercise 2: Eq. (5), returns in (-1, 0), n-step advantages."""
import numpy as np
import pytest

import parameters as P
import recap
from checks import check, close


def reward_list(T, success, c):
    return [-1.0] * (T - 1) + [0.0 if success else -float(c)]


def return_list(T, success, c=None):
    """R' of an episode, term by term."""
    c = P.LIMIT if c is None else c
    r = reward_list(T, success, c)
    return np.array([sum(r[t:]) / (P.LIMIT + c) for t in range(T)])


@pytest.mark.parametrize("T", P.LENGTHS)
def test_rewards_count_steps_and_punish_failure(T):
    for success in (True, False):
        close(recap.rewards(T, success, P.LIMIT), reward_list(T, success, P.LIMIT),
              f"success={success}: -1 for every step but the last, which gets 0 or -C_fail (not -1 - C_fail)")


def test_rewards_want_a_label():
    try:
        recap.rewards(3, None, P.LIMIT)
    except ValueError:
        return
    check(False, "success=None means not labelled yet; `if success` takes it for a failure, `is not False` for a success")


@pytest.mark.parametrize("c", P.C_FAIL)
@pytest.mark.parametrize("T", P.LENGTHS)
def test_returns_are_the_normalised_sums(T, c):
    for success in (True, False):
        close(recap.returns(T, success, P.LIMIT, c), return_list(T, success, c),
              f"c_fail={c}: sum the rewards from t to the end, divide by max_length + c_fail; "
              "None is max_length, 0 is 0 (truthiness takes one for the other)")


def test_no_failure_outranks_a_success():
    R = {ok: np.concatenate([recap.returns(T, ok, P.LIMIT) for T in P.LENGTHS]) for ok in (True, False)}
    check(R[False].max() <= R[True].min(), "with c_fail = max_length failures lie in [-1, -1/2], successes in [-1/2, 0]")
    check(R[False].min() >= -1 and R[True].max() == 0, "returns lie in [-1, 0]")


@pytest.mark.parametrize("T", P.LENGTHS)
def test_clipped_returns(T):
    close(recap.returns(T, False, P.LIMIT, clip=True), np.full(T, -1.0), "clip=True: R / max_length, at least -1")
    close(recap.returns(T, True, P.LIMIT, clip=True), -np.arange(T)[::-1] / P.LIMIT, "clip=True: R / max_length, at least -1")


def test_returns_refuse_too_long_an_episode():
    for T in (0, P.LIMIT + 1):
        try:
            recap.returns(T, True, P.LIMIT)
        except ValueError:
            continue
        check(False, f"{T} steps under a limit of {P.LIMIT}: raise ValueError, such returns would leave [-1, 0]")


def some_values(T):
    return np.random.default_rng(P.SEED).uniform(-1, 0, T)


@pytest.mark.parametrize("n", [*P.LOOKAHEADS, None])
@pytest.mark.parametrize("T", P.LENGTHS)
def test_advantages_are_the_n_step_sums(T, n):
    for success in (True, False):
        R, V = return_list(T, success), some_values(T)
        r, N = np.array(reward_list(T, success, P.LIMIT)) / (2 * P.LIMIT), T if n is None else n
        expected = [sum(r[t:t + N]) + (V[t + N] if t + N < T else 0) - V[t] for t in range(T)]
        close(recap.advantages(R, V, n), np.array(expected),
              f"T={T}, n={n}: N rewards (as R_t - R_t+N), plus V N steps later, minus V now; N = None looks to the end")


def test_past_the_end_there_is_nothing_to_bootstrap_from():
    T = max(P.LENGTHS)
    R, V, n = return_list(T, False), some_values(T), max(2, min(P.LOOKAHEADS))
    close(recap.advantages(R, V, n)[-n:], (R - V)[-n:], "in the last N steps the sum runs to the end and no V is added: "
          "the last V again, or a padded 0, would inflate just the steps before a failure")


def test_advantages_leave_their_arguments_alone():
    T = max(P.LENGTHS)
    R, V = return_list(T, True), some_values(T)
    R_before, V_before = R.copy(), V.copy()
    recap.advantages(R, V, 2)
    check((R == R_before).all() and (V == V_before).all(), "work on a copy: the caller's returns and values have changed")

"""Exercise 2: Eq. (5), returns in (-1, 0), n-step advantages."""
import numpy as np
import pytest

import parameters as P
from checks import check, close, refused
import labels

def reward_list(T, success, c):
    return [-1.0] * (T - 1) + [0.0 if success else -float(c)]

def return_list(T, success, c=None):
    """R' of an episode, term by term."""
    if c is None:
        c = P.LIMIT
    r = reward_list(T, success, c)
    return np.array([sum(r[t:]) / (P.LIMIT + c) for t in range(T)])

@pytest.mark.parametrize("T", P.LENGTHS)
def test_rewards_count_steps_and_punish_failure(T):
    for success in (True, False):
        hint = f"success={success}: -1 for every step but the last, which gets 0 or -C_fail"
        r = labels.rewards(T, success, P.LIMIT)
        close(r, reward_list(T, success, P.LIMIT), f"{hint} (not -1 - C_fail)")

def test_rewards_want_a_label():
    hint = "success=None means not labelled yet; `if success` takes it for a failure,"
    refused(f"{hint} `is not False` for a success", labels.rewards, 3, None, P.LIMIT)

@pytest.mark.parametrize("c", P.C_FAIL)
@pytest.mark.parametrize("T", P.LENGTHS)
def test_returns_are_the_normalised_sums(T, c):
    for success in (True, False):
        hint = f"c_fail={c}: sum the rewards from t to the end, divide by max_length + c_fail;"
        hint += " None is max_length, 0 is 0 (truthiness takes one for the other)"
        close(labels.returns(T, success, P.LIMIT, c), return_list(T, success, c), hint)

def test_no_failure_outranks_a_success():
    of = {}
    for ok in (True, False):
        of[ok] = np.concatenate([labels.returns(T, ok, P.LIMIT) for T in P.LENGTHS])
    hint = "with c_fail = max_length failures lie in [-1, -1/2], successes in [-1/2, 0]"
    check(of[False].max() <= of[True].min(), hint)
    check(of[False].min() >= -1 and of[True].max() == 0, "returns lie in [-1, 0]")

@pytest.mark.parametrize("T", P.LENGTHS)
def test_clipped_returns(T):
    hint = "clip=True: R / max_length, at least -1"
    close(labels.returns(T, False, P.LIMIT, clip=True), np.full(T, -1.0), hint)
    close(labels.returns(T, True, P.LIMIT, clip=True), -np.arange(T)[::-1] / P.LIMIT, hint)

def test_returns_refuse_too_long_an_episode():
    for T in (0, P.LIMIT + 1):
        hint = f"{T} steps under a limit of {P.LIMIT}: raise ValueError, such returns would leave"
        refused(f"{hint} [-1, 0]", labels.returns, T, True, P.LIMIT)

def some_values(T):
    return np.random.default_rng(P.SEED).uniform(-1, 0, T)

@pytest.mark.parametrize("n", [*P.LOOKAHEADS, None])
@pytest.mark.parametrize("T", P.LENGTHS)
def test_advantages_are_the_n_step_sums(T, n):
    for success in (True, False):
        R = return_list(T, success)
        V = some_values(T)
        r = np.array(reward_list(T, success, P.LIMIT)) / (2 * P.LIMIT)
        N = T if n is None else n
        expected = []
        for t in range(T):
            later = V[t + N] if t + N < T else 0
            expected.append(sum(r[t : t + N]) + later - V[t])
        hint = f"T={T}, n={n}: N rewards (as R_t - R_t+N), plus V N steps later, minus V now;"
        close(labels.advantages(R, V, n), np.array(expected), f"{hint} N = None looks to the end")

def test_past_the_end_there_is_nothing_to_bootstrap_from():
    T = max(P.LENGTHS)
    R = return_list(T, False)
    V = some_values(T)
    n = max(2, min(P.LOOKAHEADS))
    hint = "in the last N steps the sum runs to the end and no V is added: the last V again, or a"
    hint += " padded 0, would inflate just the steps before a failure"
    close(labels.advantages(R, V, n)[-n:], (R - V)[-n:], hint)

def test_advantages_leave_their_arguments_alone():
    T = max(P.LENGTHS)
    R = return_list(T, True)
    V = some_values(T)
    R_before = R.copy()
    V_before = V.copy()
    labels.advantages(R, V, 2)
    hint = "work on a copy: the caller's returns and values have changed"
    check((R == R_before).all() and (V == V_before).all(), hint)

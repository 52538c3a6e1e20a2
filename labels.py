"""From episodes to indicators: rewards, returns, advantages, the threshold, I_t.  NumPy alone.

Somebody with a VLA and a value function of their own can copy this one file.

    Eq. 5      r_t                    rewards
    Sec. V-C   R_t in (-1, 0)         returns
    App. F     A(o_t, a_t)            advantages
    App. F     ε_ℓ                    threshold
    Eq. 3      I_t = 1(A_t > ε_ℓ)     indicators
    App. F     I_t of a dataset       label

An episode has T steps, t = 0 ... T - 1: the paper's last index T is T - 1 here.
Deviations (docs/DEVIATIONS.md): 3 the ends of A, 4 the range of R, 5 ε_ℓ's population, 6 how many
are positive and when labels are made.
"""
import math

import numpy as np

# ---------------------------------------------------------------- one episode

def rewards(length: int, success: bool, c_fail: float) -> np.ndarray:
    """Eq. 5: -1 per step; at the last step 0 on success, -C_fail on failure.

    length: T, in steps.  c_fail: C_fail, in steps.
    success: the episode's label; None (not labelled yet) is a ValueError.
    Returns float (T,).
    """
    if success is None:
        raise ValueError("success: None, expected True or False (label the episode first)")
    r = np.full(length, -1.0)  # (T,)
    r[-1] = 0.0 if success else -float(c_fail)
    return r

def returns(
    length: int, success: bool, max_length: int, c_fail: float | None = None, clip: bool = False
) -> np.ndarray:
    """Sec. V-C: R_t = Σ_{t' >= t} r_{t'}, normalised per task to [-1, 0].

    length, success: as `rewards`; ValueError for a length of 0, or above max_length.
    max_length: the task's limit, in steps.
    c_fail: C_fail, in steps; None is max_length.
    clip: the variant max(R / max_length, -1), instead of R / (max_length + C_fail).
    Returns float (T,) in [-1, 0].
    """
    if not 1 <= length <= max_length:
        raise ValueError(f"length: {length}, expected 1 to max_length = {max_length}")
    if c_fail is None:
        c_fail = max_length
    # A sum from the end: R_t = r_t + R_{t+1}.
    R = np.cumsum(rewards(length, success, c_fail)[::-1])[::-1]  # (T,)
    if clip:
        return np.maximum(R / max_length, -1.0)
    # With C_fail = max_length successes fill [-1/2, 0] and failures [-1, -1/2]:
    # no failed step outranks a successful one.
    return R / (max_length + c_fail)

def advantages(returns: np.ndarray, values: np.ndarray, n: int | None = None) -> np.ndarray:
    """App. F: A(o_t, a_t) = Σ_{t'=t}^{t+N-1} r_{t'} + V(o_{t+N}) - V(o_t), for one episode.

    returns: R_t, float (T,).  values: V(o_t), float (T,), normalised as the returns are.
    n: N, in steps; None is N = T (pre-training).  Past the end: all rewards, and no V(o_{t+N}).
    Returns float (T,).
    """
    returns = np.asarray(returns, float)  # (T,)
    values = np.asarray(values, float)  # (T,)
    if returns.shape != values.shape or returns.ndim != 1:
        raise ValueError(f"values: shape {values.shape}, expected that of returns, {returns.shape}")
    if n is not None and n < 1:
        raise ValueError(f"n: {n}, expected at least 1, or None for N = T")
    # Summed to the end, rewards are R_t.  That is all for N = T, and for the last N steps of an
    # episode: they have no o_{t+N}.
    A = returns - values
    if n is not None and n < len(A):
        # Elsewhere V(o_{t+N}) takes the place of what comes after N steps: Σ r = R_t - R_{t+N}.
        A[:-n] += values[n:] - returns[n:]
    return A

def threshold(advantages: np.ndarray, positive_fraction: float) -> float:
    """App. F: ε_ℓ such that `positive_fraction` of the advantages lie above it.

    advantages: float (M,), of all steps that count.  positive_fraction: in [0, 1].
    ValueError for a fraction outside, for no advantages, and where one is not finite.
    """
    A = np.sort(np.asarray(advantages, float))  # (M,), ascending
    if len(A) == 0 or not np.isfinite(A).all():
        raise ValueError(f"advantages: {len(A)} values, expected at least one and all finite")
    if not 0 <= positive_fraction <= 1:
        raise ValueError(f"positive_fraction: {positive_fraction}, expected a number in [0, 1]")
    # An order statistic: rounded, that many lie above.
    n_positive = round(positive_fraction * len(A))
    if n_positive == len(A):
        return -math.inf
    # The largest one that is not positive: `indicators` asks for more, so ties are negative.
    return float(A[len(A) - n_positive - 1])

def indicators(
    advantages: np.ndarray, epsilon: float, correction: np.ndarray | None = None
) -> np.ndarray:
    """Eq. 3: I_t = 1(A_t > ε_ℓ), and True for human corrections (Sec. IV-B).

    advantages: A_t, float (T,).  epsilon: ε_ℓ of the episode's task.
    correction: bool (T,), the steps in which an expert took over from a policy; None: nowhere.
    Returns bool (T,).  ValueError for NaN.
    """
    advantages = np.asarray(advantages, float)
    if np.isnan(advantages).any():
        raise ValueError("advantages: NaN, expected numbers (was V computed for every step?)")
    positive = advantages > epsilon  # (T,)
    return positive if correction is None else positive | np.asarray(correction, bool)

# ---------------------------------------------------------------- a dataset

def label(values, episodes, s, iteration) -> list:
    """I_t of every step of a dataset (lines 2 and 9 of Algorithm 1).

    values: V(o_t), a list of float (T,), one array per episode (`value.predict_values`).
    episodes: a list of `data.Episode`, or of anything with its task, success, max_length, source,
    iteration, intervention and len().
    s: `Settings`, or anything with its lookahead, c_fail, clip_returns, force_corrections,
    positive_pretraining, seed and positive_for(task).
    iteration: k; 0 is pre-training; None takes the newest iteration of each task.
    Returns a list of bool (T,), one array per episode.
    """
    # What each action was worth, how much is enough on its task, and whether it was.
    A = step_advantages(values, episodes, s, iteration)
    epsilon = thresholds(A, episodes, s, iteration)
    I = []
    for e, advantage in zip(episodes, A):
        # An expert who corrects is taken to be right (Sec. IV-B).
        correction = e.intervention if s.force_corrections else None
        I.append(indicators(advantage, epsilon[e.task], correction))
    return I

def all_positive(episodes) -> list:
    """I_t = True for every step: the SFT stage (Sec. V-D).  Arguments as `label`."""
    return [np.ones(len(episode), bool) for episode in episodes]

def step_advantages(values, episodes, s, iteration) -> list:
    """A of every step: a list of float (T,).  Arguments as `label`."""
    # Pre-training looks to the end of the episode, fine-tuning N steps ahead (App. F).
    n = None if iteration == 0 else s.lookahead
    sums = episode_returns(episodes, s)
    if s.clip_returns:
        # Clipped, R no longer says what the steps of a failure cost.  R / max_length does.
        sums = [
            (1 + s.c_fail) * returns(len(e), e.success, e.max_length, s.c_fail * e.max_length)
            for e in episodes
        ]
    return [advantages(R, V, n) for R, V in zip(sums, values)]

def episode_returns(episodes, s) -> list:
    """R of every step: a list of float (T,).  Arguments as `label`."""
    # The setting s.c_fail is in limits of the task, the function takes steps.
    return [
        returns(len(e), e.success, e.max_length, s.c_fail * e.max_length, s.clip_returns)
        for e in episodes
    ]

def thresholds(step_advantages, episodes, s, iteration) -> dict:
    """ε_ℓ of every task in a dataset: {task: float}.

    step_advantages: A, a list of float (T,), one array per episode; the rest as `label`.
    ValueError names a task without steps to judge by.
    """
    rng = np.random.default_rng([22, s.seed])  # for the sample of pre-training
    epsilon = {}
    for task in sorted({e.task for e in episodes}):
        own = [(e, A) for e, A in zip(episodes, step_advantages) if e.task == task]
        if iteration == 0:
            # Pre-training: "a random sample of 10k datapoints" of the demonstrations (App. F).
            pool = np.concatenate([A for _, A in own])  # (M,)
            pool = rng.choice(pool, min(10_000, len(pool)), replace=False)
            epsilon[task] = threshold(pool, s.positive_pretraining)
            continue
        # Fine-tuning: "the evaluation rollouts in each iteration" (App. F), so the newest
        # autonomous ones.  Demonstrations, older data and corrections have no part in it.
        newest = iteration
        if iteration is None:
            newest = max((e.iteration for e, _ in own if e.source == "autonomous"), default=None)
        pool = [A for e, A in own if e.source == "autonomous" and e.iteration == newest]
        if not pool:
            none = f"no autonomous one of task {task!r} in iteration {newest}"
            raise ValueError(f"episodes: {none}, expected some for ε_ℓ")
        epsilon[task] = threshold(np.concatenate(pool), s.positive_for(task))
    return epsilon

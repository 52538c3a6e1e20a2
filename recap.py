import math
import time
from dataclasses import dataclass, field, fields, asdict, replace

import numpy as np
import torch
from tqdm import tqdm

import sim_tasks
from backbone import encode
from data import Episode
from policy import PROMPT_LENGTH, SUBTASK_LENGTH, VLA, draw_noise, predict_subtask, sample_actions
from sim_tasks.arms import CONTROL_HZ, World
from sim_tasks.demonstrator import COACH, GOOD, MIXED, Gate, Operator
from value import ValueFunction, expected_value, value_loss


# ---------------------------------------------------------------- from episodes to labels (Sec. V-C, App. F)

def rewards(length, success, c_fail):
    """Eq. (5): -1 per step; the last entry is 0 on success, -c_fail on failure.  -> float (T,), T = length."""
    r = -np.ones(length)
    r[-1] = 0.0 if success else -float(c_fail)
    return r


def returns(length, success, max_length, c_fail=None, clip=False):
    """R_t = Σ_{t'>=t} r_t', normalised per task to (-1, 0) (Sec. V-C).  -> float (T,) in [-1, 0].

    R' = R / (max_length + c_fail); c_fail in steps, None is max_length.  Then successes lie in [-1/2, 0] and
    failures in [-1, -1/2]: no failed step outranks a successful one.  clip=True is the variant
    max(R / max_length, -1).  ValueError where success is None (not labelled) or length exceeds max_length.
    """
    if success is None:
        raise ValueError("success: None, expected True or False (label the episode before asking for its returns)")
    if not 1 <= length <= max_length:
        raise ValueError(f"length: {length}, expected 1 to max_length = {max_length}")
    c_fail = max_length if c_fail is None else c_fail
    R = np.cumsum(rewards(length, success, c_fail)[::-1])[::-1]
    return np.maximum(R / max_length, -1.0) if clip else R / (max_length + c_fail)


def advantages(returns, values, n=None):
    """App. F: A(o_t, a_t) = Σ_{t'=t}^{t+N-1} r'_t' + V(o_{t+N}) - V(o_t), for one episode.  -> float (T,)

    returns (T,) normalised as `values` (T,) are; n = None is N = T (pre-training): A = R_t - V(o_t).
    r' = R_t - R_{t+1}, so the sum telescopes to R_t - R_{t+N}.  Past the end of the episode there is nothing to
    bootstrap from (a time-out is a failure, not a truncation): the sum runs to T and A = R_t - V(o_t).
    (App. F prints the pre-training sum from t' = 0; read as t' = t, else it would be no advantage.)
    """
    returns, values = np.asarray(returns, float), np.asarray(values, float)
    if returns.shape != values.shape or returns.ndim != 1:
        raise ValueError(f"values: shape {values.shape}, expected that of returns, {returns.shape}")
    if n is not None and n < 1:
        raise ValueError(f"n: {n}, expected at least 1, or None for N = T")
    A = returns - values
    if n is not None and n < len(A):
        A[:-n] += values[n:] - returns[n:]
    return A


def threshold(advantages, positive_fraction):
    """ε_ℓ such that `positive_fraction` of `advantages` (M,) is > ε_ℓ (App. F).  -> float

    That is the (1 - positive_fraction) quantile, taken as an order statistic: M·fraction values (rounded) lie
    strictly above it, less where values tie.  Sec. V-D's "30 % percentile of the values" contradicts App. F's
    "approximately 30 % ... positive advantage"; we follow App. F.
    """
    A = np.sort(np.asarray(advantages, float))
    if len(A) == 0 or not np.isfinite(A).all():
        raise ValueError(f"advantages: {len(A)} values, expected at least one and all finite")
    if not 0 <= positive_fraction <= 1:
        raise ValueError(f"positive_fraction: {positive_fraction}, expected a number in [0, 1]")
    n_positive = round(positive_fraction * len(A))
    return float(A[len(A) - n_positive - 1]) if n_positive < len(A) else -math.inf


def indicators(advantages, epsilon, correction=None):
    """Eq. (3): I_t = 1(A_t > ε_ℓ); True where the operator corrected (Sec. IV-B).  -> bool (T,)"""
    positive = np.asarray(advantages) > epsilon
    return positive if correction is None else positive | np.asarray(correction, bool)


# ---------------------------------------------------------------- episodes as tensors

def stack_steps(episodes, horizon=8, device="cpu"):
    """All steps of all episodes in a row.  -> dict of tensors with leading axis M = Σ T.

    state (M, 6), keypoints (M, 4, 17), prompt (M, 3) and subtask (M, 2) ids, actions (M, H, A): the chunk
    a_{t:t+H} as sent, its last action repeated past the end of the episode.
    """
    if not episodes:
        raise ValueError("episodes: an empty dataset, expected at least one episode")
    prompts, subtasks, chunks = [], [], []
    for e in episodes:
        window = np.minimum(np.arange(len(e))[:, None] + np.arange(horizon), len(e) - 1)      # (T, H)
        chunks.append(e.actions[window])                                                      # (T, H, A)
        prompts += [encode(e.prompt, PROMPT_LENGTH)] * len(e)
        names, index = np.unique(e.subtask, return_inverse=True)
        subtasks.append(np.array([encode(str(name), SUBTASK_LENGTH) for name in names])[index])   # (T, 2)
    steps = {key: np.concatenate([e.observations[key] for e in episodes]) for key in ("state", "keypoints")}
    steps |= {"actions": np.concatenate(chunks).astype(np.float32)}
    steps |= {"prompt": np.array(prompts), "subtask": np.concatenate(subtasks)}
    return {key: torch.as_tensor(value).to(device) for key, value in steps.items()}


def take(steps, index):
    return {key: value[index] for key, value in steps.items()}


def split(array, episodes):
    """Cut an array with leading axis M = Σ T back into one piece per episode."""
    return np.split(array, np.cumsum([len(e) for e in episodes])[:-1])


def optimise(network, loss, n_steps, lr, label):
    """AdamW with a short warm-up and a cosine to zero; `loss()` draws a batch.  One loop for V, π and baselines."""
    optimizer = torch.optim.AdamW(network.parameters(), lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    warmup = min(50, n_steps // 10 + 1)
    rate = lambda i: min((i + 1) / warmup, 1.0) * 0.5 * (1 + math.cos(math.pi * i / n_steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    network.train()
    bar = tqdm(range(n_steps), desc=label, leave=False, mininterval=0.5)
    for i in bar:
        value = loss()
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if i % 50 == 0:
            bar.set_postfix(loss=f"{value.item():.3f}")
    return network.eval()


def train_value(value, episodes, n_steps, batch=256, lr=1e-3, seed=0, c_fail=None):
    steps = stack_steps(episodes)
    R = torch.as_tensor(np.concatenate([returns(len(e), e.success, e.max_length, c_fail) for e in episodes])).float()
    g = torch.Generator().manual_seed(seed)
    def loss():
        i = torch.randint(len(R), (batch,), generator=g)
        b = take(steps, i)
        return value_loss(value(b, b["prompt"]), R[i])
    return optimise(value, loss, n_steps, lr, "V")


@torch.no_grad()
def values_of(value, episodes):
    steps = stack_steps(episodes)
    out = torch.cat([expected_value(value(b, b["prompt"])) for b in
        (take(steps, slice(i, i + 4096)) for i in range(0, len(steps["prompt"]), 4096))])
    return split(out.numpy().astype(float), episodes)


def train_policy(policy, episodes, positive, n_steps, batch=128, lr=2e-3, draws=4, dropout=0.3, seed=0, fit=False, log=None):
    steps = stack_steps(episodes, policy.config.horizon)
    if fit: policy.fit_normalizer(steps["actions"], steps["state"])
    steps["chunk"] = policy.normalize(steps.pop("actions"), steps["state"])
    steps["tokens"] = policy.tokenizer.encode(steps["chunk"])
    steps["positive"] = torch.as_tensor(np.concatenate(positive))
    g = torch.Generator().manual_seed(seed)
    M = len(steps["chunk"])
    def loss():
        b = take(steps, torch.randint(M, (batch,), generator=g))
        b["omit"] = torch.rand(batch, generator=g) < dropout
        chunk = b["chunk"][:, None].expand(-1, draws, -1, -1)
        omega, eta = draw_noise(chunk.flatten(0, 1), g)
        t = policy.terms(b, omega.view(chunk.shape), eta.view(batch, draws))
        return t["subtask"].mean() + t["tokens"].mean() + 10*t["flow"].mean()
    return optimise(policy, loss, n_steps, lr, "pi")


def rollouts(spec, seeds, policy=None, beta=1.0, indicator=True, operator=None, coach=False, source="autonomous",
             iteration=0, noise_seed=0, execute=4, subtask_every=2, euler=5):
    """Run len(seeds) episodes side by side; by the policy, by an operator, or by the policy with a coach."""
    world = World(spec, seeds)
    n = world.n
    g = torch.Generator().manual_seed(noise_seed)
    gate = Gate(world) if coach else None
    if coach: operator = Operator(world, seeds, COACH)
    obs_log, act_log, sub_log, int_log, live_log = [], [], [], [], []
    chunk = np.zeros((n, 8, 6)); prompt = None
    in_control = np.zeros(n, bool)
    if policy is not None:
        prompt = torch.tensor([encode(spec.prompt, PROMPT_LENGTH)] * n)
        subtask = torch.zeros(n, SUBTASK_LENGTH, dtype=torch.long)
    for t in range(spec.max_steps):
        live = ~world.done
        if not live.any(): break
        obs = world.observe()
        if gate is not None:
            wants = gate.update(world)
            in_control = wants | (in_control & (t % execute != 0))   # he hands back where a new chunk begins
        if policy is not None:
            if t % execute == 0:
                rows = torch.as_tensor(np.flatnonzero(live))
                o = {k: torch.as_tensor(v)[rows] for k, v in obs.items()}
                if t % (execute * subtask_every) == 0:
                    subtask[rows] = predict_subtask(policy, o, prompt[rows])
                omega = torch.randn(n, 8, 6, generator=g)[rows]
                chunk[rows] = sample_actions(policy, o, prompt[rows], subtask[rows], indicator, beta, euler, omega)
            actions = chunk[:, t % execute].copy()
        else:
            actions = operator.act(world)
        if gate is not None and in_control.any():
            actions[in_control] = operator.act(world)[in_control]
        actions = actions.astype(np.float32)
        obs_log.append(obs); act_log.append(actions); sub_log.append(world.subtasks()); int_log.append(in_control.copy())
        world.step(actions)
    episodes = []
    actions, subtasks, interventions = np.stack(act_log, 1), np.stack(sub_log, 1), np.stack(int_log, 1)
    observations = {k: np.stack([o[k] for o in obs_log], 1) for k in obs_log[0]}
    for i in range(n):
        T = world.t[i]
        episodes.append(Episode(task=spec.name, prompt=spec.prompt, max_length=spec.max_steps,
            observations={k: v[i, :T] for k, v in observations.items()}, actions=actions[i, :T], subtask=subtasks[i, :T],
            intervention=interventions[i, :T], success=bool(world.success[i]), stages=np.arange(len(spec.stages)) < world.stage[i],
            source=source, iteration=iteration))
    return episodes


def score(episodes):
    s = np.array([e.success for e in episodes], float); T = np.array([len(e) for e in episodes])
    return dict(success=s.mean(), throughput=s.sum() / (T.sum() / CONTROL_HZ / 3600), T=T[s > 0].mean() / CONTROL_HZ if s.any() else float("nan"))

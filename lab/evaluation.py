"""How good a policy is: success and throughput on evaluation episodes (Sec. VI-C)."""
import math
import time

import numpy as np
import torch

from collection import demonstrate, roll_out
from data import episode_seeds, stack_steps
from policy import predict_subtask
from sim_tasks import find_task

def score(episodes):
    """Sec. VI-C: success rate and throughput, with standard errors.

    Throughput is successes per simulated hour, the time of failures included; resets do not count.
    Returns a dict of numbers:
    success, success_se: in 0-1.  throughput, throughput_se: per hour.  episodes: how many.
    failed_early: share that failed before the time limit (wrong way, dropped, spilled).
    mean_seconds: of the successes, None without one.  per_stage_success: a list, one per stage.
    """
    n = len(episodes)
    if n == 0 or any(e.success is None for e in episodes):
        raise ValueError(f"episodes: {n}, expected at least one, all labelled")
    success = np.array([e.success for e in episodes], float)  # (n,), 0 or 1
    hours = np.array([len(e) / e.hz / 3600 for e in episodes])  # (n,)
    rate = success.mean()
    throughput = success.sum() / hours.sum()
    # Standard error of a ratio of means (delta method).  The residual of an episode: successes
    # beyond those that its time is worth.
    residual = success - throughput * hours
    spread = math.sqrt((residual**2).sum() / n / max(n - 1, 1))
    early = [not e.success and len(e) < e.max_length for e in episodes]
    return {
        "success": rate,
        "failed_early": float(np.mean(early)),
        "success_se": math.sqrt(rate * (1 - rate) / n),
        "throughput": throughput,
        "throughput_se": spread / hours.mean(),
        "mean_seconds": 3600 * (success * hours).sum() / success.sum() if success.any() else None,
        "episodes": n,
        "per_stage_success": np.mean([e.stages for e in episodes], axis=0).tolist(),
    }

def evaluate(s, name, policy, beta=1.0, indicator=True, task=None):
    """One row of the table: a policy on the evaluation episodes, the same ones for all policies.

    name: of the stage, in the row.  beta, indicator: as `policy.sample_actions`.
    task: None is the run's own.  Tasks with items are measured on the hardest one, as the paper
    does, and on as many episodes of all items, which "items" reports one by one.
    """
    begun = time.time()
    task = s.target if task is None else find_task(task)
    seeds = episode_seeds(s.seed, "evaluation", s.evaluation_episodes)
    how = {"beta": beta, "indicator": indicator, "metadata": s.evaluation_metadata}
    episodes = roll_out(s, task, seeds, policy, item=task.measured, **how)
    row = {"name": name, "beta": beta} | score(episodes)
    row["subtask_accuracy"] = subtask_accuracy(policy, episodes, s)
    if task.items:
        episodes = roll_out(s, task, seeds, policy, **how)
        row["items"] = {}
        for item in task.items:
            about = [e for e in episodes if e.prompt == f"{task.prompt} {item.name}"]
            if about:
                row["items"][item.name] = score(about)
    return row | {"seconds": time.time() - begun}

def evaluate_demonstrations(s):
    """The same row for operators like those of pre-training, on as many episodes."""
    seeds = episode_seeds(s.seed, "evaluated demonstrations", s.evaluation_episodes)
    episodes = demonstrate(s.target, seeds, "mixed", item=s.target.measured)
    return {"name": "demonstrations", "beta": None} | score(episodes) | {"seconds": 0.0}

def subtask_accuracy(policy, episodes, s):
    """Share of the steps under which the subtask ℓ̂ that the policy acts by is the annotated one.

    ℓ̂ is predicted every s.subtask_every chunks and kept in between: a new one is seen late.
    """
    device = next(policy.parameters()).device
    every = s.execute * s.subtask_every
    steps = stack_steps(episodes, policy.config.interface, device)
    prompts = steps["described"] if s.evaluation_metadata else steps["prompt"]
    # The step at which the ℓ̂ of every step was predicted.
    held = []
    begin = 0
    for e in episodes:
        held.append(begin + np.arange(len(e)) // every * every)
        begin += len(e)
    when, index = np.unique(np.concatenate(held), return_inverse=True)  # (m,), (M,)
    predicted = []
    for i in range(0, len(when), 1024):
        rows = when[i : i + 1024]
        seen = {name: x[rows] for name, x in steps.items()}
        predicted.append(predict_subtask(policy, seen, prompts[rows]))
    right = torch.cat(predicted)[index] == steps["subtask"]  # (M, 2)
    return right.all(1).float().mean().item()

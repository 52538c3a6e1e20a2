"""RECAP: RL with Experience and Corrections via Advantage-conditioned Policies (Algorithm 1), end to end.

    Algorithm 1                                recap
    Eq. (5)   reward r_t                       rewards
    Sec. V-C  return R_t in (-1, 0)            returns
    App. F    advantage A(o_t, a_t)            advantages
    App. F    threshold ε_ℓ                    threshold
    Eq. (3)   indicator I_t                    indicators, label
    Eq. (3)   objective, 30 % dropout of I_t   eq3_loss, train_policy
    Eq. (1)   value training                   train_value        (Eq. (1) itself: value.value_loss)
    Sec. V-D  autonomous rollouts, human-gated corrections       collect
    Sec. VI-C throughput and success           score

Eqs. (2), (4), (6) to (10), (12) and (13) are in policy.py, Eq. (11) is in baselines.py.  The settings are in
settings.py, batches and the optimiser's loop in training.py, the files of a run in runs.py.

Run it: `python recap.py` (a few minutes on two cores), `python recap.py --quick` for a first look,
`python recap.py --help` for every setting.

Names: s are the settings (the paper's s is called metadata), e an episode, D a list of them, g a generator of random
numbers.  Sizes in shapes: T steps of one episode, t = 0 ... T - 1 (so the paper's last index T is T - 1 here), M = Σ T
steps of a dataset, B steps in a batch, R draws of (ω, η) for each of them, H actions in a chunk, A numbers in an action,
n episodes side by side.  R and A also name the returns and the advantages, as in the paper.

Where the paper leaves a choice or contradicts itself, and where we deviate:
1. ε_ℓ follows App. F (a fraction of *advantages*), not Sec. V-D ("30 % percentile of the values").  2. Its population
in fine-tuning: the autonomous steps of the newest iteration; corrections are True anyway.  3. The n-step sum past the
end: no bootstrap.  4. C_fail is the task's time limit and the range (-1, 0) is filled so that no failed step outranks a
successful one.  5. Eq. (3)'s α is replaced by the dropout, as in App. F.  6. SFT keeps the dropout.  7. Labels are
computed once before a policy is trained, not on the fly: V does not change meanwhile.  8. 20 % of the newest autonomous
steps are positive, on fold_collar 40 % (paper: "generally" 40 %, t-shirts and shorts 10 %).
"""
import copy
import json
import math
import os
import sys
import time
from dataclasses import asdict, dataclass, fields, replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

import plots
import sim_tasks
from adapters import ScriptedOperator
from backbone import encode
from data import load_dataset, load_network, write_atomically
from hardware import Fleet, drive
from policy import (FLOW_WEIGHTS, PROMPT_LENGTH, SUBTASK_LENGTH, PolicyConfig, VLA, draw_noise, predict_subtask,
                    sample_actions)
from runs import Run, summary, table, write_text
from settings import QUICK, Settings, parse
from sim_tasks.arms import BODIES, CONTROL_HZ, STATIC, World
from sim_tasks.demonstrator import GOOD, MIXED, Operator
from sim_tasks.render import draw, write_gif
from training import (draw_prompts, episode_seeds, flow_loss_by_eta, generator, optimise, perceive, predict_values,
                      stack_steps, value_logits, web_batches)
from value import ValueConfig, ValueFunction, value_loss


# ---------------------------------------------------------------- Algorithm 1

def recap(run):
    """Algorithm 1, line by line; `run` (runs.Run) keeps what every line produces, so that a run can be resumed.

    run.data(name, make) and run.net(name, make) call make() only where the folder has no file of that name yet.
    V_pre and pi_pre are copied before they are trained further: every iteration starts from them again.
    """
    s = run.settings
    D_demo = run.data("D_demo", lambda: multi_task_demonstrations(s))
    V_pre = run.net("V_pre", lambda: train_value(new_value(s), D_demo, s, s.value_pretraining_steps))            # line 1
    pi_pre = run.net("pi_pre", lambda: train_policy(                                                             # line 2
        new_policy(s), D_demo, s, s.pretraining_steps, label(V_pre, D_demo, s, iteration=0)))
    # to compare V_pre with: as many as are held out; those of the station's own robot come first in D_demo
    mine = [e for e in D_demo if e.task == s.task][:s.demonstrations]
    check_value(run, "V_pre", V_pre, mine, lambda: demonstrate(s, s.task, MIXED, "held out"))
    evaluate_demonstrations(run)
    evaluate(run, "rl_pretrained", pi_pre)

    # D_ℓ begins with demonstrations of its own, better than those of ℓ in D_demo (Sec. VI-B: "high-quality SFT")
    sft_seeds = episode_seeds(s.seed, f"sft {s.task}", s.demonstrations)
    D = run.data("D_0", lambda: collect_items(s, sft_seeds, operator_skill=GOOD))                                # line 3
    # line 4; nothing reads it: Algorithm 1 labels line 5's data by it, but Sec. V-D fixes I_t = True in this stage
    run.net("V_0", lambda: train_value(copy.deepcopy(V_pre), D, s, s.value_steps))
    pi = run.net("pi_0", lambda: train_policy(                                                                   # line 5
        copy.deepcopy(pi_pre), D, s, s.sft_steps, all_positive(D)))
    evaluate(run, "offline_rl_sft", pi)
    if s.supervised:
        supervised(run, D_demo, D)

    # pi is π^{k-1} until line 9
    for k in range(1, s.iterations + 1):                                                                         # line 6
        D = D + run.data(f"D_{k}", lambda: collect_iteration(s, pi, k))                                          # line 7
        V = run.net(f"V_{k}", lambda: train_value(copy.deepcopy(V_pre), D, s, s.value_steps))                    # line 8
        newest = [e for e in D if e.iteration == k and e.source == "autonomous"]
        check_value(run, f"V_{k}", V, newest, lambda: heldout_rollouts(s, pi, k))
        labels = label(V, D, s, iteration=k)
        count_labels(run, labels, D, k)
        start = pi_pre if s.restart == "pretrained" else pi
        pi = run.net(f"pi_{k}", lambda: train_policy(copy.deepcopy(start), D, s, s.policy_steps, labels))        # line 9
        evaluate(run, f"recap_{k}", pi)
        if s.beta != 1:
            evaluate(run, f"recap_{k}", pi, s.beta)


def supervised(run, D_demo, D):
    """π_0.6 of Sec. VI-B: the same network, data and steps, never shown the indicator; pre-trained, then SFT.

    And in the place of π_0.5, which is older and smaller: one layer of half the width.  dropout=1.0 leaves every
    indicator out, so the labels that `train_policy` is given have no effect.
    """
    s = run.settings
    small = run.net("supervised_small", lambda: train_policy(
        new_policy(s, width=32, layers=1, expert_width=32), D_demo, s, s.pretraining_steps, all_positive(D_demo), dropout=1.0))
    evaluate(run, "supervised_small", small, indicator=None)
    pi_pre = run.net("supervised_pre", lambda: train_policy(
        new_policy(s), D_demo, s, s.pretraining_steps, all_positive(D_demo), dropout=1.0))
    evaluate(run, "supervised", pi_pre, indicator=None)
    pi = run.net("supervised_sft", lambda: train_policy(
        copy.deepcopy(pi_pre), D, s, s.sft_steps, all_positive(D), dropout=1.0))
    evaluate(run, "supervised_sft", pi, indicator=None)


def generalist(run, specialists):
    """The end of Sec. IV-C: one V and one policy from scratch on all D_ℓ, evaluated beside the specialists.

    The paper says no more than that; labels as in fine-tuning (`label` with iteration None) are our choice.
    specialists: folders of finished runs, one per task.  -> {task: the specialist's last stage}
    """
    s, D, theirs = run.settings, [], {}
    for folder in specialists:
        try:
            with open(os.path.join(folder, "metrics.json")) as file:
                metrics = json.load(file)
            for k in range(metrics["settings"]["iterations"] + 1):
                D += load_dataset(os.path.join(folder, f"D_{k}.npz"))
        except FileNotFoundError as error:
            raise ValueError(f"--generalist: there is no {error.filename}, expected the folder of a finished run") from None
        theirs[metrics["task"]] = metrics["stages"][-1]
    V = run.net("V_generalist", lambda: train_value(new_value(s), D, s, s.value_pretraining_steps))
    pi = run.net("pi_generalist", lambda: train_policy(new_policy(s), D, s, s.pretraining_steps, label(V, D, s, None)))
    for task in theirs:
        evaluate(run, f"generalist_{task}", pi, s.beta_for(task), task=task)
    return theirs


def new_value(s):
    """V with random weights (paper: from a pre-trained VLM)."""
    return ValueFunction(ValueConfig(cameras=s.seen_cameras))


def new_policy(s, **size):
    """π with random weights (paper: from a pre-trained VLM).  size: fields of `PolicyConfig`."""
    return VLA(PolicyConfig(cameras=s.seen_cameras, output=s.output, insulation=s.insulation, **size))


def collect_iteration(s, policy, k):
    """Algorithm 1, line 7: autonomous episodes, and some that an expert watches and corrects (Sec. V-D)."""
    episodes = collect_items(s, episode_seeds(s.seed, f"autonomous {k}", s.autonomous), policy=policy, iteration=k)
    if s.corrected:
        seeds = episode_seeds(s.seed, f"corrected {k}", s.corrected)
        episodes += collect_items(s, seeds, policy=policy, coach=True, iteration=k)
    return episodes


def collect_items(s, seeds, **how):
    """`collect` on the target task; where policies are measured on one item, every other episode is about that one."""
    spec = sim_tasks.TASKS[s.task]
    if spec.measured is None:
        return collect(s, spec, seeds, **how)
    return collect(s, spec, seeds[::2], item=spec.measured, purpose=spec.measured, **how) + collect(s, spec, seeds[1::2], **how)


def all_positive(episodes):
    """I = True: the SFT stage (Sec. V-D)."""
    return Labels([np.ones(len(e), bool) for e in episodes], {})


# ---------------------------------------------------------------- from episodes to labels (Sec. V-C, App. F)

def rewards(length, success, c_fail):
    """Eq. (5): -1 per step; the last entry is 0 on success, -c_fail on failure.  -> float (T,), T = length.

    The last entry stands for the paper's r_T.  ValueError where success is None: not labelled yet.
    """
    if success is None:
        raise ValueError("success: None, expected True or False (label the episode before asking for its rewards)")
    r = -np.ones(length)
    r[-1] = 0.0 if success else -float(c_fail)
    return r


def returns(length, success, max_length, c_fail=None, clip=False):
    """R_t = Σ_{t'>=t} r_t', normalised per task to (-1, 0) (Sec. V-C).  -> float (T,) in [-1, 0].

    R' = R / (max_length + c_fail); c_fail in steps, None is max_length.  With None successes lie in [-1/2, 0] and
    failures in [-1, -1/2]: no failed step outranks a successful one.  clip=True is the variant max(R / max_length, -1),
    which puts all steps of a failure at -1 where c_fail >= max_length.  (The paper normalises "per task based on the
    maximum episode length" and does not say how C_fail enters.)
    ValueError where success is None (not labelled) or length exceeds max_length.
    """
    if not 1 <= length <= max_length:
        raise ValueError(f"length: {length}, expected 1 to max_length = {max_length}")
    c_fail = max_length if c_fail is None else c_fail
    # a sum from the end: R_t = r_t + R_{t+1}
    R = np.cumsum(rewards(length, success, c_fail)[::-1])[::-1]
    return np.maximum(R / max_length, -1.0) if clip else R / (max_length + c_fail)


def advantages(returns, values, n=None):
    """App. F: A(o_t, a_t) = Σ_{u=t}^{t+N-1} r_u + V(o_{t+N}) - V(o_t), for one episode.  -> float (T,)

    returns (T,) normalised as `values` (T,) are; n: N in steps, None is N = T (pre-training), where A = R_t - V(o_t).
    The normalised reward is r_u = R_u - R_{u+1}, so the sum telescopes to R_t - R_{t+N}.  Past the end of the episode
    there is nothing to bootstrap from (a time-out is a failure, not a truncation): the sum runs to T, A = R_t - V(o_t).
    (App. F prints the pre-training sum from t' = 0; read as t' = t, else it would be no advantage.)
    """
    returns, values = np.asarray(returns, float), np.asarray(values, float)
    if returns.shape != values.shape or returns.ndim != 1:
        raise ValueError(f"values: shape {values.shape}, expected that of returns, {returns.shape}")
    if n is not None and n < 1:
        raise ValueError(f"n: {n}, expected at least 1, or None for N = T")
    A = returns - values
    if n is not None and n < len(A):       # the last n steps have no V(o_{t+N}): they keep R_t - V(o_t)
        A[:-n] += values[n:] - returns[n:]
    return A


def threshold(advantages, positive_fraction):
    """ε_ℓ such that `positive_fraction` of `advantages` (M,) is > ε_ℓ (App. F).  -> float

    That is the (1 - positive_fraction) quantile, taken as an order statistic: M·fraction values (rounded) lie
    strictly above it, fewer where values tie.
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
    if np.isnan(advantages).any():
        raise ValueError("advantages: NaN, expected numbers (was V computed for every step?)")
    positive = np.asarray(advantages) > epsilon
    return positive if correction is None else positive | np.asarray(correction, bool)


@dataclass
class Labels:
    """I_t of a dataset, and the thresholds behind it."""
    positive: list       # of bool (T,), one per episode
    epsilon: dict        # task -> ε_ℓ, in the units of normalised returns


def episode_returns(episodes, s):
    """`returns` of every episode under the settings (s.c_fail is in time limits, there it is in steps): list of (T,)."""
    return [returns(len(e), e.success, e.max_length, s.c_fail * e.max_length, s.clip_returns) for e in episodes]


def step_advantages(value, episodes, s, n):
    """A of every step under V: list of float (T,), one per episode.  n: N, None is N = T."""
    return [advantages(R, V, n) for R, V in zip(episode_returns(episodes, s), predict_values(value, episodes))]


def label(value, episodes, s, iteration):
    """Indicators of all episodes under V (lines 2 and 9 of Algorithm 1; App. F).

    iteration 0 is pre-training: N = T, ε_ℓ per task on a sample of 10,000 of its steps.  Later: N = s.lookahead, ε_ℓ on
    the autonomous steps of that iteration; older data and demonstrations are judged by the same ε_ℓ.  None: of each
    task's newest iteration (the generalist).  Steps of corrected episodes have no part in ε_ℓ; those in which the
    operator was in control are True (unless s.force_corrections is off), the others are judged like all.
    -> `Labels`
    """
    n = None if iteration == 0 else s.lookahead
    A = step_advantages(value, episodes, s, n)
    epsilon, rng = {}, np.random.default_rng([22, s.seed])                               # rng: for the 10,000 steps
    for task in sorted({e.task for e in episodes}):
        newest = max(e.iteration for e in episodes if e.task == task) if iteration is None else iteration
        mine = [a for a, e in zip(A, episodes) if e.task == task
                and (iteration == 0 or (e.source == "autonomous" and e.iteration == newest))]
        if not mine:
            raise ValueError(f"episodes: no autonomous one of task {task!r} in iteration {newest if iteration is None else iteration}, "
                             "expected some for ε_ℓ")
        pool = np.concatenate(mine)                                                      # (M,)
        if iteration == 0:
            pool = rng.choice(pool, min(10_000, len(pool)), replace=False)
        epsilon[task] = threshold(pool, s.positive_pretraining if iteration == 0 else s.positive_for(task))
    correction = lambda e: e.intervention if s.force_corrections else None
    return Labels([indicators(a, epsilon[e.task], correction(e)) for a, e in zip(A, episodes)], epsilon)


# ---------------------------------------------------------------- training (Eqs. 1 and 3)

def train_value(value, episodes, s, n_steps):
    """Minimise Eq. (1) over the steps of `episodes`, and the answers to web questions if asked.  -> (value, log)

    Steps are drawn uniformly from all episodes: Eq. (1)'s sum over τ's steps, so a long episode counts for more.
    """
    kept = [e for e in episodes if s.value_on_corrections or e.source != "corrected"]
    steps = stack_steps(kept, s.device, cameras=value.config.cameras)
    R = torch.as_tensor(np.concatenate(episode_returns(kept, s)), dtype=torch.float32, device=s.device)   # (M,)
    # another stream of batches for every dataset, named by its size; ask: draws web questions, None without --web
    g, ask = generator(s.seed, f"value {len(R)}"), web_batches(s, value.config.cameras, s.web, s.value_batch, "web value")

    def draw_loss():
        index = torch.randint(len(R), (s.value_batch,), generator=g)
        batch = {key: x[index] for key, x in steps.items()}
        if s.metadata:
            draw_prompts(batch, s.metadata_dropout, g)
        loss = value_loss(value(batch, batch["prompt"]), R[index])
        return loss if ask is None else loss + s.web * answer_loss(value, ask())     # as in one mixed batch

    value = optimise(value.to(s.device), draw_loss, n_steps, s.value_learning_rate, "value")
    return value, {"correlation": correlation(value, kept, s)}


def answer_loss(network, web):
    """Co-training (Secs. V-A, V-C): cross-entropy of the answers, through the backbone that the data trains, too.  -> scalar"""
    logits = network.answer_logits(web, web["question"], web["answer"])                   # (n, 2, words)
    return F.cross_entropy(logits.flatten(0, 1), web["answer"].flatten())                 # (n*2, words), (n*2,)


def correlation(value, episodes, s):
    """Pearson correlation of V with the return over all steps; None where one of them is constant."""
    V, R = np.concatenate(predict_values(value, episodes)), np.concatenate(episode_returns(episodes, s))
    return float(np.corrcoef(V, R)[0, 1]) if V.std() > 0 and R.std() > 0 else None


def mean_value_loss(value, episodes, s):
    """Eq. (1) over all steps of `episodes`: what overfits when data are few."""
    logits = torch.cat(value_logits(value, episodes))                                     # (M, B)
    R = torch.as_tensor(np.concatenate(episode_returns(episodes, s)), dtype=torch.float32, device=logits.device)   # (M,)
    return value_loss(logits, R).item()


def eq3_loss(policy, batch, omega, eta, tokens=1.0, weight=None):
    """Eq. (3) by way of Eq. (4): subtask + tokens · action tokens + 10 · flow, each term's mean over the batch.  -> scalar

    Action tokens and flow are the negative bound of Eq. (4); the subtask's term is -log π(ℓ̂ | o, ℓ) of Sec. V-A.  With a
    dropout of p the batches hold (1 - p) [-log π(a | I, o)] + p [-log π(a | o)]: p times Eq. (3), with α = (1 - p) / p.
    Tokens and flow train disjoint weights (knowledge insulation) and Adam ignores a constant factor, so the 10 only
    brings the two gradients to one size for the common clipping.
    tokens: weight of the action tokens' term; weight: α_η of Eq. (4), a callable (policy.FLOW_WEIGHTS).
    """
    terms = policy.terms(batch, omega, eta, weight)
    return terms["subtask"].mean() + tokens * terms["tokens"].mean() + 10 * terms["flow"].mean()


def train_policy(policy, episodes, s, n_steps, labels, loss=None, columns=None, dropout=None, keep=None):
    """Minimise Eq. (3) over the steps of `episodes`, I_t omitted at random.  -> (policy, log)

    loss(policy, batch, omega (B, R, H, A), eta (B, R)) -> scalar: eq3_loss when None, the baselines pass their own;
    columns: more per-step arrays (M,) for its batch; dropout: s.dropout when None, 1 trains without the indicator;
    keep: bool (M,), the steps to draw from, all when None.  batch: see `VLA.terms`.  Trains `policy` in place.
    """
    loss = partial(eq3_loss, tokens=float(s.token_loss), weight=FLOW_WEIGHTS[s.flow_weight]) if loss is None else loss
    steps = stack_steps(episodes, s.device, policy.config.horizon, policy.config.cameras)
    policy.to(s.device)
    rate = s.fine_tuning_rate if policy.fitted else s.learning_rate
    if not policy.fitted:         # pre-training: the normaliser is measured once and kept
        policy.fit_normalizer(steps["actions"], steps["state"])
    steps["chunk"] = policy.normalize(steps.pop("actions"), steps["state"])               # (M, H, A)
    steps["tokens"] = policy.tokenizer.encode(steps["chunk"])                             # (M, 12)
    # I_t, and what a baseline's loss needs besides: (M,) each
    for name, column in ({"positive": np.concatenate(labels.positive)} | (columns or {})).items():
        steps[name] = torch.as_tensor(column, device=s.device)
    M, B, R = len(steps["chunk"]), s.batch, s.draws
    dropout = s.dropout if dropout is None else dropout
    g, ask = generator(s.seed, f"policy {M}"), web_batches(s, policy.config.cameras, s.web, B, "web policy")

    kept = torch.arange(M) if keep is None else torch.as_tensor(keep).nonzero()[:, 0]     # indices of steps, (M,) or fewer
    if len(kept) == 0:
        raise ValueError(f"keep: none of {M} steps, expected at least one to train on")

    def draw_batch():
        index = kept[torch.randint(len(kept), (B,), generator=g)]
        batch = {key: x[index] for key, x in steps.items()}
        if s.metadata:
            draw_prompts(batch, s.metadata_dropout, g)
        batch["omit"] = (torch.rand(B, generator=g) < dropout).to(s.device)
        omega, eta = draw_noise(batch["chunk"].repeat_interleave(R, 0), g)                # (B*R, H, A), (B*R,)
        return batch, omega.view(B, R, *omega.shape[1:]), eta.view(B, R)

    def draw_loss():
        of_data = loss(policy, *draw_batch())
        return of_data if ask is None else of_data + s.web * answer_loss(policy, ask())     # as in one mixed batch

    policy = optimise(policy, draw_loss, n_steps, rate, "policy")
    return policy, {"flow_loss_by_eta": flow_loss_by_eta(policy, draw_batch)}


# ---------------------------------------------------------------- acting: demonstrations, rollouts, corrections

def multi_task_demonstrations(s):
    """D_demo: every task of pre-training, by operators of mixed quality; with s.bodies also on other robots (Sec. IV).

    Every pair of task and robot has its own s.demonstrations episodes.
    """
    episodes = []
    for task in s.pretraining:
        for body in BODIES.values() if s.bodies else (STATIC,):
            purpose = "pretraining" if body is STATIC else f"pretraining on {body.name}"
            episodes += demonstrate(s, task, MIXED, purpose, body)
    return episodes


def demonstrate(s, task, skill, purpose, body=STATIC):
    """s.demonstrations episodes of a scripted operator of that skill."""
    seeds = episode_seeds(s.seed, f"{purpose} {task}", s.demonstrations)
    return collect(s, sim_tasks.TASKS[task], seeds, operator_skill=skill, body=body)


class Actor:
    """π as the control loop calls it: (observation, live, frozen) -> chunks (n, H, A), see `hardware.Chunks`.

    prompts: n texts, ℓ_t and metadata of every station.  Keeps ℓ̂ of each, predicted anew every s.subtask_every chunks
    (Sec. V-A: at a lower frequency than actions); g: the generator of the noise ω, None the global one.
    observation: {"state": (n, A), "keypoints": (n, 4, 20)}; live (n,) bool: who is not over yet, the others' rows of the
    answer are zero; frozen (n, d, A) or None: see `policy.sample_actions`.
    """

    def __init__(self, s, prompts, policy, beta=1.0, indicator=True, g=None):
        self.s, self.policy, self.beta, self.indicator, self.g = s, policy, beta, indicator, g
        self.device = next(policy.parameters()).device
        self.prompt = torch.tensor([encode(text, PROMPT_LENGTH) for text in prompts], device=self.device)
        self.begin()

    def begin(self):
        """A new episode: ℓ̂ of the last one is forgotten."""
        self.calls, self.subtask = 0, torch.zeros(len(self.prompt), SUBTASK_LENGTH, dtype=torch.long, device=self.device)

    def __call__(self, observation, live, frozen=None):
        policy, n = self.policy, len(live)
        seen = perceive({key: x[live] for key, x in observation.items()}, policy.config.cameras)
        seen = {key: torch.as_tensor(x, device=self.device) for key, x in seen.items()}
        rows = torch.as_tensor(np.flatnonzero(live), device=self.device)                  # (m,), m = live.sum()
        if self.calls % self.s.subtask_every == 0:
            self.subtask[rows] = predict_subtask(policy, seen, self.prompt[rows])
        self.calls += 1
        # drawn for all n, so that a copy's noise does not depend on which others are over
        omega = torch.randn(n, policy.config.horizon, policy.action_dim, generator=self.g).to(self.device)[rows]
        prefix = {} if frozen is None else {"frozen": torch.as_tensor(frozen, dtype=torch.float32, device=self.device)[rows]}
        chunk = np.zeros((n, policy.config.horizon, policy.action_dim))
        chunk[live] = sample_actions(policy, seen, self.prompt[rows], self.subtask[rows], self.indicator, self.beta,
                                     self.s.euler, omega, **prefix).cpu().numpy()
        return chunk


def actor(path, task="fold_shirt", beta=1.5):
    """An `Actor` from a checkpoint: python hardware.py --policy recap:actor:runs/fold_shirt-0/pi_2.npz"""
    return Actor(Settings(), [sim_tasks.TASKS[task].prompt], load_network(path, KINDS)[0], beta=float(beta))


def collect(s, spec, seeds, policy=None, beta=1.0, indicator=True, operator_skill=None, coach=False, iteration=0,
            purpose="rollout", body=STATIC, item=None, ask=""):
    """Run one episode per seed, side by side, through the control loop of hardware.py.  -> list of labelled `Episode`s

    policy alone: autonomous.  operator_skill alone: demonstrations.  policy with coach=True: an expert watches, takes
    over when his `Gate` says so, and hands back where the next chunk begins; both his steps and the policy's are kept
    (Sec. V-D), `Episode.intervention` tells them apart.  beta, indicator: as in `policy.sample_actions`; iteration: k of
    the data, which π^{k-1} collects; purpose: names the stream of the noise ω; body, item: as in `World`; ask: metadata to
    put into the policy's prompt.
    """
    if (policy is None) == (operator_skill is None):
        raise ValueError("policy, operator_skill: expected exactly one of them")
    world, n = World(spec, seeds, body, item), len(seeds)
    prompts, metadata = world.prompts().tolist(), [ask] * n
    if policy is None:              # a demonstrator decides at every step: chunks of one action
        hands = Operator(world, seeds, operator_skill)
        act, execute, source, metadata = (lambda observation, live, frozen: hands.act(world)[:, None], 1,     # (n, 1, A)
                                          "demonstration", hands.metadata())
    else:
        g = generator(s.seed, f"{purpose} {iteration} {coach} {n} {beta}")
        act = Actor(s, [f"{text} {ask}" for text in prompts], policy, beta, indicator, g)
        execute, source = s.execute, "corrected" if coach else "autonomous"
    run = drive(Fleet(world), act, execute, ScriptedOperator(world, seeds) if coach else None, source=source,
                iteration=iteration,
                ticks=tqdm(range(spec.max_steps), desc="episodes", leave=False, disable=None, mininterval=0.5))
    if run.error is not None:
        raise run.error
    return [replace(e, prompt=text, metadata=words) for e, text, words in zip(run.episodes, prompts, metadata)]


def score(episodes):
    """Sec. VI-C: success rate and throughput (successes per simulated hour, failures' time included), with standard errors.

    failed_early: share of episodes that ended in failure before the time limit (wrong way, dropped, spilled);
    mean_seconds: of the successes, None without one; per_stage_success: list, one per stage.  Time to reset the scene
    does not count.
    """
    n = len(episodes)
    if n == 0 or any(e.success is None for e in episodes):
        raise ValueError(f"episodes: {n}, expected at least one, all labelled (success True or False)")
    success = np.array([e.success for e in episodes], float)                              # (n,), 0 or 1
    hours = np.array([len(e) for e in episodes]) / CONTROL_HZ / 3600                      # (n,)
    throughput = success.sum() / hours.sum()
    # standard error of a ratio of means (delta method); an episode's residual: successes beyond those its time is worth
    residual = success - throughput * hours
    early = [not e.success and len(e) < e.max_length for e in episodes]
    return {"success": success.mean(), "failed_early": float(np.mean(early)),
            "success_se": math.sqrt(success.mean() * (1 - success.mean()) / n),
            "throughput": throughput, "throughput_se": math.sqrt((residual ** 2).sum() / n / max(n - 1, 1)) / hours.mean(),
            "mean_seconds": 3600 * (success * hours).sum() / success.sum() if success.any() else None, "episodes": n,
            "per_stage_success": np.mean([e.stages for e in episodes], axis=0).tolist()}


def visible_quality(episode):
    """Steps that anyone who watches would call good or bad: an independent check of the labels.

    -> (good, bad), bool (T,) each.  Good: a half is about to be grasped well.  Bad: it is about to be grasped by its edge,
    or both arms and grippers stand still (three steps in a row).
    """
    # rows 0 and 1 of the keypoints are the handles; column 7: held by the edge, 8: held well (sim_tasks.arms.World.observe)
    keypoints, state = episode.observations["keypoints"], episode.observations["state"]
    begins = lambda held: np.append((held[1:] & ~held[:-1]).any(1), False)                # (T, arm) -> (T,)
    edge, well = begins(keypoints[:, :2, 7] > 0), begins(keypoints[:, :2, 8] > 0)
    still = np.append(np.abs(np.diff(state, axis=0)).max(1) < 0.015, False)               # (T,); joint noise is 0.003
    pause = still & np.append(still[1:], False) & np.append(False, still[:-1])
    return well & ~edge, edge | pause


def outcome_auc(value, episodes):
    """P(V of a success > V of a failure) at one common time in mid-episode; None where there is only one kind.

    The time is half the median length of the episodes, the same for all: half of each episode's own length would tell
    the outcome by itself (failures that run out of time are longer).  Episodes that are over by then are left out.
    """
    t = int(np.median([len(e) for e in episodes])) // 2
    pairs = [(V[t], e.success) for V, e in zip(predict_values(value, episodes), episodes) if len(e) > t]
    middle, success = np.array([V for V, _ in pairs]), np.array([ok for _, ok in pairs], bool)
    if success.all() or not success.any():
        return None
    difference = middle[success][:, None] - middle[~success][None]                        # (successes, failures)
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


# ---------------------------------------------------------------- what a run reports

KINDS = {"VLA": (VLA, PolicyConfig), "ValueFunction": (ValueFunction, ValueConfig)}


def evaluate(run, name, policy, beta=1.0, indicator=True, task=None):
    """Success and throughput on the evaluation episodes, the same ones for every policy of the run.

    indicator: None for a policy that never saw one; task: the run's own when None.  Tasks with items are measured on the
    hardest one, as the paper does; and on as many episodes of all items, which "items" reports one by one.
    """
    s = run.settings
    spec = sim_tasks.TASKS[task or s.task]

    def make():
        begun, seeds = time.time(), episode_seeds(s.seed, "evaluation", s.episodes)
        episodes = collect(s, spec, seeds, policy, beta, indicator, item=spec.measured, ask=s.ask)
        stage = {"name": name, "beta": beta} | score(episodes) | {"subtask_accuracy": subtask_accuracy(policy, episodes, s)}
        if spec.items:
            all_items = collect(s, spec, seeds, policy, beta, indicator, ask=s.ask)
            stage["items"] = {item.name: score(mine) for item in spec.items
                              if (mine := [e for e in all_items if e.prompt == f"{spec.prompt} {item.name}"])}
        return stage | {"seconds": time.time() - begun}
    run.add_stage(run.json(f"eval_{name}_beta{beta:g}", make))


def subtask_accuracy(policy, episodes, s):
    """Fraction of steps under which the subtask ℓ̂ that the policy acts by is the annotated one.

    ℓ̂ is predicted every s.subtask_every chunks and kept in between, so a new subtask is seen late, as in acting.
    """
    device, every = next(policy.parameters()).device, s.execute * s.subtask_every
    steps = stack_steps(episodes, device, cameras=policy.config.cameras)
    ends = np.cumsum([len(e) for e in episodes])
    held = np.concatenate([end - len(e) + np.arange(len(e)) // every * every for end, e in zip(ends, episodes)])   # (M,)
    when, index = np.unique(held, return_inverse=True)
    predicted = []
    for i in range(0, len(when), 1024):
        seen = {key: x[when[i:i + 1024]] for key, x in steps.items()}
        predicted.append(predict_subtask(policy, seen, seen["described"] if s.ask else seen["prompt"]))
    return (torch.cat(predicted)[index] == steps["subtask"]).all(1).float().mean().item()      # (M, 2) -> (M,)


def evaluate_demonstrations(run):
    """The same numbers of operators like those of pre-training (`MIXED`), on as many episodes as the policies."""
    s = run.settings
    spec = sim_tasks.TASKS[s.task]
    seeds = episode_seeds(s.seed, "evaluated demonstrations", s.episodes)
    episodes = collect(s, spec, seeds, operator_skill=MIXED, item=spec.measured)
    run.add_stage({"name": "demonstrations", "beta": None} | score(episodes) | {"seconds": 0.0})


def check_value(run, name, value, trained_on, heldout):
    """V on episodes that it was not trained on: correlation with R_t, AUC, and Eq. (1).

    Beside the last, Eq. (1) on `trained_on`, episodes of the same kind that V was trained on: the gap is what it overfits.
    """
    s = run.settings

    def make():
        episodes = heldout()
        return {"heldout_correlation": correlation(value, episodes, s), "heldout_loss": mean_value_loss(value, episodes, s),
                "train_loss": mean_value_loss(value, trained_on, s), "outcome_auc": outcome_auc(value, episodes),
                "prompt_effect": prompt_effect(value, episodes, s)}
    run.value_report[name] = report = run.json(f"value_{name}", make)
    run.say(f"{name} held out", ", ".join(f"{key} {x if x is None else round(x, 3)}" for key, x in report.items()))


def prompt_effect(value, episodes, s):
    """Mean |V(o_t, ℓ') - V(o_t, ℓ)|: how much V changes when the prompt is another task's, the scene the same.

    0: V ignores language.  ℓ': the prompt of the first other task of pre-training; None where there is none.
    """
    others = [task for task in s.pretraining if task != s.task]
    if not others:
        return None
    wrong = str(World(sim_tasks.TASKS[others[0]], [0]).prompts()[0])
    pairs = zip(predict_values(value, episodes), predict_values(value, [replace(e, prompt=wrong) for e in episodes]))
    return float(np.mean(np.abs(np.concatenate([a - b for a, b in pairs]))))


def heldout_rollouts(s, policy, k):
    """Fresh rollouts of π^{k-1}, whose data V^k was trained on."""
    seeds = episode_seeds(s.seed, f"held out {k}", min(s.episodes, 150))
    return collect(s, sim_tasks.TASKS[s.task], seeds, policy, iteration=k, purpose="held out")


def count_labels(run, labels, episodes, k):
    """How many labels are positive among the newest rollouts and the demonstrations, and how much was corrected.

    positive_given_good, _bad: of the newest rollouts' steps that `visible_quality` calls so, the fraction labelled positive.
    """
    newest = [e.iteration == k and e.source == "autonomous" for e in episodes]
    mean = lambda arrays: float(x.mean()) if len(x := np.concatenate([*arrays, []])) else None
    judged = lambda i: mean([p[visible_quality(e)[i]] for p, e, new in zip(labels.positive, episodes, newest) if new])
    run.add_labels({
        "iteration": k, "epsilon": labels.epsilon[run.settings.task],
        "positive_fraction_rollouts": mean([p for p, new in zip(labels.positive, newest) if new]),
        "positive_fraction_demonstrations": mean([p for p, e in zip(labels.positive, episodes) if e.source == "demonstration"]),
        "corrected_fraction": mean([e.intervention for e in episodes if e.source == "corrected" and e.iteration == k]),
        "positive_given_good": judged(0), "positive_given_bad": judged(1)})


def write_metrics(run, **rest):
    """metrics.json: everything that the run measured."""
    metrics = {"task": run.settings.task, "seed": run.settings.seed, "settings": asdict(run.settings),
               "seconds": run.seconds(), "stages": run.stages} | rest
    write_text(run.path("metrics.json"), json.dumps(metrics, indent=1))
    return metrics


def write_recap_metrics(run):
    """`write_metrics` for Algorithm 1: with the checks of every V, those of the last one once more at the top, and the labels."""
    return write_metrics(run, value=run.value_report | run.value_report[f"V_{run.settings.iterations or 'pre'}"],
                         labels=run.labels)


def finish(run):
    """metrics.json, the pictures, the table."""
    metrics = write_recap_metrics(run)
    draw_pictures(run, metrics)
    print(f"\n{table(metrics)}\n\n{run.out}: metrics.json, datasets and checkpoints (.npz), learning_curve.png, "
          "value_trace.png, before.gif, after.gif")


def finish_generalist(run, specialists):
    """metrics.json of the generalist, and a table: each task's specialist (its last stage) and the generalist."""
    write_metrics(run, specialists=specialists)
    for (task, theirs), ours in zip(specialists.items(), run.stages):
        for name, x in (("specialist", theirs), ("generalist", ours)):
            print(f"{task:<14}{name:<12}{x['success']:>7.1%} ± {x['success_se']:<6.1%}"
                  f"{x['throughput']:>6.0f} ± {x['throughput_se']:<4.0f}")


def draw_pictures(run, metrics):
    """The learning curve, V along a success and a failure (Fig. 4), and GIFs of the first episode before and after."""
    s, spec = run.settings, sim_tasks.TASKS[run.settings.task]
    save = lambda figure, name: write_atomically(run.path(name), lambda path: figure.savefig(path, dpi=110), ".png")
    figure = plt.figure(figsize=(2 + 1.25 * len({x["name"] for x in run.stages}), 4), layout="constrained")
    plots.learning_curve(metrics, figure)
    save(figure, "learning_curve.png")
    before_net, after_net, value = (load_network(run.path(f"{name}.npz"), KINDS)[0]
                                    for name in ("pi_0", f"pi_{s.iterations}", f"V_{s.iterations}"))
    seeds = episode_seeds(s.seed, "pictures", min(s.episodes, 40))
    before, after = collect(s, spec, seeds, before_net), collect(s, spec, seeds, after_net, s.beta)
    for name, episode in (("before", before[0]), ("after", after[0])):
        write_gif(frames(episode, range(len(episode))), run.path(f"{name}.gif"), CONTROL_HZ)
    # the success and the failure of median length
    chosen = [sorted(kind, key=len)[len(kind) // 2] for kind in
              ([e for e in before if e.success], [e for e in before if not e.success]) if kind]
    figure = value_figure(value, chosen)
    save(figure, "value_trace.png")
    plt.close("all")


def frames(episode, steps):
    """Pictures of these steps, drawn anew from state and keypoints: list of uint8 arrays."""
    return [draw(episode.observations["state"][t], episode.observations["keypoints"][t], episode.task) for t in steps]


def value_figure(value, episodes):
    """V along each of `episodes`, side by side, in the manner of Fig. 4.  -> Figure"""
    figure = plt.figure(figsize=(7.5 * len(episodes), 4.2), layout="constrained")
    for part, e, V in zip(np.atleast_1d(figure.subfigures(1, len(episodes))), episodes, predict_values(value, episodes)):
        steps = np.linspace(0, len(e) - 1, 6).astype(int)
        plots.value_trace(V, frames(e, steps), steps, f"V of “{e.prompt}”", part, 1 / CONTROL_HZ, e.success)
    return figure


# ---------------------------------------------------------------- command line

def check_device(device):
    """ValueError where this machine lacks the device."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[device]:
        raise ValueError(f"--device: {device} is not available on this machine, expected one of "
                         + ", ".join(name for name, ok in available.items() if ok))


def open_run(args):
    """The `Run` that the command line asks for.  ValueError if its folder holds something else."""
    given = {f.name: getattr(args, f.name) for f in fields(Settings) if getattr(args, f.name) is not None}
    if args.resume is not None:
        if given or args.out is not None or args.quick or args.generalist:
            raise ValueError(f"--resume {args.resume}: goes with no other option, a run keeps its settings")
        try:
            with open(os.path.join(args.resume, "settings.json")) as file:
                settings = Settings(**json.load(file))
        except FileNotFoundError:
            raise ValueError(f"--resume: {args.resume} holds no settings.json, expected the folder of a run") from None
        except (TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{args.resume}/settings.json: not the settings of a run ({error})") from None
        check_device(settings.device)
        return Run(settings, args.resume, KINDS)
    settings = Settings(**((QUICK if args.quick else {}) | given))
    check_device(settings.device)         # before the folder is made
    out = args.out
    if out is None:
        kind, n = "generalist" if args.generalist else settings.task, 0
        while os.path.exists(f"runs/{kind}-{n}"):
            n += 1
        out = f"runs/{kind}-{n}"
    if os.path.exists(out) and (not os.path.isdir(out) or os.listdir(out)):
        raise ValueError(f"--out: {out} exists and is not an empty folder, expected a new one "
                         "(--resume goes on with an interrupted run)")
    os.makedirs(out, exist_ok=True)
    run = Run(settings, out, KINDS)
    run.json("settings", lambda: asdict(settings))
    if args.generalist:
        run.json("specialists", lambda: args.generalist)
    return run


def main(argv=None):
    args = parse(argv)
    run = None
    try:
        if args.summary is not None:
            print(summary(args.summary))
            return 0
        run = open_run(args)
        torch.set_num_threads(1)      # products this small gain nothing from a second core, and lose much if it is busy
        if os.path.exists(run.path("specialists.json")):
            finish_generalist(run, generalist(run, run.json("specialists", list)))
        else:
            recap(run)
            finish(run)
    except ValueError as error:
        print(f"recap.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = "" if run is None else f"; python recap.py --resume {run.out} goes on"
        print(f"\nrecap.py: interrupted{hint}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

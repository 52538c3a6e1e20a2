"""Is the run in order?  V against returns, labels against what anyone sees, the flow over η."""
from dataclasses import replace

import numpy as np
import torch

from collection import by_item, demonstrate, roll_out
from data import episode_seeds, generator, stack_steps
from labels import episode_returns, step_advantages, thresholds
from policy import draw_noise
from sim_tasks import find_task
from value import predict_values, value_logits, value_loss

# ---------------------------------------------------------------- the value function

def check_value(value, trained_on, heldout, s):
    """V on episodes that it was not trained on.

    trained_on: episodes of the same kind that V was trained on.  heldout: others.
    Returns a dict of numbers, None where one cannot be computed:
    heldout_correlation: of V with the return.  heldout_loss, train_loss: Eq. 1 on either; their
    difference is what V overfits.  outcome_auc, prompt_effect: see the functions.
    heldout_success: share of the others that succeed.  calibration: see the function.
    """
    return {
        "heldout_correlation": correlation(value, heldout, s),
        "heldout_loss": mean_value_loss(value, heldout, s),
        "train_loss": mean_value_loss(value, trained_on, s),
        "outcome_auc": outcome_auc(value, heldout),
        "prompt_effect": prompt_effect(value, heldout, s),
        "calibration": calibration(value, heldout, s),
        "heldout_success": float(np.mean([e.success for e in heldout])),
    }

def correlation(value, episodes, s):
    """Pearson correlation of V with the return over all steps; None where one is constant."""
    V = np.concatenate(predict_values(value, episodes))  # (M,)
    R = np.concatenate(episode_returns(episodes, s))
    if V.std() == 0 or R.std() == 0:
        return None
    return float(np.corrcoef(V, R)[0, 1])

def calibration(value, episodes, s, n=10):
    """Does V mean what it says?  The steps sorted by V, in n groups: [[mean V, mean R], ...].

    In a calibrated V both are the same in every group, however well it tells steps apart.
    """
    V = np.concatenate(predict_values(value, episodes))  # (M,)
    R = np.concatenate(episode_returns(episodes, s))
    groups = np.array_split(np.argsort(V, kind="stable"), n)
    return [[float(V[g].mean()), float(R[g].mean())] for g in groups if len(g)]

def mean_value_loss(value, episodes, s):
    """Eq. 1 over all steps of `episodes`: what overfits when data are few."""
    logits = torch.cat(value_logits(value, episodes))  # (M, n_bins)
    R = np.concatenate(episode_returns(episodes, s))  # (M,)
    return value_loss(logits, torch.as_tensor(R, dtype=torch.float32, device=logits.device)).item()

def outcome_auc(value, episodes):
    """P(V of a success > V of a failure) at one common time; None where there is only one kind.

    The time is half the median length, the same for all: half of each episode's own length would
    tell the outcome by itself (a time-out is longer).  Episodes that are over by then are left out.
    """
    t = int(np.median([len(e) for e in episodes])) // 2
    successes = []
    failures = []
    for V, e in zip(predict_values(value, episodes), episodes):
        if len(e) > t:
            (successes if e.success else failures).append(V[t])
    if not successes or not failures:
        return None
    difference = np.array(successes)[:, None] - np.array(failures)  # (successes, failures)
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())

def prompt_effect(value, episodes, s):
    """Mean |V(o_t, ℓ') - V(o_t, ℓ)|, ℓ' the prompt of another task: 0 if V ignores language.

    ℓ' is of the first other task of pre-training; None where there is none.
    """
    others = [task for task in s.pretraining if task != s.task]
    if not others:
        return None
    wrong = str(find_task(others[0]).world([0]).prompts()[0])
    asked_wrongly = [replace(e, prompt=wrong) for e in episodes]
    right = np.concatenate(predict_values(value, episodes))  # (M,)
    return float(np.abs(right - np.concatenate(predict_values(value, asked_wrongly))).mean())

def heldout_demonstrations(s, n):
    """n fresh demonstrations of the target task, of the quality of pre-training."""
    seeds = episode_seeds(s.seed, f"held out {s.target.name}", n)
    return demonstrate(s.target, seeds, "mixed")

def heldout_rollouts(s, policy, k):
    """Fresh rollouts of π^{k-1}, whose data V^k was trained on, about the same items."""
    episodes = []
    all_seeds = episode_seeds(s.seed, f"held out {k}", min(s.evaluation_episodes, 150))
    for item, seeds in by_item(s.target, all_seeds):
        episodes += roll_out(s, s.target, seeds, policy, iteration=k, item=item)
    return episodes

# ---------------------------------------------------------------- the labels

def count_labels(value, I, D, s, k):
    """How many labels are positive, and how much was corrected, in one iteration: a dict.

    value: V^k, which made the labels I of the dataset D.
    positive_given_good, positive_given_bad: of the newest rollouts' steps that anyone who watches
    would call so (`toys.Toy.visible_quality`), the share labelled positive.
    positive_before_failure: the same of the last N steps of those that failed before their limit.
    Rewards do that: where most time out, failing at once is paid -C_fail and spares the -1s.
    positive_fraction_successes, positive_fraction_failures: of the newest rollouts that end so.
    """
    A = step_advantages(predict_values(value, D), D, s, k)
    rollouts = {True: [], False: []}  # by their success
    demonstrations = []
    good = []
    bad = []
    before_failure = []
    corrected = []
    for positive, e in zip(I, D):
        if e.source == "demonstration":
            demonstrations.append(positive)
        elif e.source == "corrected" and e.iteration == k:
            corrected.append(e.intervention)
        elif e.source == "autonomous" and e.iteration == k:
            rollouts[bool(e.success)].append(positive)
            if not e.success and len(e) < e.max_length:
                before_failure.append(positive[-s.lookahead :])
            quality = s.target.visible_quality(e.observations)
            if quality is not None:
                is_good, is_bad = quality
                good.append(positive[is_good])
                bad.append(positive[is_bad])
    return {
        "iteration": k,
        "epsilon": thresholds(A, D, s, k)[s.target.name],
        "positive_fraction_rollouts": _share(rollouts[True] + rollouts[False]),
        "positive_fraction_successes": _share(rollouts[True]),
        "positive_fraction_failures": _share(rollouts[False]),
        "positive_fraction_demonstrations": _share(demonstrations),
        "corrected_fraction": _share(corrected),
        "positive_given_good": _share(good),
        "positive_given_bad": _share(bad),
        "positive_before_failure": _share(before_failure),
    }

def _share(arrays):
    """Share of True in a list of bool arrays; None where there is nothing."""
    steps = np.concatenate([*arrays, []])
    return float(steps.mean()) if len(steps) else None

# ---------------------------------------------------------------- the flow

@torch.no_grad()
def flow_loss_by_eta(policy, D, s, indicator=True, n_batches=8, edges=(0, 0.1, 0.2, 0.4, 0.6, 1)):
    """Where in η the error sits: {"0-0.1": mean ‖a - â‖² per number of a chunk, ...}.

    On steps of D, each told that it is positive; indicator None: told nothing.
    """
    steps = stack_steps(D, policy.config.interface, s.device, policy.config.horizon)
    steps["chunk"] = policy.normalize(steps.pop("actions"), steps["state"])  # (M, H, action_dim)
    steps["tokens"] = policy.tokenizer.encode(steps["chunk"])
    g = generator(s.seed, "flow loss by η")
    losses = []
    etas = []
    for _ in range(n_batches):
        index = torch.randint(len(steps["chunk"]), (128,), generator=g)
        batch = {name: x[index] for name, x in steps.items()}
        batch["positive"] = torch.ones(128, dtype=torch.bool, device=s.device)
        batch["omit"] = torch.full_like(batch["positive"], indicator is None)
        omega, eta = draw_noise(batch["chunk"], g)
        losses.append(policy.terms(batch, omega[:, None], eta[:, None])["flow"][:, 0])
        etas.append(eta)
    loss = torch.cat(losses)  # (n_batches * 128,)
    eta = torch.cat(etas)
    found = {}
    for low, high in zip(edges[:-1], edges[1:]):
        found[f"{low}-{high}"] = round(loss[(eta >= low) & (eta < high)].mean().item(), 4)
    return found

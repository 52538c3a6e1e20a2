"""The other ways to extract a policy from the same data (Sec. VI-B, App. D): AWR, PPO in its SPO variant, imitation.

All of them train the network *without* the indicator (every `omit` True) and plug into `recap.train_policy` as `loss`,
so networks, data pipeline, optimiser and number of gradient steps are RECAP's own.  Side by side, per step of the data:

    RECAP                -log π(a | I)                      all steps, I = 1(A > ε_ℓ), left out 30 %     recap.eq3_loss
    imitation            -log π(a)                          all steps                                   plain_loss
    filtered imitation   -log π(a)                          steps of successful episodes                plain_loss
    positives only       -log π(a)                          steps with I = True                         plain_loss
    AWR [68]             -min(exp(A / T), w_max) log π(a)   all steps                                   awr_weights, awr_loss
    PPO, Eq. (11)        -(r A - |A| (r - 1)² / 2ε)         all steps, r = π(a) / π_ref(a)              spo_loss, ppo_loss

Deviations: 1. The paper's Eq. (11) prints the penalty without the square.  Unsquared it is linear in r: no trust region
at all, and for ε < 1/2 it outweighs every A > 0, so that good actions, too, become less likely.  SPO [83] has the square,
and so do we.  2. PPO trains on all steps of D_ℓ, demonstrations too; the paper's on "eval data".  3. The three kinds of
imitation are ours; the paper compares with AWR and PPO.  4. The paper does not say what its AWR takes A from; [68] takes its
mean and divides by its standard deviation, before the weights are clipped.  `reproduce.methods` does, too, and sweeps another way.
"""
import math

import torch

from policy import likelihood_bound


def plain_loss(policy, batch, omega, eta):
    """-log π(a) by way of Eq. (4), as in recap.eq3_loss; arguments as there."""
    return _negative_bound(policy, batch, omega, eta).mean()


def awr_weights(advantages, temperature, max_weight=20.0):
    """AWR [68]: exp(A / T), at most max_weight.  advantages (...), temperature > 0, in the units of A -> (...)"""
    if not temperature > 0:
        raise ValueError(f"temperature: {temperature}, expected a number above 0")
    return torch.exp((advantages / temperature).clamp(max=math.log(max_weight)))


def awr_loss(policy, batch, omega, eta):
    """Weighted imitation: batch["weight"] (B,) is `awr_weights` of the steps, scaled to mean 1 over the dataset.  -> scalar"""
    return (batch["weight"] * _negative_bound(policy, batch, omega, eta)).mean()


def _negative_bound(policy, batch, omega, eta):
    """The three terms of recap.eq3_loss, per step: (B,)."""
    terms = policy.terms(batch, omega, eta)
    return terms["subtask"] + terms["tokens"] + 10 * terms["flow"].mean(1)                # (B, R) -> (B,)


def spo_loss(log_ratio, advantages, epsilon):
    """Eq. (11), one brace, to minimise: -mean(r A - |A| (r - 1)² / (2ε)), r = exp(log_ratio).

    log_ratio, advantages (B,); epsilon > 0: the trust region (inf: none).  For a fixed A the minimum lies at r = 1 + ε sign(A):
    better actions are to become 1 + ε times as likely, worse ones 1 - ε times.  -> scalar
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon: {epsilon}, expected a number above 0")
    ratio = torch.exp(log_ratio)
    return -(ratio * advantages - advantages.abs() / (2 * epsilon) * (ratio - 1) ** 2).mean()


def ppo_loss(policy, batch, omega, eta, reference, epsilon_ar, epsilon_flow, alpha=1.0):
    """Eq. (11): the braces of the action tokens and of the flow, each with its trust region, α between them.

    batch["advantage"] (B,); reference: π_ref, frozen: the checkpoint from which training starts.  The log-ratios are
    differences of Eq. (10)'s bound, new minus old, on the *same* draws of ω and η: other draws would compare noise.
    ℓ̂ is not part of Eq. (11) and has no loss here.  -> scalar
    """
    tokens, flow = likelihood_bound(policy, batch, omega, eta)                            # (B,) each
    with torch.no_grad():
        tokens_ref, flow_ref = likelihood_bound(reference, batch, omega, eta)
    A = batch["advantage"]
    # squares of ratios above e^20 would overflow: such a step counts, but its gradient is left to the others
    tokens, flow = ((new - old).clamp(max=20) for new, old in ((tokens, tokens_ref), (flow, flow_ref)))
    return spo_loss(tokens, A, epsilon_ar) + alpha * spo_loss(flow, A, epsilon_flow)

"""The other ways to extract a policy from the same data (Sec. VI-B, App. D): AWR, PPO, imitation.

All train the network *without* the indicator and plug into `recap.train_policy` as `loss`, so
data, optimiser and number of steps are RECAP's own.  In Fig. 11 they start from the supervised
network, as the paper's do.  Side by side, per step of the data:

    RECAP                -log π(a | I)                     all steps                     eq3_loss
    imitation            -log π(a)                         all steps                     plain_loss
    filtered imitation   -log π(a)                         of successful episodes        plain_loss
    positives only       -log π(a)                         with I = True                 plain_loss
    AWR [68]             -min(exp(A / T), w) log π(a)      all steps                     awr_loss
    PPO, Eq. 11          -(r A - |A| (r - 1)² / 2ε)        all steps, r = π(a)/π_ref(a)  ppo_loss

`train_policy` hands all of them the weights of its settings, as it does to `eq3_loss`:
tokens, of the action tokens, and weight, α_η of Eq. 4, a value of policy.FLOW_WEIGHTS.
In shapes: B steps of a batch, n_draws draws of (ω, η) for each.
Deviations (docs/DEVIATIONS.md): 22, 23, 24.
"""
import math

import torch

from policy import likelihood_bound

def plain_loss(policy, batch, omega, eta, tokens=1.0, weight=None):
    """-log π(a) by way of Eq. 4; arguments as `recap.eq3_loss`.  A scalar."""
    return _negative_bound(policy, batch, omega, eta, tokens, weight).mean()

def awr_weights(advantages, temperature, max_weight=20.0):
    """AWR [68]: exp(A / T), at most max_weight.

    advantages: (...).  temperature: T, in the units of A; ValueError unless T > 0.  Returns (...).
    """
    if not temperature > 0:
        raise ValueError(f"temperature: {temperature}, expected a number above 0")
    return torch.exp((advantages / temperature).clamp(max=math.log(max_weight)))

def awr_loss(policy, batch, omega, eta, tokens=1.0, weight=None):
    """Weighted imitation; arguments as `recap.eq3_loss`.  A scalar.

    batch["weight"]: (B,), `awr_weights` of the steps, scaled to mean 1 over the dataset.
    """
    return (batch["weight"] * _negative_bound(policy, batch, omega, eta, tokens, weight)).mean()

def _negative_bound(policy, batch, omega, eta, tokens, weight):
    """The three terms of recap.eq3_loss, per step: (B,)."""
    terms = policy.terms(batch, omega, eta, weight=weight)
    flow = terms["flow"].mean(1)  # (B, n_draws) -> (B,)
    return terms["subtask"] + tokens * terms["tokens"] + 10 * flow

def spo_loss(log_ratio, advantages, epsilon):
    """Eq. 11, one brace, to minimise: -mean(r A - |A| (r - 1)² / (2ε)), r = exp(log_ratio).

    For a fixed A the minimum lies at r = 1 + ε sign(A): better actions are to become 1 + ε times
    as likely, worse ones 1 - ε times.
    log_ratio, advantages: (B,).  epsilon: ε > 0, the trust region (inf: none).  A scalar.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon: {epsilon}, expected a number above 0")
    ratio = torch.exp(log_ratio)
    # The paper prints the penalty without its square, which would be no trust region at all.
    penalty = advantages.abs() / (2 * epsilon) * (ratio - 1) ** 2
    return -(ratio * advantages - penalty).mean()

def ppo_loss(
    policy, batch, omega, eta, reference, epsilon_ar, epsilon_flow, alpha=1.0, tokens=1.0,
    weight=None,
):
    """Eq. 11: the braces of the action tokens and of the flow, each with its trust region.

    policy, omega, eta: as `VLA.terms`.  batch["advantage"]: (B,).  alpha: α between the braces.
    reference: π_ref, frozen; the checkpoint from which training starts.
    tokens: weight of the tokens' brace.  weight: α_η of both bounds.  Under the default (1 - η)²
    the flow's "likelihood" is minus the error of â: an action between two modes is above both.
    ℓ̂ is not part of Eq. 11 and has no loss here.  A scalar.
    """
    # Eq. 10's bounds, new and old, on the *same* draws of ω and η: other draws compare noise.
    log_p, flow = likelihood_bound(policy, batch, omega, eta, weight)  # (B,) each
    with torch.no_grad():
        log_p_ref, flow_ref = likelihood_bound(reference, batch, omega, eta, weight)
    A = batch["advantage"]
    # Squares of ratios above e^20 would overflow: such a step counts, its gradient does not.
    log_ratio = (log_p - log_p_ref).clamp(max=20)
    loss = tokens * spo_loss(log_ratio, A, epsilon_ar)
    log_ratio = (flow - flow_ref).clamp(max=20)
    return loss + alpha * spo_loss(log_ratio, A, epsilon_flow)

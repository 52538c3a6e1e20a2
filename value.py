"""The distributional value function p_φ(V | o_t, ℓ) (Sec. IV-A, V-C).

    v(b), b = 1..B           support            B = 201 values from -1 to 0
    R_t^B                    discretize         the nearest of them
    Eq. (1)                  value_loss         cross-entropy against the discretised return
    V = Σ_b p(b) v(b)        expected_value
    p_φ(V | o_t, ℓ)          ValueFunction      all tasks in one network; ℓ tells it which

This module takes tensors only; how an episode becomes returns (Eq. 5, the range (-1, 0)) is in recap.py.
The value 0 is "success now"; -1 is the worst failure.  Deviation: the paper co-trains V on web data against
overfitting; at toy size V stops early instead (few steps, weight decay).
"""
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from backbone import N_KEYPOINTS, PROMPT_LENGTH, WORD_ID, Backbone


def support(n_bins=201):
    """v(b): the values of the bins, (n_bins,), evenly spaced from -1 to 0, both included."""
    return torch.linspace(-1.0, 0.0, n_bins)


def discretize(returns, n_bins=201):
    """R_t^B: index of the nearest bin of `support`.  returns (...), float in [-1, 0] -> long (...).

    Raises ValueError for a value outside the support or not finite: a return that lands there was not
    normalised as V is, and clipping it silently would bias every advantage computed from it.
    """
    returns = torch.as_tensor(returns)
    outside = ~((returns >= -1 - 1e-6) & (returns <= 1e-6))       # NaN lands here, too
    if outside.any():
        raise ValueError(f"returns: {returns[outside][0].item()}, expected values in [-1, 0]")
    return ((returns + 1) * (n_bins - 1)).round().long().clamp(0, n_bins - 1)


def value_loss(logits, returns):
    """Eq. (1): H(R_t^B, p_φ(V | o_t, ℓ)), mean over the steps.  logits (..., B), returns (...) -> scalar."""
    B = logits.shape[-1]
    target = discretize(returns, B)
    return F.cross_entropy(logits.reshape(-1, B), target.reshape(-1))     # (N, B), (N,)


def expected_value(logits):
    """V(o_t, ℓ) = Σ_b p_φ(V = b | o_t, ℓ) v(b).  logits (..., B) -> (...) in [-1, 0]."""
    return logits.softmax(-1) @ support(logits.shape[-1]).to(logits)


@dataclass
class ValueConfig:
    width: int = 48        # paper: a 670M backbone beside the policy's 4B
    layers: int = 2
    heads: int = 2
    n_bins: int = 201      # B


class ValueFunction(nn.Module):
    """p_φ(V | o_t, ℓ): tokens [keypoints | state | prompt ℓ_t | "value:"], logits of the bins read at the last."""

    def __init__(self, config=ValueConfig()):
        super().__init__()
        self.config = config
        n_positions = N_KEYPOINTS + 1 + PROMPT_LENGTH + 1
        self.backbone = Backbone(config.width, config.layers, config.heads, len(WORD_ID), n_positions)
        self.head = nn.Linear(config.width, config.n_bins)
        nn.init.zeros_(self.head.weight)       # begins at the uniform distribution, V = -1/2
        nn.init.zeros_(self.head.bias)

    def forward(self, observation, prompt):
        """observation {"state": (B, 6), "keypoints": (B, 4, 17)}, prompt ids (B, 3) -> logits (B, n_bins)."""
        ask = torch.full_like(prompt[:, :1], WORD_ID["value:"])                          # (B, 1)
        text = self.backbone.token(torch.cat([prompt, ask], dim=1))                      # (B, 4, width)
        tokens = torch.cat([self.backbone.embed_observation(observation), text], dim=1)  # (B, 9, width)
        return self.head(self.backbone(tokens, None)[1][:, -1])                         # (B, n_bins)

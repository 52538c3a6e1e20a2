"""The distributional value function p_φ(V | o_t, ℓ) (Sec. IV-A, V-C).

    v(b), b = 0 ... B-1      support            B = 201 values from -1 (the worst failure) to 0 (success now)
    R_t^B                    discretize         the index of the nearest of them
    Eq. (1)                  value_loss         cross-entropy against the discretised return
    V = Σ_b p(b) v(b)        expected_value
    p_φ(V | o_t, ℓ)          ValueFunction      all tasks in one network; ℓ tells it which

Tensors only; how an episode becomes returns (Eq. 5, the range (-1, 0)) is in recap.py.  In shapes B is the paper's
number of bins, N the batch.
Deviations (and backbone.py's): a network of 2 layers that starts at random (paper: Gemma 3, 670M); co-training on web
data (Sec. V-C, against overfitting) only with --web: `answer_logits`, fed by recap.train_value.
"""
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from backbone import PROMPT_LENGTH, SUBTASK_LENGTH, WORD_ID, Backbone


def support(n_bins=201):
    """v(b): the values of the bins, (n_bins,), evenly spaced from -1 to 0, both included."""
    return torch.linspace(-1.0, 0.0, n_bins)


def discretize(returns, n_bins=201):
    """R_t^B: index of the nearest bin of `support`.  returns (...), float in [-1, 0] -> long (...).

    ValueError for a value outside the support or not finite: it was not normalised as V is, and to clip it silently
    would bias every advantage.
    """
    returns = torch.as_tensor(returns)
    outside = ~((returns >= -1 - 1e-6) & (returns <= 1e-6))       # NaN lands here, too
    if outside.any():
        raise ValueError(f"returns: {returns[outside][0].item()}, expected values in [-1, 0]")
    return ((returns + 1) * (n_bins - 1)).round().long().clamp(0, n_bins - 1)


def value_loss(logits, returns):
    """Eq. (1): H(R_t^B, p_φ(V | o_t, ℓ)), mean over the steps.  logits (..., B), returns (...) -> scalar."""
    B = logits.shape[-1]
    target = discretize(returns, B)                                       # (...)
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
    cameras: tuple = ()    # names of the images it reads; none: keypoints


class ValueFunction(nn.Module):
    """p_φ(V | o_t, ℓ): tokens [keypoints | state | prompt ℓ_t | "value:"], logits of the bins read at the last."""

    def __init__(self, config=ValueConfig()):
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.width, config.layers, config.heads, len(WORD_ID), PROMPT_LENGTH + 1, config.cameras)
        self.head = nn.Linear(config.width, config.n_bins)
        self.answer = nn.Linear(config.width, SUBTASK_LENGTH * len(WORD_ID))      # for co-training only
        nn.init.zeros_(self.head.weight)       # begins at the uniform distribution, V = -1/2
        nn.init.zeros_(self.head.bias)

    def forward(self, observation, prompt):
        """observation {"state": (N, 6), "keypoints": (N, 4, 20)} or images, prompt ids (N, 5) -> logits (N, B)."""
        return self.head(self._read(observation, prompt, "value:"))

    def answer_logits(self, observation, question, answer):
        """Co-training (Sec. V-C): the words that answer a question, ids (N, 5), about what is seen -> (N, 2, n_words).

        Both words at once, from one position; `answer` is not read (the policy, which writes word by word, does).
        """
        return self.answer(self._read(observation, question, "answer:")).unflatten(1, (SUBTASK_LENGTH, -1))

    def _read(self, observation, prompt, ask):
        """The last hidden state, (N, width), of [observation | prompt | ask]."""
        ask = torch.full_like(prompt[:, :1], WORD_ID[ask])                               # (N, 1)
        text = self.backbone.token(torch.cat([prompt, ask], dim=1))                      # (N, 6, width)
        tokens = torch.cat([self.backbone.embed_observation(observation), text], dim=1)  # (N, S, width)
        return self.backbone(tokens, None)[1][:, -1]       # no mask: nothing is generated, so all may see one another

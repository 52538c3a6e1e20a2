"""The distributional value function p_φ(V | o_t, ℓ) (Secs. IV-A, V-C).

    v(b), b = 0 ... 200        support            201 values from -1 (the worst failure) to 0
    R_t^B                      discretize         the index of the nearest of them
    Eq. 1                      value_loss         cross-entropy against the discretised return
    V = Σ_b p(b) v(b)          expected_value
    p_φ(V | o_t, ℓ)            ValueFunction      all tasks in one network; ℓ says which
    V(o_t, ℓ) of a dataset     predict_values

How an episode becomes returns is in labels.py, how V is trained in recap.py.
Letters in shapes: B the batch, L words of a prompt, n_bins the paper's number of bins.
Deviations (docs/DEVIATIONS.md): 1 sizes, 7 no VLM, 8 web data, 18 metadata, 26 no clock.
"""
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone import Backbone
from data import WORDS, Interface, stack_steps

def support(n_bins: int = 201) -> Tensor:
    """v(b): the values of the bins, (n_bins,), evenly spaced from -1 to 0, both included."""
    return torch.linspace(-1.0, 0.0, n_bins)

def discretize(returns: Tensor, n_bins: int = 201) -> Tensor:
    """R_t^B: the index of the nearest bin of `support`, long (...).

    returns: float (...), in [-1, 0].  ValueError for others: they were not normalised as V is,
    and to clip them silently would bias every advantage.
    """
    returns = torch.as_tensor(returns)
    outside = ~((returns >= -1 - 1e-6) & (returns <= 1e-6))  # NaN lands here, too
    # To look would make a GPU wait at every step.
    if returns.device.type == "cpu" and outside.any():
        raise ValueError(f"returns: {returns[outside][0].item()}, expected values in [-1, 0]")
    return ((returns + 1) * (n_bins - 1)).round().long().clamp(0, n_bins - 1)

def value_loss(logits: Tensor, returns: Tensor) -> Tensor:
    """Eq. 1: H(R_t^B, p_φ(V | o_t, ℓ)), mean over steps.  logits: (..., n_bins), returns: (...)."""
    n_bins = logits.shape[-1]
    target = discretize(returns, n_bins)  # (...)
    return F.cross_entropy(logits.reshape(-1, n_bins), target.reshape(-1))  # (B, n_bins), (B,)

def expected_value(logits: Tensor) -> Tensor:
    """V(o_t, ℓ) = Σ_b p_φ(V = b | o_t, ℓ) v(b).  logits: (..., n_bins).  Returns (...)."""
    return logits.softmax(-1) @ support(logits.shape[-1]).to(logits)

@dataclass
class ValueConfig:
    interface: Interface
    width: int = 48  # paper: a 670M backbone beside the policy's 4B
    layers: int = 2
    heads: int = 2
    n_bins: int = 201  # the paper's B
    clock: bool = False  # V sees how much of the time limit is over, too

class ValueFunction(nn.Module):
    """p_φ(V | o_t, ℓ): tokens [observation | prompt ℓ_t | "value:"], read at the last one."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        interface = config.interface
        n_words = len(interface.vocabulary)
        n_text = interface.prompt_length + 1
        self.backbone = Backbone(config, n_words, n_text)
        if config.clock:
            self.clock = nn.Linear(1, config.width)
        self.head = nn.Linear(config.width, config.n_bins)
        # For co-training: all words of an answer at once.
        self.answer = nn.Linear(config.width, interface.subtask_length * n_words)
        # V begins at the uniform distribution, V = -1/2.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, observation, prompt):
        """observation as `Backbone.embed_observation`, prompt ids (B, L) → logits (B, n_bins)."""
        return self.head(self._read(observation, prompt, "value:"))

    def answer_logits(self, observation, question, answer):
        """Co-training (Sec. V-C): the words that answer a question, (B, subtask_length, n_words).

        question: ids, as a prompt.  answer: not read; the policy, which writes word by word, does.
        """
        logits = self.answer(self._read(observation, question, "answer:"))
        return logits.unflatten(1, (self.config.interface.subtask_length, -1))

    def _read(self, observation, prompt, cue):
        """The last hidden state, (B, width), of [observation | prompt | cue]."""
        cue = torch.full_like(prompt[:, :1], WORDS.index(cue))  # (B, 1)
        text = self.backbone.token(torch.cat([prompt, cue], dim=1))  # (B, L + 1, width)
        seen = self.backbone.embed_observation(observation)  # (B, n, width)
        if self.config.clock:
            seen = seen + self.clock(observation["clock"])[:, None]  # (B, 1, width)
        tokens = torch.cat([seen, text], dim=1)  # (B, n + L + 1, width)
        # No mask: nothing is generated, so all may see one another.
        last = tokens.shape[1] - 1
        return self.backbone(tokens, None, last).output[:, 0]  # (B, 1, width) -> (B, width)

# ---------------------------------------------------------------- V over episodes

@torch.no_grad()
def value_logits(value, episodes, at_once=4096) -> list:
    """Logits of p_φ(V | o_t, ℓ) of all steps in a row, ℓ without metadata.

    Returns a list of tensors (m, n_bins), m <= at_once: together they have M = Σ T rows.
    """
    device = next(value.parameters()).device
    steps = stack_steps(episodes, value.config.interface, device)
    logits = []
    for i in range(0, len(steps["prompt"]), at_once):
        batch = {name: x[i : i + at_once] for name, x in steps.items()}
        logits.append(value(batch, batch["prompt"]))
    return logits

def predict_values(value, episodes) -> list:
    """V(o_t, ℓ) of every step: a list of float (T,), one array per episode."""
    values = [expected_value(logits).cpu().numpy() for logits in value_logits(value, episodes)]
    ends = np.cumsum([len(e) for e in episodes])
    return np.split(np.concatenate(values).astype(float), ends[:-1])  # (M,) -> [(T,), ...]

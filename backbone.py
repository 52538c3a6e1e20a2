"""What the policy and the value function share: observation tokens, transformer blocks.

Stands for Gemma 3 4B (policy) and its 670M sibling (value function): "the same architecture as
the VLA policy, but with a smaller VLM backbone" (Sec. IV-A).

    o_t = [X_t, q_t] → tokens       Backbone.embed_observation
    attention of Fig. 3             prefix_lm_bias
    transformer                     Backbone.forward

Letters in shapes: B the batch, S tokens of a sequence, C cameras, P keypoints of K numbers.
Deviations (docs/DEVIATIONS.md): 1 sizes, 2 words, 7 no VLM, keypoints.
"""
from collections import namedtuple

import torch
import torch.nn.functional as F
from torch import nn

NEAR = 0.1  # tanh(x / NEAR) spreads out what is almost 0

def attend(q, k, v, heads, bias=None):
    """Multi-head attention: softmax(q kᵀ / √head_width + bias) v, in each head by itself.

    q: (B, S, width).  k, v: (B, S2, width).  Returns (B, S, width).
    bias: broadcastable to (B, heads, S, S2), added to the scores; None: all see all.
    """
    q = q.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, heads, S, head_width)
    k = k.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, heads, S2, head_width)
    v = v.unflatten(-1, (heads, -1)).transpose(1, 2)
    if bias is not None:
        bias = bias.to(q.dtype)  # of another precision, torch 2.13 adds it wrongly
    # One operation, which never holds all scores; tests/test_backbone.py writes it out.
    mixed = F.scaled_dot_product_attention(q, k, v, bias)  # (B, heads, S, head_width)
    return mixed.transpose(1, 2).flatten(2)  # (B, S, width)

def mlp(n_in, hidden, n_out):
    """Two linear layers with a GELU between them."""
    return nn.Sequential(nn.Linear(n_in, hidden), nn.GELU(), nn.Linear(hidden, n_out))

class Block(nn.Module):
    """One pre-norm transformer layer of the backbone."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = mlp(width, 2 * width, width)

    def forward(self, x, bias, first=0):
        """x: (B, S, width).  bias: as in `attend`.

        Returns (B, S - first, width): the tokens from `first` on, which see all S.
        """
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        x = x[:, first:] + self.out(attend(q[:, first:], k, v, self.heads, bias))
        return x + self.mlp(self.norm2(x))

Hidden = namedtuple("Hidden", "inputs output")

class Backbone(nn.Module):
    """A transformer over [observation | text].

    config: of the policy or of the value function: interface, width, layers, heads.
    n_tokens: words, then action tokens.  n_text: length of the longest text.
    """

    def __init__(self, config, n_tokens, n_text):
        super().__init__()
        interface = config.interface
        width = config.width
        self.interface = interface
        self.token = nn.Embedding(n_tokens, width)
        longest = interface.n_observation_tokens + n_text
        self.position = nn.Parameter(0.1 * torch.randn(longest, width))
        # Two layers each: a linear embedding learns far more slowly here.
        if interface.cameras:
            self.patch = mlp(interface.patch**2 * 3, 2 * width, width)
        elif interface.keypoints:
            numbers = interface.keypoints[1]
            if interface.near:
                numbers += len(range(*interface.near))
            self.keypoint = mlp(numbers, width, width)
        self.state = mlp(interface.state_dim, width, width)
        # Kept in the config, so not in the checkpoint, too.
        self.register_buffer("mean", torch.tensor(interface.state_mean), persistent=False)
        self.register_buffer("std", torch.tensor(interface.state_std), persistent=False)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)

    def embed_observation(self, observation):
        """o_t → tokens (B, n, width), n of `Interface.n_observation_tokens`; the last is q_t.

        observation: {"state": (B, state_dim), "keypoints": (B, P, K)}, or instead of the
        keypoints images under the names of the cameras, uint8 (B, image, image, 3).
        """
        state = observation["state"]
        if self.interface.state_std:
            state = (state - self.mean) / self.std
        state = self.state(state)[:, None]  # (B, 1, width)
        if self.interface.cameras:
            images = [observation[name] for name in self.interface.cameras]
            patches = patches_of(images, self.interface.patch)  # (B, C*p*p, patch*patch*3)
            return torch.cat([self.patch(patches), state], dim=1)  # (B, C*p*p + 1, width)
        if not self.interface.keypoints:
            return state
        keypoints = observation["keypoints"]
        if self.interface.near:
            # Both arms' offsets once more, with what is near spread out: (B, P, how many).
            near = torch.tanh(keypoints[..., slice(*self.interface.near)] / NEAR)
            keypoints = torch.cat([keypoints, near], dim=-1)
        return torch.cat([self.keypoint(keypoints), state], dim=1)  # (B, P + 1, width)

    def forward(self, tokens, bias, first=0):
        """tokens: (B, S, width).  bias: as in `attend`; who sees whom is the caller's choice.

        first: the output is wanted from this token on: the last layer computes no more of it.
        None: only the inputs are, and the last layer is not run.
        Returns `Hidden`: what went into each layer, a list of (B, S, width); the normalised output,
        (B, S - first, width), or None.
        """
        x = tokens + self.position[: tokens.shape[1]]
        inputs = [x]
        for block in self.blocks[:-1]:
            x = block(x, bias)
            inputs.append(x)
        if first is None:
            return Hidden(inputs, None)
        if bias is not None:
            bias = bias[..., first:, :]
        return Hidden(inputs, self.norm(self.blocks[-1](x, bias, first)))

def patches_of(images, patch):
    """C images (B, side, side, 3), uint8 → patches (B, C*p*p, patch*patch*3), p = side / patch."""
    # White becomes 0, not a constant that all inputs of a patch share.
    x = 2 - torch.stack(images, dim=1).float() / 127.5  # (B, C, side, side, 3)
    x = x.unflatten(2, (-1, patch))  # (B, C, p, patch, side, 3): rows of patches
    x = x.unflatten(4, (-1, patch))  # (B, C, p, patch, p, patch, 3): ... and columns
    x = x.transpose(3, 4)  # (B, C, p, p, patch, patch, 3)
    return x.flatten(4).flatten(1, 3)  # (B, C*p*p, patch*patch*3)

def prefix_lm_bias(n_prefix, n_text):
    """Additive attention mask (S, S), S = n_prefix + n_text: 0 where row may see column, else -inf.

    The prefix is seen by all and never sees text; text sees the text before it, and itself.
    """
    S = n_prefix + n_text
    row = torch.arange(S)[:, None]
    column = torch.arange(S)[None]
    visible = (column < n_prefix) | (column <= row)  # (S, S)
    return torch.zeros(S, S).masked_fill(~visible, float("-inf"))

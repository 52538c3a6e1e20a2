"""What the policy and the value function share: words, the observation tokens, transformer blocks.

Stands for Gemma 3 4B (policy) and its 670M sibling (value function): "the same architecture as the VLA policy, but
with a smaller VLM backbone" (Sec. IV-A).

    ℓ, ℓ̂: words → ids              encode, VOCABULARY
    o_t = [X_t, q_t] → tokens       Backbone.embed_observation      one per keypoint (or image patch), one for the state q_t
    attention of Fig. 3             prefix_lm_bias                  who sees whom
    transformer                     Backbone.forward                returns what goes into each layer, and the output

Deviations: 1. Two layers of width 64 (V: 48).  2. Words instead of word pieces.  3. Keypoints instead of image patches,
unless there are cameras.  4. No pre-trained checkpoint: there is none at toy size, both networks start at random.
5. LayerNorm, GELU and learned positions in the place of Gemma's RMSNorm, GeGLU and RoPE: fewer lines.
"""
import difflib

import torch
from torch import nn

PROMPT_LENGTH, SUBTASK_LENGTH = 5, 2                  # words of ℓ_t with the metadata s, and of ℓ̂
STATE_DIM, N_KEYPOINTS, KEYPOINT_DIM = 6, 4, 20      # one observation; see sim_tasks.arms.World.observe
NEAR = 0.1                                           # rad: tanh(offset / NEAR) spreads out what is almost reached
CAMERAS = ("base", "left_wrist", "right_wrist")      # the three images of the paper's station (Fig. 5), as in sim_tasks.cameras
IMAGE, PATCH = 24, 8                                 # pixels: side of an image (π_0.6's model card [6]: 448) and of a patch
PATCHES = (IMAGE // PATCH) ** 2                      # per image

# Every word that a prompt, a subtask or the indicator may use.  "subtask:", "action:", "value:" and "answer:"
# mark where the model is to continue; "" pads.
VOCABULARY = ("", "subtask:", "Advantage:", "positive", "negative", "action:", "value:", "answer:",
              "fast", "slow", "careful", "careless",
              "fold", "shirt", "collar", "up", "build", "box", "flatten", "sleeves", "stack", "pick", "sheet",
              "label", "place",
              # questions and answers of web.py
              "where", "left", "right", "handle", "hand", "near", "far", "what", "holds", "nothing", "edge", "well", "gripper",
              "open", "closed", "how", "many", "held", "placed", "which", "arm", "nearer", "look",
              "zero", "one", "two", "three", "four", "five", "six",
              # the diverse items and the espresso
              "towel", "socks", "underwear", "shorts", "skirt", "t-shirt", "jeans", "polo", "sweater", "long-sleeve",
              "button-up", "item",
              "make", "espresso", "bring", "portafilter", "grind", "beans", "tamp", "coffee", "lock", "cup", "serve")
WORD_ID = {word: i for i, word in enumerate(VOCABULARY)}


def encode(text, length):
    """Words → ids, padded to `length`: a list of ints.  ValueError names unknown words and texts too long."""
    words = text.split()
    unknown = [word for word in words if word not in WORD_ID]
    if unknown:
        near = [match for word in unknown for match in difflib.get_close_matches(word, VOCABULARY, n=1, cutoff=0.5)]
        raise ValueError(f"text: unknown words {unknown} in {text!r}, expected words of backbone.VOCABULARY"
                         + (f" (nearest: {', '.join(near)})" if near else ""))
    if len(words) > length:
        raise ValueError(f"text: {len(words)} words in {text!r}, expected at most {length}")
    return [WORD_ID[word] for word in words] + [0] * (length - len(words))


def attend(q, k, v, heads, bias=None):
    """Multi-head attention.  q (B, S, D), k and v (B, T, D), bias broadcastable to (B, heads, S, T) -> (B, S, D).

    Written out to be read; F.scaled_dot_product_attention computes the same.
    """
    B, S, D = q.shape
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))       # (B, heads, S or T, D/heads)
    scores = q @ k.transpose(-1, -2) * (D // heads) ** -0.5                          # (B, heads, S, T)
    if bias is not None:
        scores = scores + bias
    return (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, S, D)                  # (B, S, D)


class Block(nn.Module):
    """One pre-norm transformer layer of the backbone."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x, bias):
        """x (B, S, width), bias as in `attend` -> (B, S, width)."""
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        x = x + self.out(attend(q, k, v, self.heads, bias))
        return x + self.mlp(self.norm2(x))


def n_observation_tokens(cameras=()):
    """Tokens of o_t: one per keypoint, or per patch where there are cameras; and one for q_t."""
    return (len(cameras) * PATCHES or N_KEYPOINTS) + 1


class Backbone(nn.Module):
    """A transformer over [observation | text]; who sees whom is the caller's bias, for π a prefix-LM (`prefix_lm_bias`).

    width, layers, heads: its size; n_tokens: size of the vocabulary (words, then action tokens); n_text: longest text;
    cameras: names of the images that it reads in the place of the keypoints.
    """

    def __init__(self, width, layers, heads, n_tokens, n_text, cameras=()):
        super().__init__()
        unknown = [name for name in cameras if name not in CAMERAS]
        if unknown:
            raise ValueError(f"cameras: {unknown[0]!r}, expected some of {', '.join(CAMERAS)}")
        self.cameras = tuple(cameras)
        self.token = nn.Embedding(n_tokens, width)
        self.position = nn.Parameter(0.1 * torch.randn(n_observation_tokens(cameras) + n_text, width))
        # a two-layer MLP each: a linear embedding learns far more slowly here
        if cameras:
            self.patch = nn.Sequential(nn.Linear(PATCH * PATCH * 3, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        else:
            self.keypoint = nn.Sequential(nn.Linear(KEYPOINT_DIM + 4, width), nn.GELU(), nn.Linear(width, width))
        self.state = nn.Sequential(nn.Linear(STATE_DIM, width), nn.GELU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def embed_observation(self, observation):
        """{"state": (B, 6), "keypoints": (B, 4, 20)} -> tokens (B, 5, width): keypoints, then q_t.

        With cameras, images (B, 24, 24, 3), uint8, under their names in the place of "keypoints": one token per patch.
        """
        state = self.state(observation["state"])[:, None]                   # (B, 1, width)
        if self.cameras:       # C of them
            images = torch.stack([observation[name] for name in self.cameras], dim=1)                       # (B, C, 24, 24, 3)
            images = 2 - images.float() / 127.5      # the white table is 0, not a constant that all 192 inputs share
            patches = images.unflatten(2, (-1, PATCH)).unflatten(4, (-1, PATCH)).transpose(3, 4)   # (B, C, 3, 3, 8, 8, 3)
            patches = patches.flatten(4).flatten(1, 3)                                                      # (B, C*9, 192)
            return torch.cat([self.patch(patches), state], dim=1)                                           # (B, C*9 + 1, width)
        keypoints = observation["keypoints"]
        near = torch.tanh(keypoints[..., 2:6] / NEAR)                       # (B, 4, 4): both arms' joint offsets, near
        keypoints = torch.cat([keypoints, near], dim=-1)                    # (B, 4, 24)
        return torch.cat([self.keypoint(keypoints), state], dim=1)          # (B, 5, width)

    def forward(self, tokens, bias):
        """tokens (B, S, width), bias broadcastable to (B, heads, S, S) or None: all see all -> (inputs, output).

        inputs: list of what went into each layer, (B, S, width) each; output (B, S, width): of the last layer,
        normalised, ready for a head.
        """
        x, inputs = tokens + self.position[:tokens.shape[1]], []
        for block in self.blocks:
            inputs.append(x)
            x = block(x, bias)
        return inputs, self.norm(x)


def prefix_lm_bias(n_prefix, n_text):
    """Additive attention mask (S, S), S = n_prefix + n_text: 0 where row i may see column j, else -inf.

    Columns of the prefix are seen by all; text sees the prefix and the text before it, itself included; the
    prefix never sees text.
    """
    S = n_prefix + n_text
    row, column = torch.arange(S)[:, None], torch.arange(S)[None]
    visible = (column < n_prefix) | (column <= row)
    return torch.zeros(S, S).masked_fill(~visible, float("-inf"))

"""What the policy and the value function share: words, observation tokens, transformer blocks.

Stands for Gemma 3 4B (policy) and its 670M sibling (value function): "the same architecture as
the VLA policy, but with a smaller VLM backbone" (Sec. IV-A).

    ℓ, ℓ̂: words → ids              encode, VOCABULARY
    o_t = [X_t, q_t] → tokens       Backbone.embed_observation
    attention of Fig. 3             prefix_lm_bias
    transformer                     Backbone.forward

Letters in shapes: B the batch, S tokens of a sequence, C cameras.
Deviations (docs/DEVIATIONS.md): 1, 2, 7.
"""
import difflib

import torch
from torch import nn

PROMPT_LENGTH = 5  # words of ℓ_t with the metadata s
SUBTASK_LENGTH = 2  # words of ℓ̂
STATE_DIM = 6  # one observation, see sim_tasks.arms.World.observe
N_KEYPOINTS = 4
KEYPOINT_DIM = 20
NEAR = 0.1  # rad: tanh(offset / NEAR) spreads out what is almost reached
CAMERAS = ("base", "left_wrist", "right_wrist")  # the station of Fig. 5
IMAGE = 24  # pixels, side of an image (π_0.6's model card: 448)
PATCH = 8  # pixels, side of a patch
PATCHES = (IMAGE // PATCH) ** 2  # per image

# Every word that a prompt, a subtask, a question or the indicator may use; the first one pads.
# "subtask:", "action:", "value:" and "answer:" mark where the model is to continue.
VOCABULARY = ("", *"""
    subtask: Advantage: positive negative action: value: answer: fast slow careful careless fold
    shirt collar up build box flatten sleeves stack pick sheet label place where left right
    handle hand near far what holds nothing edge well gripper open closed how many held placed
    which arm nearer look zero one two three four five six towel socks underwear shorts skirt
    t-shirt jeans polo sweater long-sleeve button-up item make espresso bring portafilter grind
    beans tamp coffee lock cup serve
""".split())
WORD_ID = {word: i for i, word in enumerate(VOCABULARY)}

def encode(text, length):
    """Words → ids, padded to `length`: a list of ints.

    ValueError names words that no network knows, and a text that is too long.
    """
    words = text.split()
    unknown = [word for word in words if word not in WORD_ID]
    if unknown:
        near = []
        for word in unknown:
            near += difflib.get_close_matches(word, VOCABULARY, n=1, cutoff=0.5)
        hint = f" (nearest: {', '.join(near)})" if near else ""
        message = f"text: unknown words {unknown} in {text!r}, expected words of VOCABULARY{hint}"
        raise ValueError(message)
    if len(words) > length:
        raise ValueError(f"text: {len(words)} words in {text!r}, expected at most {length}")
    return [WORD_ID[word] for word in words] + [0] * (length - len(words))

def attend(q, k, v, heads, bias=None):
    """Multi-head attention, written out; F.scaled_dot_product_attention computes the same.

    q: (B, S, width).  k, v: (B, S2, width).  Returns (B, S, width).
    bias: broadcastable to (B, heads, S, S2), added to the scores; None: all see all.
    """
    B, S, width = q.shape
    head_width = width // heads
    q = q.unflatten(-1, (heads, head_width)).transpose(1, 2)  # (B, heads, S, head_width)
    k = k.unflatten(-1, (heads, head_width)).transpose(1, 2)  # (B, heads, S2, head_width)
    v = v.unflatten(-1, (heads, head_width)).transpose(1, 2)
    scores = q @ k.transpose(-1, -2) * head_width**-0.5  # (B, heads, S, S2)
    if bias is not None:
        scores = scores + bias
    mixed = scores.softmax(-1) @ v  # (B, heads, S, head_width)
    return mixed.transpose(1, 2).reshape(B, S, width)

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

    def forward(self, x, bias):
        """x: (B, S, width).  bias: as in `attend`.  Returns (B, S, width)."""
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        x = x + self.out(attend(q, k, v, self.heads, bias))
        return x + self.mlp(self.norm2(x))

def n_observation_tokens(cameras=()):
    """Tokens of o_t: one per keypoint, or per patch where there are cameras; and one for q_t."""
    return len(cameras) * PATCHES + 1 if cameras else N_KEYPOINTS + 1

class Backbone(nn.Module):
    """A transformer over [observation | text].

    n_tokens: size of the vocabulary (words, then action tokens).  n_text: of the longest text.
    cameras: names of the images that it reads in the place of the keypoints.
    """

    def __init__(self, width, layers, heads, n_tokens, n_text, cameras=()):
        super().__init__()
        unknown = [name for name in cameras if name not in CAMERAS]
        if unknown:
            raise ValueError(f"cameras: {unknown[0]!r}, expected some of {', '.join(CAMERAS)}")
        self.cameras = tuple(cameras)
        self.token = nn.Embedding(n_tokens, width)
        longest = n_observation_tokens(cameras) + n_text
        self.position = nn.Parameter(0.1 * torch.randn(longest, width))
        # Two layers each: a linear embedding learns far more slowly here.
        if cameras:
            self.patch = mlp(PATCH * PATCH * 3, 2 * width, width)
        else:
            self.keypoint = mlp(KEYPOINT_DIM + 4, width, width)
        self.state = mlp(STATE_DIM, width, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def embed_observation(self, observation):
        """o_t → tokens (B, n, width), n of `n_observation_tokens`; the last is q_t.

        observation: {"state": (B, 6), "keypoints": (B, 4, 20)}, or in the place of the keypoints
        images under the names of the cameras, uint8 (B, 24, 24, 3).
        """
        state = self.state(observation["state"])[:, None]  # (B, 1, width)
        if self.cameras:
            patches = patches_of([observation[name] for name in self.cameras])  # (B, C*9, 192)
            return torch.cat([self.patch(patches), state], dim=1)  # (B, C*9 + 1, width)
        keypoints = observation["keypoints"]
        # Both arms' joint offsets once more, with what is near spread out.
        near = torch.tanh(keypoints[..., 2:6] / NEAR)  # (B, 4, 4)
        keypoints = torch.cat([keypoints, near], dim=-1)  # (B, 4, 24)
        return torch.cat([self.keypoint(keypoints), state], dim=1)  # (B, 4 + 1, width)

    def forward(self, tokens, bias):
        """tokens: (B, S, width).  bias: as in `attend`; who sees whom is the caller's choice.

        Returns what went into each layer, a list of (B, S, width), and the normalised output.
        """
        x = tokens + self.position[: tokens.shape[1]]
        inputs = []
        for block in self.blocks:
            inputs.append(x)
            x = block(x, bias)
        return inputs, self.norm(x)

def patches_of(images):
    """C images (B, 24, 24, 3), uint8 → patches (B, C*9, 192), in rows from the top left."""
    # The white table becomes 0, not a constant that all 192 inputs of a patch share.
    x = 2 - torch.stack(images, dim=1).float() / 127.5  # (B, C, 24, 24, 3)
    x = x.unflatten(2, (-1, PATCH))  # (B, C, 3, 8, 24, 3): rows of patches
    x = x.unflatten(4, (-1, PATCH))  # (B, C, 3, 8, 3, 8, 3): ... and columns
    x = x.transpose(3, 4)  # (B, C, 3, 3, 8, 8, 3)
    return x.flatten(4).flatten(1, 3)  # (B, C*9, 8*8*3)

def prefix_lm_bias(n_prefix, n_text):
    """Additive attention mask (S, S), S = n_prefix + n_text: 0 where row may see column, else -inf.

    The prefix is seen by all and never sees text; text sees the text before it, and itself.
    """
    S = n_prefix + n_text
    row = torch.arange(S)[:, None]
    column = torch.arange(S)[None]
    visible = (column < n_prefix) | (column <= row)  # (S, S)
    return torch.zeros(S, S).masked_fill(~visible, float("-inf"))

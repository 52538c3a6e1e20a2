"""The VLA π_θ(a_{t:t+H}, a^ℓ, ℓ̂ | o_t, ℓ, I_t) at toy size (Secs. V-A, V-B; Fig. 3; Apps. C, E).

    Eqs. 4, 7    a^{η,ω} = η a + (1 - η) ω     noised
    Eqs. 4, 8    flow-matching loss            flow_matching_loss
    Eq. 6        the three factors of π_θ      VLA.terms
    Eqs. 9, 10   bound on log π_θ              likelihood_bound
    Eqs. 2, 12, 13   π̂, by guidance            sample_actions, with `integrate` and `guided`
    Sec. V-A     a^ℓ, a scaled-down FAST       ActionTokenizer
    Sec. V-B     the indicator, or none        VLA.hidden_states, VLA._omitted
    Sec. V-A     knowledge insulation          VLA.context

Time, stated once: η = 0 is noise, η = 1 is data.  The paper's f ≈ ω - a points from the data to
the noise, so sampling walks against it: da/dη = -f, from η = 0 to η = 1.
The expert predicts the clean chunk â and is asked for f = (a^η - â) / (1 - η).  Then
‖ω - a - f‖² = ‖a - â‖² / (1 - η)²: a plain squared error on â *is* Eq. 4 with α_η = (1 - η)².

The sequence; [ ] = seen by all, then causal; the expert reads what stands before "action:":
    [ keypoints | state | prompt ℓ_t, s ] subtask: w1 w2 | Advantage: positive | action: a^ℓ ...
In shapes: B or N samples, H actions of a chunk, n_draws draws of (ω, η) per sample.
Deviations (docs/DEVIATIONS.md): 1 sizes, 2 words, 9 the expert, 10 ℓ̂, 11 chunks, 12 α_η, 13.
"""
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbone import Backbone, attend, mlp, prefix_lm_bias
from data import WORDS, Interface

ETA_MAX = 0.999  # f divides by 1 - η

# ---------------------------------------------------------------- flow matching, as pure functions

def noised(actions: Tensor, omega: Tensor, eta: Tensor) -> Tensor:
    """Eq. 4: a^{η,ω} = η a + (1 - η) ω.  actions, omega: (..., H, action_dim).  eta: (...)."""
    eta = eta[..., None, None]  # (..., 1, 1)
    return eta * actions + (1 - eta) * omega

def draw_noise(actions: Tensor, generator=None) -> tuple:
    """ω ~ N(0, I) like actions (..., H, action_dim); η (...), π₀'s law 0.999 (1 - Beta(1.5, 1))."""
    omega = torch.randn(actions.shape, generator=generator).to(actions, non_blocking=True)
    u = torch.rand(actions.shape[:-2], generator=generator).to(actions, non_blocking=True)
    return omega, ETA_MAX * (1 - u ** (1 / 1.5))

def flow_matching_loss(f: Tensor, actions: Tensor, omega: Tensor, eta: Tensor, weight=None):
    """Eq. 4, second term: α_η ‖ω - a - f‖², the mean over the chunk's numbers.

    f, actions, omega: (..., H, action_dim).  eta: (...).
    weight: α_η, (...); None is (1 - η)², with which the loss is ‖a - â‖².  Returns (...).
    Eq. 8 has w(η) / 2; Eq. 7 is the Gaussian behind it and is not computed.
    """
    alpha = (1 - eta) ** 2 if weight is None else weight
    error = ((omega - actions - f) ** 2).mean(dim=(-2, -1))  # (..., H, action_dim) -> (...)
    return alpha * error

def paper_weight(eta: Tensor) -> Tensor:
    """Eq. 8: α_η = w(η) / 2 with w(η) = e^{-η/2} (App. C), for an expert that puts out f."""
    return torch.exp(-eta / 2) / 2


# α_η by name.  None is (1 - η)².  Where the expert puts out â, any other weighs errors near the
# data, η → 1, up to a million times more.
FLOW_WEIGHTS = {"clean": None, "constant": torch.ones_like, "paper": paper_weight}

def guided(f_unconditional: Tensor, f_conditional: Tensor, beta: float) -> Tensor:
    """Eq. 13 for velocities: f_u + β (f_c - f_u).  β = 1 is the conditional field, 0 the other.

    Eq. 13 is in gradients of log p(a^η).  At a given (a^η, η > 0) both branches have
    f = -((1 - η) ∇ log p + a^η) / η; the factors 1 - β and β sum to one, so f can be guided, too.
    """
    return f_unconditional + beta * (f_conditional - f_unconditional)

def integrate(f, omega: Tensor, steps: int) -> Tensor:
    """Euler steps of da/dη = -f(a, η) from η = 0 (a = ω, noise) to η = 1 (data).

    f: callable (a, eta (N,)) → like a.  omega, and the actions returned: (N, H, action_dim).
    """
    if steps < 1:
        raise ValueError(f"steps: {steps}, expected at least 1")
    a = omega
    for i in range(steps):
        eta = torch.full((len(a),), i / steps, dtype=a.dtype, device=a.device)
        a = a - f(a, eta) / steps
    return a

# ---------------------------------------------------------------- discrete actions: a small FAST

def dct_matrix(H):
    """Orthonormal DCT-II, (H, H): coefficients = matrix @ signal."""
    k, t = np.mgrid[:H, :H]
    matrix = np.cos(np.pi * (t + 0.5) * k / H) * np.sqrt(2 / H)
    matrix[0] /= np.sqrt(2)
    return torch.tensor(matrix, dtype=torch.float32)

class ActionTokenizer(nn.Module):
    """a_{t:t+H} → a^ℓ: the n lowest coefficients of a DCT per dimension, each in n_bins."""

    RANGE = 3.0  # standard deviations covered; beyond them the outermost bins

    def __init__(self, horizon, action_dim, n_coefficients, n_bins):
        super().__init__()
        self.n_bins = n_bins
        self.register_buffer("dct", dct_matrix(horizon)[:n_coefficients])  # (n, H)
        self.register_buffer("scale", torch.ones(n_coefficients, action_dim))

    def fit(self, chunks):
        """Measure each coefficient's scale.  chunks: (N, H, action_dim), normalised."""
        power = (self.dct @ chunks).pow(2).mean(0)  # (N, n, action_dim) -> (n, action_dim)
        self.scale.copy_(power.sqrt().clamp(min=1e-3))

    def encode(self, chunks):
        """(N, H, action_dim) → bins (N, n * action_dim), long, lowest frequency first."""
        x = (self.dct @ chunks) / self.scale / self.RANGE  # (N, n, action_dim), about [-1, 1]
        bins = ((x + 1) / 2 * self.n_bins).floor().long()
        return bins.clamp(0, self.n_bins - 1).flatten(1)  # (N, n * action_dim)

    def decode(self, bins):
        """bins (N, n * action_dim) → chunks (N, H, action_dim): the centres of the bins."""
        x = ((bins + 0.5) / self.n_bins * 2 - 1) * self.RANGE
        coefficients = x.view(len(bins), *self.scale.shape) * self.scale  # (N, n, action_dim)
        return self.dct.T @ coefficients  # (N, H, action_dim)

# ---------------------------------------------------------------- the network

@dataclass
class PolicyConfig:
    interface: Interface
    width: int = 64  # of the backbone (paper: Gemma 3 4B)
    layers: int = 2
    heads: int = 2
    expert_width: int = 64  # of the action expert (paper: 860M weights)
    horizon: int = 8  # H, at 10 Hz (π₀: 50, at 50 Hz; the paper gives no H)
    n_coefficients: int = 2  # DCT coefficients kept per action dimension
    n_action_bins: int = 32
    output: str = "clean"  # of the expert's last layer: the chunk â ("clean") or f ("velocity")
    insulation: bool = True  # knowledge insulation: no gradient from the expert to the backbone

def expert_layer(width, backbone_width):
    """One layer of the action expert: attention to the prefix and to itself, then an MLP."""
    return nn.ModuleDict({
        "norm1": nn.LayerNorm(width), "norm2": nn.LayerNorm(width),
        "context_norm": nn.LayerNorm(backbone_width),
        "qkv": nn.Linear(width, 3 * width),
        "context_kv": nn.Linear(backbone_width, 2 * width),
        "out": nn.Linear(width, width),
        "mlp": mlp(width, 4 * width, width),
    })

class Expert(nn.Module):
    """The action expert: weights of its own, one token per arm and draw."""

    def __init__(self, config):
        super().__init__()
        width = config.expert_width
        self.heads = config.heads
        self.n_arms = config.interface.n_arms
        arm_dim = config.interface.action_dim // self.n_arms  # numbers of one arm's action
        self.register_buffer("frequency", 2.0 ** torch.arange(6) * torch.pi / 2)  # of η's sines
        self.inward = mlp(config.horizon * arm_dim + 12, 2 * width, width)  # a chunk, η
        self.arm = nn.Parameter(0.1 * torch.randn(self.n_arms, width))  # which arm
        self.layers = nn.ModuleList(expert_layer(width, config.width) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.outward = nn.Linear(width, config.horizon * arm_dim)

    def context(self, hidden):
        """Keys and values of the prefix for every layer: a list of [k, v], (B, P, width) each."""
        read = zip(self.layers, hidden, strict=True)
        return [layer["context_kv"](layer["context_norm"](h)).chunk(2, -1) for layer, h in read]

    def forward(self, context, omitted_bias, a_eta, eta):
        """What the last layer puts out, â or f, for several draws of (ω, η) per prefix.

        The prefix is the expensive part: it is read once, and all draws of a sample share it.
        context: of `context`, for B prefixes of P tokens.
        omitted_bias: 0 or -inf, (B, 1, n_draws, P), or (B, 1, 1, P) for all draws alike.
        a_eta, and what is returned: (B, n_draws, H, action_dim).  eta: (B, n_draws).
        """
        B, n_draws, H, _ = a_eta.shape
        n_arms = self.n_arms
        n_own = n_draws * n_arms  # tokens of its own
        # One token per draw and arm: the arm's chunk, and η in sines and cosines.
        arms = a_eta.unflatten(-1, (n_arms, -1)).transpose(2, 3)  # (B, n_draws, n_arms, H, arm_dim)
        arms = arms.flatten(3)  # (B, n_draws, n_arms, H * arm_dim)
        phase = eta[..., None] * self.frequency  # (B, n_draws, 6)
        time = torch.cat([phase.sin(), phase.cos()], -1)[:, :, None].expand(-1, -1, n_arms, -1)
        x = self.inward(torch.cat([arms, time], -1)) + self.arm  # (B, n_draws, n_arms, width)
        x = x.view(B, n_own, -1)  # (B, n_own, width)
        # All see the prefix.  The arms of a draw see one another, other draws do not.
        draw = torch.arange(n_own, device=x.device) // n_arms  # 0 0 1 1 2 2 ...
        others = torch.where(draw[:, None] == draw, 0.0, -torch.inf).expand(B, 1, -1, -1)
        omitted_bias = omitted_bias.expand(-1, -1, n_draws, -1).repeat_interleave(n_arms, 2)
        bias = torch.cat([omitted_bias, others], -1)  # (B, 1, n_own, P + n_own)
        for layer, (context_k, context_v) in zip(self.layers, context):
            q, k, v = layer["qkv"](layer["norm1"](x)).chunk(3, dim=-1)
            k = torch.cat([context_k, k], dim=1)  # (B, P + n_own, width)
            v = torch.cat([context_v, v], dim=1)
            x = x + layer["out"](attend(q, k, v, self.heads, bias))
            x = x + layer["mlp"](layer["norm2"](x))
        out = self.outward(self.norm(x)).view(B, n_draws, n_arms, H, -1)
        return out.transpose(2, 3).reshape(a_eta.shape)  # (B, n_draws, H, action_dim)

class VLA(nn.Module):
    """π_θ: observations, prompt and subtask in; text, action tokens and the field f out."""

    def __init__(self, config):
        super().__init__()
        if config.output not in ("clean", "velocity"):
            raise ValueError(f"output: {config.output!r}, expected 'clean' or 'velocity'")
        self.config = config
        interface = config.interface
        chunk = (config.horizon, interface.action_dim)
        self.tokenizer = ActionTokenizer(*chunk, config.n_coefficients, config.n_action_bins)
        self.n_action_tokens = config.n_coefficients * interface.action_dim
        self.n_words = len(interface.vocabulary)  # the ids behind them are action tokens
        # Where in the sequence the text stands.
        n_prefix = interface.n_observation_tokens + interface.prompt_length
        self.at_subtask = n_prefix  # "subtask:"
        self.at_indicator = self.at_subtask + 1 + interface.subtask_length  # "Advantage:"
        self.at_action = self.at_indicator + 2  # "action:"; the expert sees what is before it
        n_tokens = self.n_words + config.n_action_bins
        n_text = self.at_action - n_prefix + self.n_action_tokens
        self.backbone = Backbone(config, n_tokens, interface.prompt_length + n_text)
        self.text_head = nn.Linear(config.width, n_tokens)
        self.expert = Expert(config)
        self.register_buffer("mask", prefix_lm_bias(n_prefix, n_text))  # (S, S)
        # Normaliser of the relative chunks, saved with the weights.
        self.register_buffer("fitted", torch.tensor(False))
        self.register_buffer("mean", torch.zeros(chunk))
        self.register_buffer("std", torch.ones(chunk))

    # ---- actions as the network sees them: relative to the current joints, unit variance

    def fit_normalizer(self, chunks, states):
        """Measure mean and std of relative chunks.  (N, H, action_dim), (N, action_dim)."""
        relative = chunks - self._origin(states)  # (N, H, action_dim)
        self.mean.copy_(relative.mean(0))
        self.std.copy_(relative.std(0).clamp(min=1e-3))
        self.tokenizer.fit(self.normalize(chunks, states))
        self.fitted.fill_(True)

    def _origin(self, states):
        """What chunks are relative to, (N, 1, action_dim): the joints; grippers stay absolute."""
        origin = states.new_zeros(len(states), self.config.interface.action_dim)
        relative = self.config.interface.relative
        origin[:, relative] = states[:, relative]
        return origin[:, None]

    def normalize(self, chunks, states):
        """Targets (N, H, action_dim), states (N, action_dim) → what the network predicts."""
        return (chunks - self._origin(states) - self.mean) / self.std

    def denormalize(self, chunks, states):
        """Inverse of `normalize`."""
        return chunks * self.std + self.mean + self._origin(states)

    # ---- the backbone's pass

    def hidden_states(self, observation, prompt, subtask, positive, omit, bins=None, read=True):
        """Hidden states of the whole sequence; without action tokens of the part before "action:".

        observation: as `Backbone.embed_observation`.  prompt, subtask: ids (B, their length).
        positive, omit: bool (B,), I_t and whether it is left out.  bins: the action tokens' bins.
        Returns `Hidden`: what went into each layer, (B, S, width); the output from "subtask:" on,
        (B, S - at_subtask, width), or None if it is not to be read.
        """
        like = prompt[:, :1]  # ids (B, 1)
        sign = torch.where(positive, WORDS.index("positive"), WORDS.index("negative"))[:, None]
        text = [prompt, torch.full_like(like, WORDS.index("subtask:")), subtask]
        text += [torch.full_like(like, WORDS.index("Advantage:")), sign]
        if bins is not None:
            text.append(torch.full_like(like, WORDS.index("action:")))
            text.append(bins[:, :-1] + self.n_words)  # the last is only ever a target
        text = self.backbone.token(torch.cat(text, dim=1))  # (B, words and tokens, width)
        seen = self.backbone.embed_observation(observation)  # (B, n, width)
        tokens = torch.cat([seen, text], dim=1)  # (B, S, width)
        S = tokens.shape[1]
        bias = self.mask[:S, :S] + self._omitted(omit, S)  # (B, 1, S, S)
        return self.backbone(tokens, bias, self.at_subtask if read else None)

    def _omitted(self, omit, S):
        """-inf on the indicator where it is left out: all else keeps its place.

        omit: bool (B,), or (B, n).  Returns (B, 1, n, S), n = 1 for the former.
        """
        omit = omit.reshape(len(omit), 1, -1, 1)
        bias = torch.zeros(*omit.shape[:3], S, device=omit.device)
        bias[..., self.at_indicator : self.at_action].masked_fill_(omit, -torch.inf)
        return bias

    # ---- the three factors of Eq. 6

    def subtask_logits(self, hidden):
        """log π_θ(ℓ̂ | o_t, ℓ), unnormalised, (B, subtask_length, n_tokens).  No I_t is seen."""
        # Read at "subtask:", where the output begins, and at all words of ℓ̂ but the last.
        return self.text_head(hidden.output[:, : self.config.interface.subtask_length])

    def answer_logits(self, observation, question, answer):
        """Co-training (Sec. V-A): a question for the prompt, an answer for the subtask, ids."""
        no = torch.zeros(len(question), dtype=torch.bool, device=question.device)
        return self.subtask_logits(self.hidden_states(observation, question, answer, no, ~no))

    def action_logits(self, hidden):
        """log π_θ(a^ℓ | I_t, o_t, ℓ, ℓ̂), unnormalised: (B, n_action_tokens, n_tokens)."""
        return self.text_head(hidden.output[:, self.at_action - self.at_subtask :])

    def context(self, hidden, omit):
        """What the expert reads: all before "action:".  KI: no gradient flows back from it.

        omit: bool (B,), or (B, n_draws): nothing else depends on the indicator, so "with" and
        "without" are two masks over one context.
        """
        seen = [h[:, : self.at_action] for h in hidden.inputs]
        if self.config.insulation:
            seen = [h.detach() for h in seen]
        return self.expert.context(seen), self._omitted(omit, self.at_action)

    def field(self, context, a_eta, eta):
        """f_θ(a^{η,ω}, I_t, o_t, ℓ, ℓ̂) = (a^η - â) / (1 - η); shapes as `Expert.forward`."""
        out = self.expert(*context, a_eta, eta)
        if self.config.output == "velocity":
            return out
        return (a_eta - out) / (1 - eta)[..., None, None]

    def terms(self, batch, omega, eta, weight=None):
        """The factors of Eq. 6, per sample: two cross-entropies, and for the first the flow loss.

        batch: dict of observation, prompt and subtask (ids), positive (B,), omit (B,),
        chunk (B, H, action_dim) normalised, tokens (B, n_action_tokens).
        omega: (B, n_draws, H, action_dim).  eta: (B, n_draws).  weight: callable η → α_η, or None.
        Returns {"subtask": (B,), "tokens": (B,), "flow": (B, n_draws)}.
        """
        names = ("prompt", "subtask", "positive", "omit", "tokens")
        hidden = self.hidden_states(batch, *[batch[name] for name in names])
        # cross_entropy wants the classes in the second axis: (B, n_tokens, words) → (B, words).
        logits = self.subtask_logits(hidden).transpose(1, 2)
        words = F.cross_entropy(logits, batch["subtask"], reduction="none")
        logits = self.action_logits(hidden).transpose(1, 2)
        tokens = F.cross_entropy(logits, batch["tokens"] + self.n_words, reduction="none")
        # All draws of a sample share its chunk.
        chunk = batch["chunk"][:, None].expand_as(omega)  # (B, n_draws, H, action_dim)
        f = self.field(self.context(hidden, batch["omit"]), noised(chunk, omega, eta), eta)
        alpha = None if weight is None else weight(eta)
        flow = flow_matching_loss(f, chunk, omega, eta, alpha)  # (B, n_draws)
        return {"subtask": words.sum(1), "tokens": tokens.sum(1), "flow": flow}

def likelihood_bound(policy, batch: dict, omega: Tensor, eta: Tensor, alpha=None) -> tuple:
    """Eq. 9: log π_θ(a, a^ℓ | I_t, o_t, ℓ, ℓ̂) ≥ E[log p(a^ℓ) - α_η ‖ω - a - f‖²], per sample.

    Arguments as `VLA.terms`; alpha is its weight.  With batch["omit"] all True it is Eq. 10.
    The norm is a sum over the chunk's numbers, as in the paper; the training loss takes the mean.
    Returns (autoregressive (B,), flow (B,)): Eq. 11 treats them apart, their sum is the bound.
    """
    if not (eta <= ETA_MAX).all():
        raise ValueError(f"eta: {eta.max().item()}, expected at most {ETA_MAX}")
    terms = policy.terms(batch, omega, eta, alpha)
    H, action_dim = omega.shape[2:]
    return -terms["tokens"], -terms["flow"].mean(1) * H * action_dim  # (B, n_draws) → (B,)

# ---------------------------------------------------------------- acting

@torch.inference_mode()
def predict_subtask(policy, observation: dict, prompt: Tensor) -> Tensor:
    """ℓ̂: the most likely subtask, word by word.  Returns ids (B, subtask_length)."""
    length = policy.config.interface.subtask_length
    subtask = torch.zeros(len(prompt), length, dtype=torch.long, device=prompt.device)
    no = torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)
    for i in range(length):
        # The text is causal: later words, and the indicator, do not matter for earlier ones.
        hidden = policy.hidden_states(observation, prompt, subtask, no, ~no)
        subtask[:, i] = policy.subtask_logits(hidden)[:, i, : policy.n_words].argmax(-1)
    return subtask

@torch.inference_mode()
def sample_actions(
    policy, observation, prompt, subtask, indicator=True, beta=1.0, steps=5, omega=None, frozen=None
):
    """a_{t:t+H} ~ π̂ of Eqs. 2 and 12: joint targets and gripper openings, (B, H, action_dim).

    observation, prompt, subtask: as `VLA.hidden_states`.  steps: of Euler.
    indicator: True, False, or None for the unconditional policy: with β = 1, else a ValueError.
    beta: finite, β >= 0, or a ValueError; 1 is the conditional policy, 0 the unconditional.
    omega: the noise, (B, H, action_dim); None: it is drawn.
    frozen: (B, known, action_dim), actions that are decided already (real-time chunking): the
    chunk begins with them, and the rest is made to fit.
    """
    if not 0 <= beta < float("inf"):  # NaN fails, too
        raise ValueError(f"beta: {beta}, expected a finite number >= 0")
    if indicator is None and beta != 1:
        raise ValueError(f"beta: {beta} without an indicator, expected 1 (nothing to guide by)")
    B = len(prompt)
    if omega is None:
        omega = torch.randn(B, *policy.mean.shape, device=prompt.device)
    # The branches that we need, as draws of one sample: without the indicator, and with it.
    branches = [beta == 0 or indicator is None] if beta in (0, 1) else [True, False]
    n = len(branches)
    omit = torch.tensor(branches, device=prompt.device).expand(B, n)
    positive = torch.full((B,), bool(indicator), device=prompt.device)
    shown = torch.zeros_like(positive)  # what the expert does not see is masked for it alone
    hidden = policy.hidden_states(observation, prompt, subtask, positive, shown, read=False)
    context = policy.context(hidden, omit)
    known = 0 if frozen is None else frozen.shape[1]
    if known > 0:
        whole = F.pad(frozen, (0, 0, 0, policy.config.horizon - known))  # (B, H, action_dim)
        begin = policy.normalize(whole, observation["state"])[:, :known]

    def f(a, eta):
        if known > 0:
            # Inpainting: the network sees the known actions, noised to this step's η.
            a = torch.cat([noised(begin, omega[:, :known], eta), a[:, known:]], dim=1)
        many_a = a[:, None].expand(-1, n, -1, -1)  # (B, n, H, action_dim)
        fields = policy.field(context, many_a, eta[:, None].expand(-1, n))
        if n == 1:
            return fields[:, 0]
        # Eq. 13, on velocities and in every step: finished chunks are something else.
        return guided(fields[:, 0], fields[:, 1], beta)

    chunk = policy.denormalize(integrate(f, omega, steps), observation["state"])
    return chunk if known == 0 else torch.cat([frozen, chunk[:, known:]], dim=1)

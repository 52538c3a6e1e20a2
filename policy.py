"""The VLA π_θ(a_{t:t+H}, a^ℓ, ℓ̂ | o_t, ℓ, I_t) at toy size (Secs. V-A, V-B; Fig. 3; Apps. C, E).

    Eq. (4), (7)   a^{η,ω} = η a + (1 - η) ω    noised
    Eq. (4), (8)   flow-matching loss           flow_matching_loss
    Eq. (6)        the three factors of π_θ     VLA.terms
    Eq. (9), (10)  bound on log π_θ             likelihood_bound
    Eq. (2), (12)  the improved policy π̂        sample_actions: da/dη = -f (integrate) with the guidance of Eq. (13) (guided)
    Sec. V-A       a^ℓ, a scaled-down FAST      ActionTokenizer
    Sec. V-B       the indicator's text         VLA.hidden_states    (its random omission: recap.train_policy)
    Fig. 3         knowledge insulation         VLA.context

One convention of time, stated here once: η = 0 is noise, η = 1 is data.  The paper's f ≈ ω - a points from the
data to the noise, so sampling walks against it: da/dη = -f, from η = 0 to η = 1.

The network predicts the clean chunk â and is asked for f = (a^η - â) / (1 - η).  Then
‖ω - a - f‖² = ‖a - â‖² / (1 - η)², so a plain squared error on â *is* Eq. (4) with α_η = (1 - η)², a noise-dependent
weight as the paper allows.

The sequence; [ ] = seen by all, then causal (prefix-LM):
    [ keypoints 4 (or patches 27) | state | prompt ℓ_t, s 5 ] subtask: w1 w2 | Advantage: positive | action: a^ℓ_1 ... a^ℓ_12
The action expert has weights of its own, reads the hidden states up to the indicator, never the action tokens
a^ℓ, and reads them through a stop-gradient (knowledge insulation).

Deviations: 1. words, not word pieces; "FAST" is a DCT, the two lowest coefficients per dimension, quantised: 12
tokens of fixed number in the place of byte-pair merges.  2. The expert has one token per arm (its whole chunk), not
per time step.  3. Its K and V are weights of its own on the (stopped) inputs of the backbone's layers; π₀ shares the
backbone's K and V.  As there, what the last layer of the backbone puts out serves the text and the action tokens only.
4. Eq. (6) conditions ℓ̂ on I_t; Sec. V-B puts ℓ̂ before I_t, and so do we.  5. Chunks are predicted relative to the current
joints and normalised; the law of η is π₀'s, the paper names none.  Sizes in shapes as in recap.py; P tokens of prefix.
"""
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from backbone import (PROMPT_LENGTH, SUBTASK_LENGTH, VOCABULARY, WORD_ID, Backbone, attend, n_observation_tokens,
                      prefix_lm_bias)

ETA_MAX = 0.999      # f divides by 1 - η


# ---------------------------------------------------------------- flow matching, as pure functions

def noised(actions, omega, eta):
    """Eq. (4): a^{η,ω} = η a + (1 - η) ω.  actions, omega (N, H, A), eta (N,) -> (N, H, A)."""
    eta = eta[:, None, None]      # (N, 1, 1)
    return eta * actions + (1 - eta) * omega


def draw_noise(actions, generator=None):
    """ω ~ N(0, I) like actions (N, H, A), and η (N,) from π₀'s noise-heavy law: 0.999 (1 - u^(1/1.5))."""
    omega = torch.randn(actions.shape, generator=generator).to(actions)
    u = torch.rand(len(actions), generator=generator).to(actions)
    return omega, ETA_MAX * (1 - u ** (1 / 1.5))


def flow_matching_loss(f, actions, omega, eta, weight=None):
    """Eq. (4), second term: α_η ‖ω - a - f‖² per sample, mean over H and A.  f, actions, omega (N, H, A), eta (N,).

    weight: α_η (N,); None is (1 - η)², with which the loss is ‖a - â‖² (see above).  Eq. (8) has α_η = w(η) / 2 with
    w(η) = e^{-η/2}; Eq. (7) is the Gaussian behind it, not computed.  -> (N,)
    """
    alpha = (1 - eta) ** 2 if weight is None else weight
    return alpha * ((omega - actions - f) ** 2).mean(dim=(1, 2))      # (N, H, A) -> (N,)


# α_η by name.  "paper" is Eq. (8)'s w(η) / 2 with w(η) = e^{-η/2} (App. C), meant for a network that puts out f; where it
# puts out â, anything but "clean" (None: (1 - η)²) weighs errors near the data, η → 1, up to a million times more.
FLOW_WEIGHTS = {"clean": None, "constant": torch.ones_like, "paper": lambda eta: torch.exp(-eta / 2) / 2}


def guided(f_unconditional, f_conditional, beta):
    """Eq. (13) for velocities: f_u + β (f_c - f_u).  β = 1 is the conditional field, β = 0 the unconditional.

    Eq. (13) is in gradients of log p(a^η).  At a given (a^η, η) both branches have f = -((1 - η) ∇ log p + a^η) / η, and
    the factors 1 - β and β sum to one.  Extrapolating finished actions, not velocities, is something else.
    """
    return f_unconditional + beta * (f_conditional - f_unconditional)


def integrate(f, omega, steps):
    """Euler steps of da/dη = -f(a, η) from η = 0 (a = ω, noise) to η = 1 (data).

    f: callable (a (N, H, A), eta (N,)) -> (N, H, A); omega (N, H, A); steps: int >= 1.  -> actions (N, H, A)
    """
    if steps < 1:
        raise ValueError(f"steps: {steps}, expected at least 1")
    a = omega
    for i in range(steps):
        eta = torch.full((len(a),), i / steps, dtype=a.dtype, device=a.device)
        a = a - f(a, eta) / steps
    return a


# ---------------------------------------------------------------- discrete actions: a scaled-down FAST

def dct_matrix(H):
    """Orthonormal DCT-II, (H, H): coefficients = matrix @ signal."""
    k, t = np.arange(H)[:, None], np.arange(H)[None]
    matrix = np.cos(np.pi * (t + 0.5) * k / H) * np.sqrt(2 / H)
    matrix[0] /= np.sqrt(2)
    return torch.tensor(matrix, dtype=torch.float32)


class ActionTokenizer(nn.Module):
    """a_{t:t+H} → a^ℓ: the lowest `n_coefficients` of a DCT per dimension, each quantised into n_bins.

    Chunks are normalised (unit variance), so coefficient k has a variance of the order of H for k = 0 and less
    above; `fit` measures each one's scale on the pre-training data.
    """
    RANGE = 3.0      # standard deviations covered; beyond them the outermost bins

    def __init__(self, horizon, action_dim, n_coefficients, n_bins):
        super().__init__()
        self.n_coefficients, self.n_bins, self.action_dim = n_coefficients, n_bins, action_dim
        self.register_buffer("dct", dct_matrix(horizon)[:n_coefficients])                 # (C, H)
        self.register_buffer("scale", torch.ones(n_coefficients, action_dim))             # (C, A)

    def fit(self, chunks):
        """chunks (N, H, A), normalised: measure the scale of every coefficient."""
        self.scale.copy_((self.dct @ chunks).pow(2).mean(0).sqrt().clamp(min=1e-3))       # (N, C, A) -> (C, A)

    def encode(self, chunks):
        """(N, H, A) -> bins (N, C * A), long, lowest frequency first."""
        x = (self.dct @ chunks) / self.scale / self.RANGE                                 # (N, C, A) in about [-1, 1]
        return ((x + 1) / 2 * self.n_bins).floor().long().clamp(0, self.n_bins - 1).flatten(1)    # (N, C*A)

    def decode(self, bins):
        """bins (N, C * A) -> chunks (N, H, A), the centre of each bin, higher frequencies 0."""
        x = ((bins + 0.5) / self.n_bins * 2 - 1) * self.RANGE
        return self.dct.T @ (x.view(len(bins), self.n_coefficients, self.action_dim) * self.scale)   # (N, H, A)


# ---------------------------------------------------------------- the network

@dataclass
class PolicyConfig:
    width: int = 64               # of the backbone (paper: Gemma 3 4B)
    layers: int = 2
    heads: int = 2
    expert_width: int = 64        # of the action expert (paper: 860M weights)
    horizon: int = 8              # H, at 10 Hz (π₀: 50, at 50 Hz; the paper gives no H)
    n_coefficients: int = 2       # DCT coefficients kept per action dimension
    n_action_bins: int = 32
    cameras: tuple = ()           # names of the images it reads; none: keypoints
    output: str = "clean"         # what the expert's last layer means: the chunk â ("clean") or f itself ("velocity")
    insulation: bool = True       # knowledge insulation: no gradient from the expert into the backbone


class Expert(nn.Module):
    """The action expert: its own weights, one token per arm and draw, cross-attention to the backbone."""

    def __init__(self, config, arm_dim):
        super().__init__()
        D, self.heads, self.arm_dim = config.expert_width, config.heads, arm_dim
        self.register_buffer("frequency", 2.0 ** torch.arange(6) * torch.pi / 2)          # of the sines that encode η
        n_in = config.horizon * arm_dim + 12                                              # an arm's chunk, 6 sines, 6 cosines
        self.inward = nn.Sequential(nn.Linear(n_in, 2 * D), nn.GELU(), nn.Linear(2 * D, D))
        self.arm = nn.Parameter(0.1 * torch.randn(2, D))                                  # which arm: left, right
        self.layers = nn.ModuleList()
        for _ in range(config.layers):
            self.layers.append(nn.ModuleDict({
                "norm1": nn.LayerNorm(D), "norm2": nn.LayerNorm(D), "context_norm": nn.LayerNorm(config.width),
                "qkv": nn.Linear(D, 3 * D), "context_kv": nn.Linear(config.width, 2 * D), "out": nn.Linear(D, D),
                "mlp": nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(), nn.Linear(4 * D, D))}))
        self.norm = nn.LayerNorm(D)
        self.outward = nn.Linear(D, config.horizon * arm_dim)

    def context(self, hidden):
        """Keys and values of every layer: list of [k, v], each (B, P, D).  They serve all draws and all Euler steps."""
        return [layer["context_kv"](layer["context_norm"](h)).chunk(2, dim=-1)
                for layer, h in zip(self.layers, hidden)]

    def forward(self, context, hidden_bias, a_eta, eta):
        """What the last layer puts out, â or f (`PolicyConfig.output`), for several draws per prefix.

        context: from `context`, for B prefixes of P tokens; hidden_bias (B, 1, 1, P): 0 or -inf (omitted indicator);
        a_eta (B, R, H, A), eta (B, R): R draws per prefix, which do not see one another -> (B, R, H, A)
        """
        B, R, H, A = a_eta.shape
        arms = a_eta.view(B, R, H, 2, self.arm_dim).transpose(2, 3).reshape(B, R, 2, -1)   # (B, R, arm, H*A/2)
        phase = eta[..., None] * self.frequency                                            # (B, R, 6)
        time = torch.cat([phase.sin(), phase.cos()], -1)[:, :, None].expand(B, R, 2, 12)   # (B, R, arm, 12)
        x = self.inward(torch.cat([arms, time], -1)) + self.arm                            # (B, R, arm, D)
        x = x.view(B, R * 2, -1)                                                           # (B, R*arm, D)
        # draws of the same prefix are different samples: block-diagonal among themselves
        draw = torch.arange(R * 2, device=x.device) // 2                                   # (R*arm,): 0 0 1 1 2 2 ...
        own = torch.zeros(R * 2, R * 2, device=x.device).masked_fill(draw[:, None] != draw, float("-inf"))
        P = hidden_bias.shape[-1]
        bias = torch.cat([hidden_bias.expand(B, 1, R * 2, P), own.expand(B, 1, R * 2, R * 2)], -1)  # (B, 1, R*arm, P+R*arm)
        for layer, (ck, cv) in zip(self.layers, context):
            q, k, v = layer["qkv"](layer["norm1"](x)).chunk(3, dim=-1)
            k, v = torch.cat([ck, k], dim=1), torch.cat([cv, v], dim=1)                    # (B, P + R*arm, D)
            x = x + layer["out"](attend(q, k, v, self.heads, bias))
            x = x + layer["mlp"](layer["norm2"](x))
        out = self.outward(self.norm(x)).view(B, R, 2, H, self.arm_dim)                    # (B, R, arm, H, A/2)
        return out.transpose(2, 3).reshape(B, R, H, A)                                     # (B, R, H, A)


class VLA(nn.Module):
    """π_θ.  Observations, prompt ids and subtask ids in; text logits, action-token logits and the field f out."""

    def __init__(self, config=PolicyConfig(), action_dim=6):
        super().__init__()
        self.config, self.action_dim = config, action_dim
        self.tokenizer = ActionTokenizer(config.horizon, action_dim, config.n_coefficients, config.n_action_bins)
        self.n_action_tokens = config.n_coefficients * action_dim
        if config.output not in ("clean", "velocity"):
            raise ValueError(f"output: {config.output!r}, expected 'clean' or 'velocity'")
        n_prefix = n_observation_tokens(config.cameras) + PROMPT_LENGTH     # fully visible to one another
        self.at_subtask = n_prefix                                          # where "subtask:" stands
        self.at_indicator = self.at_subtask + 1 + SUBTASK_LENGTH            # where "Advantage:" stands
        self.at_action = self.at_indicator + 2           # where "action:" stands; the expert sees what is before it
        n_tokens, n_text = len(VOCABULARY) + config.n_action_bins, self.at_action - n_prefix + self.n_action_tokens
        self.backbone = Backbone(config.width, config.layers, config.heads, n_tokens, PROMPT_LENGTH + n_text, config.cameras)
        self.text_head = nn.Linear(config.width, n_tokens)
        self.expert = Expert(config, action_dim // 2)
        self.register_buffer("mask", prefix_lm_bias(n_prefix, n_text))                     # (S, S)
        # normaliser of the chunks relative to the current joints, per step and dimension; buffers, saved with the weights
        self.register_buffer("fitted", torch.tensor(False))
        self.register_buffer("mean", torch.zeros(config.horizon, action_dim))
        self.register_buffer("std", torch.ones(config.horizon, action_dim))

    # ---- actions as the network sees them: relative to the current joints, unit variance

    def fit_normalizer(self, chunks, states):
        """Measure mean and std of relative chunks, and the tokenizer's scales.  chunks (N, H, A), states (N, A)."""
        relative = self._relative(chunks, states)
        self.mean.copy_(relative.mean(0))
        self.std.copy_(relative.std(0).clamp(min=1e-3))
        self.tokenizer.fit(self.normalize(chunks, states))
        self.fitted.fill_(True)

    def _relative(self, chunks, states):
        return chunks - self._origin(states)

    def _origin(self, states):
        """What chunks are relative to: the current joints; grippers stay absolute (0-1).  (N, A) -> (N, 1, A)"""
        joints = states.clone()
        joints[:, self.action_dim // 2 - 1::self.action_dim // 2] = 0      # the last entry of each arm
        return joints[:, None]

    def normalize(self, chunks, states):
        """Absolute targets (N, H, A) and states (N, A) -> what the network predicts, (N, H, A)."""
        return (self._relative(chunks, states) - self.mean) / self.std

    def denormalize(self, chunks, states):
        """Inverse of `normalize`."""
        return chunks * self.std + self.mean + self._origin(states)

    # ---- the backbone's pass

    def hidden_states(self, observation, prompt, subtask, positive, omit, action_tokens=None):
        """Hidden states of the whole sequence, or of the part before "action:".

        prompt (B, 5), subtask (B, 2) ids; positive (B,) bool: I_t; omit (B,) bool: leave I_t out;
        action_tokens (B, 12) bins or None -> (inputs of the layers: list of (B, S, width); output (B, S, width))
        """
        B = len(prompt)
        word = lambda w: torch.full((B, 1), WORD_ID[w], device=prompt.device)
        value = torch.where(positive, WORD_ID["positive"], WORD_ID["negative"])[:, None]   # (B, 1)
        text = [prompt, word("subtask:"), subtask, word("Advantage:"), value]
        if action_tokens is not None:     # the last one is only ever a target
            text += [word("action:"), action_tokens[:, :-1] + len(VOCABULARY)]
        text = self.backbone.token(torch.cat(text, dim=1))                                 # (B, 10 or 22, width)
        tokens = torch.cat([self.backbone.embed_observation(observation), text], dim=1)    # (B, S, width)
        S = tokens.shape[1]
        return self.backbone(tokens, self.mask[:S, :S] + self._omitted(omit, S))

    def _omitted(self, omit, S):
        """-inf on the indicator's columns where it is left out: (B, 1, 1, S).  The words after it keep their positions."""
        bias = torch.zeros(len(omit), 1, 1, S, device=omit.device)
        bias[omit, :, :, self.at_indicator:self.at_action] = float("-inf")
        return bias

    # ---- the three factors of Eq. (6)

    def subtask_logits(self, hidden):
        """log π_θ(ℓ̂ | o_t, ℓ), unnormalised: (B, 2, n_tokens).  Read at "subtask:" and w1, where no indicator is seen."""
        return self.text_head(hidden[1][:, self.at_subtask:self.at_subtask + SUBTASK_LENGTH])

    def answer_logits(self, observation, question, answer):
        """Co-training on questions (Sec. V-A): they stand where the prompt stands, answers where the subtask stands.

        question (B, 5), answer (B, 2) ids -> logits (B, 2, n_tokens); the indicator is left out.
        """
        no = torch.zeros(len(question), dtype=torch.bool, device=question.device)
        return self.subtask_logits(self.hidden_states(observation, question, answer, no, ~no))

    def action_logits(self, hidden):
        """log π_θ(a^ℓ | I_t, o_t, ℓ, ℓ̂), unnormalised: (B, 12, n_tokens).  Read at "action:" and at a^ℓ_1 ... a^ℓ_11."""
        return self.text_head(hidden[1][:, self.at_action:])

    def context(self, hidden, omit):
        """What the expert may read, as `Expert.forward` takes it: up to the indicator, through the stop-gradient of KI."""
        seen = [h[:, :self.at_action] for h in hidden[0]]
        if self.config.insulation:
            seen = [h.detach() for h in seen]
        return self.expert.context(seen), self._omitted(omit, self.at_action)

    def field(self, context, a_eta, eta):
        """f_θ(a^{η,ω}, I_t, o_t, ℓ, ℓ̂), = (a^η - â) / (1 - η) for â.  a_eta (B, R, H, A), eta (B, R) -> (B, R, H, A)."""
        out = self.expert(*context, a_eta, eta)
        return out if self.config.output == "velocity" else (a_eta - out) / (1 - eta)[..., None, None]

    def terms(self, batch, omega, eta, weight=None):
        """The factors of Eq. (6), per sample: two cross-entropies, and the flow loss in the place of the first factor.

        batch: dict with state (B, 6), keypoints (B, 4, 20) or images, prompt (B, 5), subtask (B, 2), positive (B,), omit (B,),
        chunk (B, H, A) normalised, tokens (B, 12); omega (B, R, H, A), eta (B, R): R draws per sample.
        weight: callable η -> α_η, or None.  -> {"subtask", "tokens", "flow"}: (B,); "flow" per draw: (B, R)
        """
        B, R, H, A = omega.shape
        hidden = self.hidden_states(batch, batch["prompt"], batch["subtask"], batch["positive"], batch["omit"],
                                    batch["tokens"])
        # cross_entropy wants the classes in the second axis: (B, n_tokens, 2) -> (B, 2)
        words = F.cross_entropy(self.subtask_logits(hidden).transpose(1, 2), batch["subtask"], reduction="none")
        bins = F.cross_entropy(self.action_logits(hidden).transpose(1, 2), batch["tokens"] + len(VOCABULARY),
                               reduction="none")                                           # (B, 12)
        chunk = batch["chunk"][:, None].expand(B, R, H, A)
        flat = lambda x: x.reshape(B * R, *x.shape[2:])                                    # (B*R, ...)
        a_eta = noised(flat(chunk), flat(omega), flat(eta)).view(B, R, H, A)
        f = self.field(self.context(hidden, batch["omit"]), a_eta, eta)
        alpha = None if weight is None else weight(flat(eta))
        flow = flow_matching_loss(flat(f), flat(chunk), flat(omega), flat(eta), alpha).view(B, R)
        return {"subtask": words.sum(1), "tokens": bins.sum(1), "flow": flow}


def likelihood_bound(policy, batch, omega, eta, alpha=None):
    """Eq. (9): log π_θ(a, a^ℓ | I_t, o_t, ℓ, ℓ̂) ≥ E[log p(a^ℓ) - α_η ‖ω - a - f‖²], per sample, on given draws.

    Arguments as `VLA.terms`; alpha: α_η, callable η -> (N,), None is (1 - η)².  The norm is a sum over the chunk's H·A
    numbers, as in the paper (the training loss takes their mean).  With batch["omit"] all True it is Eq. (10).
    (The paper derives it for Eq. (8)'s α_η, up to a constant c; for another α_η it is a score of that form.)
    -> (autoregressive (B,), flow (B,)): the two terms that Eq. (11) treats apart; their sum is the bound.
    """
    if not (eta <= ETA_MAX).all():
        raise ValueError(f"eta: {eta.max().item()}, expected at most {ETA_MAX} (f divides by 1 - η)")
    terms = policy.terms(batch, omega, eta, alpha)
    H, A = omega.shape[2:]
    return -terms["tokens"], -terms["flow"].mean(1) * H * A


# ---------------------------------------------------------------- acting

@torch.no_grad()
def predict_subtask(policy, observation, prompt):
    """ℓ̂: the most likely subtask, word by word.  prompt ids (B, 5) -> ids (B, 2)."""
    B = len(prompt)
    subtask = torch.zeros(B, SUBTASK_LENGTH, dtype=torch.long, device=prompt.device)
    no = torch.zeros(B, dtype=torch.bool, device=prompt.device)
    for i in range(SUBTASK_LENGTH):      # a causal model: later words, and the indicator, do not matter for earlier ones
        hidden = policy.hidden_states(observation, prompt, subtask, no, ~no)
        subtask[:, i] = policy.subtask_logits(hidden)[:, i, :len(VOCABULARY)].argmax(-1)
    return subtask


@torch.no_grad()
def sample_actions(policy, observation, prompt, subtask, indicator=True, beta=1.0, steps=5, omega=None, frozen=None):
    """a_{t:t+H} ~ π̂ of Eq. (2) / (12): absolute joint targets and gripper openings, (B, H, A).

    Eq. (12) is met exactly (by an exact f, in many steps) at β = 0 and 1 only: elsewhere the guided field is not that of
    the noised π̂, but at η = 1.
    observation {"state": (B, 6), "keypoints": (B, 4, 20)} or images, prompt (B, 5) and subtask (B, 2) ids; indicator True or
    False, or None for the unconditional policy; beta >= 0: 1 samples the conditional policy, 0 the
    unconditional, above 1 sharpens; steps: Euler steps; omega (B, H, A): the noise (drawn when None).
    frozen (B, d, A): actions that are already decided (real-time chunking): the chunk begins with them and the rest is made
    to fit, by inpainting: in every step the network sees them in the place of its own first d, noised to that step's η.
    """
    if not 0 <= beta < float("inf"):      # NaN fails, too
        raise ValueError(f"beta: {beta}, expected a finite number >= 0")
    if indicator is None and beta != 1:
        raise ValueError(f"beta: {beta} without an indicator, expected 1 (there is nothing to guide by)")
    B, device = len(prompt), prompt.device
    # the branches that we need; True is the one without the indicator, the first where there are two
    omits = [indicator is None] if beta == 1 else [True] if beta == 0 else [True, False]
    n = len(omits)
    many = lambda x: torch.cat([x] * n)                                                    # (n*B, ...)
    omit = torch.tensor(omits, device=device).repeat_interleave(B)                         # (n*B,)
    positive = torch.full((n * B,), bool(indicator), device=device)
    observation = {key: many(x) for key, x in observation.items()}
    hidden = policy.hidden_states(observation, many(prompt), many(subtask), positive, omit)
    context = policy.context(hidden, omit)

    if omega is None:
        omega = torch.randn(B, policy.config.horizon, policy.action_dim, device=device)
    d = 0 if frozen is None else frozen.shape[1]
    if d > 0:
        longer = torch.cat([frozen, frozen[:, -1:].expand(-1, policy.config.horizon - d, -1)], dim=1)      # (B, H, A)
        prefix = policy.normalize(longer, observation["state"][:B])[:, :d]                 # (B, d, A)

    def f(a, eta):
        if d > 0:
            a = torch.cat([noised(prefix, omega[:, :d], eta), a[:, d:]], dim=1)            # (B, H, A)
        branches = policy.field(context, many(a)[:, None], many(eta)[:, None])[:, 0]       # (n*B, H, A)
        return branches if n == 1 else guided(branches[:B], branches[B:], beta)

    chunk = policy.denormalize(integrate(f, omega, steps), observation["state"][:B])
    return chunk if d == 0 else torch.cat([frozen, chunk[:, d:]], dim=1)

# %% [markdown]
# # 05 · The VLA: words, action tokens, attention, insulation
#
# previous: [04 · guidance](04_guidance.ipynb) · [contents](../README.md#learn) · next:
# [06 · Algorithm 1](06_algorithm1.ipynb)
#
# **Beside the paper:** Fig. 3, Sec. V-A, Sec. V-B, Eq. 6 and 7 (App. C). Code:
# `policy.py`, `backbone.py`.
#
# You will see everything that stands in the sequence of one real step, who may see whom
# (measured, not only drawn), why the indicator cannot leak into the subtask, what
# knowledge insulation cuts, and the three factors of Eq. 6 as three losses. Below a
# minute on one core.

# %%
import sys
from pathlib import Path

# The folder above this one; Jupyter has no __file__, and starts in this one.
sys.path.insert(0, str(Path(globals().get("__file__", "notebook")).resolve().parents[1]))

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch

import backbone
import recap
import show
from collection import Actor, demonstrate
from data import episode_seeds, generator, interface_of, stack_steps
from lab.plots import BLUE, GREEN, GREY, PURPLE, VERMILLION
from policy import VLA, ActionTokenizer, PolicyConfig, draw_noise, sample_actions
from recap import optimise
from settings import Settings
from sim_tasks import TASKS
from sim_tasks.cameras import cameras
from sim_tasks.render import draw

torch.set_num_threads(1)
plt.rcParams.update({"figure.dpi": 80, "font.size": 10})
show.progress(recap)
SPEC = TASKS["fold_shirt"]
INTERFACE = interface_of(SPEC)  # its sizes and words
CONFIG = PolicyConfig(INTERFACE)

# %% [markdown]
# ## 1. One step
# The data are 24 demonstrations of FoldShirt by scripted operators of mixed quality. We
# stop one of them at a step at which something is held.

# %%
s = Settings(demonstrations=24)
seeds = episode_seeds(s.seed, "notebook fold_shirt", s.demonstrations)
episodes = demonstrate(SPEC, seeds, "mixed")
e = episodes[0]
t = 20
state = e.observations["state"][t]
keypoints = e.observations["keypoints"][t]
print("prompt ℓ_t   ", e.prompt, "\nmetadata s   ", e.metadata, "\nsubtask ℓ̂    ", e.subtask[t])
print("state q_t    ", state.round(2), "(rad, rad, gripper 0-1; left, then right)")

# %%
pictures = {"drawn for us": draw(state, keypoints, SPEC)} | {
    name: x[0] for name, x in cameras(state[None], keypoints[None]).items()
}
fig, axes = plt.subplots(1, 4, figsize=(10, 2.8), layout="constrained")
for ax, (name, picture) in zip(axes, pictures.items()):
    ax.imshow(picture)
    ax.set(xticks=[], yticks=[], title=f"{name}, {len(picture)} px")

# %% [markdown]
# The left picture is for people. The other three are what `--vision` reads: 24 pixels a
# side (π₀.₆, by its model card: 448), and each is cut into nine patches of 8 x 8, one
# token each: 27 tokens. The head of `sim_tasks/cameras.py` says what the spots mean.
#
# By default the network reads what a perfect detector would see in them instead: four
# keypoints with 20 numbers each. The most telling columns of this step:

# %%
columns = {
    "x (m)": 0,
    "y (m)": 1,
    "by edge": 7,
    "held well": 8,
    "released": 10,
    "stage 1": 11,
    "stage 2": 12,
}
print(" " * 13 + "".join(f"{name:>10}" for name in columns))
for row, name in zip(keypoints, ("left handle", "right handle", "left goal", "right goal")):
    print(f"{name:<13}" + "".join(f"{row[column]:10.2f}" for column in columns.values()))

# %% [markdown]
# ## 2. Words
# Every word is one token (the paper: word pieces). `data.WORDS` are known to every
# network, the others are the task's: `Interface.vocabulary` has both. A text is padded
# with "" to a fixed length, and a word that no network has ever seen is an error, not an
# unknown token that is silently passed on.

# %%
VOCABULARY = INTERFACE.vocabulary
ids = INTERFACE.encode(f"{e.prompt} {e.metadata}", INTERFACE.prompt_length)
print(len(VOCABULARY), "words;", ids, "=", [VOCABULARY[i] for i in ids])
try:
    INTERFACE.encode("fold shrit", INTERFACE.prompt_length)
except ValueError as error:
    print("ValueError:", str(error).replace("expected", "\n            expected"))

# %% [markdown]
# ## 3. Action tokens
# $a^\ell_{t:t+H}$ is a scaled-down FAST: a cosine transform of the chunk of $H = 8$
# steps, of which the lowest two coefficients of each of the six dimensions are kept,
# each in one of 32 bins. That gives 12 tokens of fixed number, in the place of FAST's
# byte-pair merges.

# %%
show.source(ActionTokenizer)

# %% [markdown]
# Chunks enter relative to the current joints (grippers absolute), with unit variance;
# `fit_normalizer` measures that on the data.

# %%
torch.manual_seed(0)  # the weights that networks begin with come from the global generator
policy = VLA(CONFIG)
steps = stack_steps(episodes, INTERFACE, horizon=CONFIG.horizon)
policy.fit_normalizer(steps["actions"], steps["state"])
steps["chunk"] = policy.normalize(steps["actions"], steps["state"])  # (M, H, A)
print("root mean square error, unit variance")
print(f"{'coefficients':>12} {'tokens':>7} {'32 bins':>9} {'unquantised':>12}")
tokenizers = {C: ActionTokenizer(8, 6, C, 32) for C in (1, 2, 4, 8)}
for C, tokenizer in tokenizers.items():
    tokenizer.fit(steps["chunk"])
    back = tokenizer.decode(tokenizer.encode(steps["chunk"]))
    cut = tokenizer.dct.T @ tokenizer.dct @ steps["chunk"]  # truncated, not quantised
    rms = [(x - steps["chunk"]).pow(2).mean().sqrt().item() for x in (back, cut)]
    print(f"{C:12} {6 * C:7} {rms[0]:9.3f} {rms[1]:12.3f}")
tokens = policy.tokenizer.encode(steps["chunk"])  # (M, 12)
# the centre of a bin lies in that bin
assert torch.equal(policy.tokenizer.encode(policy.tokenizer.decode(tokens)), tokens)

# %%
gripper = steps["actions"][:, :, 2]  # (M, H), the left one
now = int(((gripper[:, 0] > 0.5) & (gripper[:, 3] < 0.5)).nonzero()[0])  # closes within this chunk
fig, axes = plt.subplots(1, 3, figsize=(10, 2.8), layout="constrained", sharex=True, sharey=True)
for ax, d, name in zip(axes, range(3), ("left shoulder", "left elbow", "left gripper")):
    ax.plot(range(8), steps["chunk"][now, :, d], "o", color="black", label="chunk")
    for C, colour, line in ((1, GREY, ":"), (2, VERMILLION, "-"), (4, BLUE, "--")):
        back = tokenizers[C].decode(tokenizers[C].encode(steps["chunk"][now : now + 1]))[0]
        ax.plot(range(8), back[:, d], line, color=colour, label=f"{C} coefficient{'s' * (C > 1)}")
    ax.set(title=name, xlabel="step of the chunk")
axes[0].set_ylabel("unit variance")
axes[0].legend(frameon=False, fontsize=8)
print("a^ℓ of this chunk:", tokens[now].tolist())

# %% [markdown]
# Two coefficients say "how much" and "rising or falling". A gripper that is told to
# close from one step to the next becomes a ramp. This costs the robot nothing: the
# tokens are only a training target, from which the backbone learns what matters for
# acting. What the arms get is the continuous chunk of the action expert.

# %% [markdown]
# ## 4. The sequence, and who sees whom
# Fig. 3 from left to right: observation, prompt, then causal text. The last action
# token is only ever a target, so eleven of twelve stand in the input.

# %%
patches = []
for name in INTERFACE.cameras:
    patches += [f"{name} {i}" for i in range(9)]
observation = patches or [f"keypoint {i}" for i in range(4)]
ids = INTERFACE.encode(e.prompt, INTERFACE.prompt_length)
prompt = [repr(VOCABULARY[i]) for i in ids]
names = observation + ["state"] + prompt + ["subtask:", *str(e.subtask[t]).split()]
names += ["Advantage:", "positive", "action:"] + [
    f"token {i}" for i in range(1, policy.n_action_tokens)
]
assert len(names) == len(policy.mask)
for part, begin, end in (
    ("prefix", 0, policy.at_subtask),
    ("text", policy.at_subtask, policy.at_action),
    ("tokens", policy.at_action, len(names)),
):
    print(f"{part:<7}", " | ".join(names[begin:end]))

# %% [markdown]
# The mask: the prefix is seen by all and sees only itself, text sees the prefix and the text
# before it.

# %%
show.source(backbone.prefix_lm_bias)

# %% [markdown]
# A drawing of a mask proves
# little, so we **measure** who sees whom: shift what enters at one position and look
# which outputs move. The action expert (one token per arm) is the last two rows.
#
# <details><summary><b>Predict before you run:</b> which columns do the expert's two rows leave
# empty, and which rows see the column "positive"?</summary>
#
# The expert leaves out "action:" and the tokens. "positive" is seen by itself, by all that
# follows, and by the expert; never by the subtask.
# </details>

# %%
TEXT = ("prompt", "subtask", "positive", "omit", "tokens")

def outputs(batch, omega, eta):
    """Everything that comes out: the backbone's hidden states, and f (B, 1, H, A)."""
    hidden = policy.hidden_states(batch, *(batch[key] for key in TEXT))
    return hidden, policy.field(policy.context(hidden, batch["omit"]), omega, eta)

@torch.no_grad()
def sees(batch, omega, eta):
    """(S + 2, S) bool: does row i change with the input of column j?  Last rows: the arms."""
    (before, f) = outputs(batch, omega, eta)
    columns = []
    push = torch.linspace(-1, 1, CONFIG.width) ** 3
    old = policy.backbone.position.clone()
    for j in range(len(names)):
        policy.backbone.position[j] += push
        (h, g) = outputs(batch, omega, eta)
        arms = (slice(0, 3), slice(3, 6))
        policy.backbone.position.copy_(old)
        columns.append(
            torch.cat(
                [
                    (h.inputs[-1] != before.inputs[-1])[0].any(1),  # (S,)
                    torch.stack([(g != f)[..., arm].any() for arm in arms]),
                ]
            )
        )
    return torch.stack(columns, dim=1).numpy()

one = {key: x[t : t + 1] for key, x in steps.items()} | {
    "positive": torch.tensor([True]),
    "omit": torch.tensor([False]),
    "tokens": tokens[t : t + 1],
}
g = torch.Generator().manual_seed(1)
omega = torch.randn(1, 1, 8, 6, generator=g)
eta = torch.tensor([[0.5]])
seen = sees(one, omega, eta)
assert (seen[:-2] == (policy.mask == 0).numpy()).all()  # what we measured is the mask
assert (
    seen[-2:] == (np.arange(len(names)) < policy.at_action)
).all()  # the expert: all before "action:"

# %%
omitted = sees(one | {"omit": torch.tensor([True])}, omega, eta)
fig, axes = plt.subplots(1, 2, figsize=(11.5, 6.3), layout="constrained", sharey=True)
rows = names + ["expert, left arm", "expert, right arm"]
for ax, picture in zip(axes, (seen, omitted)):
    ax.imshow(picture, cmap="Blues", vmin=0, vmax=1.3)
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    for edge in (policy.at_subtask, policy.at_indicator, policy.at_action, len(names)):
        ax.axhline(edge - 0.5, color=VERMILLION, lw=1)
    ax.set_xlabel("... sees this column")
axes[0].set(title="indicator in the text", ylabel="this row ...")
axes[1].set_title("indicator omitted")
plt.show()

# %% [markdown]
# Notice: the block at the top left is full (the prefix is bidirectional) and no row of
# it reaches into the text. The rows of the subtask end before "Advantage:". The
# expert's rows are full up to the indicator and empty from "action:" on. On the right
# the two columns of the indicator are seen by nobody else; it is hidden, its place
# stays.

# %% [markdown]
# ## 5. Three exact properties
# Sec. V-B: the indicator stands "after $\hat\ell$ but before the (discretized and
# continuous) actions, such that only the action log-likelihoods are affected". Sec.
# V-A: the expert "does not receive" the action tokens. Exact means: equal to the last
# bit.

# %%
@torch.no_grad()
def results(**changed):
    """Logits of ℓ̂ (1, 2, words), of a^ℓ (1, 12, words), and f, with something changed."""
    hidden, f = outputs(one | changed, omega, eta)
    return {
        "subtask": policy.subtask_logits(hidden),
        "tokens": policy.action_logits(hidden),
        "f": f,
    }

yes = torch.tensor([True])
no = torch.tensor([False])
plain = results()
other = (tokens[t : t + 1] + 7) % CONFIG.n_action_bins
stack = torch.tensor([INTERFACE.encode("stack shirt", INTERFACE.subtask_length)])
build = torch.tensor([INTERFACE.encode("build box", INTERFACE.prompt_length)])
cases = {
    "indicator positive → negative": dict(positive=no),
    "other action tokens": dict(tokens=other),
    "subtask: stack shirt": dict(subtask=stack),
    "prompt: build box": dict(prompt=build),
}
print(f"{'largest change of':<32}{'subtask logits':>15}{'token logits':>15}{'f':>10}")
for name, changed in cases.items():
    moved = {key: (x - plain[key]).abs().max().item() for key, x in results(**changed).items()}
    print(f"{name:<32}{moved['subtask']:15.4f}{moved['tokens']:15.4f}{moved['f']:10.4f}")
assert torch.equal(results(positive=no)["subtask"], plain["subtask"])
assert torch.equal(results(tokens=other)["f"], plain["f"])

# %% [markdown]
# The zeros are exact. (The second word of $\hat\ell$ sees the first, so another subtask
# moves the subtask logits; the first word's would not move.) Some public
# implementations put the indicator before the subtask: then what is learnt about the
# subtask depends on a label of the *action*.
#
# Third: with the indicator omitted, the model is the unconditional $\pi_\theta(a \mid
# o, \ell)$. Which of the two words stood there cannot matter.

# %%
omitted = results(omit=yes)
assert all(torch.equal(x, omitted[key]) for key, x in results(omit=yes, positive=no).items())
act = dict(
    policy=policy, observation=one, prompt=one["prompt"], subtask=one["subtask"], omega=omega[:, 0]
)
act["observation"] = {key: one[key] for key in ("state", *(INTERFACE.cameras or ("keypoints",)))}
unconditional = sample_actions(**act, indicator=None)
assert torch.equal(unconditional, sample_actions(**act, indicator=True, beta=0.0))
far = (sample_actions(**act, indicator=True) - unconditional).abs().max().item()
print(
    f"sampled chunk, positive against unconditional: differs by up to {far:.3f} rad "
    "(untrained network)"
)

# %% [markdown]
# ## 6. Knowledge insulation
# The expert reads the backbone through a stop-gradient (Sec. V-A):

# %%
show.source(VLA.context)

# %% [markdown]
# We take the gradient
# of each of the three losses on one batch, with insulation and without, and print its
# norm on each part.

# %%
PARTS = ("backbone", "text_head", "expert")

def batch_of(index, g):
    """The steps `index` as a batch: random indicators, some omitted; 4 draws of (ω, η) per step."""
    B = len(index)
    batch = {key: x[index] for key, x in steps.items()} | {"tokens": tokens[index]}
    batch |= {
        "positive": torch.rand(B, generator=g) < 0.3,
        "omit": torch.rand(B, generator=g) < s.dropout,
    }
    omega, eta = draw_noise(batch["chunk"].repeat_interleave(4, 0), g)
    return batch, omega.view(B, 4, 8, 6), eta.view(B, 4)

def gradient_norms(network, term, drawn):
    """Norm of the gradient of one term of Eq. 6 on every part; None: no gradient reaches it."""
    network.zero_grad(set_to_none=True)
    network.terms(*drawn)[term].mean().backward()
    norms = {}
    for name in PARTS:
        grads = [
            p.grad.flatten() for p in getattr(network, name).parameters() if p.grad is not None
        ]
        norms[name] = torch.cat(grads).norm().item() if grads else None
    return norms

some = torch.randperm(len(tokens), generator=g)[:32]
drawn = batch_of(some, g)
print(f"{'insulation':<12}{'loss':<10}" + "".join(f"{name:>12}" for name in PARTS))
for insulation in (True, False):
    torch.manual_seed(0)
    network = VLA(replace(CONFIG, insulation=insulation))
    network.load_state_dict(policy.state_dict())
    for term in ("subtask", "tokens", "flow"):
        norms = gradient_norms(network, term, drawn)
        shown = ("none" if x is None else f"{x:.3f}" for x in norms.values())
        print(f"{str(insulation):<12}{term:<10}" + "".join(f"{x:>12}" for x in shown))
        assert not insulation or term != "flow" or norms["backbone"] is None

# %% [markdown]
# "none" is stronger than zero: the graph does not even connect the two. With insulation
# the flow loss trains the expert and nothing else, and the backbone learns to act from
# the tokens alone. Without it the flow loss shapes the backbone, too. Whether that
# hurts at toy size is another question, which `python -m reproduce ablation insulation`
# asks; the reason given for it, protecting a pre-trained VLM, does not exist here: our
# backbone starts at random.

# %% [markdown]
# ## 7. Three factors, three losses
#
# $$ \begin{aligned} \pi_\theta(\mathbf a_{t:t+H}, a^\ell_{t:t+H}, \hat\ell \mid I_t, \mathbf
# o_t, \ell) = {} & \pi_\theta(\mathbf a_{t:t+H} \mid I_t, \mathbf o_t, \ell, \hat\ell) \\
# & \times \pi_\theta(a^\ell_{t:t+H} \mid I_t, \mathbf o_t, \ell, \hat\ell) \;
# \pi_\theta(\hat\ell \mid I_t, \mathbf o_t, \ell) \end{aligned} \tag{6} $$
#
# (App. C prints the last factor with $I_t$; in the sequence of Sec. V-B it cannot depend
# on it, as we have just seen.) The logarithm makes a sum of it, and each term is a loss:

# %%
show.source(VLA.terms, recap.eq3_loss)

# %% [markdown]
# Two are cross-entropies. The first factor has no closed form, and a Gaussian stands in its
# place:
#
# $$ \log \pi_\theta(\mathbf a_{t:t+H} \mid \mathbf a^{\eta,\omega}_{1:H}, I_t, \mathbf
# o_t, \ell, \hat\ell) = \log \mathcal N\big(\omega - f_\theta(\mathbf
# a^{\eta,\omega}_{1:H}, I_t, \mathbf o_t, \ell, \hat\ell), \mathbf I\big) \tag{7} $$
#
# Its logarithm is $-\frac12 \|\omega - \mathbf a - f_\theta\|^2$ and a constant:

# %%
with torch.no_grad():
    batch, omega4, eta4 = drawn
    a = batch["chunk"][:, None]  # (B, 1, H, A)
    a_eta = eta4[..., None, None] * a + (1 - eta4[..., None, None]) * omega4  # (B, 4, H, A)
    hidden = policy.hidden_states(
        batch, *(batch[k] for k in ("prompt", "subtask", "positive", "omit"))
    )
    f = policy.field(policy.context(hidden, batch["omit"]), a_eta, eta4)
    eq7 = torch.distributions.Normal(omega4 - f, 1).log_prob(a.expand_as(f)).sum((2, 3))  # (B, 4)
    squares = ((omega4 - a - f) ** 2).sum((2, 3))
    assert torch.allclose(-2 * eq7 - 48 * np.log(2 * np.pi), squares, rtol=1e-4, atol=1e-2)
    a_hat = a_eta - (1 - eta4[..., None, None]) * f  # what the network really puts out
    ours = policy.terms(*drawn)["flow"] * 48  # α_η = (1 - η)²; the loss is a mean over H·A
    assert torch.allclose(ours, ((a - a_hat) ** 2).sum((2, 3)), rtol=1e-3, atol=1e-3)

# %% [markdown]
# The second assertion is this code's reading of Eq. 4: with $\alpha_\eta = (1 - \eta)^2$
# the flow loss is the plain squared error of the predicted clean chunk $\hat a$.
#
# Now overfit that one batch of 32 steps and watch the three terms. Fresh noise is
# drawn at every step, so only the data can be learnt by heart.
#
# <details><summary><b>Predict before you run:</b> which of the three losses can fall to
# zero?</summary>
#
# Those of the words and of the action tokens, for they are learnt by heart. The flow's
# cannot: near the noise nobody can know which of 32 chunks is meant.
# </details>

# %%
torch.manual_seed(0)
network = VLA(CONFIG)
network.load_state_dict(policy.state_dict())
history = []

def draw_loss():
    omega, eta = draw_noise(batch["chunk"].repeat_interleave(4, 0), g)
    omega = omega.view(32, 4, 8, 6)
    eta = eta.view(32, 4)
    with torch.no_grad():
        history.append(
            {key: x.mean().item() for key, x in network.terms(batch, omega, eta).items()}
        )
    return recap.eq3_loss(network, batch, omega, eta)

optimise(network, draw_loss, 200, s.learning_rate, "one batch")
for name, i in (("first step", 0), ("last step", -1)):
    print(f"{name:<12}", {key: round(x, 3) for key, x in history[i].items()})

# %%
guess = {
    "subtask": np.log(3),
    "tokens": policy.n_action_tokens * np.log(CONFIG.n_action_bins),
    "flow": 1.0,
}
fig, axes = plt.subplots(1, 3, figsize=(10, 2.9), layout="constrained")
for ax, (key, level), colour, title in zip(
    axes,
    guess.items(),
    (PURPLE, BLUE, VERMILLION),
    (
        r"$-\log\pi(\hat\ell)$: subtask (nats, 2 words)",
        r"$-\log\pi(a^\ell)$: 12 action tokens (nats)",
        r"flow: $\|a - \hat a\|^2$ per number",
    ),
):
    ax.semilogy([h[key] for h in history], color=colour)
    ax.axhline(level, color=GREY, ls="--", lw=1)
    ax.set(title=title, xlabel="gradient step")
    ax.title.set_fontsize(10)

# %% [markdown]
# Dashed: what a guess would cost. For $\hat\ell$ one of three subtasks, for $a^\ell$
# one of 32 bins for each of 12 tokens, for the flow loss always the mean chunk. All
# three fall below it.

# %% [markdown]
# ## 8. The subtask, less often than the actions
# "At inference time, the sub-task prediction runs at a lower frequency than action
# generation." Here a chunk has 8 steps, of which 4 are executed, and $\hat\ell$ is
# predicted anew at every second chunk (`subtask_every`). We train for 150 steps and let
# `collection.Actor` follow a demonstration that the network has not seen.

# %%
torch.manual_seed(0)
student = VLA(CONFIG)
fresh = episodes[1]
rest = episodes[:1] + episodes[2:]
recap.train_policy(student, rest, recap.all_positive(rest), s, 150)
actor = Actor(s, [fresh.prompt], student, noise=[generator(0, "notebook")])
said = []
for step in range(0, len(fresh), s.execute):
    actor({key: x[step : step + 1] for key, x in fresh.observations.items()}, np.array([True]))
    said.append((step, " ".join(VOCABULARY[i] for i in actor.subtask[0].tolist())))
acted_by = np.repeat([words for _, words in said], s.execute)[: len(fresh)]
print(
    f"{len(fresh)} steps, {actor.calls} chunks, "
    f"{-(-actor.calls // s.subtask_every)} predictions of ℓ̂;",
    f"the words acted by are right at {np.mean(acted_by == fresh.subtask):.0%} of the steps",
)

# %%
fig, ax = plt.subplots(figsize=(10, 2.4), layout="constrained")
kinds = list(dict.fromkeys([*fresh.subtask.tolist(), *(words for _, words in said)]))
for kind, colour in zip(kinds, (BLUE, VERMILLION, GREEN, PURPLE, GREY, "black")):
    ax.broken_barh([(i, 1) for i in np.flatnonzero(fresh.subtask == kind)], (2, 0.8), color=colour)
    ax.broken_barh([(i, s.execute) for i, words in said if words == kind], (1, 0.8), color=colour)
    ax.plot([], [], "s", color=colour, label=kind)
ax.vlines([i for i, _ in said], 0.5, 0.9, color=GREY, lw=1)
ax.vlines([i for i, _ in said[:: s.subtask_every]], 0.0, 0.4, color="black", lw=1.5)
ax.set_yticks([2.4, 1.4, 0.7, 0.2], ["annotator", "acted by", "a chunk begins", "ℓ̂ is predicted"])
ax.set(xlim=(-1, len(fresh)), ylim=(-0.1, 3), xlabel="step (10 per second)")
ax.legend(ncol=len(kinds), frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9)
plt.show()

# %% [markdown]
# Between two predictions the old words stay, so a new subtask can be seen up to 7 steps
# late. What is saved: a prediction of $\hat\ell$ takes one pass of the backbone per
# word, a chunk one pass of the backbone and five of the expert.

# %% [markdown]
# ## 9. How many weights

# %%
def count(module):
    return sum(p.numel() for p in module.parameters())

words = count(student.backbone.token)
rows = {
    "backbone: words and action tokens": words,
    "backbone: the rest": count(student.backbone) - words,
    "text head": count(student.text_head),
    "action expert": count(student.expert),
}
assert sum(rows.values()) == count(student)
for name, n in (rows | {"all": count(student)}).items():
    print(f"{name:<34}{n:9,} {n / count(student):6.0%}")

# %% [markdown]
# The paper has a backbone of 4B weights (Gemma 3) and an expert of 860M, about a fifth
# of that. Here the expert is the larger part: the toy needs little language and no
# photographs, but two arms must move well.
#
# **Is my mental model right?** *The indicator is an input of the whole network*: no,
# only of what stands after it. *The action tokens are decoded and sent to the robot*:
# no, they are not even sampled when the policy acts. *The expert's loss improves the
# backbone's features*: not with insulation.

# %% [markdown]
# ## Change this line and see
#
# - Sec. 6: `VLA(replace(CONFIG, insulation=insulation))` to `VLA(replace(CONFIG,
#   insulation=False))`: the assertion fails: the flow loss reaches the backbone.
# - Sec. 5: `dict(prompt=build)` to `dict(tokens=other, positive=no)`: two changes at once, and
#   the subtask's logits still do not move by a bit.
# - Sec. 3: `for C in (1, 2, 4, 8)}` to `for C in (2, 4, 6, 8)}`: six coefficients of eight leave
#   out hardly anything, and yet the error with 32 bins hardly falls below that of four.
#
# ## In three sentences
#
# > One sequence holds what is seen, the prompt, the subtask, the word about the advantage and the
# > action tokens; the expert reads all before the tokens. The word can change the actions
# > only, and the expert's loss changes the expert only. Eq. 6 is two cross-entropies and one
# > flow loss.
#
# previous: [04 · guidance](04_guidance.ipynb) · [contents](../README.md#learn) · next:
# [06 · Algorithm 1](06_algorithm1.ipynb)

"""Made-up episodes, small networks and small runs, for all tests."""
import os
import runpy
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import sim_tasks
from data import Episode, interface_of
from policy import ETA_MAX, VLA, PolicyConfig
from sim_tasks import questions
from sim_tasks.arms import KEYPOINT_DIM, N_KEYPOINTS, Item
from sim_tasks.cameras import cameras as photograph
from value import ValueConfig, ValueFunction

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), ".."))

TOYS = interface_of(sim_tasks.TASKS["fold_shirt"])  # all five toys have the same
VOCABULARY = TOYS.vocabulary
PROMPT_LENGTH = TOYS.prompt_length
SUBTASK_LENGTH = TOYS.subtask_length
STATE_DIM = TOYS.state_dim
encode = TOYS.encode

# Algorithm 1 from end to end in seconds; nothing is learned.
TINY_RUN = dict(
    task="fold_collar", pretraining_tasks="fold_shirt", iterations=1, demonstrations=4,
    autonomous=5, corrected=3,
    evaluation_episodes=6, pretraining_steps=3, sft_steps=2, policy_steps=3,
    value_pretraining_steps=3, value_steps=2, batch=8, value_batch=8, euler=1,
)  # fmt: skip
TINY_POLICY = PolicyConfig(
    TOYS, width=16, layers=2, heads=2, expert_width=24, horizon=4, n_coefficients=2,
    n_action_bins=8,
)  # fmt: skip
SMALL_VALUE = ValueConfig(TOYS, width=16, layers=1)

def seen_by(*cameras):
    """The toys' interface with these images in the place of the keypoints."""
    return replace(TOYS, cameras=cameras)

def options(settings):
    """A dict of settings as arguments of the command line."""
    arguments = []
    for name, value in settings.items():
        arguments += ["--" + name.replace("_", "-"), str(value)]
    return arguments

def run_program(monkeypatch, path, *arguments):
    """`python path arguments`, in this process, which has imported torch already.

    Returns the status.  What it prints is for capsys.
    """
    monkeypatch.setattr(sys, "argv", [path, *map(str, arguments)])
    monkeypatch.setattr(sim_tasks, "ADDED", {})
    with pytest.raises(SystemExit) as leave:
        runpy.run_path(os.path.join(ROOT, path), run_name="__main__")
    return leave.value.code

# ---------------------------------------------------------------- episodes

def episode(
    T, success=True, task="fold_shirt", source="autonomous", iteration=1, intervention=None, seed=0
):
    """A made-up episode of T steps; its observations are noise."""
    rng = np.random.default_rng(seed)
    if intervention is None:
        intervention = np.zeros(T, bool)
    state = rng.normal(size=(T, 6)).astype(np.float32)
    keypoints = rng.normal(size=(T, N_KEYPOINTS, KEYPOINT_DIM)).astype(np.float32)
    return Episode(
        task=task, prompt="fold shirt", max_length=50,
        observations={"state": state, "keypoints": keypoints},
        actions=rng.normal(size=(T, 6)).astype(np.float32), subtask=np.array(["stack shirt"] * T),
        intervention=intervention, success=success, stages=np.array([success]), source=source,
        hz=10, iteration=iteration,
    )  # fmt: skip

def pictured(T, seed):
    """An episode in made-up scenes that can be drawn."""
    pairs = questions.questions(T, seed)
    scenes = {name: pairs[name] for name in ("state", "keypoints")}
    return replace(episode(T, seed=seed), observations=scenes)

def asked(n, seed=0, cameras=()):
    """n questions about scenes as tensors: observation, question ids (n, 5), answer ids (n, 2)."""
    pairs = questions.questions(n, seed)
    seen = {"state": pairs["state"], "keypoints": pairs["keypoints"]}
    if cameras:
        seen = {"state": pairs["state"]} | {
            name: x for name, x in photograph(**seen).items() if name in cameras
        }

    def ids(texts, length):
        return torch.tensor([encode(text, length) for text in texts.tolist()])

    return (
        {key: torch.as_tensor(x) for key, x in seen.items()},
        ids(pairs["question"], PROMPT_LENGTH),
        ids(pairs["answer"], SUBTASK_LENGTH),
    )

def described(T, metadata, seed, prompt="fold collar up", **more):
    """An episode with metadata s."""
    return replace(episode(T, seed=seed, **more), prompt=prompt, metadata=metadata)

def wide_episode(T=7, n_stages=3, seed=0, **changes):
    """Random numbers of every magnitude, and the dtypes that a rollout and a camera produce."""
    rng = np.random.default_rng(seed)
    # Denormals of float32 included.
    wide = rng.normal(size=(T, 6)) * 10.0 ** rng.integers(-40, 38, (T, 6))
    wide[0, :2] = -0.0, np.finfo(np.float32).max
    fields = dict(
        task="fold_shirt", prompt="fold shirt", max_length=180,
        observations={
            "state": wide.astype(np.float32),
            "keypoints": rng.normal(size=(T, N_KEYPOINTS, KEYPOINT_DIM)).astype(np.float32),
            "base": rng.integers(0, 256, (T, 5, 4, 3)).astype(np.uint8),
            "force": rng.normal(size=T),
        },
        actions=rng.normal(size=(T, 6)).astype(np.float32),
        subtask=np.array(["flatten shirt", "fold sleeves"])[rng.integers(0, 2, T)],
        intervention=rng.random(T) < 0.5, success=True, stages=rng.random(n_stages) < 0.5,
        source="autonomous", hz=10, iteration=2, metadata="slow, two mistakes",
    )  # fmt: skip
    return Episode(**fields | changes)

def with_items():
    """fold_collar with two items, elsewhere and of other names; the second is the measured one."""
    spec = sim_tasks.TASKS["fold_collar"]
    away = ((-0.15, 0.40), (0.15, 0.40))
    items = (Item("shirt", spec.stages), Item("sheet", (replace(spec.stages[0], handles=away),)))
    return replace(spec, prompt="fold", items=items, measured="sheet")

# ---------------------------------------------------------------- networks

def fresh(kind, config):
    """A network with the weights of seed 0."""
    torch.manual_seed(0)
    return kind(config)

def toy_policy(**size):
    """A VLA for the toys; size: fields of `PolicyConfig`."""
    return VLA(PolicyConfig(TOYS, **size))

def toy_value(**size):
    """A ValueFunction for the toys; size: fields of `ValueConfig`."""
    return ValueFunction(ValueConfig(TOYS, **size))

def weights_of(network):
    """All weights in one row."""
    return torch.cat([p.detach().flatten() for p in network.parameters()])

def words(ids):
    """Ids -> text."""
    return " ".join(VOCABULARY[i] for i in ids if i)

# ---------------------------------------------------------------- the policy, in double precision

A = 6  # [left joints 2, left gripper, right joints 2, right gripper]

def normal(*shape, seed=0):
    """Normally distributed numbers of a seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

def make_policy(config=TINY_POLICY, seed=0):
    """Random weights in double precision, a normaliser fitted on random chunks."""
    torch.manual_seed(seed)
    policy = VLA(config).double()
    chunks = 0.3 + normal(50, config.horizon, A) * torch.arange(1, A + 1)
    policy.fit_normalizer(chunks, normal(50, A, seed=1))
    return policy

def make_batch(policy, B=5, seed=0):
    """What `VLA.terms` takes; half of the samples without the indicator."""
    g = torch.Generator().manual_seed(100 + seed)

    def text(length):
        return torch.randint(1, len(VOCABULARY), (B, length), generator=g)

    chunk = normal(B, policy.config.horizon, A, seed=seed)
    return {
        "state": normal(B, STATE_DIM, seed=seed + 1),
        "keypoints": normal(B, N_KEYPOINTS, KEYPOINT_DIM, seed=seed + 2),
        "prompt": text(PROMPT_LENGTH),
        "subtask": text(SUBTASK_LENGTH),
        "positive": torch.arange(B) % 2 == 0,
        "omit": torch.arange(B) % 4 > 1,
        "chunk": chunk,
        "tokens": policy.tokenizer.encode(chunk),
    }

def make_draws(policy, B=5, n_draws=3, seed=0):
    """ω (B, n_draws, H, A) and η (B, n_draws)."""
    omega = normal(B, n_draws, policy.config.horizon, A, seed=50 + seed)
    g = torch.Generator().manual_seed(seed)
    return omega, ETA_MAX * torch.rand(B, n_draws, generator=g, dtype=torch.float64)

def outputs(policy, batch, omega, eta):
    """(subtask logits, action logits, f) of a training batch."""
    names = ("prompt", "subtask", "positive", "omit", "tokens")
    hidden = policy.hidden_states(batch, *[batch[name] for name in names])
    f = policy.field(policy.context(hidden, batch["omit"]), omega, eta)
    return policy.subtask_logits(hidden), policy.action_logits(hidden), f

"""What a robot's work leaves behind, and how it becomes batches.

    τ = (o_0, a_0, ..., o_T) with its label (Secs. III, V-C)     Episode
    D_demo, D_ℓ (Algorithm 1)                                    a list of episodes, of any tasks
    o_t, ℓ, a_{t:t+H} of every step, as tensors                  stack_steps, perceive
    metadata s in the prompt (Sec. V-A)                          draw_prompts
    co-training on web data (Sec. V-C)                           web_batches
    where chance comes from                                      stream, episode_seeds, generator

Files of datasets are in lab/files.py.  Letters in shapes: T steps of an episode, M = Σ T of a
dataset, n things side by side, H actions of a chunk.
Deviations (docs/DEVIATIONS.md): 17, 18.
"""
import zlib
from dataclasses import dataclass

import numpy as np
import torch

from backbone import PROMPT_LENGTH, SUBTASK_LENGTH, encode
from sim_tasks import questions
from sim_tasks.cameras import cameras as render

SOURCES = ("demonstration", "autonomous", "corrected")

@dataclass
class Episode:
    """One attempt at a task: T steps.

    Every step has an observation and an action; the paper's o_T, after which nothing is done, is
    not kept.  ValueError where lengths disagree, a number is not finite or the source is unknown.
    """

    task: str  # its id, to which ε_ℓ and the time limit belong
    prompt: str  # ℓ_t in words
    max_length: int  # the task's limit in steps: normalises the returns (Sec. V-C)
    observations: dict  # name -> array (T, ...)
    actions: np.ndarray  # (T, action_dim), as *sent to the robot*
    subtask: np.ndarray  # (T,) str: the annotation that ℓ̂ learns
    intervention: np.ndarray  # (T,) bool: the operator was in control
    success: bool | None  # None: not labelled yet, an error wherever a label is needed
    stages: np.ndarray  # (n_stages,) bool: successes of the scored stages
    source: str  # one of SOURCES; "corrected": a policy ran and an operator could take over
    iteration: int = 0  # k of Algorithm 1 (π^{k-1} acted); 0 for demonstrations
    metadata: str = ""  # s in words

    def __post_init__(self):
        T = len(self.actions)
        if T == 0:
            raise ValueError("actions: 0 steps, expected at least one")
        numbers = {**self.observations, "actions": self.actions}
        per_step = {**numbers, "subtask": self.subtask, "intervention": self.intervention}
        for name, array in per_step.items():
            if len(array) != T:
                raise ValueError(f"{name}: {len(array)} steps, expected {T} as actions")
        for name, array in numbers.items():
            if not np.isfinite(array).all():
                step = int(np.argwhere(~np.isfinite(array))[0, 0])
                raise ValueError(f"{name}: not finite at step {step}, expected finite numbers")
        if self.source not in SOURCES:
            raise ValueError(f"source: {self.source!r}, expected one of {SOURCES}")

    def __len__(self):
        return len(self.actions)

# ---------------------------------------------------------------- chance: from (seed, purpose)

def stream(seed, purpose):
    """A SeedSequence of its own for every purpose of a run."""
    return np.random.SeedSequence([seed, zlib.crc32(purpose.encode())])

def episode_seeds(seed, purpose, n):
    """n seeds of episodes, ints of 63 bits; those of "evaluation" are never those of data."""
    numbers = stream(seed, purpose).generate_state(n, np.uint64)
    return [int(x) for x in numbers >> np.uint64(1)]

def generator(seed, purpose):
    """A torch generator at the beginning of that stream."""
    return torch.Generator().manual_seed(episode_seeds(seed, purpose, 1)[0])

# ---------------------------------------------------------------- from episodes to tensors

def perceive(observation, cameras=()):
    """What a network reads of an observation: state and keypoints, or state and images.

    observation: {"state": (n, 6), "keypoints": (n, 4, 20)}.
    cameras: names of the images, uint8 (n, 24, 24, 3) each.  The simulator's pictures are a
    function of state and keypoints, so episodes need not carry them.
    """
    if not cameras:
        return {name: observation[name] for name in ("state", "keypoints")}
    images = render(observation["state"], observation["keypoints"])
    return {"state": observation["state"]} | {name: images[name] for name in cameras}

def stack_steps(episodes, device="cpu", horizon=None, cameras=()):
    """All steps of all episodes in a row: a dict of tensors with leading axis M.

    horizon: H; None leaves the actions out.  cameras: as `perceive`.
    Returns state, keypoints or images; ids of prompt (M, 5), of `described`, the prompt with the
    metadata s (M, 5), and of subtask (M, 2); actions (M, H, action_dim), the chunks a_{t:t+H}.

    A chunk is what was done, whoever did it: near a takeover it holds actions of the policy and
    of the operator, and I_t is that of its first step.
    """
    if not episodes:
        raise ValueError("episodes: an empty dataset, expected at least one episode")
    prompts = []
    described = []
    subtasks = []
    chunks = []
    for e in episodes:
        T = len(e)
        prompts += [encode(e.prompt, PROMPT_LENGTH)] * T
        described += [encode(f"{e.prompt} {e.metadata}", PROMPT_LENGTH)] * T
        # Each text is encoded once: names (few,), index (T,).
        names, index = np.unique(e.subtask, return_inverse=True)
        ids = np.array([encode(str(name), SUBTASK_LENGTH) for name in names])
        subtasks.append(ids[index])  # (T, 2)
        if horizon is not None:
            # Past the end of the episode a chunk repeats the last action.
            window = np.arange(T)[:, None] + np.arange(horizon)  # (T, H)
            chunks.append(e.actions[np.minimum(window, T - 1)])  # (T, H, action_dim)
    observation = {}
    for name in ("state", "keypoints"):
        observation[name] = np.concatenate([e.observations[name] for e in episodes])
    steps = perceive(observation, cameras)
    if horizon is not None:
        steps["actions"] = np.concatenate(chunks)
    steps["prompt"] = np.array(prompts)
    steps["described"] = np.array(described)
    steps["subtask"] = np.concatenate(subtasks)
    return {name: torch.as_tensor(x, device=device) for name, x in steps.items()}

def draw_prompts(batch, metadata_dropout, g):
    """Put s into the prompts of a batch, (B, 5), except where it is dropped (Sec. V-A)."""
    kept = torch.rand(len(batch["prompt"]), generator=g) >= metadata_dropout  # (B,)
    kept = kept[:, None].to(batch["prompt"].device)
    batch["prompt"] = torch.where(kept, batch["described"], batch["prompt"])

def web_batches(s, cameras, batch_size, purpose):
    """An endless draw of s.web * batch_size questions and answers about random scenes.

    Returns None if that is 0, else a callable without arguments that returns
    {observations ..., "question": ids (n, 5), "answer": ids (n, 2)}.
    """
    n = round(s.web * batch_size)
    if n == 0:
        return None
    seed = int(stream(s.seed, purpose).generate_state(1)[0])
    pool = questions.questions(20_000, seed)
    web = perceive(pool, cameras)
    for name, length in (("question", PROMPT_LENGTH), ("answer", SUBTASK_LENGTH)):
        texts, index = np.unique(pool[name], return_inverse=True)
        web[name] = np.array([encode(str(text), length) for text in texts])[index]  # (n, length)
    web = {name: torch.as_tensor(x, device=s.device) for name, x in web.items()}
    g = generator(s.seed, purpose)

    def draw():
        index = torch.randint(len(web["question"]), (n,), generator=g)
        return {name: x[index] for name, x in web.items()}

    return draw

"""What a robot's work leaves behind, and how it becomes batches.

    τ = (o_0, a_0, ..., o_T) with its label (Secs. III, V-C)     Episode
    D_demo, D_ℓ (Algorithm 1)                                    a list of episodes, of any tasks
    o_t, ℓ, a_{t:t+H} of every step, as tensors                  stack_steps, perceive
    metadata s in the prompt (Sec. V-A)                          draw_prompts
    co-training on web data (Sec. V-C)                           web_batches
    where chance comes from                                      stream, episode_seeds, generator
    sizes and words of a task, or of data alone                  Interface, interface_of, task_of
    ℓ, ℓ̂: words → ids                                           Interface.encode

Files of datasets are in lab/files.py.  Letters in shapes: T steps of an episode, M = Σ T of a
dataset, n things side by side, H actions of a chunk.
Deviations (docs/DEVIATIONS.md): 17, 18.
"""
import difflib
import zlib
from dataclasses import dataclass

import numpy as np
import torch

from sim_tasks import TASKS, questions
from sim_tasks.cameras import cameras as render
from sim_tasks.errors import UserError
from sim_tasks.scene import absolute_entries
from sim_tasks.task import Task

SOURCES = ("demonstration", "autonomous", "corrected")

@dataclass
class Episode:
    """One attempt at a task: T steps.

    Every step has an observation and an action; of o_T, after which nothing is done, nobody
    learns.  UserError where lengths disagree, a number is not finite or the source is unknown.
    """

    task: str  # its id, to which ε_ℓ and the time limit belong
    prompt: str  # ℓ_t in words
    max_length: int  # the task's limit in steps: normalises the returns (Sec. V-C)
    observations: dict  # name -> array (T, ...)
    actions: np.ndarray  # (T, action_dim), as *sent to the robot*
    subtask: np.ndarray  # (T,) str: the annotation that ℓ̂ learns
    intervention: np.ndarray  # (T,) bool: an expert took over from a policy
    success: bool | None  # None: not labelled yet, an error wherever a label is needed
    stages: np.ndarray  # (n_stages,) bool: successes of the scored stages
    source: str  # one of SOURCES; "corrected": a policy ran and an operator could take over
    hz: float  # control steps per second
    iteration: int = 0  # k of Algorithm 1 (π^{k-1} acted); 0 for demonstrations
    metadata: str = ""  # s in words
    last: dict | None = None  # o_T: name -> array (...), for pictures; None: not kept

    def __post_init__(self):
        T = len(self.actions)
        if T == 0:
            raise UserError("actions: 0 steps, expected at least one")
        numbers = {**self.observations, "actions": self.actions}
        per_step = {**numbers, "subtask": self.subtask, "intervention": self.intervention}
        for name, array in per_step.items():
            if len(array) != T:
                raise UserError(f"{name}: {len(array)} steps, expected {T} as actions")
        for name, array in numbers.items():
            if not np.isfinite(array).all():
                step = int(np.argwhere(~np.isfinite(array))[0, 0])
                raise UserError(f"{name}: not finite at step {step}, expected finite numbers")
        if self.source not in SOURCES:
            raise UserError(f"source: {self.source!r}, expected one of {SOURCES}")
        if not 0 < self.hz < float("inf"):
            raise UserError(f"hz: {self.hz}, expected control steps per second, above 0")

    def __len__(self):
        return len(self.actions)

# ---------------------------------------------------------------- sizes and words

# Words that every network knows; the first one pads.  "subtask:", "action:", "value:" and "answer:"
# mark where the model is to continue; the last four are the metadata s.
WORDS = (
    "", "subtask:", "Advantage:", "positive", "negative", "action:", "value:", "answer:",
    "fast", "slow", "careful", "careless",
)  # fmt: skip

@dataclass(frozen=True)
class Interface:
    """What goes into the networks of a task and out of them: sizes, words, rate.

    It is a part of every network's config, so a checkpoint can be loaded without its task.
    """

    state_dim: int  # numbers of q_t
    action_dim: int
    hz: float  # control steps per second
    words: tuple  # that the task adds to WORDS
    prompt_length: int  # words of ℓ_t with the metadata s
    subtask_length: int  # words of ℓ̂
    keypoints: tuple = ()  # (how many, numbers of each); none: there are none
    near: tuple = ()  # (first, after the last) of those numbers that are 0 where an arm arrives
    cameras: tuple = ()  # names of the images that are read instead of the keypoints
    image: int = 24  # pixels, side of an image (π_0.6's model card: 448)
    patch: int = 8  # pixels, side of a patch
    n_arms: int = 2  # equal parts of an action
    absolute: tuple = ()  # entries of an action that are no targets for the state's numbers
    state_mean: tuple = ()  # (state - mean) / std is read; none: the state as it is
    state_std: tuple = ()

    def __post_init__(self):
        for i in set(range(self.state_dim, self.action_dim)) - set(self.absolute):
            where = f"the state has {self.state_dim} numbers"
            raise UserError(f"absolute: {self.absolute} lacks {i}, expected it: {where}")
        if self.cameras and self.image % self.patch:
            raise UserError(f"image: side {self.image}, expected a multiple of {self.patch}")

    @property
    def relative(self):
        """Entries of an action that are targets for the state's numbers of the same place."""
        return [i for i in range(self.action_dim) if i not in self.absolute]

    @property
    def vocabulary(self):
        """All words; a word's id is its place."""
        return WORDS + self.words

    def encode(self, text, length):
        """Words → ids, padded to `length`.  UserError: unknown words, or too many."""
        known = self.vocabulary
        words = text.split()
        unknown = [word for word in words if word not in known]
        if unknown:
            near = []
            for word in unknown:
                near += difflib.get_close_matches(word, known, n=1, cutoff=0.5)
            hint = f" (nearest: {', '.join(near)})" if near else ""
            message = f"text: unknown words {unknown} in {text!r}, expected those of the task{hint}"
            raise UserError(message)
        if len(words) > length:
            raise UserError(f"text: {len(words)} words in {text!r}, expected at most {length}")
        return [known.index(word) for word in words] + [0] * (length - len(words))

    @property
    def n_observation_tokens(self):
        """One per keypoint, or per patch where there are cameras; and one for q_t."""
        if self.cameras:
            return len(self.cameras) * (self.image // self.patch) ** 2 + 1
        return (self.keypoints[0] if self.keypoints else 0) + 1

def interface_of(task, cameras=(), image=24):
    """The `Interface` of a task; sizes are read off its first observation.

    cameras: names of the images that are to be read instead of the keypoints.
    image: pixels, their side, where the observation carries none and they are rendered.
    """
    seen = task.world([0]).observe() if task.example is None else task.example
    if task.near and ("keypoints" not in seen or task.near[1] > seen["keypoints"].shape[2]):
        found = seen["keypoints"].shape[1:] if "keypoints" in seen else "none"
        raise UserError(f"near: {task.near}, expected columns of the keypoints, {found}")
    for name in cameras:
        if name not in seen and task.name not in TASKS:  # the toys' are rendered
            has = f"(it has: {', '.join(seen)})"
            raise UserError(f"cameras: no {name!r} in an observation of {task.name!r} {has}")
    if cameras and cameras[0] in seen:
        image = seen[cameras[0]].shape[1]
    images = {"cameras": tuple(cameras), "image": image} if cameras else {}
    return Interface(
        state_dim=seen["state"].shape[1], action_dim=task.action_dim, hz=task.hz,
        words=tuple(word for word in task.words if word not in WORDS),
        prompt_length=task.prompt_length, subtask_length=task.subtask_length,
        keypoints=seen["keypoints"].shape[1:] if "keypoints" in seen else (),
        near=tuple(task.near), n_arms=task.n_arms, absolute=absolute_entries(task),
        state_mean=tuple(task.state_mean), state_std=tuple(task.state_std), **images,
    )  # fmt: skip

def task_of(episodes, name=None):
    """A `Task` for episodes of which nothing else is known: no world, no operator.

    name: which of their tasks; None: that of the first one.  It knows the words of all of them.
    UserError where they have no state.
    """
    own = [e for e in episodes if name is None or e.task == name]
    first = own[0]
    if "state" not in first.observations:
        found = ", ".join(first.observations) or "nothing"
        raise UserError(f"observations: {found}, expected 'state', where the robot is")
    texts = np.concatenate([e.subtask for e in episodes])
    subtasks = dict.fromkeys(texts.tolist())  # each once, in their order
    action_dim = first.actions.shape[1]
    state_dim = first.observations["state"].shape[1]
    two_arms = action_dim % 2 == 0 and action_dim >= 4
    states = np.concatenate([e.observations["state"] for e in episodes])  # (M, S)
    return Task(
        name=first.task, prompt=first.prompt, subtasks=tuple(subtasks), hz=first.hz,
        texts=tuple(dict.fromkeys(f"{e.prompt} {e.metadata}" for e in episodes)),
        max_steps=max(e.max_length for e in own if e.task == first.task), action_dim=action_dim,
        n_arms=2 if two_arms else 1,
        # Where the state does not say where the action's numbers are, all of them are absolute.
        absolute=None if state_dim >= action_dim else tuple(range(action_dim)),
        example={name: x[:1] for name, x in first.observations.items()},
        # Nobody says in which units: degrees would be far from 1.
        state_mean=tuple(states.mean(0).tolist()),
        state_std=tuple(np.maximum(states.std(0), 1e-3).tolist()),
    )  # fmt: skip

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

def perceive(observation, interface):
    """What a network reads of an observation: state and keypoints, or state and images.

    observation: {name: (n, ...)}.  UserError where one is missing, of another shape, or an image
    that is not uint8.
    The toys' pictures are a function of state and keypoints, so their episodes carry none.
    """
    seen = dict(observation)
    side = interface.image
    shapes = {"state": (interface.state_dim,)}
    if interface.cameras:
        if not set(interface.cameras) <= set(seen) and "keypoints" in seen:
            seen |= render(seen["state"], seen["keypoints"], side)
        shapes |= dict.fromkeys(interface.cameras, (side, side, 3))
    elif interface.keypoints:
        shapes["keypoints"] = tuple(interface.keypoints)
    for name, shape in shapes.items():
        if name not in seen or np.shape(seen[name])[1:] != shape:
            found = np.shape(seen[name])[1:] if name in seen else "none"
            raise UserError(f"{name}: shape {found}, expected {shape} as the networks read it")
    found = {name: np.asarray(seen[name]) for name in shapes}
    for name, x in found.items():
        if name in interface.cameras:
            if x.dtype != np.uint8:
                raise UserError(f"{name}: {x.dtype}, expected images as uint8, 0 to 255")
        else:  # many people's data are in double precision, or whole numbers
            found[name] = x.astype(np.float32, copy=False)
    return found

def stack_steps(episodes, interface, device="cpu", horizon=None):
    """All steps of all episodes in a row: a dict of tensors with leading axis M.

    interface: of the networks.  horizon: H; None leaves the actions out.
    Returns what `perceive` does; clock (M, 1), the part of the time limit that is over; ids of
    prompt (M, prompt_length), of `described`, the prompt with the metadata s, and of subtask
    (M, subtask_length); actions (M, H, action_dim), a_{t:t+H}.

    A chunk is what was done, whoever did it: near a takeover it holds actions of the policy and
    of the operator, and I_t is that of its first step.
    """
    if not episodes:
        raise UserError("episodes: an empty dataset, expected at least one episode")
    prompts = []
    described = []
    subtasks = []
    chunks = []
    for e in episodes:
        T = len(e)
        if e.actions.shape[1:] != (interface.action_dim,):
            expected = f"({interface.action_dim},) as the networks have it"
            raise UserError(f"actions: shape {e.actions.shape[1:]}, expected {expected}")
        length = interface.prompt_length
        prompts += [interface.encode(e.prompt, length)] * T
        described += [interface.encode(f"{e.prompt} {e.metadata}", length)] * T
        # Each text is encoded once: names (few,), index (T,).
        names, index = np.unique(e.subtask, return_inverse=True)
        ids = [interface.encode(str(name), interface.subtask_length) for name in names]
        subtasks.append(np.array(ids)[index])  # (T, subtask_length)
        if horizon is not None:
            # Past the end of the episode a chunk repeats the last action.
            window = np.arange(T)[:, None] + np.arange(horizon)  # (T, H)
            chunks.append(e.actions[np.minimum(window, T - 1)])  # (T, H, action_dim)
    names = set.intersection(*(set(e.observations) for e in episodes))
    observation = {}
    for name in names:
        observation[name] = np.concatenate([e.observations[name] for e in episodes])
    steps = perceive(observation, interface)
    if horizon is not None:
        steps["actions"] = np.concatenate(chunks).astype(np.float32, copy=False)
    clock = [np.arange(len(e), dtype=np.float32) / e.max_length for e in episodes]
    steps["clock"] = np.concatenate(clock)[:, None]  # (M, 1)
    steps["prompt"] = np.array(prompts)
    steps["described"] = np.array(described)
    steps["subtask"] = np.concatenate(subtasks)
    return {name: torch.as_tensor(x, device=device) for name, x in steps.items()}

def balanced_draw(positive, share, n, g):
    """An endless draw of steps of which a share is positive.

    positive: bool (M,).  share: in (0, 1).  n: steps in a batch.  g: a torch generator.
    Returns a callable without arguments that returns indices (n,), or None where all steps are of
    one kind: there is nothing to balance.
    """
    positives = torch.as_tensor(positive).nonzero()[:, 0]
    negatives = torch.as_tensor(~positive).nonzero()[:, 0]
    if len(positives) == 0 or len(negatives) == 0:
        return None

    def draw():
        of_positives = positives[torch.randint(len(positives), (n,), generator=g)]
        of_negatives = negatives[torch.randint(len(negatives), (n,), generator=g)]
        return torch.where(torch.rand(n, generator=g) < share, of_positives, of_negatives)

    return draw

def draw_prompts(batch, metadata_dropout, g):
    """Put s into the prompts of a batch, ids, except where it is dropped (Sec. V-A)."""
    kept = torch.rand(len(batch["prompt"]), generator=g) >= metadata_dropout  # (B,)
    kept = kept[:, None].to(batch["prompt"].device, non_blocking=True)
    batch["prompt"] = torch.where(kept, batch["described"], batch["prompt"])

def web_batches(s, interface, batch_size, purpose):
    """An endless draw of s.web * batch_size questions and answers about random scenes.

    Returns None if that is 0, else a callable without arguments that returns
    {observations ..., "question": ids as of a prompt, "answer": ids as of a subtask}.
    """
    n = round(s.web * batch_size)
    if n == 0:
        return None
    seed = int(stream(s.seed, purpose).generate_state(1)[0])
    pool = questions.questions(20_000, seed)
    web = perceive(pool, interface)
    lengths = {"question": interface.prompt_length, "answer": interface.subtask_length}
    for name, length in lengths.items():
        texts, index = np.unique(pool[name], return_inverse=True)
        ids = [interface.encode(str(text), length) for text in texts]
        web[name] = np.array(ids)[index]  # (n, length)
    web = {name: torch.as_tensor(x, device=s.device) for name, x in web.items()}
    g = generator(s.seed, purpose)

    def draw():
        index = torch.randint(len(web["question"]), (n,), generator=g)
        index = index.to(s.device, non_blocking=True)
        return {name: x[index] for name, x in web.items()}

    return draw

"""A task of your own: what RECAP needs to know of a world, and no more.

    Task            name, words, rate, limit, sizes; makes the world and its operators
    TaskError       what is wrong with a task of somebody's own, in one line
    load_task       "my_file.py:MY_TASK"

docs/OWN_TASK.md begins with a whole one.  The toys (toys.py) are five such tasks.
"""

import importlib.util
import os
import sys
import traceback
from dataclasses import dataclass
from functools import lru_cache

from .errors import UserError
from .scene import Coach, Copies, Operator

class TaskError(UserError):
    """A task that cannot be used as it is: names what and where, and what was expected."""

@dataclass(frozen=True, kw_only=True)
class Task:
    """A task.  scene: a class whose objects are one copy of it each, see scene.py.

    A task without a scene has data only; one without an expert starts from a dataset.  A task that
    steps many copies at once by itself overrides `world`, `demonstrator`, `coach` and the three
    properties that say whether there are any (`gym_task.GymTask`).
    """

    name: str  # the id to which ε_ℓ and the time limit belong
    prompt: str  # ℓ_t in words
    subtasks: tuple  # ℓ̂ of each stage in words; the last one done is success
    hz: float  # control steps per second
    max_steps: int  # time limit in control steps; running out of time is a failure
    action_dim: int  # numbers of an action
    scene: type | None = None
    example: dict | None = None  # an observation, {name: (1, ...)}, where there is no scene
    state_mean: tuple = ()  # the networks read (state - mean) / std; none: the state as it is
    state_std: tuple = ()
    texts: tuple = ()  # other prompts of its data, with their metadata: more words
    # what the networks may assume of an action
    n_arms: int = 2  # equal parts of an action, one token each
    absolute: tuple | None = None  # entries not relative to the state's; None: each arm's last
    near: tuple = ()  # (first, after the last) column of the keypoints that is 0 where one arrives
    speed: float = 0.1  # of the fastest operator: largest change of a target per step (rad)
    # settings that hang on the task: rules of thumb are in docs/OWN_TASK.md
    lookahead_s: float = 1.0  # N of the advantage, s
    positive: float = 0.2  # share of positive labels among the newest rollouts
    beta: float = 1.5  # guidance at evaluation, beside β = 1
    corrected: int = 50  # episodes per iteration with corrections
    sft_steps: int = 700  # gradient steps of π⁰
    # "mixed", "good", "best", "coach" -> `scene.Skill`, where those of scene.py do not fit
    skills: dict | None = None
    # things that it can be about (`toys.Toy`)
    items: tuple = ()
    measured: str | None = None

    def __post_init__(self):
        for name in ("name", "prompt"):
            if not getattr(self, name):
                raise TaskError(f"{name}: {getattr(self, name)!r}, expected words")
        if isinstance(self.subtasks, str):
            expected = f"expected a tuple, like ({self.subtasks!r},)"
            raise TaskError(f"subtasks: {self.subtasks!r}, {expected}")
        if not self.subtasks:
            raise TaskError(f"subtasks: none in task {self.name!r}, expected at least one")
        if not 0 < self.hz < float("inf"):
            raise TaskError(f"hz: {self.hz}, expected control steps per second, above 0")
        for name in ("max_steps", "action_dim", "n_arms"):
            if not (isinstance(getattr(self, name), int) and getattr(self, name) >= 1):
                raise TaskError(f"{name}: {getattr(self, name)!r}, expected an integer >= 1")
        absolute = self.absolute or ()
        if not all(0 <= i < self.action_dim for i in absolute):
            expected = f"expected indices from 0 to {self.action_dim - 1}"
            raise TaskError(f"absolute: {absolute}, {expected}")
        if self.near and (len(self.near) != 2 or not 0 <= self.near[0] < self.near[1]):
            raise TaskError(f"near: {self.near}, expected (first column, last column + 1)")
        if self.action_dim % self.n_arms:
            expected = f"a multiple of n_arms = {self.n_arms}"
            raise TaskError(f"action_dim: {self.action_dim}, expected {expected}")

    @property
    def words(self):
        """The words that a network must know, in a fixed order."""
        text = " ".join((self.prompt, *self.subtasks, *self.texts))
        return tuple(dict.fromkeys(text.split()))

    @property
    def prompt_length(self):
        """Words of the longest prompt, with two of metadata."""
        longest = max(len(text.split()) for text in (self.prompt, *self.texts))
        return max(longest, len(self.prompt.split()) + 2)

    @property
    def subtask_length(self):
        """Words of the longest subtask, at least one."""
        return max(1, *(len(subtask.split()) for subtask in self.subtasks))

    @property
    def has_demonstrator(self):
        return hasattr(self.scene, "expert")

    @property
    def has_coach(self):
        return self.has_demonstrator

    @property
    def has_world(self):
        return self.scene is not None

    def world(self, seeds, body=None, item=None):
        """n copies that step together, one per seed; the interface is that of `scene.Copies`."""
        if self.scene is None:
            raise TaskError(f"scene: task {self.name!r} has none, expected a class (or --data)")
        return Copies(self, seeds)

    def demonstrator(self, world, seeds, skill):
        """Who demonstrates in all copies: act(world) -> (n, action_dim), metadata() -> n texts."""
        self._need_demonstrator()
        return Operator(world, seeds, skill)

    def _need_demonstrator(self):
        if not self.has_demonstrator:
            message = f"task {self.name!r} has none, expected one (or --data)"
            raise TaskError(f"expert: {message}")

    def coach(self, world, seeds):
        """Who watches and corrects: wants_control(observation) -> (n,), act(observation)."""
        return Coach(world, seeds)

    def visible_quality(self, observations):
        """Steps that anyone who watches would call good or bad: (good, bad), bool (T,) each.

        observations: of one episode, {name: (T, ...)}.  None: nobody could say.  It is compared
        with the labels, and nothing learns from it.
        """
        return None

    def picture(self, observation):
        """One observation as a picture, uint8 (height, width, 3); None: there are no pictures."""
        return None

    def sketch(self, observation):
        """The same as strokes (`render.Sketch`), which take less room; None: there are none."""
        return None

@lru_cache
def load_task(name):
    """The `Task` of "my_file.py:MY_TASK".  TaskError where there is none."""
    path, _, attribute = name.rpartition(":")
    if not path.endswith(".py") or not attribute:
        raise TaskError(f"task: {name!r}, expected a known one or my_file.py:MY_TASK")
    if not os.path.isfile(path):
        raise TaskError(f"task: there is no file {path!r}, expected my_file.py:MY_TASK")
    module_name = "task_of_" + os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(module_name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look it up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever somebody's own file may do
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == path]
        where = f"{path}:{lines[-1]}" if lines else path
        what = " ".join(str(error).split()) or type(error).__name__
        raise TaskError(f"task: {where}: {what}") from error
    task = getattr(module, attribute, None)
    if not hasattr(task, "max_steps"):
        raise TaskError(f"task: {path} has no Task of the name {attribute!r}")
    return task

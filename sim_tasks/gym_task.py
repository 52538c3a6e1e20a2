"""Any Gymnasium environment as a task: n copies of it side by side.

    TASK = GymTask(name="lander", prompt="land softly", subtasks=("land",), hz=50, max_steps=400,
                   action_dim=2, n_arms=1, absolute=(0, 1), env="LunarLanderContinuous-v3",
                   succeeded=landed, policy=my_expert)

    python recap.py --task my_file.py:TASK

gymnasium.vector does the copying; a copy that is over waits until all of them are.
"""

from dataclasses import dataclass

import gymnasium
import numpy as np

from .task import Task, TaskError

@dataclass(frozen=True, kw_only=True)
class GymTask(Task):
    """A task whose world is a registered environment with a Box of actions and of observations.

    env: its id.  options: keyword arguments of gymnasium.make.
    succeeded: (info {name: value}, terminated bool, reward of the last step) -> bool, at the end.
    policy: an expert, observation (S,) -> action (action_dim,); None: it starts from a dataset.
    noise: standard deviation of the error of the worst operator, in units of the action.
    It has one subtask: an environment does not say when a stage is done.
    """

    env: str
    succeeded: object
    policy: object = None
    options: dict | None = None
    noise: float = 0.3

    def __post_init__(self):
        super().__post_init__()
        if len(self.subtasks) != 1:
            raise TaskError(f"subtasks: {self.subtasks} of an environment, expected one")

    @property
    def has_demonstrator(self):
        return self.policy is not None

    @property
    def has_coach(self):
        return False

    @property
    def has_world(self):
        return True

    def world(self, seeds, body=None, item=None):
        return GymCopies(self, seeds)

    def demonstrator(self, world, seeds, skill):
        self._need_demonstrator()
        return GymOperator(world, seeds, skill)

    def coach(self, world, seeds):
        raise TaskError(f"corrected: task {self.name!r} has no coach, expected --corrected 0")

class GymCopies:
    """n copies of an environment behind the interface of `scene.Copies`."""

    def __init__(self, task, seeds):
        self.spec = task
        self.n = len(seeds)
        disabled = gymnasium.vector.AutoresetMode.DISABLED
        try:
            self.envs = gymnasium.make_vec(
                task.env, num_envs=self.n, vectorization_mode="sync",
                vector_kwargs={"autoreset_mode": disabled}, **(task.options or {}),
            )  # fmt: skip
        except gymnasium.error.Error as error:  # no such id, or something is not installed
            raise TaskError(f"env: {task.env!r}: {' '.join(str(error).split())}") from error
        seen = self.envs.single_observation_space
        if not isinstance(seen, gymnasium.spaces.Box) or len(seen.shape) != 1:
            raise TaskError(f"env: observations of {task.env} are {seen}, expected a Box (S,)")
        space = self.envs.single_action_space
        if not isinstance(space, gymnasium.spaces.Box) or space.shape != (task.action_dim,):
            found = f"actions of {task.env} are {space}"
            raise TaskError(f"action_dim: {task.action_dim}, but {found}")
        self.space = space
        self.observation, _ = self.envs.reset(seed=[int(seed) % 2**31 for seed in seeds])
        self.t = np.zeros(self.n, int)
        self.stage = np.zeros(self.n, int)
        self.done = np.zeros(self.n, bool)
        self.success = np.zeros(self.n, bool)

    def observe(self):
        """{"state": float32 (n, S)}."""
        return {"state": self.observation.astype(np.float32)}

    def step(self, actions):
        """Every copy that is not over takes one step.  actions: (n, action_dim)."""
        actions = np.clip(actions, self.space.low, self.space.high).astype(self.space.dtype)
        for i in np.flatnonzero(~self.done):
            seen, reward, terminated, truncated, info = self.envs.envs[i].step(actions[i])
            self.observation[i] = seen
            self.t[i] += 1
            late = self.t[i] >= self.spec.max_steps
            self.done[i] = terminated or truncated or late
            if self.done[i]:
                self.success[i] = bool(self.spec.succeeded(info, terminated, reward))
                self.stage[i] = int(self.success[i])

    def prompts(self):
        return np.array([self.spec.prompt] * self.n)

    def subtasks(self):
        return np.array([self.spec.subtasks[0]] * self.n)

class GymOperator:
    """The task's expert with an error of its own size in every episode; "best" has none."""

    SIZES = {"mixed": (0.0, 1.0), "good": (0.0, 0.5), "best": (0.0, 0.0)}

    def __init__(self, world, seeds, skill):
        low, high = self.SIZES[skill]
        self.size = np.empty((world.n, 1))
        self.error = np.empty((world.n, world.spec.max_steps, world.spec.action_dim))
        for i, seed in enumerate(seeds):  # all chance comes from the copy's own seed
            rng = np.random.default_rng([32, seed])
            self.size[i] = rng.uniform(low, high)
            self.error[i] = rng.normal(0, world.spec.noise, self.error.shape[1:])

    def metadata(self):
        return ["fast careless" if size > 0.5 else "fast careful" for size in self.size[:, 0]]

    def act(self, world):
        """Actions (n, action_dim); zeros where it is over."""
        actions = np.zeros((world.n, world.spec.action_dim))
        for i in np.flatnonzero(~world.done):
            actions[i] = world.spec.policy(world.observation[i])
        t = np.minimum(world.t, world.spec.max_steps - 1)
        return actions + self.size * self.error[np.arange(world.n), t]

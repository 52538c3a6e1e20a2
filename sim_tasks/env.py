"""The Gymnasium face of a `World`: one copy, the usual five-tuple."""

import gymnasium
import numpy as np
from gymnasium import spaces

from .arms import (
    ACTION_DIM,
    CONTROL_HZ,
    JOINT_HIGH,
    JOINT_LOW,
    KEYPOINT_DIM,
    N_KEYPOINTS,
    STATIC,
    World,
)
from .render import draw

class BimanualEnv(gymnasium.Env):
    """Base of the tasks: a subclass names its `task`.  `info` holds success, failure, stages,
    subtask and prompt.

    body: the robot, one of `arms.BODIES` or another `Body`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}
    task = None  # a TaskSpec; not `spec`, which Gymnasium keeps for its own EnvSpec

    def __init__(self, render_mode=None, body=STATIC):
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode: {render_mode!r}, expected None or 'rgb_array'")
        self.render_mode, self.body, self.world = render_mode, body, None
        low = np.tile(np.append(JOINT_LOW, 0.0), 2).astype(np.float32)  # (6,)
        high = np.tile(np.append(JOINT_HIGH, 1.0), 2).astype(np.float32)
        self.action_space = spaces.Box(low, high, (ACTION_DIM,), np.float32)
        # the largest entries are differences of joint angles; a full turn bounds them
        key_high = np.full((N_KEYPOINTS, KEYPOINT_DIM), 2 * np.pi, np.float32)
        self.observation_space = spaces.Dict(
            {
                "state": spaces.Box(low, high, (ACTION_DIM,), np.float32),
                "keypoints": spaces.Box(
                    -key_high, key_high, (N_KEYPOINTS, KEYPOINT_DIM), np.float32
                ),
            }
        )

    def reset(self, *, seed=None, options=None):
        """Gymnasium's pair.  options {"item": name} chooses the item; others are a ValueError."""
        super().reset(seed=seed)
        options = {"item": None} | (options or {})
        if len(options) > 1:
            raise ValueError(f"options: {sorted(options)}, expected 'item' alone")
        # the seed names the episode, as in `World`; later episodes draw theirs from the generator
        episode = seed if seed is not None else int(self.np_random.integers(2**31))
        self.world = World(self.task, [episode], self.body, **options)
        return self._observation(), self._info()

    def step(self, action):
        """Gymnasium's five-tuple; ValueError for an action that is not finite.

        Running out of time is a failure (Sec. V-C), so it *terminates*: a library that bootstraps
        from V where an episode was truncated would count it twice, C_fail and V.
        """
        w = self.world
        if w is None or w.done[0]:
            when = "before reset()" if w is None else "after the end of the episode"
            raise gymnasium.error.ResetNeeded(f"step() {when}, expected reset() first")
        w.step(np.asarray(action)[None])
        return self._observation(), float(rewards(w)[0]), bool(w.done[0]), False, self._info()

    def render(self):
        """The table seen from above, uint8 (240, 240, 3); None without a render mode."""
        if self.render_mode is None:
            gymnasium.logger.warn(
                "render() without a render mode, expected render_mode='rgb_array' in make()"
            )
            return None
        if self.world is None:
            raise gymnasium.error.ResetNeeded(
                "render() before reset(): there is nothing to see yet"
            )
        seen = self._observation()
        return draw(seen["state"], seen["keypoints"], self.task, body=self.body)

    def _observation(self):
        return {key: value[0] for key, value in self.world.observe().items()}

    def _info(self):
        w = self.world
        return {
            "success": bool(w.success[0]),
            "failure": str(w.failure[0]),
            "stages": np.arange(len(self.task.stages)) < w.stage[0],
            "subtask": str(w.subtasks()[0]),
            "prompt": str(w.prompts()[0]),
        }

def rewards(world):
    """Eq. 5 of the step just taken, (n,): -1, and at the end 0 or -C_fail (the time limit)."""
    last = np.where(world.success, 0.0, -float(world.spec.max_steps))
    return np.where(world.done, last, -1.0)

class BimanualVectorEnv(gymnasium.vector.VectorEnv):
    """n copies of a task in one `World`, far faster than as many environments side by side.

    gymnasium.make_vec("SimTasks/FoldShirt-v0", num_envs=100, vectorization_mode=
    "vector_entry_point").  An episode that is over begins anew at the next step, as Gymnasium's
    own vector environments have it; that step's action is not used.
    """

    metadata = {
        "render_modes": [],
        "render_fps": CONTROL_HZ,
        "autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP,
    }

    def __init__(self, num_envs, task, body=STATIC, max_episode_steps=None):
        # max_episode_steps comes from Gymnasium's spec: it is the task's own limit
        self.num_envs = num_envs
        self.task = task
        self.body = body
        self.world = None
        one = BimanualEnv(body=body)
        self.single_action_space = one.action_space
        self.single_observation_space = one.observation_space
        batch = gymnasium.vector.utils.batch_space
        self.action_space = batch(one.action_space, num_envs)
        self.observation_space = batch(one.observation_space, num_envs)

    def reset(self, *, seed=None, options=None):
        """seed: an int, then copy i has seed + i; a list, one each; None draws them."""
        if seed is None:
            seeds = self._draw(self.num_envs)
        elif isinstance(seed, int):
            super().reset(seed=seed)
            seeds = [seed + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        self.world = self.task.world(seeds, self.body)
        return self.world.observe(), self._info()

    def _draw(self, n):
        return [int(x) for x in self.np_random.integers(2**31, size=n)]

    def step(self, actions):
        """Gymnasium's five-tuple, arrays with leading axis n; a time-out terminates."""
        if self.world is None:
            raise gymnasium.error.ResetNeeded("step() before reset(), expected reset() first")
        w = self.world
        begins = w.done.copy()
        actions = np.array(actions, float)
        actions[begins] = 0  # not used, whatever it holds
        w.step(actions)
        if begins.any():
            w.begin_again(begins, self._draw(int(begins.sum())))
        reward = np.where(begins, 0.0, rewards(w))
        never = np.zeros(self.num_envs, bool)
        return w.observe(), reward, w.done.copy(), never, self._info()

    def _info(self):
        w = self.world
        return {"success": w.success.copy(), "failure": w.failure, "subtask": w.subtasks()}

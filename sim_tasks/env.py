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
        """Gymnasium's five-tuple; ValueError for an action that is not finite."""
        self.world.step(np.asarray(action)[None])
        w = self.world
        terminated, truncated = bool(w.done[0] and not w.timeout[0]), bool(w.timeout[0])
        reward = -1.0  # Eq. 5
        if w.done[0]:
            reward = 0.0 if w.success[0] else -float(self.task.max_steps)
        return self._observation(), reward, terminated, truncated, self._info()

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

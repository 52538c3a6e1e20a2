"""A task of sim_tasks as a robot."""
import gymnasium
import numpy as np

import sim_tasks  # noqa: F401  (registers the tasks)
from hardware import Connection, to_dict, to_vector
from sim_tasks.arms import STATIC
from sim_tasks.errors import UserError

class SimRobot(Connection):
    """Any bimanual Gymnasium task of sim_tasks as a robot, and as its own referee.

    One command is one step of the task: its world of 10 Hz runs five times as fast at 50 Hz.
    Between commands simulated time stands still, so `hold` and `estop` have nothing to do, and
    the limits are those of the world's own rate.
    env: the task's Gymnasium id.  seed: of the episode that `connect` begins.
    `limits` are the arguments of `hardware.Safety`.
    watch: callable (observation, info, steps so far), called at every begin and step; or None.
    """

    simulated = True

    def __init__(self, env="SimTasks/FoldShirt-v0", seed=0):
        try:
            self.env = gymnasium.make(env, disable_env_checker=True)
        except gymnasium.error.Error as error:
            raise UserError(f"env: {env!r}: {' '.join(str(error).split())}") from None
        self.seed = seed
        self.watch = None
        self.is_connected = False
        self.task = self.env.unwrapped.task
        joints = self.env.action_space.shape[0] // 2 - 1  # of one arm
        self.names = action_names(joints)
        self.action_features = dict.fromkeys(self.names, float)
        arrays = dict(self.env.observation_space.items())
        arrays.pop("state")  # has names of its own: those of the actions
        shapes = {name: space.shape for name, space in arrays.items()}
        self.observation_features = self.action_features | shapes
        self.limits = dict(
            joint_low=self.env.action_space.low[:joints],
            joint_high=self.env.action_space.high[:joints],
            joint_speed=STATIC.joint_speed * self.task.hz,  # the body's are per step
            gripper_speed=STATIC.gripper_speed * self.task.hz,
            stale_s=25 / self.task.hz,  # the scene of an arm at rest does not change
            hz=self.task.hz,
        )

    @property
    def world(self):
        """The simulated world, for a `ScriptedOperator`; a new one after every `begin`."""
        return self.env.unwrapped.world

    @property
    def prompt(self):
        """ℓ_t of this scene in words, with its item."""
        return self._info["prompt"]

    # ---- the robot

    def connect(self):
        self.begin(self.seed)
        self.is_connected = True

    def disconnect(self):
        self.is_connected = False

    def begin(self, seed):
        """Put the scene back: a new episode."""
        self._observation, self._info = self.env.reset(seed=seed)
        self._over = False
        self._steps = 0
        self._show()

    def _show(self):
        if self.watch is not None:
            self.watch(self._observation, self._info, self._steps)

    def get_observation(self):
        """Positions, and `keypoints` instead of cameras: fresh arrays, float32."""
        self._need_connection()
        seen = {name: x.copy() for name, x in self._observation.items()}
        return to_dict(seen.pop("state"), self.names) | seen

    def send_action(self, action):
        """One step of the task.  Returns the action as the simulator got it, in float32."""
        self._need_connection()
        sent = to_vector(action, self.names).astype(np.float32)
        self._observation, _, terminated, truncated, self._info = self.env.step(sent)
        self._over = terminated or truncated
        self._steps += 1
        self._show()
        return to_dict(sent, self.names)

    def hold(self):
        """Nothing to do: without a command no time passes."""

    def estop(self):
        """Nothing to do: without a command no time passes."""

    def _need_connection(self):
        if not self.is_connected:
            raise ConnectionError("SimRobot: not connected, expected connect() first")

    # ---- the referee

    def over(self):
        """Success, an unrecoverable failure or the time limit."""
        return self._over

    def subtask(self):
        """What an annotator would write under the current frame."""
        return self._info["subtask"]

    def outcome(self):
        """Success, or None of an episode that was interrupted; successes of the stages."""
        success = self._info["success"] if self._over else None
        return success, self._info["stages"]

def action_names(joints):
    """[left joints, left gripper, right joints, right gripper].  joints: of one arm."""
    parts = [f"joint_{i}" for i in range(joints)] + ["gripper"]
    left = [f"left_{part}.pos" for part in parts]
    return left + [f"right_{part}.pos" for part in parts]

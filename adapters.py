"""What stands behind and beside the interface of hardware.py: robots, operators.

    SimRobot          any Gymnasium task of sim_tasks as a robot; it referees itself
    LeRobotRobot      any LeRobot bimanual follower, without importing LeRobot
    ScriptedOperator  the operator of sim_tasks and his gate, for every copy of a world
    Person            an operator at a keyboard
    LeaderArm         a LeRobot teleoperator and its events

A robot has the methods of `hardware.BimanualRobot`.  An operator has wants_control(observation) -> (n,) bool, asked once per
step, and act(observation) -> targets (n, A).  A referee has over() -> bool, subtask() -> str and outcome() ->
(True, False, None for not labelled, or REDO; successes of the stages).  observation: {"state": (n, A), ...}.
"""
import math
import os
import select
import sys
import threading
from contextlib import contextmanager

import gymnasium
import numpy as np

import sim_tasks                    # registers the tasks
from sim_tasks.arms import STATIC
from sim_tasks.demonstrator import COACH, Gate, Operator

REDO = "redo"          # an outcome: discard the episode and do it again


def to_vector(action, names):
    """{name: number} -> float (A,), in the order of `names`."""
    return np.array([action[name] for name in names], float)


def to_dict(vector, names):
    """float (A,) -> {name: float}."""
    return dict(zip(names, map(float, vector)))


class Connection:
    """`with robot:` connects, and disconnects whatever happens."""

    def __enter__(self):
        self.connect()
        return self

    def __exit__(self, *error):
        self.disconnect()


# ---------------------------------------------------------------- robots

class SimRobot(Connection):
    """Any bimanual Gymnasium task of sim_tasks as a robot, and as its own referee.

    One command is one step of the task: its world of 10 Hz runs five times as fast at 50 Hz.  Between commands simulated
    time stands still, so `hold` and `estop` have nothing to do.  `limits` are the arguments of `hardware.Safety`.
    """

    def __init__(self, env="SimTasks/FoldShirt-v0", seed=0):
        self.env, self.seed, self.is_connected = gymnasium.make(env, disable_env_checker=True), seed, False
        self.task = self.env.unwrapped.task
        joints = self.env.action_space.shape[0] // 2 - 1
        self.names = [f"{side}_{part}.pos" for side in ("left", "right")
                      for part in [*(f"joint_{i}" for i in range(joints)), "gripper"]]
        self.action_features = dict.fromkeys(self.names, float)
        self.observation_features = self.action_features | {
            name: space.shape for name, space in self.env.observation_space.items() if name != "state"}
        self.limits = dict(joint_low=self.env.action_space.low[:joints], joint_high=self.env.action_space.high[:joints],
                           joint_step=STATIC.joint_speed, gripper_step=STATIC.gripper_speed, ramp_steps=5)     # half a second at 10 Hz

    @property
    def world(self):
        """The simulated world, for a `ScriptedOperator` to look at; a new one after every `begin`."""
        return self.env.unwrapped.world

    def connect(self):
        self.begin(self.seed)
        self.is_connected = True

    def disconnect(self):
        self.is_connected = False

    def begin(self, seed):
        """Put the scene back: a new episode."""
        self._observation, self._info = self.env.reset(seed=seed)
        self._over = False

    def _need_connection(self):
        if not self.is_connected:
            raise ConnectionError("SimRobot: not connected, expected connect() first")

    def get_observation(self):
        """Positions, and `keypoints` in the place of cameras: fresh arrays, float32."""
        self._need_connection()
        arrays = {name: x.copy() for name, x in self._observation.items() if name != "state"}
        return to_dict(self._observation["state"], self.names) | arrays

    def send_action(self, action):
        """One step of the task.  -> the action as the simulator got it, in float32"""
        self._need_connection()
        sent = to_vector(action, self.names).astype(np.float32)
        self._observation, _, terminated, truncated, self._info = self.env.step(sent)
        self._over = terminated or truncated
        return to_dict(sent, self.names)

    def hold(self):
        """Nothing to do: without a command no time passes."""

    def estop(self):
        """Nothing to do: without a command no time passes."""

    def over(self):
        """Success, an unrecoverable failure or the time limit."""
        return self._over

    def subtask(self):
        """What an annotator would write under the current frame."""
        return self._info["subtask"]

    def outcome(self):
        """Success, or None of an episode that was interrupted; successes of the stages."""
        return (self._info["success"] if self._over else None), self._info["stages"]


def from_lerobot(name, value):
    """LeRobot's units to ours: a gripper from 0-100 to 0-1, a joint from degrees to radians."""
    return value / 100 if name.endswith("gripper.pos") else math.radians(value)


def to_lerobot(name, value):
    """Inverse of `from_lerobot`."""
    return value * 100 if name.endswith("gripper.pos") else math.degrees(value)


class LeRobotRobot(Connection):
    """Any LeRobot bimanual follower, such as BiSO100Follower: an object with the methods of LeRobot's `Robot`.

    Its joints must be in degrees (use_degrees=True), its grippers in 0-100.  ValueError where its actions are not
    `left_*.pos` and `right_*.pos`, the same joints and one gripper on either side.  every: of its images only every so many-th
    pixel is kept (640 x 480 to 128 x 96; three full cameras at 50 Hz would fill 8 GB a minute).
    """

    def __init__(self, robot, every=5):
        self.robot, self.every, keys = robot, every, list(robot.action_features)
        config = getattr(robot, "config", None)
        for part in (config, getattr(config, "left_arm_config", None), getattr(config, "right_arm_config", None)):
            if getattr(part, "use_degrees", True) is False:
                raise ValueError("use_degrees: False, expected True (percents of an unknown range are no angles)")
        gripper = lambda name: name.endswith("gripper.pos")
        left, right = (sorted((k for k in keys if k.startswith(side) and k.endswith(".pos")), key=gripper)   # gripper last
                       for side in ("left_", "right_"))
        if ([k.removeprefix("left_") for k in left] != [k.removeprefix("right_") for k in right]
                or len(left + right) != len(keys) or sum(map(gripper, keys)) != 2):
            raise ValueError(f"action_features: {keys}, expected left_*.pos and right_*.pos, the same joints and a gripper each")
        self.names = left + right
        self.action_features = dict.fromkeys(self.names, float)
        cameras = {name: (len(range(0, kind[0], every)), len(range(0, kind[1], every)), *kind[2:])
                   for name, kind in robot.observation_features.items() if isinstance(kind, tuple)}
        self.observation_features = self.action_features | cameras
        self._goal = None                  # the last goal, in LeRobot's units
        self._bus = threading.Lock()       # LeRobot's buses are not made for two threads

    @property
    def is_connected(self):
        return self.robot.is_connected

    def connect(self):
        self.robot.connect()               # calibrates where needed, as LeRobot does
        self._goal = None

    def disconnect(self):
        if self.robot.is_connected:
            self.robot.disconnect()

    def get_observation(self):
        with self._bus:
            seen = self.robot.get_observation()
        return {name: from_lerobot(name, seen[name]) if name in self.action_features
                else np.array(seen[name][::self.every, ::self.every]) for name in self.observation_features}

    def send_action(self, action):
        """-> what LeRobot reports as sent, which its max_relative_target may have clipped."""
        with self._bus:
            self._goal = self.robot.send_action({name: to_lerobot(name, action[name]) for name in self.names})
        return {name: from_lerobot(name, self._goal[name]) for name in self.names}

    def hold(self):
        """Send the last goal again.  A position servo without a new goal holds by itself, so a busy bus is let be."""
        if self._goal is not None and self._bus.acquire(timeout=0.1):
            try:
                self.robot.send_action(self._goal)
            finally:
                self._bus.release()

    def estop(self):
        """Disconnect, which cuts the torque (LeRobot's disable_torque_on_disconnect): a raised arm comes down."""
        self.robot.disconnect()


# ---------------------------------------------------------------- operators

class ScriptedOperator:
    """The scripted operator of sim_tasks and his documented `Gate`.  seeds: one int per copy of the world."""

    def __init__(self, world, seeds, skill=COACH):
        self.world, self.gate, self.hands = world, Gate(world), Operator(world, seeds, skill)

    def wants_control(self, observation):
        return self.gate.update(self.world)

    def act(self, observation):
        return self.hands.act(self.world)


def ask_outcome(ask=input):
    """The label, from a person: True, False or REDO; asks until it understands."""
    answers = {"y": True, "n": False, "r": REDO}
    while (answer := ask("success? [y]es, [n]o, [r]edo (discard): ").strip().lower()[:1]) not in answers:
        pass
    return answers[answer]


class Person:
    """An operator at a keyboard, and the referee.

    space takes over and hands back; q w e r t y u / a s d f g h j move the joints of one arm up / down, its gripper last;
    tab goes to the other arm; enter ends the episode; x is the emergency stop.
    robot: a `SafeRobot`; read() -> the keys pressed since the last call (see `keyboard`); ask(text) -> the answer.
    """
    UP, DOWN = "qwertyu", "asdfghj"
    NUDGE = 0.04         # rad, or opening, per key

    def __init__(self, robot, read, ask=input, subtask=""):
        self.robot, self.read, self.ask, self.words = robot, read, ask, subtask
        self.begin()

    def begin(self):
        """A new episode."""
        self.in_control, self.ended, self.arm, self.target = False, False, 0, None

    def wants_control(self, observation):
        n = observation["state"].shape[1] // 2                  # of one arm
        for key in self.read():
            if key == "x":
                self.robot.estop()                              # the next command raises EmergencyStop
            elif key == " ":
                self.in_control, self.target = not self.in_control, observation["state"].copy()     # (1, A)
            elif key == "\t":
                self.arm = 1 - self.arm
            elif key == "\n":
                self.ended = True
            elif self.in_control and key in self.UP[:n] + self.DOWN[:n]:
                joint, sign = (self.UP.index(key), 1) if key in self.UP else (self.DOWN.index(key), -1)
                self.target[0, self.arm * n + joint] += sign * self.NUDGE
        return np.array([self.in_control])

    def act(self, observation):
        return self.target

    def over(self):
        return self.ended

    def subtask(self):
        return self.words

    def outcome(self):
        return ask_outcome(self.ask), []


@contextmanager
def keyboard():
    """A POSIX terminal that is read key by key: yields the `read` of `Person`."""
    import termios                   # here: Windows has neither
    import tty
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)

    def read():
        keys = b""
        while select.select([fd], [], [], 0)[0] and (more := os.read(fd, 64)):
            keys += more
        return keys.decode(errors="ignore")
    try:
        tty.setcbreak(fd)
        yield read
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


class LeaderArm(Connection):
    """A LeRobot teleoperator as operator and referee: it moves the robot while its event IS_INTERVENTION is true.

    names: the robot's action keys, which `get_action` must have, too (degrees, grippers 0-100).  SUCCESS, FAILURE,
    RERECORD_EPISODE and TERMINATE_EPISODE end the episode; after the last one the label is asked for.
    """

    def __init__(self, teleop, names, ask=input, subtask=""):
        self.teleop, self.names, self.ask, self.words = teleop, list(names), ask, subtask
        self.begin()

    def connect(self):
        self.teleop.connect()

    def disconnect(self):
        self.teleop.disconnect()

    def begin(self):
        """A new episode."""
        self.events = {}

    def wants_control(self, observation):
        # the keys are members of LeRobot's TeleopEvents; we do not import it and go by their values
        self.events = {getattr(key, "value", key): bool(on) for key, on in self.teleop.get_teleop_events().items()}
        return np.array([self.events.get("is_intervention", False)])

    def act(self, observation):
        action = self.teleop.get_action()
        return np.array([[from_lerobot(name, action[name]) for name in self.names]])

    def over(self):
        return any(self.events.get(name) for name in ("success", "failure", "rerecord_episode", "terminate_episode"))

    def subtask(self):
        return self.words

    def outcome(self):
        for name, answer in (("rerecord_episode", REDO), ("failure", False), ("success", True)):
            if self.events.get(name):
                return answer, []
        return ask_outcome(self.ask), []

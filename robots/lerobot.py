"""LeRobot's bimanual followers and teleoperators, without importing LeRobot.

LeRobot counts joints in degrees and grippers from 0 to 100; here they become radians and 0 to 1.
"""
import math
import threading

import numpy as np

from control import REDO
from hardware import Connection
from robots.operators import ask_outcome

# ---------------------------------------------------------------- units

def is_gripper(name):
    """Is this key a gripper's?"""
    return name.endswith("gripper.pos")

def from_lerobot(name, value):
    """LeRobot's units to ours: a gripper from 0-100 to 0-1, a joint from degrees to radians."""
    return value / 100 if is_gripper(name) else math.radians(value)

def to_lerobot(name, value):
    """Inverse of `from_lerobot`."""
    return value * 100 if is_gripper(name) else math.degrees(value)

# ---------------------------------------------------------------- a robot

class LeRobotRobot(Connection):
    """Any LeRobot bimanual follower, such as BiSO100Follower.

    robot: an object with the methods of LeRobot's `Robot`.  Its joints must be in degrees
    (use_degrees=True), its grippers in 0-100.  ValueError where its actions are not `left_*.pos`
    and `right_*.pos`, the same joints and one gripper on either side.
    every: of its images only every so many-th pixel is kept (640 x 480 to 128 x 96; three full
    cameras at 50 Hz would fill 8 GB a minute).
    """

    def __init__(self, robot, every=5):
        check_degrees(robot)
        self.robot = robot
        self.every = every
        self.names = ordered_names(list(robot.action_features))
        self.action_features = dict.fromkeys(self.names, float)
        cameras = {}
        for name, kind in robot.observation_features.items():
            if isinstance(kind, tuple):
                cameras[name] = np.empty(kind)[::every, ::every].shape
        self.observation_features = self.action_features | cameras
        self._goal = None  # the last goal, in LeRobot's units
        self._bus = threading.Lock()  # LeRobot's buses are not made for two threads

    @property
    def is_connected(self):
        return self.robot.is_connected

    def connect(self):
        """Open the connection; calibrates where needed, as LeRobot does."""
        self.robot.connect()
        self._goal = None

    def disconnect(self):
        if self.robot.is_connected:
            self.robot.disconnect()

    def get_observation(self):
        with self._bus:
            seen = self.robot.get_observation()
        observation = {}
        for name in self.observation_features:
            if name in self.action_features:
                observation[name] = from_lerobot(name, seen[name])
            else:
                observation[name] = np.array(seen[name][:: self.every, :: self.every])
        return observation

    def send_action(self, action):
        """Returns what LeRobot reports as sent, which its max_relative_target may have clipped."""
        goal = {name: to_lerobot(name, action[name]) for name in self.names}
        with self._bus:
            self._goal = self.robot.send_action(goal)
        return {name: from_lerobot(name, self._goal[name]) for name in self.names}

    def hold(self):
        """Send the last goal again.

        A position servo without a new goal holds by itself, so a busy bus is let be.
        """
        if self._goal is not None and self._bus.acquire(timeout=0.1):
            try:
                self.robot.send_action(self._goal)
            finally:
                self._bus.release()

    def estop(self):
        """Disconnect, which cuts the torque: a raised arm comes down.

        (LeRobot's disable_torque_on_disconnect.)
        """
        self.robot.disconnect()

def check_degrees(robot):
    """ValueError where the robot, or one of its arms, is not set to degrees."""
    config = getattr(robot, "config", None)
    left = getattr(config, "left_arm_config", None)
    right = getattr(config, "right_arm_config", None)
    for part in (config, left, right):
        if getattr(part, "use_degrees", True) is False:
            unknown = "percents of an unknown range are no angles"
            raise ValueError(f"use_degrees: False, expected True ({unknown})")

def ordered_names(keys):
    """[left joints, left gripper, right joints, right gripper]; ValueError where there are others.

    keys: a list of LeRobot's, in any order.
    """
    left = arm_names(keys, "left_")
    right = arm_names(keys, "right_")
    same = [k.removeprefix("left_") for k in left] == [k.removeprefix("right_") for k in right]
    if not same or len(left + right) != len(keys) or sum(map(is_gripper, keys)) != 2:
        expected = "left_*.pos and right_*.pos, the same joints and a gripper each"
        raise ValueError(f"action_features: {keys}, expected {expected}")
    return left + right

def arm_names(keys, side):
    """The keys of one arm, joints as they come, the gripper last."""
    own = [key for key in keys if key.startswith(side) and key.endswith(".pos")]
    return sorted(own, key=is_gripper)  # which keeps the order of equals

# ---------------------------------------------------------------- an operator

# What ends an episode; after the last one the label is asked for.
ENDS = {
    "rerecord_episode": REDO,
    "failure": False,
    "success": True,
    "terminate_episode": None,
}

class LeaderArm(Connection):
    """A LeRobot teleoperator as operator and referee.

    It moves the robot while its event IS_INTERVENTION is true.  SUCCESS, FAILURE, RERECORD_EPISODE
    and TERMINATE_EPISODE end the episode; after the last one the label is asked for.
    teleop: an object with the methods of LeRobot's `Teleoperator` and `get_teleop_events`.
    names: the robot's action keys, which `get_action` must have, too (degrees, grippers 0-100).
    read_line: read_line(question) -> what somebody answers, like `input`.
    subtask: the annotation of every step.
    """

    def __init__(self, teleop, names, read_line=input, subtask=""):
        self.teleop = teleop
        self.names = list(names)
        self.read_line = read_line
        self.annotation = subtask
        self.begin()

    def connect(self):
        self.teleop.connect()

    def disconnect(self):
        self.teleop.disconnect()

    def begin(self):
        """A new episode."""
        self.events = {}

    def wants_control(self, observation):
        self.events = {}
        for key, on in self.teleop.get_teleop_events().items():
            # Members of LeRobot's TeleopEvents, which we do not import: we go by their values.
            self.events[getattr(key, "value", key)] = bool(on)
        return np.array([self.events.get("is_intervention", False)])

    def act(self, observation):
        action = self.teleop.get_action()
        return np.array([[from_lerobot(name, action[name]) for name in self.names]])

    def over(self):
        return any(self.events.get(name) for name in ENDS)

    def subtask(self):
        return self.annotation

    def outcome(self):
        for name, success in ENDS.items():
            if self.events.get(name) and success is not None:
                return success, []
        return ask_outcome(self.read_line), []

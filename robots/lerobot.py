"""LeRobot's bimanual followers and teleoperators, without importing LeRobot.

LeRobot counts joints in degrees and grippers from 0 to 100; here they become radians and 0 to 1.
"""
import math
import threading

import numpy as np

from control import REDO
from hardware import Connection
from robots.operators import ask_outcome
from sim_tasks.errors import UserError

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

# ---------------------------------------------------------------- the parts of a device

# Which of its settings says that an arm is in degrees: LeRobot's generations differ.
FLAGS = ("use_degrees", "{side}_arm_use_degrees", "{side}_arm_config.use_degrees")

def check_degrees(device):
    """UserError where an arm of a follower or leader is not in degrees, or nobody can say.

    Percents of an unknown range are no angles, and some of LeRobot's arms have them by default.
    """
    for side in ("left", "right"):
        said = modes_of(device, side) or flags_of(device, side)
        if not said or not all(said.values()):
            found = ", ".join(name for name, good in said.items() if not good) or "nothing says so"
            expected = "expected use_degrees=True, joints in degrees and grippers in 0-100"
            raise UserError(f"{side} arm: {found}; {expected}")

def modes_of(device, side):
    """What the motors of an arm say themselves: {"pan: degrees": is it what we expect}."""
    bus = getattr(getattr(device, f"{side}_arm", None), "bus", None)
    said = {}
    for name, motor in getattr(bus, "motors", {}).items():
        mode = getattr(motor, "norm_mode", None)
        mode = getattr(mode, "value", mode)  # of LeRobot's MotorNormMode, which we do not import
        expected = "range_0_100" if is_gripper(f"{name}.pos") else "degrees"
        said[f"{name}: {mode}"] = mode == expected
    return said

def flags_of(device, side):
    """What the settings say of an arm: {"use_degrees: True": is it what we expect}."""
    said = {}
    for owner in (device, getattr(device, f"{side}_arm", None)):
        for flag in FLAGS:
            flag = flag.format(side=side)
            found = getattr(owner, "config", None)
            for name in flag.split("."):
                found = getattr(found, name, None)
            if found is not None:
                said[f"{flag}: {found}"] = found is True
    return said

def release(device, torque_off=False):
    """Disconnect every part by itself, whatever becomes of the others.

    A bimanual device is connected while all of its parts are, and refuses to disconnect when it is
    not: after a lost camera both arms would stay powered.  So nobody is asked.
    torque_off: of all motors, and first; else of the arms that are set to it.
    ConnectionError names what could not be reached and is open still.
    """
    errors = []
    for name, part, call, *arguments in steps_of_release(device, torque_off):
        try:
            getattr(part, call)(*arguments)
        except BaseException as error:  # the others are still to be reached
            if is_open(part):
                errors.append(f"{name}: {error or type(error).__name__}")
    if errors:
        raise ConnectionError("; ".join(errors))

def steps_of_release(device, torque_off):
    """[(name, part, its method, arguments)]: torque of every motor, then arms, then cameras."""
    torque = []
    arms = []
    cameras = {}  # some devices list those of their arms a second time
    for owner in (device, *arms_of(device).values()):
        for name, camera in getattr(owner, "cameras", {}).items():
            cameras[id(camera)] = (name, camera, "disconnect")
    for name, arm in arms_of(device).items():
        bus = getattr(arm, "bus", None)
        if bus is None:
            arms.append((name, arm, "disconnect"))
            continue
        config = getattr(arm, "config", None)
        if torque_off or getattr(config, "disable_torque_on_disconnect", True):
            torque += [(f"{name} {motor}", bus, "disable_torque", motor) for motor in bus.motors]
        arms.append((name, bus, "disconnect", False))  # False: the torque is as it shall be
    return [*torque, *arms, *cameras.values()] or [("robot", device, "disconnect")]

def arms_of(device):
    """{name: arm}; none of a device that is not made of two."""
    names = ("left_arm", "right_arm")
    return {name: getattr(device, name) for name in names if hasattr(device, name)}

def is_open(part):
    """Is this part connected, as far as one can know?"""
    try:
        return part.is_connected
    except Exception:
        return True

# ---------------------------------------------------------------- a robot

class LeRobotRobot(Connection):
    """Any LeRobot bimanual follower, such as BiSO100Follower.

    robot: an object with the methods of LeRobot's `Robot`.  UserError where its actions are not
    `left_*.pos` and `right_*.pos`, the same joints and one gripper on either side; and as
    `check_degrees`.
    every: of its images only every so many-th pixel is kept (640 x 480 to 128 x 96; three full
    cameras at 50 Hz would fill 8 GB a minute).
    """

    def __init__(self, robot, every=5):
        self.robot = robot
        self.every = every
        self.names = ordered_names(list(robot.action_features))
        check_degrees(robot)
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
        """As `BimanualRobot`; ConnectionError for a part that stays open, see `release`."""
        release(self.robot)

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
        """Cut the torque of every motor, and disconnect: a raised arm comes down."""
        release(self.robot, torque_off=True)

def ordered_names(keys):
    """[left joints, left gripper, right joints, right gripper]; UserError where there are others.

    keys: a list of LeRobot's, in any order.
    """
    left = arm_names(keys, "left_")
    right = arm_names(keys, "right_")
    same = [k.removeprefix("left_") for k in left] == [k.removeprefix("right_") for k in right]
    if not same or len(left + right) != len(keys) or sum(map(is_gripper, keys)) != 2:
        expected = "left_*.pos and right_*.pos, the same joints and a gripper each"
        raise UserError(f"action_features: {keys}, expected {expected}")
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
    names: the robot's action keys, which `get_action` must have, too; UserError where it is not
    in degrees, as `check_degrees`.
    read_line: read_line(question) -> what somebody answers, like `input`.
    subtask: the annotation of every step.
    """

    def __init__(self, teleop, names, read_line=input, subtask=""):
        check_degrees(teleop)
        self.teleop = teleop
        self.names = list(names)
        self.read_line = read_line
        self.annotation = subtask
        self.begin()

    def connect(self):
        self.teleop.connect()

    def disconnect(self):
        release(self.teleop)

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

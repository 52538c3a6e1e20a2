"""robots/: simulated and LeRobot's robots, operators, the command line.

Time is simulated throughout.
"""
import abc
import os
import signal
import subprocess
import sys
from dataclasses import replace
from enum import Enum
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import collection
import control
import sim_tasks
from benchmarks.driver import SimulatedTime
from control import REDO, Clock, drive
from data import UserError
from driver import WIDE, Still, background, command, rig, rising, safe
from hardware import EmergencyStop, SafeRobot, Safety, Station, Task, to_dict, to_vector
from helpers import ROOT, episode, toy_policy, toy_value
from lab.files import load_dataset, save_dataset, save_network
from robots.__main__ import main, person_of, stand_still
from robots.checkpoint import actor
from robots.lerobot import LeaderArm, LeRobotRobot, check_degrees
from robots.operators import OncePerPress, Person, ask_outcome, keyboard
from robots.recorder import Recorder
from robots.report import report
from robots.simulated import SimRobot
from sim_tasks.arms import JOINT_HIGH, JOINT_LOW, STATIC, World
from sim_tasks.demonstrator import BEST, Operator, ScriptedOperator, hasty

# ---------------------------------------------------------------- simulated

def test_the_simulated_robot_is_its_task_step_by_step():
    """The same commands to the robot and to a bare world: the same observations, end and label."""
    robot = SimRobot("SimTasks/FoldCollar-v0")
    world = World(sim_tasks.TASKS["fold_collar"], [7])
    robot.connect()
    robot.begin(7)
    operator = Operator(world, [7], BEST)
    while not world.done[0]:
        seen = robot.get_observation()
        expected = world.observe()
        state = to_vector(seen, robot.names).astype(np.float32)
        assert np.array_equal(state, expected["state"][0])
        assert np.array_equal(seen["keypoints"], expected["keypoints"][0])
        assert not robot.over()
        assert robot.outcome()[0] is None
        assert robot.subtask() == world.subtasks()[0]
        action = operator.act(world).astype(np.float32)
        sent = robot.send_action(to_dict(action[0], robot.names))
        assert np.array_equal(to_vector(sent, robot.names), action[0])
        world.step(action)
    assert robot.over()
    assert robot.outcome()[0] is True
    assert robot.outcome()[1].all()

def test_the_limits_of_the_simulated_robot_are_the_worlds():
    robot = SafeRobot(SimRobot(), Safety(**SimRobot().limits))
    assert np.allclose(robot.low, [*JOINT_LOW, 0] * 2)
    assert np.allclose(robot.high, [*JOINT_HIGH, 1] * 2)
    assert robot.step[0] == STATIC.joint_speed

# ---------------------------------------------------------------- LeRobot: a follower

class DeviceNotConnectedError(ConnectionError):
    """As LeRobot names it."""

class LeRobotBase(abc.ABC):
    """The documented interface of LeRobot's Robot: these properties and methods, and no others."""

    @property
    @abc.abstractmethod
    def observation_features(self): ...

    @property
    @abc.abstractmethod
    def action_features(self): ...

    @property
    @abc.abstractmethod
    def is_connected(self): ...

    @property
    @abc.abstractmethod
    def is_calibrated(self): ...

    @abc.abstractmethod
    def connect(self, calibrate=True): ...

    @abc.abstractmethod
    def calibrate(self): ...

    @abc.abstractmethod
    def configure(self): ...

    @abc.abstractmethod
    def get_observation(self): ...

    @abc.abstractmethod
    def send_action(self, action): ...

    @abc.abstractmethod
    def disconnect(self): ...

class Follower(LeRobotBase):
    """A bimanual follower: degrees, grippers 0-100, the gripper not last, one camera.

    It clips motion as max_relative_target.
    """

    motors = ["shoulder_pan", "gripper", "elbow_flex"]

    def __init__(self, use_degrees=True, max_relative_target=None):
        arm = SimpleNamespace(use_degrees=use_degrees)
        self.config = SimpleNamespace(left_arm_config=arm, right_arm_config=arm)
        self.max = max_relative_target
        self.calibrated = False
        self.connected = False
        self.configured = False
        self.present = {key: 10.0 * (i + 1) for i, key in enumerate(self.action_features)}
        self.goals = []

    @property
    def action_features(self):
        left = [f"left_{motor}.pos" for motor in self.motors]
        right = [f"right_{motor}.pos" for motor in self.motors]
        return dict.fromkeys(left + right, float)

    @property
    def observation_features(self):
        return self.action_features | {"left_wrist": (24, 32, 3)}

    @property
    def is_connected(self):
        return self.connected

    @property
    def is_calibrated(self):
        return self.calibrated

    def connect(self, calibrate=True):
        if self.connected:
            raise RuntimeError("already connected")
        self.connected = True
        if not self.calibrated and calibrate:
            self.calibrate()
        self.configure()

    def calibrate(self):
        self.calibrated = True

    def configure(self):
        self.configured = True

    def _need(self):
        if not self.connected:
            raise DeviceNotConnectedError("not connected")

    def get_observation(self):
        self._need()
        pixels = np.arange(24 * 32).reshape(24, 32, 1) + np.array([0, 0, len(self.goals)])
        return dict(self.present) | {"left_wrist": pixels.astype(np.uint8)}

    def send_action(self, action):
        self._need()
        limit = np.inf if self.max is None else self.max
        goal = {}
        for key, here in self.present.items():
            goal[key] = float(np.clip(action[key], here - limit, here + limit))
        self.goals.append(goal)
        self.present = dict(goal)
        return goal

    def disconnect(self):
        self._need()
        self.connected = False

def test_lerobot_units_and_order_on_either_arm():
    bare = Follower()
    robot = LeRobotRobot(bare)
    assert list(robot.action_features) == [
        "left_shoulder_pan.pos", "left_elbow_flex.pos", "left_gripper.pos",
        "right_shoulder_pan.pos", "right_elbow_flex.pos", "right_gripper.pos",
    ]  # fmt: skip
    with pytest.raises(ConnectionError):
        robot.get_observation()
    with robot:
        assert bare.calibrated and bare.configured
        seen = robot.get_observation()
        # present: 10, 20, ..., 60 in LeRobot's order: pan, gripper, elbow
        expected = [np.pi / 18, np.pi / 6, 0.2, np.pi * 4 / 18, np.pi / 3, 0.5]
        assert np.allclose(to_vector(seen, robot.action_features), expected)
        shape = robot.observation_features["left_wrist"]
        assert seen["left_wrist"].shape == shape == (5, 7, 3)  # every 5th pixel
        row = np.arange(0, 32, 5) + 10 * 32 - 256
        assert np.array_equal(seen["left_wrist"][2, :, 0], row)
        action = dict(zip(robot.action_features, [0.1, -0.2, 0.3, -0.4, 0.5, 0.6]))
        assert robot.send_action(action) == pytest.approx(action)
        goal = {
            "left_shoulder_pan.pos": np.degrees(0.1),
            "left_elbow_flex.pos": np.degrees(-0.2),
            "left_gripper.pos": 30,
            "right_shoulder_pan.pos": np.degrees(-0.4),
            "right_elbow_flex.pos": np.degrees(0.5),
            "right_gripper.pos": 60,
        }
        assert bare.goals[-1] == pytest.approx(goal)
        robot.hold()
        assert bare.goals[-1] == bare.goals[-2]  # the last goal, not the pose
        robot.estop()
        assert not bare.connected
    robot.disconnect()  # no error where there is no connection

def test_lerobot_reports_what_was_sent_not_what_was_asked():
    bare = Follower(max_relative_target=2.0)
    bare.present = dict.fromkeys(bare.present, 0.0)
    with LeRobotRobot(bare) as robot:
        sent = robot.send_action(dict.fromkeys(robot.action_features, 0.5))
    assert sent["left_elbow_flex.pos"] == pytest.approx(np.radians(2))
    assert sent["right_gripper.pos"] == pytest.approx(0.02)

def test_lerobot_holds_nothing_before_the_first_goal_and_lets_a_busy_bus_be():
    bare = Follower()
    with LeRobotRobot(bare) as robot:
        robot.hold()
        assert bare.goals == []
        robot.send_action(dict.fromkeys(robot.action_features, 0.1))
        with robot._bus:
            robot.hold()
        assert len(bare.goals) == 1

NOT_TWO_ARMS = [
    ["left_pan.pos", "left_tilt.pos", "right_pan.pos", "right_tilt.pos"],
    ["left_a.pos", "left_gripper.pos", "right_gripper.pos"],
    ["left_pan.pos", "left_gripper.pos", "right_pan.pos", "right_gripper.pos", "x.vel"],
]

@pytest.mark.parametrize("keys", NOT_TWO_ARMS)
def test_lerobot_robots_that_are_not_two_arms_in_degrees_are_refused(keys):
    odd = type("Odd", (Follower,), {"action_features": dict.fromkeys(keys, float)})
    with pytest.raises(ValueError, match="action_features"):
        LeRobotRobot(odd())
    with pytest.raises(ValueError, match="use_degrees"):
        LeRobotRobot(Follower(use_degrees=False))

# ---------------------------------------------------------------- LeRobot: parts

class Part:
    """What is connected by itself and refuses to disconnect when it is not, as LeRobot's."""

    def __init__(self):
        self.is_connected = False
        self.absent = False

    def connect(self, *how):
        if self.absent:
            raise ConnectionError("absent")
        self.is_connected = True

    def disconnect(self, *how):
        if not self.is_connected:
            raise DeviceNotConnectedError("not connected")
        self.is_connected = False

class Bus(Part):
    """The motors of an arm.  silent: a motor that does not answer; the next ones are not tried."""

    def __init__(self, joints="degrees", gripper="range_0_100"):
        super().__init__()
        modes = {"pan": joints, "tilt": joints, "gripper": gripper}
        self.motors = {name: SimpleNamespace(norm_mode=mode) for name, mode in modes.items()}
        self.powered = set()
        self.silent = None

    def connect(self):
        super().connect()
        self.powered = set(self.motors)

    def disable_torque(self, motors=None):
        for motor in [motors] if motors else self.motors:
            if motor == self.silent or not self.is_connected:
                raise ConnectionError("no answer")
            self.powered.discard(motor)

    def disconnect(self, disable_torque=True):
        if disable_torque:
            self.disable_torque()
        super().disconnect()

class Arm:
    """An arm of LeRobot: a bus and cameras, connected while all of them are."""

    def __init__(self, torque_off=True):
        self.config = SimpleNamespace(disable_torque_on_disconnect=torque_off)
        self.bus = Bus()
        self.cameras = {"wrist": Part()}

    @property
    def is_connected(self):
        return self.bus.is_connected and all(c.is_connected for c in self.cameras.values())

    def connect(self, calibrate=True):
        self.bus.connect()
        for camera in self.cameras.values():
            camera.connect()

    def disconnect(self):
        if not self.is_connected:
            raise DeviceNotConnectedError("not connected")
        self.bus.disconnect(self.config.disable_torque_on_disconnect)
        for camera in self.cameras.values():
            camera.disconnect()

class TwoArms(Follower):
    """As LeRobot's bimanual followers: two arms, and cameras of its own."""

    motors = ["pan", "tilt", "gripper"]

    def __init__(self, torque_off=True):
        super().__init__()
        self.left_arm = Arm(torque_off)
        self.right_arm = Arm(torque_off)
        self.cameras = {"top": Part()}

    @property
    def is_connected(self):
        mine = all(camera.is_connected for camera in self.cameras.values())
        return self.left_arm.is_connected and self.right_arm.is_connected and mine

    def connect(self, calibrate=True):
        self.left_arm.connect(calibrate)
        self.right_arm.connect(calibrate)
        for camera in self.cameras.values():
            camera.connect()
        self.connected = True

    def disconnect(self):
        if not self.is_connected:
            raise DeviceNotConnectedError("not connected")
        self.left_arm.disconnect()
        self.right_arm.disconnect()
        for camera in self.cameras.values():
            camera.disconnect()

    def parts(self):
        """{name: part}, of all that is connected by itself."""
        return {
            "left": self.left_arm.bus, "right": self.right_arm.bus, "top": self.cameras["top"],
            "left wrist": self.left_arm.cameras["wrist"],
            "right wrist": self.right_arm.cameras["wrist"],
        }  # fmt: skip

    def powered(self):
        return self.left_arm.bus.powered | self.right_arm.bus.powered

    def open(self):
        return {name for name, part in self.parts().items() if part.is_connected}

@pytest.mark.parametrize("end", ["disconnect", "estop"])
@pytest.mark.parametrize("lost", ["top", "left wrist", "right wrist"])
def test_after_a_lost_camera_neither_arm_stays_powered(lost, end):
    bare = TwoArms()
    robot = SafeRobot(LeRobotRobot(bare), thread=False)
    robot.connect()
    assert len(bare.open()) == 5 and bare.powered()
    bare.parts()[lost].is_connected = False
    assert not robot.is_connected
    getattr(robot, end)()
    assert bare.powered() == set() and bare.open() == set()
    # Again, and from nothing: there is nothing to do.
    robot.estop()
    robot.disconnect()

@pytest.mark.parametrize("how", ["connect", "with"])
@pytest.mark.parametrize("absent", ["right", "top", "left wrist"])
def test_a_connection_that_fails_half_way_is_rolled_back(absent, how):
    bare = TwoArms()
    bare.parts()[absent].absent = True
    robot = SafeRobot(LeRobotRobot(bare), thread=False)
    with pytest.raises(ConnectionError, match="^absent$"):
        robot.connect() if how == "connect" else robot.__enter__()
    assert bare.powered() == set() and bare.open() == set()

@pytest.mark.parametrize("end", ["disconnect", "estop"])
def test_a_motor_that_does_not_answer_is_named_and_the_others_are_let_go(end):
    bare = TwoArms()
    robot = LeRobotRobot(bare)
    robot.connect()
    bare.left_arm.bus.silent = "pan"
    with pytest.raises(ConnectionError, match="left_arm pan: no answer"):
        getattr(robot, end)()
    assert bare.left_arm.bus.powered == {"pan"}
    assert bare.right_arm.bus.powered == set()
    assert bare.open() == set()

def test_arms_that_shall_stay_powered_do_but_not_after_an_emergency_stop():
    bare = TwoArms(torque_off=False)
    robot = LeRobotRobot(bare)
    robot.connect()
    robot.disconnect()
    assert bare.open() == set() and len(bare.powered()) == 3
    robot.connect()
    robot.estop()
    assert bare.open() == set() and bare.powered() == set()

# ---------------------------------------------------------------- LeRobot: degrees

def settings(left=None, right=None, **config):
    """A device of which the settings alone are known; left, right: those of its arms."""
    device = SimpleNamespace(config=SimpleNamespace(**config))
    for side, said in (("left", left), ("right", right)):
        if said is not None:
            arm = SimpleNamespace(config=SimpleNamespace(use_degrees=said))
            setattr(device, f"{side}_arm", arm)
    return device

def of_arms(left, right):
    """The generation whose config has one of each arm."""
    left = SimpleNamespace(use_degrees=left)
    return settings(left_arm_config=left, right_arm_config=SimpleNamespace(use_degrees=right))

def with_motors(right):
    """The settings say degrees; the motors of the right arm are of this bus."""
    device = settings(use_degrees=True)
    device.left_arm = SimpleNamespace(bus=Bus())
    device.right_arm = SimpleNamespace(bus=right)
    return device

IN_DEGREES = [
    settings(use_degrees=True), of_arms(True, True), settings(True, True), with_motors(Bus()),
    settings(left_arm_use_degrees=True, right_arm_use_degrees=True),
]  # fmt: skip
NOT_IN_DEGREES = [
    (settings(use_degrees=False), "left arm: use_degrees: False"),
    (settings(use_degrees=1), "left arm: use_degrees: 1"),
    (of_arms(True, False), "right arm: right_arm_config.use_degrees: False"),
    (settings(left_arm_use_degrees=False, right_arm_use_degrees=False), "left arm: left_arm_use"),
    (settings(left_arm_use_degrees=True, right_arm_use_degrees=False), "right arm: right_arm_use"),
    (settings(left_arm_use_degrees=True), "right arm: nothing says so"),
    (settings(True, False, use_degrees=True), "right arm: use_degrees: False"),
    (settings(), "left arm: nothing says so"),
    (SimpleNamespace(), "left arm: nothing says so"),
    (with_motors(Bus("range_m100_100")), "right arm: pan: range_m100_100"),
    (with_motors(Bus(gripper="degrees")), "right arm: gripper: degrees"),
]

@pytest.mark.parametrize("i", range(len(IN_DEGREES)))
def test_arms_in_degrees_are_known_in_all_generations(i):
    check_degrees(IN_DEGREES[i])

@pytest.mark.parametrize("i", range(len(NOT_IN_DEGREES)))
def test_percent_is_not_taken_for_degrees(i):
    device, message = NOT_IN_DEGREES[i]
    with pytest.raises(ValueError, match=message):
        check_degrees(device)

def test_followers_and_leaders_are_asked_before_they_are_connected():
    bare = TwoArms()
    bare.right_arm.bus = Bus("range_m100_100")
    with pytest.raises(ValueError, match="right arm: pan: range_m100_100"):
        LeRobotRobot(bare)
    with pytest.raises(ValueError, match="right arm: pan: range_m100_100"):
        LeaderArm(bare, [])

# ---------------------------------------------------------------- LeRobot: driven

def test_a_lerobot_robot_is_driven_and_recorded_like_any_other():
    bare = Follower()
    clock = SimulatedTime()
    safety = Safety(joint_speed=1.0, ramp_s=0)
    referee = SimpleNamespace(
        over=lambda: len(bare.goals) >= 6, subtask=lambda: "lift", outcome=lambda: (True, [True])
    )
    with SafeRobot(LeRobotRobot(bare), safety, clock.now, thread=False) as robot:
        recording = drive(
            Station(robot, Task("lift", "lift it", 50), referee), rising(6), 4, hz=50, lead=1,
            clock=clock, start=background(clock, 0.0),
        )  # fmt: skip
    (e,) = recording.episodes
    order = [list(bare.action_features).index(name) for name in robot.names]
    goals = np.array([list(goal.values()) for goal in bare.goals])
    goals = goals[:6, order]  # the last one is the hold
    assert recording.error is None
    units = np.tile([np.pi / 180, np.pi / 180, 0.01], 2)
    assert np.allclose(e.actions, goals * units, atol=1e-6)
    images = e.observations["left_wrist"]
    assert images.shape == (6, 5, 7, 3)
    assert (images[:, 0, 0, 2] == range(6)).all()

# ---------------------------------------------------------------- LeRobot: a leader

class TeleopEvents(Enum):
    """The names and values of LeRobot's."""

    SUCCESS = "success"
    FAILURE = "failure"
    RERECORD_EPISODE = "rerecord_episode"
    IS_INTERVENTION = "is_intervention"
    TERMINATE_EPISODE = "terminate_episode"

class Leader:
    """A teleoperator with LeRobot's documented methods: degrees and 0-100, and events.

    rounds: the events of every call, lists.
    """

    def __init__(self, *rounds):
        self.config = SimpleNamespace(use_degrees=True)
        self.rounds = list(rounds)
        self.connected = False

    def connect(self, calibrate=True):
        self.connected = True

    def disconnect(self):
        self.connected = False

    def get_action(self):
        if not self.connected:
            raise DeviceNotConnectedError
        return {
            "left_0.pos": 90.0, "left_gripper.pos": 25.0,
            "right_0.pos": -45.0, "right_gripper.pos": 100.0,
        }  # fmt: skip

    def get_teleop_events(self):
        on = self.rounds.pop(0) if self.rounds else ()
        return dict.fromkeys(TeleopEvents, False) | dict.fromkeys(on, True)

def test_a_leader_arm_takes_over_in_its_own_units_and_labels_the_episode():
    takeover = [TeleopEvents.IS_INTERVENTION]
    teleop = Leader([], [], takeover, takeover, [], [], [TeleopEvents.SUCCESS])
    arms = Still(WIDE)
    with LeaderArm(teleop, arms.names) as leader:
        recording, arms, _ = rig(leader, arms=arms)
    (e,) = recording.episodes
    assert not teleop.connected
    assert e.success is True
    assert len(e) == 7
    assert recording.error is None
    assert np.flatnonzero(e.intervention).tolist() == [2, 3]
    assert np.allclose(e.actions[2], [np.pi / 2, 0.25, -np.pi / 4, 1.0])

EVENTS = [
    ("SUCCESS", False, True),
    ("FAILURE", False, False),
    ("RERECORD_EPISODE", False, REDO),
    ("TERMINATE_EPISODE", True, False),
]

@pytest.mark.parametrize("event, asked, outcome", EVENTS)
def test_the_events_of_a_leader_end_the_episode(event, asked, outcome):
    questions = []

    def no(question):
        questions.append(question)
        return "n"

    leader = LeaderArm(Leader([], [TeleopEvents[event]]), [], read_line=no)
    leader.wants_control({})
    assert not leader.over()
    leader.wants_control({})
    assert leader.over()
    assert leader.outcome()[0] is outcome
    assert bool(questions) == asked
    leader.begin()
    assert not leader.over()

def test_a_leader_is_disconnected_part_by_part_too():
    bare = TwoArms()
    leader = LeaderArm(bare, [])
    with leader:
        bare.left_arm.cameras["wrist"].is_connected = False
    assert bare.open() == set() and bare.powered() == set()
    bare.right_arm.bus.absent = True
    with pytest.raises(ConnectionError, match="^absent$"):
        leader.__enter__()
    assert bare.open() == set()

def test_a_leader_that_disconnects_is_no_worse_than_a_robot_that_does():
    teleop = Leader([], [], [], [TeleopEvents.IS_INTERVENTION])  # never connected
    leader = LeaderArm(teleop, ["left_0.pos"], read_line=lambda question: "n")
    recording, arms, _ = rig(leader)
    assert isinstance(recording.error, ConnectionError)
    assert arms.held
    assert len(recording.episodes[0]) == 3
    assert recording.episodes[0].success is False

# ---------------------------------------------------------------- a person

def test_a_person_takes_over_moves_either_arm_and_ends_the_episode():
    keys = []
    arms = Still(joints=2)
    robot = safe(arms)

    def read_keys():
        return keys.pop(0) if keys else ""

    person = Person(robot, read_keys, read_line=lambda question: "n", subtask="lift")
    seen = {"state": np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]])}
    rounds = (("qa", False), (" q", True), ("qs", True), ("\te", True), ("jx", True))
    for pressed, control_wanted in rounds:
        keys.append(pressed)
        assert person.wants_control(seen).tolist() == [control_wanted]
    # j moves no joint of so small an arm
    assert np.allclose(person.act(seen), [[0.18, 0.16, 0.3, 0.4, 0.5, 0.64]])
    with pytest.raises(EmergencyStop):
        robot.send_action(command(arms, 0.0))
    keys.append(" \n")
    assert person.wants_control(seen).tolist() == [False]
    assert person.over()
    assert person.outcome() == (False, [])
    assert person.subtask() == "lift"
    person.begin()
    assert not person.over()

def test_targets_of_a_person_do_not_wind_up_beyond_the_limits():
    keys = ["  q" + 40 * "q", "a"]
    robot = safe(Still(joints=2), Safety(joint_high=[0.5, 2.0]))
    person = Person(robot, lambda: keys.pop(0))
    person.in_control = True
    seen = {"state": np.zeros((1, 6))}
    targets = []
    for _ in range(2):
        person.wants_control(seen)
        targets.append(person.act(seen)[0, 0])
    assert np.allclose(targets, [0.5, 0.46])  # the way back begins with the first key

def test_a_person_reaches_the_gripper_of_an_arm_of_seven_joints():
    """And where an arm has more numbers than keys, it says so before anything moves."""
    keys = [" i", "k", "\ti"]
    robot = safe(Still(joints=7))
    person = Person(robot, lambda: keys.pop(0))
    seen = {"state": np.full((1, 16), 0.5)}
    moved = []
    for _ in range(3):
        person.wants_control(seen)
        moved.append(person.act(seen)[0] - 0.5)
    expected = np.zeros((3, 16))
    expected[0, 7] = expected[2, 15] = Person.NUDGE
    assert np.allclose(moved, expected)
    args = SimpleNamespace(leader=None, keyboard=True)
    with pytest.raises(UserError, match="--keyboard: arms of 10 numbers, expected at most 9"):
        person_of(args, safe(Still(joints=9)), None)

def test_without_a_posix_terminal_there_is_no_keyboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "termios", None)  # as on Windows
    with pytest.raises(UserError, match="--keyboard: no termios on this machine, expected"):
        with keyboard():
            pass

@pytest.mark.parametrize("enter", ["\r", "\n"])
def test_enter_ends_the_episode_however_the_terminal_says_it(enter):
    person = Person(safe(Still()), lambda: enter)
    person.wants_control({"state": np.zeros((1, 4))})
    assert person.over()

def spaces_heard(times):
    """How many of the spaces that come at these times, s, are heard."""
    clock = SimulatedTime()
    once = OncePerPress(clock.now)
    heard = []
    for clock.t in times:
        heard += once("q ")
    assert heard.count("q") == len(times)  # other keys may be held
    return heard.count(" ")

@pytest.mark.parametrize("delay", [0.2, 0.5, 0.66])
@pytest.mark.parametrize("period", [0.02, 0.033, 0.09])
def test_a_space_bar_that_is_held_is_one_takeover(delay, period):
    held = [1.0, *(1.0 + delay + period * np.arange(60))]
    assert spaces_heard(held) == 1
    # Let go for a second, then pressed again.
    assert spaces_heard([*held, held[-1] + 1, held[-1] + 3]) == 3
    assert spaces_heard([0.0, 0.3, 0.6]) == 2  # pressed in haste: nobody is locked out

ANSWERS = [(["", "what", "Yes"], True), (["no"], False), (["x", "r"], REDO)]

@pytest.mark.parametrize("answers, expected", ANSWERS)
def test_the_label_is_asked_for_until_it_is_understood(answers, expected):
    left = list(answers)
    assert ask_outcome(lambda question: left.pop(0)) is expected
    assert left == []

@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")
def test_the_keyboard_is_read_key_by_key_and_the_terminal_put_back(monkeypatch):
    import pty
    import termios

    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "r") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        before = termios.tcgetattr(theirs)
        with keyboard() as read_keys:
            assert read_keys() == ""  # it waits for nobody
            os.write(ours, b" q\t")
            assert read_keys() == " q\t"  # no enter needed
            os.write(ours, b"  q ")
            assert read_keys() == "q"  # the bar is held
        assert termios.tcgetattr(theirs) == before
    os.close(ours)
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        with pytest.raises(ValueError, match="not a terminal"):
            with keyboard():
                pass

# ---------------------------------------------------------------- the hasty policy

@pytest.mark.parametrize("name", ["FoldShirt", "FoldCollar", "Box"])
def test_the_hasty_policy_is_corrected_once_and_does_the_rest_itself(name):
    """The demonstration of `python -m robots`: a real takeover, and a success."""
    bare = SimRobot(f"SimTasks/{name}-v0", seed=1)
    clock = SimulatedTime()
    with SafeRobot(bare, Safety(**bare.limits), clock.now, thread=False) as robot:
        recording = drive(
            Station(robot, bare.task, bare), hasty, 4, ScriptedOperator(bare.world, [1]), hz=50,
            lead=2, clock=clock, start=background(clock, 0.005),
        )  # fmt: skip
    (e,) = recording.episodes
    assert recording.error is None
    assert e.success
    assert e.stages.all()
    assert 0.1 < e.intervention.mean() < 0.9
    begins = np.diff(np.append(False, e.intervention).astype(int)) == 1
    takeovers = np.flatnonzero(begins)
    assert len(takeovers) == 1
    assert e.subtask[takeovers[0]] == bare.task.stages[0].subtask
    # The episode replays to the same observations.
    world = World(bare.task, [1])
    for t in range(len(e)):
        assert np.array_equal(world.observe()["state"][0], e.observations["state"][t])
        world.step(e.actions[t][None])
    assert world.success[0]

# ---------------------------------------------------------------- the figures of a recording

def test_the_report_says_rate_jitter_and_how_it_ended():
    robot = SimpleNamespace(clamped=3, commands=7, rejected=1)
    unlabelled = replace(episode(3, intervention=np.array([True, False, True])), success=None)
    recording = control.Recording(
        episodes=[unlabelled], error=RuntimeError("enough"), latencies=[0.010, 0.030, 0.020],
        sent_at=[0.0, 0.021, 0.040, 0.100], missed=2, stalls=4,
    )  # fmt: skip
    lines = report(recording, robot, 50).splitlines()
    assert lines == [
        # 4 ticks and 2 missed: 5 periods in 0.1 s
        "rate      50.000 Hz, 4 ticks, 2 missed",
        # 21 and 19 ms are 1 ms from a period, 60 ms are three of them
        "jitter    median 1.00 ms, 99.9th percentile 1.00 ms, largest 1.00 ms",
        "safety    3 of 7 commands clamped, 1 rejected",
        "policy    3 chunks, median 20.00 ms, largest 30.00 ms; "
        "the arm stood for want of one in 4 steps",
        "operator  in control for 2 of 3 steps",
        "outcome   not labelled",
        "ended by  RuntimeError: enough",
    ]

# ---------------------------------------------------------------- the command line

@pytest.fixture
def simulated_clock(monkeypatch):
    """`drive` on a clock that does not wait, and chunks at once."""
    clock = SimulatedTime()
    defaults = [clock if isinstance(x, Clock) else x for x in drive.__defaults__]
    monkeypatch.setattr(drive, "__defaults__", tuple(defaults))
    monkeypatch.setattr(control, "in_background", control.at_once)

def test_the_demonstration_runs_and_saves(tmp_path, capsys, simulated_clock):
    out = str(tmp_path / "demo.npz")
    assert main(["--robot", "sim:FoldCollar", "--episodes", "2", "--out", out]) == 0
    episodes = load_dataset(out)
    assert [e.success for e in episodes] == [True, True]
    assert all(e.intervention.any() for e in episodes)
    text = capsys.readouterr().out
    assert "50.000 Hz" in text
    assert "clamped" in text
    assert text.count("outcome   success") == 2

def test_a_checkpoint_is_driven(tmp_path, capsys, simulated_clock):
    path = str(tmp_path / "pi_1.npz")
    save_network(toy_policy(), path)
    policy = f"robots.checkpoint:actor:{path},box,1.5"
    assert main(["--robot", "sim:Box", "--policy", policy]) == 0
    assert "outcome   " in capsys.readouterr().out

def test_an_actor_of_a_checkpoint_has_its_task_and_beta(tmp_path):
    path = str(tmp_path / "pi_1.npz")
    save_network(toy_policy(), path)
    made = actor(path, "box", "2.5")
    assert made.beta == 2.5
    for beta in ("nan", "inf", "-1"):
        with pytest.raises(ValueError, match="beta"):
            actor(path, "box", beta)
    chunk = made(World(sim_tasks.TASKS["box"], [1]).observe(), np.array([True]))
    assert chunk.shape == (1, 8, 6)
    with pytest.raises(ValueError, match="task: 'bocks'"):
        actor(path, "bocks")
    save_network(toy_value(), path)
    with pytest.raises(ValueError, match="a ValueFunction, expected a policy"):
        actor(path, "box")

def test_a_policy_of_the_driver_has_one_thread(tmp_path):
    """Of torch's own number the loop would get what they leave."""
    path = str(tmp_path / "pi_1.npz")
    save_network(toy_policy(), path)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        actor(path, "box")
        assert torch.get_num_threads() == 1
        counted = control.in_background(torch.get_num_threads)
        assert counted.result(20) == 1  # there, too
    finally:
        torch.set_num_threads(before)

def test_the_prompt_is_that_of_the_scene(tmp_path, monkeypatch, simulated_clock):
    """Of FoldDiverse it names the item: what π is told, and what is recorded."""
    told = []

    def predict(policy, seen, prompt):
        told.append(prompt[0].tolist())
        return torch.zeros(1, 2, dtype=torch.long)

    monkeypatch.setattr(collection, "predict_subtask", predict)
    policy = toy_policy()
    path = str(tmp_path / "pi_1.npz")
    save_network(policy, path)
    out = str(tmp_path / "mine.npz")
    named = f"robots.checkpoint:actor:{path},fold_diverse,1"
    argv = ["--robot", "sim:FoldDiverse", "--policy", named, "--autonomous", "--out", out]
    assert main([*argv, "--episodes", "2"]) == 0
    expected = World(sim_tasks.TASKS["fold_diverse"], [0, 1]).prompts().tolist()
    assert expected[0] != expected[1]
    assert [e.prompt for e in load_dataset(out)] == expected
    encode = policy.config.interface.encode
    ids = [list(encode(text, len(told[0]))) for text in expected]
    assert told[0] == ids[0] and told[-1] == ids[1]
    assert all(x in ids for x in told)

def test_standing_still_is_a_chunk_of_where_it_is():
    state = np.array([[0.1, 0.2, 0.3, 0.4]])
    assert np.array_equal(stand_still({"state": state}, None), np.tile(state, (1, 8, 1)))

def test_an_arm_that_sags_under_its_load_is_told_the_same_target_again():
    """A servo rests a little below its goal: where it is would be lower with every chunk."""
    chunks = control.Chunks(stand_still, execute=4, lead=2)
    live = np.ones(1, bool)
    q = np.array([[1.0, -0.5]])
    sent = []
    for t in range(40):
        target = chunks.next(t, {"state": q}, live, ~live)
        sent.append(target)
        q = target - 0.01
    assert np.array_equal(np.concatenate(sent), np.tile([[1.0, -0.5]], (40, 1)))

WRONG = [
    (["--robot", "ros:x"], "--robot: ros:x"),
    (["--robot", "sim:Nothing"], "Nothing"),
    (["--robot", "lerobot:no_such_module:f"], "no_such_module"),
    (["--policy", "recap:nothing"], "recap:nothing: recap has no function nothing"),
    (["--policy", "robots.checkpoint:actor"], "missing a required argument: 'path' of actor"),
    (["--policy", "recap"], "recap: expected module:function"),
    (["--policy", "robots.checkpoint:actor:none.npz,box"], "none.npz"),
    (["--hz", "0"], "--hz: 0.0"),
    (["--hz", "nan"], "--hz: nan"),
    (["--hz", "inf"], "--hz: inf"),
    (["--hz=-50"], "--hz: -50.0"),
    (["--hz", "1e9"], "--hz: 1000000000.0"),
    (["--episodes", "0"], "--episodes: 0"),
    (["--seed=-1"], "--seed: -1"),
    (["--seed", "9" * 30], "--seed: 999"),
    (["--iteration", "9" * 30], "--iteration: 999"),
    (["--policy", "robots.checkpoint:actor:no.npz,box,nan"], "no.npz"),
    (["--out", "no/such/folder.npz"], "--out: no/such/folder.npz"),
    (["--robot", "lerobot:builtins:object"], "action_features"),
]

@pytest.mark.parametrize("argv, message", WRONG)
def test_what_the_command_line_cannot_do_it_says(argv, message, capsys):
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1  # one line

def test_the_task_of_a_real_robot_is_checked(monkeypatch, capsys):
    monkeypatch.setattr("robots.__main__.load", lambda name: Follower())
    wrong = ("", ":soon", ":5:x", ":0", ":-5", ":\u00b2", ":" + 5000 * "9")
    for task in ("lift", *(f"lift:it{x}" for x in wrong)):
        assert main(["--robot", "lerobot:my_station:robot", "--task", task]) == 2
        assert f"--task: {task}, expected name:prompt:ticks" in capsys.readouterr().err

def broken():
    """A policy of somebody's, with a fault."""
    return lambda *given: {}["chunk"]

def test_a_fault_of_a_policy_keeps_its_traceback():
    """It is not the command line that is wrong.  The robot is held on the way out."""
    with pytest.raises(KeyError, match="chunk"):
        main(["--policy", "test_robots:broken"])

def test_help_is_shown_on_any_terminal():
    command = "python -m robots --help | head -1".replace("python", f'"{sys.executable}"')
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, shell=True, cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == 0 and done.stderr == b"" and done.stdout.count(b"\n") == 1

# ---------------------------------------------------------------- what is recorded

def watch_saves(monkeypatch):
    """[(episodes, name of the file)] of every save of the recorder."""
    saves = []

    def save(episodes, path):
        saves.append((len(episodes), os.path.basename(path)))
        save_dataset(episodes, path)

    monkeypatch.setattr("robots.recorder.save_dataset", save)
    return saves

def test_every_episode_is_written_once_and_joined_once(tmp_path, monkeypatch, simulated_clock):
    saves = watch_saves(monkeypatch)
    out = str(tmp_path / "mine.npz")
    asked = ["--robot", "sim:FoldCollar", "--out", out]
    assert main([*asked, "--episodes", "3"]) == 0
    numbered = [(1, f"00000{i}.npz") for i in range(3)]
    assert saves == [*numbered, (3, "mine.npz")]
    assert os.listdir(tmp_path) == ["mine.npz"]
    saves.clear()
    assert main(asked) == 0
    assert saves == [(1, "000003.npz"), (4, "mine.npz")]

def lengths(path):
    return [len(e) for e in load_dataset(path)]

def test_what_a_killed_session_left_is_found_by_the_next_and_added_once(tmp_path, monkeypatch):
    out = str(tmp_path / "mine.npz")
    save_dataset([episode(3)], out)
    killed = Recorder(out).__enter__()
    killed.add(episode(4))
    killed.add(episode(5))
    assert lengths(out) == [3]
    # The next one is killed, too, after it has joined them and before it has tidied up.
    with monkeypatch.context() as patch:
        patch.setattr(os, "remove", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Recorder(out)
    assert lengths(out) == [3, 4, 5]
    with Recorder(out) as recorder:
        recorder.add(episode(6))
    assert lengths(out) == [3, 4, 5, 6]
    assert os.listdir(tmp_path) == ["mine.npz"]

def test_an_interruption_waits_until_the_episode_is_saved(tmp_path, monkeypatch):
    stops = [KeyboardInterrupt]

    def save(episodes, path):
        if stops:
            raise stops.pop()
        save_dataset(episodes, path)

    monkeypatch.setattr("robots.recorder.save_dataset", save)
    out = str(tmp_path / "mine.npz")
    with pytest.raises(KeyboardInterrupt):
        with Recorder(out) as recorder:
            recorder.add(episode(4))
    assert lengths(out) == [4]

def test_new_episodes_are_of_the_earlier_dtype(tmp_path):
    out = str(tmp_path / "mine.npz")
    save_dataset([episode(3)], out)
    observation = {name: x[:1] for name, x in episode(3).observations.items()}
    station = SimpleNamespace(observe=lambda: observation, task=SimpleNamespace(hz=10))
    Recorder(out).check_fits(station)
    observation["keypoints"] = observation["keypoints"].astype(float)
    with pytest.raises(ValueError, match="float64"):
        Recorder(out).check_fits(station)

@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_the_running_episode_outlives_a_signal(
    name, tmp_path, monkeypatch, simulated_clock, capsys
):
    number = getattr(signal, name)

    def policy():
        calls = []

        def act(observation, live, frozen):
            calls.append(frozen)
            if len(calls) == 3:
                os.kill(os.getpid(), number)
            return hasty(observation, live, frozen)

        return act

    monkeypatch.setattr("robots.__main__.load", lambda name: policy())
    before = signal.signal(number, signal.default_int_handler)
    out = str(tmp_path / "mine.npz")
    argv = ["--robot", "sim:FoldCollar", "--policy", "mine:policy", "--out", out]
    with pytest.raises(SystemExit) as stopped:
        main([*argv, "--episodes", "2"])
    assert stopped.value.code == 128 + number
    (e,) = load_dataset(out)
    assert 4 <= len(e) <= 8 and e.success is None
    assert signal.signal(number, before) == signal.default_int_handler
    assert "terminated" in capsys.readouterr().err

@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_ours_is_refused_before_anything_moves(tmp_path, capsys):
    os.chmod(tmp_path, 0o500)
    assert main(["--out", str(tmp_path / "mine.npz")]) == 2
    assert "that we may write to" in capsys.readouterr().err

"""robots/: simulated and LeRobot's robots, operators, the command line.

Time is simulated throughout.
"""
import abc
import os
import sys
from dataclasses import replace
from enum import Enum
from types import SimpleNamespace

import numpy as np
import pytest

import control
import sim_tasks
from benchmarks.driver import SimulatedTime
from control import REDO, Clock, drive
from driver import WIDE, Still, background, command, rig, rising, safe
from hardware import EmergencyStop, SafeRobot, Safety, Station, Task, to_dict, to_vector
from helpers import episode, toy_policy, toy_value
from lab.files import load_dataset, save_network
from robots.__main__ import main, stand_still
from robots.checkpoint import actor
from robots.lerobot import LeaderArm, LeRobotRobot
from robots.operators import Person, ask_outcome, keyboard
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

def test_a_lerobot_robot_is_driven_and_recorded_like_any_other():
    bare = Follower()
    clock = SimulatedTime()
    safety = Safety(joint_step=0.02, ramp_steps=1)
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
    chunk = made(World(sim_tasks.TASKS["box"], [1]).observe(), np.array([True]))
    assert chunk.shape == (1, 8, 6)
    with pytest.raises(ValueError, match="task: 'bocks'"):
        actor(path, "bocks")
    save_network(toy_value(), path)
    with pytest.raises(ValueError, match="a ValueFunction, expected a policy"):
        actor(path, "box")

def test_standing_still_is_a_chunk_of_where_it_is():
    state = np.array([[0.1, 0.2, 0.3, 0.4]])
    assert np.array_equal(stand_still({"state": state}, None), np.tile(state, (1, 8, 1)))

WRONG = [
    (["--robot", "ros:x"], "--robot: ros:x"),
    (["--robot", "sim:Nothing"], "Nothing"),
    (["--robot", "lerobot:no_such_module:f"], "no_such_module"),
    (["--policy", "recap:nothing"], "nothing"),
    (["--policy", "recap"], "recap: expected module:function"),
    (["--policy", "robots.checkpoint:actor:none.npz,box"], "none.npz"),
    (["--hz", "0"], "--hz: 0.0"),
    (["--episodes", "0"], "--episodes: 0"),
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
    for task in ("lift", "lift:it", "lift:it:soon", "lift:it:5:x"):
        assert main(["--robot", "lerobot:my_station:robot", "--task", task]) == 2
        assert f"--task: {task}, expected name:prompt:ticks" in capsys.readouterr().err

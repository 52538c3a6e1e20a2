"""hardware.py: the protocol, the safety around a robot, the station.  Time is simulated."""
import inspect
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.driver import SimulatedTime, WatchedArms
from driver import WIDE, Still, command, safe
from hardware import (
    BadObservation,
    BimanualRobot,
    CommandRejected,
    EmergencyStop,
    SafeRobot,
    Safety,
    Station,
    Task,
    to_dict,
    to_vector,
)
from robots.lerobot import LeRobotRobot
from robots.simulated import SimRobot

# ---------------------------------------------------------------- the protocol

@pytest.mark.parametrize("kind", [SimRobot, LeRobotRobot, SafeRobot, WatchedArms])
def test_every_robot_has_the_methods_of_the_protocol(kind):
    for name, method in inspect.getmembers(BimanualRobot, inspect.isfunction):
        if not name.startswith("_"):
            expected = inspect.signature(method).parameters
            real = inspect.signature(getattr(kind, name)).parameters
            assert list(expected) == list(real), name

def test_the_features_are_known_while_disconnected_and_describe_what_comes():
    robot = SimRobot("SimTasks/FoldCollar-v0", seed=3)
    assert list(robot.action_features) == [
        "left_joint_0.pos", "left_joint_1.pos", "left_gripper.pos",
        "right_joint_0.pos", "right_joint_1.pos", "right_gripper.pos",
    ]  # fmt: skip
    with pytest.raises(ConnectionError):
        robot.get_observation()
    with pytest.raises(ConnectionError):
        robot.send_action(command(robot, 0.5))
    with SafeRobot(robot, Safety(**robot.limits), thread=False) as safe_robot:
        assert safe_robot.is_connected and safe_robot.action_features == robot.action_features
        seen = safe_robot.get_observation()
        assert seen.keys() == safe_robot.observation_features.keys()
        for name, kind in robot.observation_features.items():
            assert np.shape(seen[name]) == (() if kind is float else kind)
    assert not robot.is_connected

def test_leaving_the_context_holds_and_disconnects_even_after_an_error():
    arms = Still()
    with pytest.raises(KeyError):
        with safe(arms) as robot:
            robot.send_action(command(arms, 0.0))
            raise KeyError
    assert arms.log == ["send", "hold"]
    assert not arms.is_connected

class Broken(Still):
    """Arms of which a part is never connected; `log` tells what they are asked for."""

    def __init__(self, error=None):
        super().__init__()
        self.is_connected = False
        self.error = error

    def connect(self):
        raise OSError("half of it came up")

    def disconnect(self):
        self.log.append("disconnect")
        if self.error is not None:
            raise self.error

def test_clean_up_does_not_ask_whether_everything_is_connected():
    arms = Broken()
    safe(arms).disconnect()
    assert arms.log == ["hold", "disconnect"]
    arms.hold = lambda: 1 / 0
    safe(arms).disconnect()
    assert arms.log[-1] == "disconnect"
    arms.hold = interrupted
    with pytest.raises(KeyboardInterrupt):
        safe(arms).disconnect()
    assert arms.log[-2:] == ["disconnect"] * 2

def interrupted():
    raise KeyboardInterrupt

def test_a_connection_that_fails_is_undone_and_both_errors_are_told():
    arms = Broken()
    with pytest.raises(OSError, match="^half of it came up$"):
        safe(arms).connect()
    assert arms.log == ["disconnect"]
    with pytest.raises(ConnectionError, match="half of it came up; .* the arm stays powered"):
        safe(Broken(RuntimeError("the arm stays powered"))).connect()

# ---------------------------------------------------------------- safety: limits

@pytest.mark.parametrize("joints", [1, 2, 6])
def test_joints_and_grippers_stay_within_their_limits_for_any_number_of_joints(joints):
    high = np.linspace(0.5, 2, joints)
    safety = Safety(
        joint_low=-1.0, joint_high=high, joint_speed=500.0, gripper_speed=50.0, ramp_s=0
    )
    arms = WatchedArms(Safety(-9, 9, 500, 50), SimulatedTime(), joints)
    for value, joint, gripper in ((50.0, high, 1.0), (-50.0, -1.0, 0.0)):
        sent = safe(arms, safety).send_action(command(arms, value))
        expected = np.tile(np.append(np.full(joints, joint), gripper), 2)
        assert np.allclose(to_vector(sent, arms.names), expected)

def test_a_command_moves_one_step_at_most_and_counts_as_clamped():
    arms = Still()
    robot = safe(arms, Safety(ramp_s=0))
    for k in range(1, 6):
        sent = robot.send_action(command(arms, 3.0))
        assert np.isclose(sent["left_0.pos"], 0.04 * k)
        assert np.isclose(sent["right_gripper.pos"], min(1, 0.5 + 0.1 * k))
    robot.send_action(to_dict(arms.pose + 0.03 * np.array([1, 0, 1, 0]), arms.names))
    assert robot.commands == 6
    assert robot.clamped == 5
    assert np.isclose(arms.pose[0], 0.23)  # what is within the bounds is sent as it is

def test_the_first_commands_start_from_the_measured_pose_and_ease_in():
    arms = Still()
    arms.pose = np.array([0.7, 0.2, -0.7, 0.9])
    robot = safe(arms, Safety(ramp_s=0.2))
    sent = [robot.send_action(command(arms, 3.0))["left_0.pos"] for _ in range(15)]
    steps = np.diff([0.7] + sent)
    assert np.allclose(steps, 0.04 * np.minimum(np.arange(1, 16) / 10, 1))
    robot.hold()
    arms.pose[0] = 0.0  # moved by hand, or sagged
    assert np.isclose(robot.send_action(command(arms, 3.0))["left_0.pos"], 0.004)

@pytest.mark.parametrize("hz", [1, 10, 50, 333.3, 1000])
def test_speeds_are_per_second_whatever_the_rate(hz):
    """Half a second of easing in, then 2 rad/s."""
    safety = Safety(joint_high=100.0, ramp_s=0.5, hz=hz)
    arms = Still(safety)
    robot = safe(arms, safety)
    period = 1 / hz
    moved = []
    for k in range(round(4 * hz)):
        before = arms.pose.copy()
        arms.clock.t = k * period
        robot.send_action(command(arms, 99.0))
        moved.append((arms.pose - before) / period)
    moved = np.array(moved)  # rad/s, openings/s
    eased = np.minimum(1, np.arange(1, len(moved) + 1) / max(1, 0.5 * hz))
    assert moved[:, 0] == pytest.approx(2 * eased)
    assert (moved[:, 1] <= 5 * eased + 1e-9).all()

def test_a_frozen_camera_is_given_the_same_time_at_any_rate():
    for hz in (10, 50, 1000):
        safety = Safety(hz=hz)
        arms = Still(safety)
        arms.fault = "freeze"
        robot = safe(arms, safety)
        looks = 0
        with pytest.raises(BadObservation, match="the same for"):
            for looks in range(5000):
                robot.send_action(command(arms, 0.0))
                robot.get_observation()
        assert looks == 0.5 * hz

def test_whoever_takes_over_eases_in_from_the_last_target():
    arms = Still()
    robot = safe(arms, Safety(ramp_s=0.2))
    for _ in range(12):
        robot.send_action(command(arms, 3.0))
    before = arms.pose[0]
    arms.pose[0] = 0.0  # the pose lags behind: it is not where we start from
    robot.ease()
    sent = [robot.send_action(command(arms, -3.0))["left_0.pos"] for _ in range(12)]
    steps = np.diff([before] + sent)
    assert np.allclose(steps, -0.04 * np.minimum(np.arange(1, 13) / 10, 1))
    arms.simulated = True
    robot = safe(arms, Safety(ramp_s=0.2))
    for _ in range(12):
        robot.send_action(command(arms, 3.0))
    before = arms.pose[0]
    robot.ease()
    assert np.isclose(robot.send_action(command(arms, 3.0))["left_0.pos"] - before, 0.04)

NO_LIMITS = [
    {"hz": np.nan}, {"hz": np.inf}, {"hz": -50.0}, {"hz": 0}, {"hz": 1001}, {"joint_speed": 0},
    {"joint_speed": [1, np.nan]}, {"joint_speed": np.inf}, {"gripper_speed": -1.0},
    {"watchdog_s": 0}, {"watchdog_s": np.nan}, {"stale_s": 0}, {"ramp_s": -1},
    {"pose_tolerance": -0.1}, {"joint_low": 2.0, "joint_high": [3.0, 1.0]}, {"joint_low": np.nan},
]  # fmt: skip

@pytest.mark.parametrize("limits", NO_LIMITS)
def test_numbers_that_are_no_limits_are_refused(limits):
    with pytest.raises(ValueError, match=f"Safety.*{list(limits)[0]}"):
        Safety(**limits)

NO_COMMANDS = [
    np.nan, np.inf, -np.inf, None, "0.1", [0.1], np.zeros(3), 1j, 10**400, {}, "missing", "extra",
]  # fmt: skip

@pytest.mark.parametrize("bad", NO_COMMANDS)
def test_what_is_no_command_is_rejected_and_the_robot_holds(bad):
    arms = Still()
    robot = safe(arms)
    robot.send_action(command(arms, 0.0))
    action = command(arms, 0.0) | {"left_0.pos": bad}
    if isinstance(bad, str) and bad == "missing":
        del action["left_0.pos"]
    elif isinstance(bad, str) and bad == "extra":
        action = command(arms, 0.0) | {"left_1.pos": 0.0}
    with pytest.raises(CommandRejected):
        robot.send_action(action)
    assert arms.log == ["send", "hold"]
    assert arms.held
    assert robot.rejected == 1
    with pytest.raises(CommandRejected):
        robot.send_action(None)
    # And it goes on when it is asked properly.
    assert robot.send_action(command(arms, 0.001))["left_0.pos"] == 0.001

def test_a_start_outside_the_limits_is_refused_beyond_the_tolerance():
    arms = Still()
    arms.pose[0] = 2.03
    sent = safe(arms, Safety(joint_high=2.0)).send_action(command(arms, 3.0))
    assert np.isclose(sent["left_0.pos"], 2.0)
    for pose in (2.06, np.nan):
        arms.pose[0] = pose
        with pytest.raises(BadObservation, match="left_0.pos: measured"):
            safe(arms, Safety(joint_high=2.0)).send_action(command(arms, 0.0))
        assert arms.log[-1] == "hold"

# ---------------------------------------------------------------- safety: watchdog, stop, faults

def test_the_watchdog_holds_after_400_ms_once_and_then_eases_in():
    arms = Still()
    robot = safe(arms, Safety(ramp_s=0.08))
    arms.clock.t = 5.0
    robot.check()  # asleep until the first command: nothing moves yet
    for _ in range(6):
        robot.send_action(command(arms, 3.0))
    arms.clock.t = 5.399
    robot.check()
    assert "hold" not in arms.log
    arms.clock.t = 5.401
    robot.check()
    robot.check()
    assert arms.log[-2:] == ["send", "hold"] and robot.holds == 1
    before = arms.pose[0]
    sent = robot.send_action(command(arms, 3.0))
    assert np.isclose(sent["left_0.pos"] - before, 0.01)
    # Nobody checked in time: the next command finds out itself.
    arms.clock.t += 0.5
    robot.send_action(command(arms, 3.0))
    assert arms.log[-3:] == ["send", "hold", "send"] and robot.holds == 2
    assert np.isclose(arms.pose[0] - before, 0.02)

def test_a_new_robot_has_done_nothing_and_its_watchdog_sleeps():
    arms = Still()
    arms.clock.t = 1000.0
    robot = safe(arms)
    assert (robot.commands, robot.clamped, robot.rejected, robot.holds) == (0, 0, 0, 0)
    robot.check()
    arms.fault = "freeze"
    for _ in range(100):
        robot.get_observation()
    assert arms.log == [] and robot.holds == 0
    arms.pose[0] = 0.3
    sent = robot.send_action(command(arms, 3.0))
    assert np.isclose(sent["left_0.pos"], 0.3 + 0.04 / 25)  # not stopped, and the ramp's first
    assert (robot.commands, robot.clamped, robot.rejected, robot.holds) == (1, 1, 0, 0)
    # Connected anew, it starts from where it is.
    for _ in range(30):
        robot.send_action(command(arms, 3.0))
    robot.connect()
    arms.pose[0] = -0.3
    sent = robot.send_action(command(arms, 3.0))
    assert np.isclose(sent["left_0.pos"], -0.3 + 0.04 / 25)

@pytest.mark.parametrize("watchdog_s", [0.1, 0.4])
def test_the_watchdog_looks_often_enough_to_hold_in_time(watchdog_s):
    """At most an eighth later than it says, and without looking all the time."""
    arms = Still()
    robot = safe(arms, Safety(watchdog_s=watchdog_s))
    looks = []

    class Closing:
        def wait(self, seconds):
            looks.append(seconds)
            arms.clock.t += seconds
            return len(looks) > 1000

    robot.send_action(command(arms, 0.0))
    held = []
    arms.hold = lambda: held.append(arms.clock.t)
    robot._watch(Closing())
    assert len(held) == 1
    assert watchdog_s < held[0] <= watchdog_s * 9 / 8 + 1e-9
    assert min(looks) >= watchdog_s / 8

def test_the_watchdog_has_a_thread_of_its_own():
    held = threading.Event()
    arms = Still()
    arms.hold = held.set
    with SafeRobot(arms, Safety(watchdog_s=0.008), arms.clock.now) as robot:
        robot.send_action(command(arms, 0.0))
        arms.clock.t += 1  # our clock, not the thread's
        assert held.wait(20)

def test_the_emergency_stop_latches_until_it_is_reset():
    arms = Still()
    robot = safe(arms, Safety(ramp_s=0.08))
    for _ in range(9):
        robot.send_action(command(arms, 3.0))
    robot.estop()
    for _ in range(3):
        with pytest.raises(EmergencyStop):
            robot.send_action(command(arms, 3.0))
    robot.hold()  # must not wake it
    assert arms.log[-1] == "estop"
    assert arms.log.count("send") == 9
    robot.reset()
    before = arms.pose[0]
    sent = robot.send_action(command(arms, 3.0))
    assert np.isclose(sent["left_0.pos"] - before, 0.01)

def test_an_emergency_stop_during_a_command_has_the_last_word():
    arms = Still()
    robot = safe(arms)
    send = arms.send_action

    def stopped(action):
        robot.estop()
        return send(action)

    arms.send_action = stopped
    robot.send_action(command(arms, 0.0))
    assert arms.log == ["estop", "send", "estop"]

def test_a_robot_that_fails_or_lies_is_held():
    arms = Still()
    robot = safe(arms)
    arms.fault = "disconnect"
    with pytest.raises(ConnectionError):
        robot.send_action(command(arms, 0.0))
    assert arms.log == ["hold"]
    arms.fault = None
    arms.send_action = lambda action: command(arms, np.nan)
    with pytest.raises(BadObservation, match="not finite"):
        robot.send_action(command(arms, 0.0))
    assert arms.log == ["hold", "hold"]

def test_a_camera_that_repeats_itself_is_noticed_but_not_a_robot_at_rest():
    arms = Still()
    robot = safe(arms, Safety(stale_s=0.1))
    arms.fault = "freeze"
    for _ in range(20):
        robot.get_observation()  # nothing is commanded
    for _ in range(5):
        robot.send_action(command(arms, 0.0))
        robot.get_observation()
    robot.send_action(command(arms, 0.0))
    with pytest.raises(BadObservation, match="base: the same for 5 commands"):
        robot.get_observation()
    assert arms.held
    arms.fault = "nan"
    with pytest.raises(BadObservation, match="not finite"):
        robot.get_observation()

@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("commanded", [False, True])
def test_a_number_that_is_not_finite_in_any_array_is_noticed(bad, commanded):
    arms = Still()
    arms.observation_features = arms.observation_features | {"keypoints": (2, 3), "depth": (4,)}
    look = arms.get_observation
    arrays = {"keypoints": np.zeros((2, 3)), "depth": np.zeros(4, np.float32)}
    arms.get_observation = lambda: look() | arrays
    for name, array in arrays.items():
        robot = safe(arms)
        if commanded:
            robot.send_action(command(arms, 0.0))
        robot.get_observation()
        array.flat[-1] = bad
        with pytest.raises(BadObservation, match=f"{name}: not finite"):
            robot.get_observation()
        assert arms.log[-1] == "hold"
        array.flat[-1] = 0

# ---------------------------------------------------------------- what is refused from the start

def test_a_robot_whose_actions_are_not_two_arms_is_refused():
    for names in (
        ["left_0.pos", "left_gripper.pos", "right_gripper.pos"],
        ["left_gripper.pos", "left_0.pos"],
        ["left_gripper.pos", "left_0.pos", "right_gripper.pos", "right_0.pos"],
    ):
        features = dict.fromkeys(names, float)
        with pytest.raises(ValueError, match="action_features"):
            SafeRobot(SimpleNamespace(action_features=features, observation_features={}))
    with pytest.raises(ValueError, match="expected a SafeRobot"):
        Station(Still(), Task("t", "t", 5), None)

def test_limits_of_another_rate_than_the_tasks_are_refused():
    """Else 2 rad/s at 50 Hz would be 40 at 1,000."""
    for hz in (10, 1000):
        with pytest.raises(ValueError, match=f"Safety.hz: 50.0, expected {hz}"):
            Station(safe(Still()), Task("t", "t", 5, hz), None)

def test_a_station_speaks_in_arrays_with_a_leading_axis_of_one():
    arms = Still(WIDE)
    referee = SimpleNamespace(over=None, subtask=None, outcome=None)
    station = Station(safe(arms, WIDE), Task("t", "t", 5), referee)
    arms.pose = np.array([0.1, 0.2, 0.3, 0.4])
    seen = station.observe()
    assert seen["state"].dtype == np.float32
    assert np.allclose(seen["state"], [[0.1, 0.2, 0.3, 0.4]])
    assert seen["base"].shape == (1, 2, 2, 3)
    sent = station.send(np.array([[0.5, 7.0, -0.5, 0.25]]))
    assert sent.dtype == np.float32
    assert np.allclose(sent, [[0.5, 1.0, -0.5, 0.25]])  # what was sent, not what was asked
    for shape in ((4,), (2, 4), (1, 3)):
        with pytest.raises(CommandRejected, match="expected \\(1, 4\\)"):
            station.send(np.zeros(shape))

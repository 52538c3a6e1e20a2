"""hardware.py and adapters.py: the driver, its safety, the loop, recording and operators.  Time is simulated throughout."""
import abc
import inspect
import threading
from enum import Enum
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import adapters
import benchmark
import hardware
import recap
import sim_tasks
from adapters import REDO, LeaderArm, LeRobotRobot, Person, ScriptedOperator, SimRobot, ask_outcome, to_dict, to_vector
from backbone import encode
from benchmark import Later, SimulatedTime, WatchedArms
from data import load_dataset
from hardware import (BadObservation, BimanualRobot, Chunks, CommandRejected, EmergencyStop, Fleet, Pacer, SafeRobot, Safety,
                      Station, Task, drive, record)
from policy import VLA, predict_subtask, sample_actions
from recap import Settings, collect
from sim_tasks.arms import JOINT_HIGH, JOINT_LOW, STATIC, World
from sim_tasks.demonstrator import BEST, COACH, MIXED, Gate, Operator, hasty

WIDE = Safety(joint_step=10.0, gripper_step=1.0, ramp_steps=1)          # nothing in the way but the limits


class Still(WatchedArms):
    """Arms of one joint each that go exactly where they are sent; `log` names every call."""

    def __init__(self, safety=Safety(), clock=None, joints=1):
        super().__init__(safety, clock or SimulatedTime(), joints)
        self.rng, self.log, self.t = np.random.default_rng(0), [], 0

    def get_observation(self):
        self.t += 1
        return super().get_observation()

    def send_action(self, action):
        super().send_action(action)
        self.pose = self.last.copy()
        self.log.append("send")
        return action

    def hold(self):
        super().hold()
        self.log.append("hold")

    def estop(self):
        super().hold()
        self.log.append("estop")


def safe(arms, safety=None, **how):
    return SafeRobot(arms, safety or Safety(), arms.clock.now, thread=False, **how)


def command(arms, value):
    return dict.fromkeys(arms.names, value)


# ---------------------------------------------------------------- the protocol

@pytest.mark.parametrize("kind", [SimRobot, LeRobotRobot, SafeRobot, WatchedArms])
def test_every_robot_has_the_methods_of_the_protocol(kind):
    for name, method in inspect.getmembers(BimanualRobot, inspect.isfunction):
        if not name.startswith("_"):
            expected, real = inspect.signature(method).parameters, inspect.signature(getattr(kind, name)).parameters
            assert list(expected) == list(real), name


def test_the_features_are_known_while_disconnected_and_describe_what_comes():
    robot = SimRobot("SimTasks/FoldCollar-v0", seed=3)
    assert list(robot.action_features) == ["left_joint_0.pos", "left_joint_1.pos", "left_gripper.pos",
                                           "right_joint_0.pos", "right_joint_1.pos", "right_gripper.pos"]
    with pytest.raises(ConnectionError):
        robot.get_observation()
    with pytest.raises(ConnectionError):
        robot.send_action(command(robot, 0.5))
    with SafeRobot(robot, Safety(**robot.limits), thread=False) as safe_robot:
        assert safe_robot.is_connected
        seen = safe_robot.get_observation()
        assert seen.keys() == safe_robot.observation_features.keys()
        assert all(np.shape(seen[k]) == (() if kind is float else kind) for k, kind in robot.observation_features.items())
    assert not robot.is_connected


def test_leaving_the_context_holds_and_disconnects_even_after_an_error():
    arms = Still()
    with pytest.raises(KeyError):
        with safe(arms) as robot:
            robot.send_action(command(arms, 0.0))
            raise KeyError
    assert arms.log == ["send", "hold"] and not arms.is_connected


# ---------------------------------------------------------------- safety

def test_joints_and_grippers_stay_within_their_limits_for_any_number_of_joints():
    for joints in (1, 2, 6):
        safety = Safety(joint_low=-1.0, joint_high=np.linspace(0.5, 2, joints), joint_step=10.0, gripper_step=1.0, ramp_steps=1)
        arms = WatchedArms(Safety(-9, 9, 10, 1), SimulatedTime(), joints)
        for value, joint, gripper in ((50.0, np.linspace(0.5, 2, joints), 1.0), (-50.0, -1.0, 0.0)):
            sent = to_vector(safe(arms, safety).send_action(command(arms, value)), arms.names)
            assert np.allclose(sent, np.tile(np.append(np.full(joints, joint), gripper), 2))


def test_a_command_moves_one_step_at_most_and_counts_as_clamped():
    arms = Still()
    robot = safe(arms, Safety(ramp_steps=1))
    for k in range(1, 6):
        sent = robot.send_action(command(arms, 3.0))
        assert np.isclose(sent["left_0.pos"], 0.04 * k) and np.isclose(sent["right_gripper.pos"], min(1, 0.5 + 0.1 * k))
    robot.send_action(to_dict(arms.pose + 0.03 * np.array([1, 0, 1, 0]), arms.names))
    assert robot.commands == 6 and robot.clamped == 5
    assert np.isclose(arms.pose[0], 0.23)                       # what is within the bounds is sent as it is


def test_the_first_commands_start_from_the_measured_pose_and_ease_in():
    arms = Still()
    arms.pose = np.array([0.7, 0.2, -0.7, 0.9])
    robot = safe(arms, Safety(ramp_steps=10))
    steps = np.diff([0.7] + [robot.send_action(command(arms, 3.0))["left_0.pos"] for _ in range(15)])
    assert np.allclose(steps, 0.04 * np.minimum(np.arange(1, 16) / 10, 1))
    robot.hold()
    arms.pose[0] = 0.0                                          # moved by hand, or sagged
    assert np.isclose(robot.send_action(command(arms, 3.0))["left_0.pos"], 0.004)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, None, "0.1", [0.1], np.zeros(3), 1j, 10 ** 400, {}, "missing", "extra"])
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
    assert arms.log == ["send", "hold"] and arms.held and robot.rejected == 1
    with pytest.raises(CommandRejected):
        robot.send_action(None)
    assert robot.send_action(command(arms, 0.001))["left_0.pos"] == 0.001          # and goes on when asked properly


def test_the_watchdog_holds_after_400_ms_once_and_then_eases_in():
    arms = Still()
    robot = safe(arms, Safety(ramp_steps=4))
    arms.clock.t = 5.0
    robot.check()                                               # asleep until the first command: nothing moves yet
    for _ in range(6):
        robot.send_action(command(arms, 3.0))
    arms.clock.t = 5.399
    robot.check()
    assert "hold" not in arms.log
    arms.clock.t = 5.401
    robot.check()
    robot.check()
    assert arms.log[-2:] == ["send", "hold"]
    before = arms.pose[0]
    assert np.isclose(robot.send_action(command(arms, 3.0))["left_0.pos"] - before, 0.01)
    arms.clock.t += 0.5                                         # nobody checked in time: the next command finds out itself
    robot.send_action(command(arms, 3.0))
    assert arms.log[-3:] == ["send", "hold", "send"] and np.isclose(arms.pose[0] - before, 0.02)


def test_the_watchdog_has_a_thread_of_its_own():
    held, arms = threading.Event(), Still()
    arms.hold = held.set
    with SafeRobot(arms, Safety(watchdog_s=0.008), arms.clock.now) as robot:
        robot.send_action(command(arms, 0.0))
        arms.clock.t += 1                                       # our clock, not the thread's
        assert held.wait(20)


def test_the_emergency_stop_latches_until_it_is_reset():
    arms = Still()
    robot = safe(arms, Safety(ramp_steps=4))
    for _ in range(9):
        robot.send_action(command(arms, 3.0))
    robot.estop()
    for _ in range(3):
        with pytest.raises(EmergencyStop):
            robot.send_action(command(arms, 3.0))
    robot.hold()                                                # must not wake it
    assert arms.log[-1] == "estop" and arms.log.count("send") == 9
    robot.reset()
    before = arms.pose[0]
    assert np.isclose(robot.send_action(command(arms, 3.0))["left_0.pos"] - before, 0.01)


def test_an_emergency_stop_during_a_command_has_the_last_word():
    arms = Still()
    robot = safe(arms)
    send = arms.send_action
    arms.send_action = lambda action: (robot.estop(), send(action))[1]
    robot.send_action(command(arms, 0.0))
    assert arms.log == ["estop", "send", "estop"]


def test_a_start_outside_the_limits_is_refused_beyond_the_tolerance():
    arms = Still()
    arms.pose[0] = 2.03
    assert np.isclose(safe(arms, Safety(joint_high=2.0)).send_action(command(arms, 3.0))["left_0.pos"], 2.0)
    for pose in (2.06, np.nan):
        arms.pose[0] = pose
        with pytest.raises(BadObservation, match="left_0.pos: measured"):
            safe(arms, Safety(joint_high=2.0)).send_action(command(arms, 0.0))
        assert arms.log[-1] == "hold"


def test_a_robot_that_fails_or_lies_is_held():
    arms = Still()
    robot = safe(arms)
    arms.fault = "disconnect"
    with pytest.raises(ConnectionError):
        robot.send_action(command(arms, 0.0))
    assert arms.log == ["hold"]
    arms.fault, arms.send_action = None, lambda action: command(arms, np.nan)
    with pytest.raises(BadObservation, match="not finite"):
        robot.send_action(command(arms, 0.0))
    assert arms.log == ["hold", "hold"]


def test_a_camera_that_repeats_itself_is_noticed_but_not_a_robot_at_rest():
    arms = Still()
    robot = safe(arms, Safety(stale_steps=5))
    arms.fault = "freeze"
    for _ in range(20):
        robot.get_observation()                                 # nothing is commanded
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


def test_a_robot_whose_actions_are_not_two_arms_is_refused():
    for names in (["left_0.pos", "left_gripper.pos", "right_gripper.pos"], ["left_gripper.pos", "left_0.pos"] * 1,
                  ["left_gripper.pos", "left_0.pos", "right_gripper.pos", "right_0.pos"]):
        with pytest.raises(ValueError, match="action_features"):
            SafeRobot(SimpleNamespace(action_features=dict.fromkeys(names, float), observation_features={}))
    with pytest.raises(ValueError, match="expected a SafeRobot"):
        Station(Still(), Task("t", "t", 5), None)


def test_fuzzed_commands_never_leave_the_limits():
    counts = benchmark.fuzz(20_000)
    assert counts["violations"] == 0
    assert counts["rejected"] > 2_000 and counts["stopped"] > 50 and 0 < counts["clamped"] < counts["sent"]


@pytest.mark.slow
def test_fuzzed_commands_never_leave_the_limits_for_long():
    assert all(benchmark.fuzz(60_000, joints, seed)["violations"] == 0 for seed, joints in enumerate((1, 2, 6)))


def test_soak():
    counts = benchmark.soak(20_000)
    assert counts["violations"] == 0 and counts["episodes"] > 30 and all(counts[fault] for fault in benchmark.FAULTS)


@pytest.mark.slow
def test_soak_for_longer():
    assert sum(benchmark.soak(60_000, seed=seed)["violations"] for seed in (1, 2, 3)) == 0


# ---------------------------------------------------------------- robots: simulated

def test_the_simulated_robot_is_its_task_step_by_step():
    """The same commands to the robot and to a bare world: the same observations, end and label."""
    robot, world = SimRobot("SimTasks/FoldCollar-v0"), World(sim_tasks.TASKS["fold_collar"], [7])
    robot.connect()
    robot.begin(7)
    operator = Operator(world, [7], BEST)
    while not world.done[0]:
        seen, expected = robot.get_observation(), world.observe()
        assert np.array_equal(to_vector(seen, robot.names).astype(np.float32), expected["state"][0])
        assert np.array_equal(seen["keypoints"], expected["keypoints"][0])
        assert not robot.over() and robot.outcome()[0] is None and robot.subtask() == world.subtasks()[0]
        action = operator.act(world).astype(np.float32)
        assert np.array_equal(to_vector(robot.send_action(to_dict(action[0], robot.names)), robot.names), action[0])
        world.step(action)
    assert robot.over() and robot.outcome()[0] is True and robot.outcome()[1].all()


def test_the_limits_of_the_simulated_robot_are_the_worlds():
    robot = SafeRobot(SimRobot(), Safety(**SimRobot().limits))
    assert np.allclose(robot.low, [*JOINT_LOW, 0] * 2) and np.allclose(robot.high, [*JOINT_HIGH, 1] * 2)
    assert robot.step[0] == STATIC.joint_speed


# ---------------------------------------------------------------- robots: LeRobot

class DeviceNotConnectedError(ConnectionError):
    """As LeRobot names it."""


class LeRobotBase(abc.ABC):
    """The documented interface of LeRobot's Robot: these properties and methods, and no others."""
    observation_features = action_features = is_connected = is_calibrated = abc.abstractmethod(lambda self: None)

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
    """A bimanual follower: degrees, grippers 0-100, the gripper not last, one camera; clips motion as max_relative_target."""
    motors = ["shoulder_pan", "gripper", "elbow_flex"]

    def __init__(self, use_degrees=True, max_relative_target=None):
        arm = SimpleNamespace(use_degrees=use_degrees)
        self.config, self.max = SimpleNamespace(left_arm_config=arm, right_arm_config=arm), max_relative_target
        self.calibrated = self.connected = self.configured = False
        self.present = {key: 10.0 * (i + 1) for i, key in enumerate(self.action_features)}
        self.goals = []

    @property
    def action_features(self):
        return {f"{side}_{motor}.pos": float for side in ("left", "right") for motor in self.motors}

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
        goal = {key: float(np.clip(action[key], self.present[key] - limit, self.present[key] + limit)) for key in self.present}
        self.goals.append(goal)
        self.present = dict(goal)
        return goal

    def disconnect(self):
        self._need()
        self.connected = False


def test_lerobot_units_and_order_on_either_arm():
    bare = Follower()
    robot = LeRobotRobot(bare)
    assert list(robot.action_features) == [f"{side}_{name}.pos" for side in ("left", "right")
                                           for name in ("shoulder_pan", "elbow_flex", "gripper")]
    with pytest.raises(ConnectionError):
        robot.get_observation()
    with robot:
        assert bare.calibrated and bare.configured
        seen = robot.get_observation()
        # present: 10, 20, ..., 60 in LeRobot's order: pan, gripper, elbow
        assert np.allclose(to_vector(seen, robot.action_features), [np.pi / 18, np.pi / 6, 0.2, np.pi * 4 / 18, np.pi / 3, 0.5])
        assert seen["left_wrist"].shape == robot.observation_features["left_wrist"] == (5, 7, 3)      # every 5th pixel
        assert np.array_equal(seen["left_wrist"][2, :, 0], np.arange(0, 32, 5) + 10 * 32 - 256)
        action = dict(zip(robot.action_features, [0.1, -0.2, 0.3, -0.4, 0.5, 0.6]))
        assert robot.send_action(action) == pytest.approx(action)
        assert bare.goals[-1] == pytest.approx({
            "left_shoulder_pan.pos": np.degrees(0.1), "left_elbow_flex.pos": np.degrees(-0.2), "left_gripper.pos": 30,
            "right_shoulder_pan.pos": np.degrees(-0.4), "right_elbow_flex.pos": np.degrees(0.5), "right_gripper.pos": 60})
        robot.hold()
        assert bare.goals[-1] == bare.goals[-2]                        # the last goal, not the pose
        robot.estop()
        assert not bare.connected
    robot.disconnect()                                                 # no error where there is no connection


def test_lerobot_reports_what_was_sent_not_what_was_asked():
    bare = Follower(max_relative_target=2.0)
    bare.present = dict.fromkeys(bare.present, 0.0)
    with LeRobotRobot(bare) as robot:
        sent = robot.send_action(dict.fromkeys(robot.action_features, 0.5))
    assert sent["left_elbow_flex.pos"] == pytest.approx(np.radians(2)) and sent["right_gripper.pos"] == pytest.approx(0.02)


def test_lerobot_holds_nothing_before_the_first_goal_and_lets_a_busy_bus_be():
    bare = Follower()
    with LeRobotRobot(bare) as robot:
        robot.hold()
        assert bare.goals == []
        robot.send_action(dict.fromkeys(robot.action_features, 0.1))
        with robot._bus:
            robot.hold()
        assert len(bare.goals) == 1


@pytest.mark.parametrize("bad, message", [
    ({"motors": ["pan", "tilt"]}, "action_features"), ({"action_features": {"left_a.pos": float, "left_gripper.pos": float,
     "right_gripper.pos": float}}, "action_features"), ({"motors": ["pan", "gripper"], "action_features": dict.fromkeys(
         ["left_pan.pos", "left_gripper.pos", "right_pan.pos", "right_gripper.pos", "x.vel"], float)}, "action_features")])
def test_lerobot_robots_that_are_not_two_arms_in_degrees_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        LeRobotRobot(type("Odd", (Follower,), bad)())
    with pytest.raises(ValueError, match="use_degrees"):
        LeRobotRobot(Follower(use_degrees=False))


def test_a_lerobot_robot_is_driven_and_recorded_like_any_other():
    bare, clock = Follower(), SimulatedTime()
    safety = Safety(joint_step=0.02, ramp_steps=1)
    with SafeRobot(LeRobotRobot(bare), safety, clock.now, thread=False) as robot:
        referee = SimpleNamespace(over=lambda: len(bare.goals) >= 6, subtask=lambda: "lift", outcome=lambda: (True, [True]))
        run = drive(Station(robot, Task("lift", "lift it", 50), referee), rising(6), 4, hz=50, lead=1, clock=clock,
                    start=background(clock, 0.0))
    e, = run.episodes
    order = [list(bare.action_features).index(name) for name in robot.names]
    goals = np.array([list(goal.values()) for goal in bare.goals])[:6, order]          # the last one is the hold
    assert run.error is None and np.allclose(e.actions, goals * np.tile([np.pi / 180, np.pi / 180, 0.01], 2), atol=1e-6)
    assert e.observations["left_wrist"].shape == (6, 5, 7, 3) and (e.observations["left_wrist"][:, 0, 0, 2] == range(6)).all()


# ---------------------------------------------------------------- pacing and chunks

def test_pacing_does_not_drift_whatever_the_ticks_cost():
    clock = SimulatedTime()
    sleep, rng = clock.sleep_until, np.random.default_rng(0)
    clock.sleep_until = lambda deadline: (sleep(deadline), setattr(clock, "t", clock.t + 0.0007))    # a sleep always overshoots
    pacer = Pacer(50, clock)
    for k in range(1, 5001):
        clock.t += rng.uniform(0, 0.019)
        pacer.wait()
        assert abs(clock.t - (pacer.start + k * 0.02)) <= 0.0008
    assert pacer.missed == 0


def test_a_late_tick_is_skipped_and_the_grid_kept():
    clock = SimulatedTime()
    pacer = Pacer(50, clock)
    clock.t = 0.035                                        # 15 ms after the deadline of tick 1: it begins at once
    pacer.wait()
    assert clock.t == 0.035 and pacer.missed == 0
    clock.t = 0.105                                        # 65 ms after the deadline of tick 2: it is skipped, and 3, 4, 5
    pacer.wait()
    assert clock.t == pytest.approx(0.12) and pacer.missed == 4
    pacer.wait()
    assert clock.t == pytest.approx(0.14)


def background(clock, delay):
    return lambda call: Later(clock, delay, call)


def counting(log, H=8):
    """A policy whose chunk c has the entries 100 c + (0 ... H - 1); keeps (first entry seen, frozen) in log."""
    def policy(observation, live, frozen):
        log.append((observation["state"][0, 0], None if frozen is None else frozen[0, :, 0].tolist()))
        return np.repeat(100.0 * len(log) + np.arange(H)[None, :, None], 2, axis=2)
    return policy


def walk(chunks, clock, n):
    """Call chunks.next for n steps of 20 ms; the observation is the step."""
    out = []
    for t in range(n):
        a = chunks.next(t, {"state": np.array([[t]])}, np.ones(1, bool), np.zeros(1, bool))
        out.append(None if a is None else a[0, 0])
        clock.t += 0.02
    return out


def test_blocking_chunks_are_executed_for_the_first_steps_and_then_replaced():
    log, clock = [], SimulatedTime()
    assert walk(Chunks(counting(log), 3), clock, 8) == [100, 101, 102, 200, 201, 202, 300, 301]
    assert log == [(0, None), (3, None), (6, None)]


def test_real_time_chunks_are_asked_for_ahead_with_the_frozen_prefix_and_never_wait():
    log, clock = [], SimulatedTime()
    out = walk(Chunks(counting(log), 4, lead=2, start=background(clock, 0.035)), clock, 12)
    # asked for at 2, 6, 10; in force from 4, 8, 12, with the entry of that step
    assert out == [100, 101, 102, 103, 202, 203, 204, 205, 302, 303, 304, 305]
    assert log[0] == (0, None)
    assert [frozen for _, frozen in log[1:]] == [[102, 103], [204, 205]] and [t for t, _ in log] == [0, 2, 6]


def test_a_late_chunk_lets_the_old_one_go_on_and_comes_in_where_it_should():
    log, clock = [], SimulatedTime()
    out = walk(Chunks(counting(log), 4, lead=2, start=background(clock, 0.09)), clock, 9)      # 5 steps instead of 2
    assert out[:9] == [100, 101, 102, 103, 104, 105, 106, 205, 206]


def test_a_policy_of_a_second_makes_the_arm_stand_and_go():
    """Chunks that come after their time are thrown away; those asked for while standing are executed from the start."""
    log, clock = [], SimulatedTime()
    chunks = Chunks(counting(log), 4, lead=2, start=background(clock, 1.0))
    out = walk(chunks, clock, 130)
    assert out[:8] == [*range(100, 108)] and out[8] is None
    first = next(t for t in range(9, 130) if out[t] is not None)
    assert out[first] % 100 == 0 and out[first:first + 8] == [out[first] + k for k in range(8)]
    assert out.count(None) > 60


def test_a_chunk_of_the_wrong_shape_is_an_error_that_says_so():
    for chunk, n in ((np.zeros((1, 3, 2)), 1), (np.zeros((2, 8, 2)), 1), (np.zeros((8, 2)), 8), ("no", 1)):
        with pytest.raises(ValueError, match="chunk of shape"):
            Chunks(lambda *x: chunk, 4).next(0, {}, np.ones(n, bool), np.zeros(n, bool))
    with pytest.raises(ValueError, match="6 or more"):       # 4 to execute, and 2 while the next one is computed
        Chunks(lambda *x: np.zeros((1, 5, 2)), 4, lead=2).next(0, {}, np.ones(1, bool), np.zeros(1, bool))
    for lead in (-1, 4):
        with pytest.raises(ValueError, match="lead"):
            Chunks(None, 4, lead)


def test_the_future_of_a_background_call_brings_its_result_or_its_error():
    assert hardware.in_background(lambda: threading.current_thread().daemon).result(20) is True
    with pytest.raises(ZeroDivisionError):
        hardware.in_background(lambda: 1 / 0).result(20)


# ---------------------------------------------------------------- frozen prefix in the policy

def test_a_chunk_begins_with_its_frozen_prefix_and_fits_it():
    """Data with a constant chunk c ~ N(0, 1): the exact posterior mean is known, and so is what fits a prefix."""
    policy, B = VLA(), 400

    def field(context, a, eta):                      # a (B, R, H, A), eta (B, R)
        eta, H = eta[..., None, None], a.shape[2]
        c = eta / (1 - eta) ** 2 * a.sum(2, keepdim=True) / (1 + H * eta ** 2 / (1 - eta) ** 2)
        return (a - c) / (1 - eta)
    policy.field, policy.context, policy.hidden_states = field, lambda *x: None, lambda *x: None
    seen, ids = {"state": torch.zeros(B, 6), "keypoints": torch.zeros(B, 4, 20)}, torch.zeros(B, 5, dtype=torch.long)
    g = torch.Generator().manual_seed(0)
    omega = torch.randn(B, 8, 6, generator=g)
    frozen = torch.randn(B, 1, 6, generator=g).expand(B, 4, 6)
    free = sample_actions(policy, seen, ids, ids[:, :2], steps=20, omega=omega)
    held = sample_actions(policy, seen, ids, ids[:, :2], steps=20, omega=omega, frozen=frozen)
    assert torch.equal(held[:, :4], frozen)
    fit = lambda x: np.corrcoef(frozen[:, 0].flatten(), x[:, 4:].mean(1).flatten())[0, 1]
    assert abs(fit(free)) < 0.1 and fit(held) > 0.8


# ---------------------------------------------------------------- the loop: a fleet, and recap.collect through it

def reference_collect(s, spec, seeds, policy=None, beta=1.0, indicator=True, operator_skill=None, coach=False):
    """`recap.collect` written out: one loop over everything.  -> [(observations, actions, subtask, intervention, success)]"""
    world, n = World(spec, seeds), len(seeds)
    operator, gate, taken = Operator(world, seeds, COACH if coach else operator_skill or MIXED), Gate(world), np.zeros(n, bool)
    if policy is not None:
        g = recap.generator(s.seed, f"rollout 0 {coach} {n} {beta}")
        prompt, subtask = torch.tensor([encode(spec.prompt, 5)] * n), torch.zeros(n, 2, dtype=torch.long)
        chunk = np.zeros((n, 8, 6))
    rows = [[] for _ in seeds]
    for t in range(spec.max_steps):
        seen, live = world.observe(), ~world.done
        if not live.any():
            break
        if coach:
            taken = gate.update(world) | (taken & (t % s.execute != 0))
        if policy is None:
            actions = operator.act(world)
        else:
            if t % s.execute == 0:
                o = {key: torch.as_tensor(x)[live] for key, x in seen.items()}
                if t % (s.execute * s.subtask_every) == 0:
                    subtask[live] = predict_subtask(policy, o, prompt[live])
                omega = torch.randn(n, 8, 6, generator=g)[live]
                chunk[live] = sample_actions(policy, o, prompt[live], subtask[live], indicator, beta, s.euler, omega).numpy()
            actions = np.where(taken[:, None], operator.act(world), chunk[:, t % s.execute])
        words = world.subtasks()
        for i in np.flatnonzero(live):
            rows[i].append((seen["state"][i], seen["keypoints"][i], actions[i].astype(np.float32), words[i], taken[i]))
        world.step(actions.astype(np.float32))
    return [tuple(map(np.array, zip(*row))) + (bool(ok),) for row, ok in zip(rows, world.success)]


@pytest.mark.parametrize("kind", ["operator", "policy", "coach"])
def test_collect_through_the_loop_is_collect_bit_for_bit(kind):
    torch.manual_seed(0)
    s, seeds = Settings(execute=3, subtask_every=2), [5, 6, 7, 8, 9]
    spec = sim_tasks.TASKS["fold_shirt" if kind == "coach" else "fold_collar"]
    how = {"operator": dict(operator_skill=MIXED), "policy": dict(policy=VLA().eval(), beta=2.0, indicator=False),
           "coach": dict(policy=VLA().eval(), coach=True)}[kind]
    episodes, expected = collect(s, spec, seeds, **how), reference_collect(s, spec, seeds, **how)
    for e, (state, keypoints, actions, subtask, taken, success) in zip(episodes, expected):
        assert np.array_equal(e.observations["state"], state) and np.array_equal(e.observations["keypoints"], keypoints)
        assert np.array_equal(e.actions, actions) and e.actions.dtype == np.float32
        assert np.array_equal(e.subtask, subtask) and np.array_equal(e.intervention, taken) and e.success == success
    if kind == "coach":            # some are over, and some in the operator's hands, while others are not
        assert len({len(e) for e in episodes}) > 1 and len({e.intervention[:60].sum() for e in episodes}) > 1
    else:
        assert not any(e.intervention.any() for e in episodes)


def test_a_copy_does_not_notice_that_another_is_over():
    """The noise is drawn for all, so that what one copy gets does not depend on who else is still at it."""
    torch.manual_seed(0)
    policy, spec = VLA().eval(), sim_tasks.TASKS["fold_shirt"]
    seen, live = World(spec, [1, 2, 3]).observe(), np.array([False, True, True])
    act = lambda who: recap.Actor(Settings(), [spec.prompt] * 3, policy, g=torch.Generator().manual_seed(0))(seen, who)
    assert np.allclose(act(live)[1:], act(live | True)[1:], atol=1e-5) and not act(live)[0].any()


def test_an_actor_begins_every_episode_with_a_new_subtask(monkeypatch):
    """Chunks per ℓ̂ are counted from the beginning of the episode, not across episodes."""
    s, spec, predicted = Settings(subtask_every=2), sim_tasks.TASKS["fold_shirt"], []
    monkeypatch.setattr(recap, "predict_subtask", lambda policy, seen, prompt: predicted.append(1) or torch.zeros(1, 2, dtype=torch.long))
    act, seen = recap.Actor(s, [spec.prompt], VLA().eval()), World(spec, [1]).observe()
    for _ in range(2):                       # two episodes of three chunks: ℓ̂ before the first and the third of each
        act.begin()
        for _ in range(3):
            act(seen, np.array([True]))
    assert len(predicted) == 4


def test_collect_passes_on_what_went_wrong():
    def broken(*x):
        raise MemoryError("no")
    policy = VLA().eval()
    policy.hidden_states = broken
    with pytest.raises(MemoryError):
        collect(Settings(), sim_tasks.TASKS["fold_collar"], [1, 2], policy)


def test_a_fleet_that_is_interrupted_keeps_its_episodes_unlabelled():
    world, calls = World(sim_tasks.TASKS["fold_collar"], [1, 2, 3]), []
    operator = Operator(world, [1, 2, 3], BEST)

    def policy(observation, live, frozen):
        calls.append(live)
        if len(calls) > 10:
            raise RuntimeError("enough")
        return operator.act(world)[:, None]
    run = drive(Fleet(world), policy, 1)
    assert [len(e) for e in run.episodes] == [10] * 3 and all(e.success is None for e in run.episodes)
    assert str(run.error) == "enough"


# ---------------------------------------------------------------- the loop: one robot in real time

def rising(A, H=8):
    """A policy that raises every entry by 0.01 per step from where it sees it."""
    return lambda observation, live, frozen: observation["state"][:, None] + 0.01 * np.arange(1, H + 1)[None, :, None] * np.ones(A)


class Script:
    """Operator and referee: in control at the given steps, acts `value`; over after `length` steps; says `success`."""

    def __init__(self, steps=(), value=-0.5, length=40, success=True, answers=()):
        self.steps, self.value, self.length, self.answers = set(steps), value, length, list(answers) or [success]
        self.t = -1                                          # asked once at the beginning of every step

    def over(self):
        self.t += 1
        return self.t >= self.length

    def wants_control(self, observation):
        return np.array([self.t in self.steps])

    def act(self, observation):
        return np.full(observation["state"].shape, self.value)

    def subtask(self):
        return "lift"

    def outcome(self):
        return self.answers.pop(0), [True]


def rig(script, policy=None, safety=WIDE, delay=0.01, arms=None, limit=100, operator=True, **how):
    """Drive simulated arms of one joint at 50 Hz of simulated time.  -> (run, arms, robot)"""
    clock = SimulatedTime() if arms is None else arms.clock
    arms = arms or Still(safety, clock)
    robot = safe(arms, safety)
    run = drive(Station(robot, Task("lift", "lift it", limit), script), policy or rising(4), 4, script if operator else None,
                hz=50, lead=2, clock=clock, start=background(clock, delay), **how)
    return run, arms, robot


def test_an_undisturbed_episode_is_on_time_recorded_and_labelled():
    run, arms, robot = rig(Script(length=40), operator=False)
    e, = run.episodes
    assert run.error is None and run.stalls == run.missed == 0 and e.success is True and e.source == "autonomous"
    assert np.allclose(np.diff(run.sent_at), 0.02, atol=1e-9) and len(e) == 40 and len(run.latencies) == 10
    assert np.array_equal(e.actions, np.array(arms.received, np.float32)) and not e.intervention.any()
    assert np.allclose(e.observations["state"][1:], e.actions[:-1])          # they go where they are sent
    assert arms.held and arms.log.count("hold") == 1


def test_chunk_boundaries_are_seamless_for_a_policy_that_heeds_the_prefix():
    """It continues from its last committed action; with it, the sent actions rise by 0.01 in every single step."""
    def heeds(observation, live, frozen):
        first = observation["state"][:, None] + 0.01 if frozen is None else frozen[:, :1]
        return first + 0.01 * np.arange(8)[None, :, None]
    run, arms, _ = rig(Script(length=40), heeds, operator=False)
    assert np.allclose(np.diff(run.episodes[0].actions[:, 0]), 0.01, atol=1e-6)


def test_the_recorded_action_is_the_one_sent():
    safety = Safety(ramp_steps=1, joint_step=0.004)
    run, arms, robot = rig(Script(length=20), safety=safety, operator=False)
    assert np.allclose(np.diff(run.episodes[0].actions[:, 0]), 0.004, atol=1e-6) and robot.clamped == 20       # asked: 0.01
    stubborn = Still(WIDE)                                   # ... nor what the safe robot wanted, if the robot clips again
    send = stubborn.send_action
    stubborn.send_action = lambda action: send({name: min(x, 0.05) for name, x in action.items()})
    run, arms, _ = rig(Script(length=20), arms=stubborn, operator=False)
    assert run.episodes[0].actions[:, 0].max() == np.float32(0.05)


def test_a_takeover_in_the_middle_of_a_chunk_lasts_to_the_next_chunk():
    """He wants control in steps 6 and 7: in force at once, handed back with the chunk of step 8; 13 lasts to 15."""
    run, arms, _ = rig(Script(steps={6, 7, 13}, value=0.3, length=24))
    e, = run.episodes
    assert np.flatnonzero(e.intervention).tolist() == [6, 7, 13, 14, 15] and e.source == "corrected"
    assert np.array_equal(np.isclose(e.actions[:, 0], 0.3), e.intervention)


def test_after_a_takeover_the_policy_is_not_told_of_a_prefix_that_never_was():
    seen = []

    def policy(observation, live, frozen):
        seen.append(frozen is None)
        return rising(4)(observation, live, frozen)
    rig(Script(steps={5, 6, 7}, length=13), policy)
    assert seen == [True, False, True, False]                # step 0, 2, 6 (taken over), 10


def test_a_takeover_in_the_last_step_is_recorded():
    run, arms, _ = rig(Script(steps={39}, value=0.3, length=40))
    e, = run.episodes
    assert len(e) == 40 and e.success and np.flatnonzero(e.intervention).tolist() == [39] and np.isclose(e.actions[-1, 0], 0.3)
    run, arms, _ = rig(Script(steps={99}, value=0.3, length=1000, success=False), limit=100)        # the last of the limit
    assert len(run.episodes[0]) == 100 and run.episodes[0].intervention[-1] and run.episodes[0].success is False


def test_a_slow_policy_makes_the_arm_stand_at_its_last_target_and_the_episode_goes_on():
    run, arms, robot = rig(Script(length=90), delay=1.0, operator=False)
    e, = run.episodes
    assert run.error is None and e.success and len(e) == 90 and run.stalls > 40
    still = (np.diff(e.actions, axis=0) == 0).all(1)
    assert still.sum() >= run.stalls - 1 and (np.diff(e.actions, axis=0) >= -1e-6).all()
    assert np.allclose(np.diff(run.sent_at), 0.02, atol=1e-9)       # commands every tick
    assert "hold" not in arms.log[:-1]                       # the watchdog is fed


def test_a_late_observation_costs_ticks_and_the_robot_eases_in_again():
    arms = Still(Safety(), SimulatedTime())
    look, spent = arms.get_observation, []

    def late():
        if arms.t == 31 and not spent:
            spent.append(arms.clock.t)
            arms.clock.t += 0.77
        return look()
    arms.get_observation = late
    run, arms, robot = rig(Script(length=60), safety=Safety(ramp_steps=25), arms=arms, operator=False)
    e, = run.episodes
    assert run.error is None and e.success and len(e) == 60 and 37 <= run.missed <= 40
    gaps = np.diff(run.sent_at)
    assert gaps.max() > 0.7 and (gaps > 0.0199).sum() >= 58          # one long gap, no burst
    k = int(np.argmax(gaps))
    assert arms.log[k + 1:k + 3] == ["hold", "send"] and abs(e.actions[k + 1, 0] - e.actions[k, 0]) <= 0.04 / 25 + 1e-6


class Fault(Exception):
    """Ours, not the robot's."""


def broken_policy(kind, at=3):
    calls = []

    def policy(observation, live, frozen):
        calls.append(kind)
        if len(calls) >= at:
            if kind == "raises":
                raise Fault("policy")
            return {"nan": np.full((1, 8, 4), np.nan), "inf": np.full((1, 8, 4), np.inf), "shape": np.zeros((1, 8, 3)),
                    "short": np.zeros((1, 2, 4)), "none": None, "text": "garbage"}[kind]
        return rising(4)(observation, live, frozen)
    return policy


@pytest.mark.parametrize("kind", ["raises", "nan", "inf", "shape", "short", "none", "text"])
def test_a_policy_that_raises_or_returns_garbage_ends_in_a_hold_and_the_episode_is_kept(kind):
    run, arms, robot = rig(Script(length=40, success=False), broken_policy(kind), operator=False)
    e, = run.episodes
    assert isinstance(run.error, Fault if kind == "raises" else (CommandRejected, ValueError, TypeError))
    assert arms.held and arms.log[-1] == "hold"
    assert len(e) == 8 and np.array_equal(e.actions, np.array(arms.received, np.float32)) and e.success is False
    run, arms, robot = rig(Script(length=40), broken_policy(kind, at=1), operator=False)      # in the very first call
    assert run.error is not None and run.episodes == [] and arms.held and "send" not in arms.log


@pytest.mark.parametrize("fault, error", [("disconnect", ConnectionError), ("freeze", BadObservation), ("nan", BadObservation)])
def test_a_robot_that_fails_in_mid_episode_ends_in_a_hold_and_the_episode_is_kept(fault, error):
    arms = Still(WIDE)
    look = arms.get_observation

    def failing():
        arms.fault = fault if arms.t > 20 else None
        return look()
    arms.get_observation = failing
    run, arms, robot = rig(Script(length=90, success=False), arms=arms, operator=False)
    e, = run.episodes
    assert isinstance(run.error, error) and arms.held and e.success is False
    assert len(e) == len(arms.received) and 19 <= len(e) <= 50


def test_a_robot_that_cannot_even_be_held_any_more_loses_nothing():
    arms = Still(WIDE)
    send = arms.send_action

    def gone(*action):
        raise ConnectionError("gone")

    def sending(action):
        if len(arms.received) == 12:
            arms.get_observation = arms.send_action = arms.hold = gone
            gone()
        return send(action)
    arms.send_action = sending
    run, _, _ = rig(Script(length=40), arms=arms, operator=False)
    assert isinstance(run.error, ConnectionError) and len(run.episodes[0]) == 12


def test_an_operator_who_fails_the_emergency_stop_and_ctrl_c_end_in_a_hold_too():
    for stop in (lambda robot: (_ for _ in ()).throw(Fault("leader")), lambda robot: robot.estop(),
                 lambda robot: (_ for _ in ()).throw(KeyboardInterrupt())):
        script, arms = Script(length=40, success=False), Still(WIDE)
        robot = safe(arms, WIDE)
        wants = script.wants_control
        script.wants_control = lambda observation: (stop(robot) if script.t == 14 else None, wants(observation))[1]
        run = drive(Station(robot, Task("lift", "lift it", 100), script), rising(4), 4, script, hz=50, lead=2, clock=arms.clock,
                    start=background(arms.clock, 0.01))
        assert isinstance(run.error, (Fault, EmergencyStop, KeyboardInterrupt)) and len(run.episodes[0]) == 14
        assert arms.held and arms.log[-1] in ("hold", "estop") and run.episodes[0].success is False


def test_the_robot_is_held_before_anybody_is_asked_and_without_an_answer_the_episode_stays():
    arms, script = Still(WIDE), Script(length=10)

    def nobody():
        assert arms.held
        raise EOFError
    script.outcome = nobody
    run, arms, _ = rig(script, arms=arms, operator=False)
    assert isinstance(run.error, EOFError) and run.episodes[0].success is None and len(run.episodes[0]) == 10


def test_discard_and_redo(tmp_path):
    """redo, yes, no, then an error: three scenes, one of them twice; every episode is yielded before anything is raised."""
    arms, begun = Still(WIDE), []
    script = Script(answers=[REDO, True, False, True])
    policy, where, told = rising(4), str(tmp_path / "d.npz"), []
    policy.begin = lambda: told.append(len(begun))      # a policy that wants to know is told before each

    def begin(i):
        begun.append(i)
        script.t, script.length, arms.pose = -1, 10, np.full(4, 0.1)
        script.steps = {4} if i == 2 else set()
        return script

    def act(observation):
        raise Fault("leader")
    script.act = act
    station, kept = Station(safe(arms, WIDE), Task("lift", "lift it", 100), script), []
    with pytest.raises(Fault):
        for run in record(station, begin, policy, 5, execute=4, hz=50, lead=2, clock=arms.clock, start=background(arms.clock, 0.0)):
            kept += run.episodes
            hardware.save_dataset(kept, where)
    assert begun == [0, 0, 1, 2] and told == [0, 1, 2, 3] and [(e.success, len(e)) for e in load_dataset(where)] == [(True, 10), (False, 10), (True, 4)]


# ---------------------------------------------------------------- operators

def test_the_hasty_policy_is_corrected_once_and_does_the_rest_itself():
    """The demonstration of hardware.py in simulated time: a real takeover on a simulated robot, and a success."""
    for task in ("FoldShirt", "FoldCollar", "Box"):
        bare, clock = SimRobot(f"SimTasks/{task}-v0", seed=1), SimulatedTime()
        with SafeRobot(bare, Safety(**bare.limits), clock.now, thread=False) as robot:
            run = drive(Station(robot, bare.task, bare), hasty, 4, ScriptedOperator(bare.world, [1]), hz=50, lead=2, clock=clock,
                        start=background(clock, 0.005))
        e, = run.episodes
        assert run.error is None and e.success and e.stages.all() and 0.1 < e.intervention.mean() < 0.9
        takeovers = np.flatnonzero(np.diff(np.append(False, e.intervention).astype(int)) == 1)
        assert len(takeovers) == 1 and e.subtask[takeovers[0]] == bare.task.stages[0].subtask
        world = World(bare.task, [1])                      # the episode replays to the same observations
        for t in range(len(e)):
            assert np.array_equal(world.observe()["state"][0], e.observations["state"][t])
            world.step(e.actions[t][None])
        assert world.success[0]


def test_a_person_takes_over_moves_either_arm_and_ends_the_episode():
    keys, arms = [], Still(joints=2)
    robot = safe(arms)
    person = Person(robot, lambda: keys.pop(0) if keys else "", ask=lambda text: "n", subtask="lift")
    seen = {"state": np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]])}
    for pressed, control in (("qa", False), (" q", True), ("qs", True), ("\te", True), ("jx", True)):
        keys.append(pressed)
        assert person.wants_control(seen).tolist() == [control]
    assert np.allclose(person.act(seen), [[0.18, 0.16, 0.3, 0.4, 0.5, 0.64]])        # j moves no joint of so small an arm
    with pytest.raises(EmergencyStop):
        robot.send_action(command(arms, 0.0))
    keys.append(" \n")
    assert person.wants_control(seen).tolist() == [False] and person.over() and person.outcome() == (False, [])
    person.begin()
    assert not person.over()


def test_the_label_is_asked_for_until_it_is_understood():
    for answers, expected in ((["", "what", "Yes"], True), (["no"], False), (["x", "r"], REDO)):
        assert ask_outcome(lambda text, left=iter(answers): next(left)) is expected


class TeleopEvents(Enum):
    """The names and values of LeRobot's."""
    SUCCESS = "success"
    FAILURE = "failure"
    RERECORD_EPISODE = "rerecord_episode"
    IS_INTERVENTION = "is_intervention"
    TERMINATE_EPISODE = "terminate_episode"


class Leader:
    """A teleoperator with LeRobot's documented methods: get_action in degrees and 0-100, get_teleop_events."""

    def __init__(self, *rounds):
        self.rounds, self.connected = list(rounds), False

    def connect(self, calibrate=True):
        self.connected = True

    def disconnect(self):
        self.connected = False

    def get_action(self):
        if not self.connected:
            raise DeviceNotConnectedError
        return {"left_0.pos": 90.0, "left_gripper.pos": 25.0, "right_0.pos": -45.0, "right_gripper.pos": 100.0}

    def get_teleop_events(self):
        return dict.fromkeys(TeleopEvents, False) | {event: True for event in (self.rounds.pop(0) if self.rounds else ())}


def test_a_leader_arm_takes_over_in_its_own_units_and_labels_the_episode():
    takeover = [TeleopEvents.IS_INTERVENTION]
    teleop, arms = Leader([], [], takeover, takeover, [], [], [TeleopEvents.SUCCESS]), Still(WIDE)
    with LeaderArm(teleop, arms.names) as leader:
        run, arms, _ = rig(leader, arms=arms)
    e, = run.episodes
    assert not teleop.connected and e.success is True and len(e) == 7 and run.error is None
    assert np.flatnonzero(e.intervention).tolist() == [2, 3]
    assert np.allclose(e.actions[2], [np.pi / 2, 0.25, -np.pi / 4, 1.0])


@pytest.mark.parametrize("event, asked, outcome", [("SUCCESS", False, True), ("FAILURE", False, False),
                                                   ("RERECORD_EPISODE", False, REDO), ("TERMINATE_EPISODE", True, False)])
def test_the_events_of_a_leader_end_the_episode(event, asked, outcome):
    questions = []
    leader = LeaderArm(Leader([], [TeleopEvents[event]]), [], ask=lambda text: questions.append(text) or "n")
    leader.wants_control({})
    assert not leader.over()
    leader.wants_control({})
    assert leader.over() and leader.outcome()[0] is outcome and bool(questions) == asked
    leader.begin()
    assert not leader.over()


def test_a_leader_that_disconnects_is_no_worse_than_a_robot_that_does():
    teleop = Leader([], [], [], [TeleopEvents.IS_INTERVENTION])       # never connected
    run, arms, _ = rig(LeaderArm(teleop, ["left_0.pos"], ask=lambda text: "n"))
    assert isinstance(run.error, ConnectionError) and arms.held and len(run.episodes[0]) == 3 and run.episodes[0].success is False


# ---------------------------------------------------------------- the command line

def test_the_demonstration_runs_and_saves(tmp_path, capsys, monkeypatch):
    clock = SimulatedTime()
    monkeypatch.setattr(hardware.drive, "__defaults__", tuple(clock if isinstance(x, hardware.Clock) else x
                                                              for x in hardware.drive.__defaults__))
    monkeypatch.setattr(hardware, "in_background", hardware.at_once)
    out = str(tmp_path / "demo.npz")
    assert hardware.main(["--robot", "sim:FoldCollar", "--episodes", "2", "--out", out]) == 0
    episodes = load_dataset(out)
    assert [e.success for e in episodes] == [True, True] and all(e.intervention.any() for e in episodes)
    text = capsys.readouterr().out
    assert "50.000 Hz" in text and "clamped" in text and text.count("outcome   success") == 2


def test_what_the_command_line_cannot_do_it_says(capsys):
    for argv, message in ((["--robot", "ros:x"], "--robot: ros:x"), (["--robot", "sim:Nothing"], "Nothing"),
                          (["--robot", "lerobot:no_such_module:f"], "no_such_module"), (["--policy", "recap:nothing"], "nothing")):
        assert hardware.main(argv) == 2
        assert message in capsys.readouterr().err

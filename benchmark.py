"""Speed and latency, all measured in one run: compare the ratios, not the milliseconds of two machines.

    python benchmark.py              about a minute
    python benchmark.py --loop 600   the control loop at 50 Hz on the wall clock for that many seconds, policy at β = 2
    python benchmark.py --fuzz       a million random and malicious commands to the safe robot: about a minute
    python benchmark.py --soak       13 hours at 50 Hz in simulated time, faults at random: several minutes

The first prints: milliseconds per training step of policy and value function against batch size and sequence length, with the
share of this machine's matrix-product speed that they reach; milliseconds per sampled chunk; world steps per second;
and what the action tokens lose against how many there are.  Medians of repeated calls after a warm-up.
"""
import argparse
import statistics
import time
from dataclasses import replace

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import recap
import sim_tasks
from adapters import SimRobot, to_vector
from hardware import (BadObservation, CommandRejected, EmergencyStop, Safety, SafeRobot, Station, Task, drive, report as
                      figures)
from policy import PolicyConfig, VLA, predict_subtask, sample_actions
from recap import Settings, demonstrate, stack_steps
from sim_tasks.arms import World
from sim_tasks.demonstrator import BEST, MIXED, Operator
from value import ValueFunction, value_loss


def milliseconds(call, seconds=1.0):
    """Median duration of `call()` over about `seconds`, after three warm-up calls."""
    for _ in range(3):
        call()
    durations, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(durations) < 5:
        begun = time.perf_counter()
        call()
        durations.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(durations)


def matmul_speed(n=768):
    """Floating-point operations per second of one large matrix product: this machine's yardstick."""
    a = torch.randn(n, n)
    return 2 * n ** 3 / (milliseconds(lambda: a @ a) / 1e3)


def step_of(network, loss):
    """One training step as a callable: forward, backward, clipped AdamW."""
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return step


def report(name, step, yardstick):
    with FlopCounterMode(display=False) as counter:
        step()
    ms = milliseconds(step)
    print(f"{name:<48} {ms:7.1f} ms {counter.get_total_flops() / (ms / 1e3) / yardstick:7.0%} of the matrix product")


def training_steps(episodes, yardstick):
    print("\ntraining step (forward, backward, AdamW)")
    for n_coefficients in (1, 2, 4):
        config = PolicyConfig(n_coefficients=n_coefficients)
        for B in (16, 32, 64, 128):
            if n_coefficients != 2 and B != 32:
                continue          # sequence length at the default batch, batch size at the default length
            policy, s = VLA(config), Settings()
            steps = stack_steps(episodes)
            policy.fit_normalizer(steps["actions"], steps["state"])
            batch = {key: x[:B] for key, x in steps.items()}
            batch["chunk"] = policy.normalize(batch.pop("actions"), batch["state"])
            batch |= {"tokens": policy.tokenizer.encode(batch["chunk"]), "positive": torch.ones(B).bool(),
                      "omit": torch.rand(B) < 0.3}
            omega, eta = torch.randn(B, s.draws, *batch["chunk"].shape[1:]), torch.rand(B, s.draws) * 0.9
            report(f"policy, batch {B} x {s.draws} draws, {len(policy.mask)} tokens",
                   step_of(policy, lambda: recap.eq3_loss(policy, batch, omega, eta)), yardstick)
    for B in (64, 256, 1024):
        value, steps = ValueFunction(), stack_steps(episodes)
        batch, R = {key: x[:B] for key, x in steps.items()}, -torch.rand(B)
        report(f"value, batch {B}", step_of(value, lambda: value_loss(value(batch, batch["prompt"]), R)), yardstick)


def latencies(episodes):
    print("\nsampling a chunk (backbone, 5 Euler steps), and the subtask before it")
    policy, steps = VLA().eval(), stack_steps(episodes)
    for B in (1, 32):
        batch = {key: x[:B] for key, x in steps.items()}
        for beta in (1.0, 2.0):
            ms = milliseconds(lambda: sample_actions(policy, batch, batch["prompt"], batch["subtask"], True, beta))
            print(f"chunk, batch {B}, β = {beta:<37} {ms:7.1f} ms")
        print(f"subtask, batch {B:<38} {milliseconds(lambda: predict_subtask(policy, batch, batch['prompt'])):7.1f} ms")


def world_speed():
    print("\nworld steps per second")
    for task in sim_tasks.TASKS.values():
        for n in (1, 100, 1000):
            world = World(task, list(range(n)))
            hold = Operator(world, list(range(n)), BEST).act(world)

            def step():
                world.t[:] = 0             # never out of time while we measure
                world.observe()
                world.step(hold)
            ms = milliseconds(step, 0.3)
            print(f"{task.name + f', {n} copies':<48} {n / ms * 1e3:9.0f} per second")


def token_loss(episodes):
    """Fixed truncation of the DCT: what is lost by keeping the lowest coefficients, in 32 bins each."""
    print("\naction tokens: root mean square error of the decoded chunk (unit variance)")
    steps = stack_steps(episodes)
    for n_coefficients in (1, 2, 3, 4, 8):
        policy = VLA(PolicyConfig(n_coefficients=n_coefficients))
        policy.fit_normalizer(steps["actions"], steps["state"])
        chunk = policy.normalize(steps["actions"], steps["state"])
        error = (policy.tokenizer.decode(policy.tokenizer.encode(chunk)) - chunk).pow(2).mean().sqrt()
        print(f"{n_coefficients} coefficients, {policy.n_action_tokens:2} tokens {'':<25} {error.item():7.3f}")


# ---------------------------------------------------------------- the driver: --loop, --fuzz, --soak

def control_loop(seconds, hz=50.0):
    """The untrained VLA on the wall clock: as fast as a trained one, and it never succeeds early.

    It asks for noise, jumps of about a radian: so `SafeRobot` bounds every command ("clamped").
    """
    bare, s, n = SimRobot("SimTasks/FoldShirt-v0"), Settings(), round(seconds * hz)
    bare.env.unwrapped.task = replace(bare.task, max_steps=n)
    policy = recap.Actor(s, [bare.task.prompt], VLA().eval(), beta=2.0)
    with SafeRobot(bare, Safety(**bare.limits)) as robot:
        run = drive(Station(robot, bare.env.unwrapped.task, bare), policy, s.execute, hz=hz, lead=2)
        print(figures(run, robot, hz))
    elapsed = run.sent_at[-1] - run.sent_at[0]
    print(f"drift     {1e3 * (elapsed - (len(run.sent_at) + run.missed - 1) / hz):.2f} ms after {elapsed:.1f} s")


class SimulatedTime:
    """A clock for `drive` that moves only when somebody sleeps, or when `t` is set."""
    t = 0.0              # s

    def now(self):
        return self.t

    def sleep_until(self, deadline):
        self.t = max(self.t, deadline)


class Later:
    """A Future of simulated time: `call` is done `delay` s after it was asked for."""

    def __init__(self, clock, delay, call):
        self.clock, self.at, self.call = clock, clock.t + delay, call

    def done(self):
        return self.clock.t >= self.at

    def result(self):
        self.clock.t = max(self.clock.t, self.at)
        return self.call()


class WatchedArms:
    """Arms of any number of joints that go where they are sent, give or take 0.005, and a judge of all that they are sent.

    `violations`: actions that were not finite, outside the limits, or further than a step from the last one (after a hold:
    from the pose, brought within the limits).  fault: what goes wrong at the next call: "disconnect", "late", "freeze",
    "nan" or None.
    """

    def __init__(self, safety, clock, joints=6, seed=0):
        self.names = [f"{side}_{part}.pos" for side in ("left", "right") for part in [*map(str, range(joints)), "gripper"]]
        self.action_features = dict.fromkeys(self.names, float)
        self.observation_features = self.action_features | {"base": (2, 2, 3)}
        both = lambda joint, gripper: np.tile([joint] * joints + [gripper], 2)
        self.low, self.high = both(safety.joint_low, 0.0), both(safety.joint_high, 1.0)
        self.step = both(safety.joint_step, safety.gripper_step)
        self.rng, self.clock = np.random.default_rng(seed), clock
        self.pose, self.last = both(0.0, 0.5), None
        self.is_connected, self.held, self.fault = True, True, None
        self.violations, self.received = 0, []

    def connect(self):
        self.is_connected = True

    def disconnect(self):
        self.is_connected = False

    def get_observation(self):
        self._check()
        if self.fault == "late":
            self.clock.t += self.rng.uniform(0, 1)
        pose = self.pose * np.nan if self.fault == "nan" else self.pose
        image = np.full((2, 2, 3), 7 if self.fault == "freeze" else self.rng.integers(256), np.uint8)
        image[0, 0, 0] = 0 if self.fault == "freeze" else len(self.received) % 251
        return dict(zip(self.names, pose)) | {"base": image}

    def send_action(self, action):
        self._check()
        a = to_vector(action, self.names)
        reference = np.clip(self.pose, self.low, self.high) if self.last is None else self.last
        self.violations += not ((a >= self.low).all() and (a <= self.high).all()
                                and (np.abs(a - reference) <= self.step + 1e-9).all())             # NaN counts, too
        self.last, self.held = a, False
        self.pose = a + self.rng.uniform(-0.005, 0.005, a.shape)
        self.received.append(a)
        return action

    def _check(self):
        if self.fault == "disconnect" or not self.is_connected:
            raise ConnectionError("the cable is out")

    def hold(self):
        self.last, self.held = None, True      # no exception even when the cable is out: servos hold by themselves

    def estop(self):
        self.hold()


def fuzz(n, joints=6, seed=0):
    """n commands to the safe robot: tame, wild and malicious ones, with holds, stops and pauses between.  -> counts

    In every other thousand nearly all are well-formed, so that the ramp is run through to its end.
    """
    rng, clock, safety = np.random.default_rng(seed), SimulatedTime(), Safety(joint_low=-2.0, joint_high=1.5)
    arms = WatchedArms(safety, clock, joints, seed)
    robot, names, stops = SafeRobot(arms, safety, clock.now, thread=False), arms.names, 0
    A, nothing = len(names), np.array([np.nan, np.inf, -np.inf])
    for begin in range(0, n, 1000):
        kinds, places = rng.integers(0, 12 if begin % 2000 else 1200, 1000), rng.integers(0, A, 1000)
        scales = 10.0 ** rng.uniform(-3, 8, (1000, 1))
        vectors = rng.normal(size=(1000, A)) * np.where(rng.random((1000, 1)) < 0.5, 1.0, scales)
        for kind, i, vector in zip(kinds.tolist(), places.tolist(), vectors[:n - begin]):
            if kind == 3:
                vector[i] = nothing[i % 3]
            elif kind == 4:
                vector[i] = (1.7e308, -1.7e308, 5e-324)[i % 3]
            elif kind == 5:
                vector = np.where(vector > 0, robot.high, robot.low)
            elif kind % 3 == 0:
                vector = arms.pose + 0.01 * np.tanh(vector)
            action = dict(zip(names, vector.tolist()))
            if kind == 0:
                del action[names[i]]
            elif kind == 1:
                action["left_elbow"] = 0.0
            elif kind == 2:
                action[names[i]] = (None, "0.1", vector, [0.1], 1j, 10 ** 400, True, {})[i % 8]
            elif kind == 6 and i == 0:
                robot.hold()
            elif kind == 7 and i == 0:
                robot.estop()
            clock.t += 0.5 if kind == 8 and i == 1 else 0.02
            try:
                robot.send_action(action)
            except CommandRejected:
                assert arms.held
            except EmergencyStop:
                assert arms.held
                stops += 1
                robot.reset()
            arms.received.clear()
    return {"commands": n, "sent": robot.commands, "clamped": robot.clamped, "rejected": robot.rejected, "holds": robot.holds,
            "stopped": stops, "violations": arms.violations}


class Random:
    """A policy, an operator and a referee that do anything at all; `fault`: what is wrong with the next chunk."""

    def __init__(self, rng, A):
        self.rng, self.A, self.fault, self.control, self.ends = rng, A, None, False, np.inf

    def policy(self, observation, live, frozen):
        if self.fault == "raise":
            raise RuntimeError("out of memory")
        if self.fault == "shape":
            return np.zeros((1, 8, self.A - 1))
        chunk = observation["state"][:, None] + np.cumsum(self.rng.normal(0, 0.05, (1, 8, self.A)), axis=1)
        return chunk * (np.nan if self.fault == "garbage" else 1)

    def wants_control(self, observation):
        if self.rng.random() < 0.01:
            self.control = not self.control
        if self.fault == "leader":
            raise ConnectionError("the leader's cable is out")
        return np.array([self.control])

    def act(self, observation):
        return observation["state"] + self.rng.normal(0, 0.1, (1, self.A))

    def over(self):
        self.ends -= 1
        return self.ends <= 0

    def subtask(self):
        return "anything"

    def outcome(self):
        return bool(self.rng.random() < 0.5), []


FAULTS = ["disconnect", "late", "freeze", "nan", "raise", "shape", "garbage", "slow", "leader", "estop"]


def soak(n, hz=50.0, seed=0):
    """Episodes of up to 1,000 ticks until n commands were sent; one fault begins about every 500 ticks.  -> counts

    AssertionError if a run is not held at its end, or an episode is not what the robot received.
    """
    rng, clock, safety = np.random.default_rng(seed), SimulatedTime(), Safety(joint_low=-2.0, joint_high=1.5)
    arms = WatchedArms(safety, clock, seed=seed)
    robot, actor, pending = SafeRobot(arms, safety, clock.now, thread=False), Random(rng, len(arms.names)), [None]
    station, counts = Station(robot, Task("soak", "do anything", 1000), actor), dict.fromkeys(["ticks", "episodes", *FAULTS], 0)

    def ticks():
        for t in range(1000):
            if rng.random() < 1 / 500:
                pending[0] = FAULTS[rng.integers(len(FAULTS))]
                counts[pending[0]] += 1
                arms.fault = actor.fault = pending[0]
                if pending[0] == "estop":
                    robot.estop()
            elif arms.fault in ("late", "slow") and rng.random() < 0.2:         # those that an episode survives
                arms.fault = actor.fault = None
            yield t
    while counts["ticks"] < n:
        arms.connect()
        robot.reset()
        arms.fault = actor.fault = pending[0] = None
        actor.control, actor.ends = False, rng.integers(1, 2000)
        arms.received.clear()
        run = drive(station, actor.policy, 4, actor, hz=hz, lead=2, clock=clock, ticks=ticks(),
                    start=lambda call: Later(clock, rng.uniform(0, 1.0 if arms.fault == "slow" else 0.03), call))
        ended_by_a_fault = pending[0] not in (None, "late", "slow", "freeze")
        assert arms.held and (ended_by_a_fault or run.error is None or isinstance(run.error, BadObservation)), run.error
        sent = np.array(arms.received, np.float32).reshape(-1, len(arms.names))
        kept = run.episodes[0] if run.episodes else None
        assert (kept is None and len(sent) == 0) or (np.array_equal(kept.actions, sent) and kept.success is not None)
        counts["ticks"] += len(sent)
        counts["episodes"] += len(run.episodes)
    return counts | {"holds": robot.holds, "clamped": robot.clamped, "violations": arms.violations}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loop", type=float, metavar="SECONDS", help="only the control loop at 50 Hz on the wall clock")
    parser.add_argument("--fuzz", type=int, nargs="?", const=1_000_000, metavar="N", help="only N commands to the safe robot")
    parser.add_argument("--soak", type=int, nargs="?", const=2_340_000, metavar="TICKS", help="only the soak in simulated time")
    args = parser.parse_args()
    if args.loop is not None:
        return control_loop(args.loop)
    if args.fuzz is not None or args.soak is not None:
        begun = time.perf_counter()
        print(fuzz(args.fuzz) if args.fuzz is not None else soak(args.soak), f"{time.perf_counter() - begun:.0f} s")
        return
    yardstick = matmul_speed()
    print(f"{torch.get_num_threads()} threads, matrix product {yardstick / 1e9:.0f} GFLOP/s")
    episodes = demonstrate(Settings(demonstrations=20), "fold_shirt", MIXED, "benchmark")
    training_steps(episodes, yardstick)
    latencies(episodes)
    world_speed()
    token_loss(episodes)


if __name__ == "__main__":
    main()

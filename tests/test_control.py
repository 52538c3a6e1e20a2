"""control.py: the plain loop, pacing, chunks ahead of their time, one robot, recording.

Time is simulated throughout.
"""
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import collection
import control
import sim_tasks
from benchmarks.driver import SimulatedTime
from collection import Actor, coach, demonstrate, roll_out
from control import REDO, Chunks, Pacer, drive, play, record
from data import generator
from driver import WIDE, Fault, Script, Still, background, rig, rising, safe
from hardware import (
    BadObservation,
    CommandRejected,
    EmergencyStop,
    SafeRobot,
    Safety,
    Station,
    Task,
)
from helpers import encode, toy_policy
from lab.files import load_dataset, save_dataset
from policy import predict_subtask, sample_actions
from robots.simulated import SimRobot
from settings import Settings
from sim_tasks.arms import World
from sim_tasks.demonstrator import (
    BEST,
    COACH,
    MIXED,
    Gate,
    Operator,
    ScriptedOperator,
    hasty,
)

# ---------------------------------------------------------------- play, in a world easy to follow

class Countdown:
    """n copies of a world without physics: copy i is over after `lengths[i]` steps.

    The state is (i, t); `stepped` keeps every action that came, (n, 2).
    """

    def __init__(self, lengths, max_steps=20):
        self.spec = SimpleNamespace(
            name="count", prompt="down", max_steps=max_steps, subtasks=("one", "two"), hz=12.5
        )
        self.lengths = np.array(lengths)
        self.n = len(lengths)
        self.t = 0
        self.stepped = []

    @property
    def done(self):
        return self.t >= self.lengths

    @property
    def success(self):
        return self.done & (self.lengths % 2 == 0)

    @property
    def stage(self):
        return np.where(self.success, 2, 1)

    def observe(self):
        copies = np.arange(self.n)
        return {"state": np.stack([copies, np.full(self.n, self.t)], axis=1).astype(np.float32)}

    def subtasks(self):
        return np.array([f"step {self.t}"] * self.n)

    def prompts(self):
        return np.array([f"down {i}" for i in range(self.n)])

    def step(self, actions):
        self.stepped.append(actions.copy())
        self.t += 1

class Counting:
    """A policy whose chunk c has the entries 100 c + (0 ... H - 1); keeps who was live."""

    def __init__(self, H=8):
        self.H = H
        self.live = []

    def __call__(self, observation, live):
        self.live.append(live.copy())
        entries = 100.0 * len(self.live) + np.arange(self.H)  # (H,)
        return np.tile(entries[None, :, None], (len(live), 1, 2))

class Hand:
    """An operator who wants copy i at the steps of `wants[i]`, and acts -1."""

    def __init__(self, *wants):
        self.wants = wants

    def wants_control(self, observation):
        t = observation["state"][0, 1]
        return np.array([t in steps for steps in self.wants])

    def act(self, observation):
        return -np.ones_like(observation["state"])

def test_episodes_of_different_lengths_are_cut_at_their_own_end():
    world = Countdown([3, 6, 20, 5])
    policy = Counting()
    episodes = play(world, policy, 4, source="autonomous", iteration=2, metadata=list("abcd"))
    assert [len(e) for e in episodes] == [3, 6, 20, 5]
    assert {e.hz for e in episodes} == {12.5}
    for i, e in enumerate(episodes):
        assert np.array_equal(e.observations["state"][:, 0], np.full(len(e), i))
        assert np.array_equal(e.observations["state"][:, 1], np.arange(len(e)))
        assert e.subtask.tolist() == [f"step {t}" for t in range(len(e))]
        even = len(e) % 2 == 0
        assert e.success is even
        assert e.stages.tolist() == [True, even]
        assert (e.task, e.prompt, e.max_length) == ("count", f"down {i}", 20)
        assert (e.source, e.iteration, e.metadata) == ("autonomous", 2, "abcd"[i])
    # The policy is told who is still at it: when chunks begin, at steps 0, 4, 8, 12 and 16.
    expected = [[n > t for n in (3, 6, 20, 5)] for t in (0, 4, 8, 12, 16)]
    assert [live.tolist() for live in policy.live] == expected

def test_a_chunk_is_carried_out_for_the_first_steps_and_then_replaced():
    (episode,) = play(Countdown([8]), Counting(), 3)
    assert episode.actions[:, 0].tolist() == [100, 101, 102, 200, 201, 202, 300, 301]
    assert not episode.intervention.any()

def test_a_takeover_in_play_ends_where_a_new_chunk_begins():
    """Copy 0 is wanted in steps 1 and 2: handed back at 4.  Copy 1 in 3 and 4: at 8.  2 never."""
    world = Countdown([12, 10, 12])
    episodes = play(world, Counting(), 4, Hand({1, 2}, {3, 4}, ()), source="corrected")
    taken = [np.flatnonzero(e.intervention).tolist() for e in episodes]
    assert taken == [[1, 2, 3], [3, 4, 5, 6, 7], []]
    for e in episodes:
        assert np.array_equal(e.actions[:, 0] == -1, e.intervention)
        own = ~e.intervention
        t = np.arange(len(e))
        assert np.array_equal(e.actions[own, 0], (100 * (t // 4 + 1) + t % 4)[own])
        assert e.source == "corrected"

def test_play_keeps_what_is_seen_after_the_last_action():
    """o_T of every copy, whoever was over before: the same as alone, and no step of the episode."""
    seeds = [3, 5, 8]
    task = sim_tasks.TASKS["fold_collar"]

    def episodes_of(seeds):
        world = task.world(seeds)
        operator = task.demonstrator(world, seeds, "best")
        return play(world, lambda seen, live: operator.act(world)[:, None], 1), world

    together, world = episodes_of(seeds)
    assert len({len(e) for e in together}) > 1
    final = world.observe()
    for i, e in enumerate(together):
        (alone,), _ = episodes_of(seeds[i : i + 1])
        for name, x in e.last.items():
            assert np.array_equal(x, alone.last[name]) and np.array_equal(x, final[name][i])
            assert x.shape == e.observations[name].shape[1:]
        # Both halves are placed only there.
        assert e.success and (e.last["keypoints"][:2, 10] == 1).all()
        assert not (e.observations["keypoints"][:, :2, 10] == 1).all(1).any()

def test_play_records_what_was_sent():
    """The world gets float32, and that is what the episodes hold: bit for bit."""
    rng = np.random.default_rng(0)
    world = Countdown([7, 9])

    def noise(observation, live):
        return rng.normal(size=(2, 8, 2))  # float64

    episodes = play(world, noise, 3, Hand({2}, {5}))
    for i, e in enumerate(episodes):
        sent = np.array([actions[i] for actions in world.stepped[: len(e)]])
        assert e.actions.dtype == sent.dtype == np.float32
        assert np.array_equal(e.actions, sent)

@pytest.mark.parametrize("kind", ["demonstrated", "corrected"])
def test_one_copy_and_many_give_the_same_episodes(kind):
    spec = sim_tasks.TASKS["fold_shirt"]

    def make(seeds):
        if kind == "demonstrated":
            return demonstrate(spec, seeds, "mixed")
        world = World(spec, seeds)
        return play(world, hasty, 4, ScriptedOperator(world, seeds), source="corrected")

    seeds = [5, 6, 7]
    together = make(seeds)
    assert len({len(e) for e in together}) > 1
    for seed, e in zip(seeds, together):
        (alone,) = make([seed])
        assert len(alone) == len(e) > 20
        assert np.allclose(alone.actions, e.actions, atol=1e-5)
        assert np.allclose(alone.observations["state"], e.observations["state"], atol=1e-5)
        assert np.array_equal(alone.subtask, e.subtask)
        assert np.array_equal(alone.intervention, e.intervention)
        assert alone.success is e.success
        assert (kind == "corrected") == (0 < e.intervention.mean() < 1)

def test_what_goes_wrong_in_play_is_passed_on():
    def broken(*x):
        raise MemoryError("no")

    policy = toy_policy().eval()
    policy.hidden_states = broken
    with pytest.raises(MemoryError):
        roll_out(Settings(), sim_tasks.TASKS["fold_collar"], [1, 2], policy)

# ---------------------------------------------------------------- play: collection through it

def reference_collect(
    s, spec, seeds, policy=None, beta=1.0, indicator=True, skill=MIXED, with_expert=False
):
    """Collection written out: one loop over everything.

    Returns [(state, keypoints, actions, subtask, intervention, success)].
    """
    world = World(spec, seeds)
    n = len(seeds)
    operator = Operator(world, seeds, skill)
    gate = Gate(world)
    taken = np.zeros(n, bool)
    if policy is not None:
        noise = [generator(seed, "noise") for seed in seeds]
        prompt = torch.tensor([encode(spec.prompt, 5)] * n)
        subtask = torch.zeros(n, 2, dtype=torch.long)
        chunk = np.zeros((n, 8, 6))
    rows = [[] for _ in seeds]
    for t in range(spec.max_steps):
        seen = world.observe()
        live = ~world.done
        if not live.any():
            break
        if with_expert:
            taken = gate.update(world) | (taken & (t % s.execute != 0))
        if policy is None:
            actions = operator.act(world)
        else:
            if t % s.execute == 0:
                o = {key: torch.as_tensor(x)[live] for key, x in seen.items()}
                if t % (s.execute * s.subtask_every) == 0:
                    subtask[live] = predict_subtask(policy, o, prompt[live])
                drawn = [torch.randn(8, 6, generator=noise[i]) for i in np.flatnonzero(live)]
                omega = torch.stack(drawn)
                told = (prompt[live], subtask[live], indicator, beta, s.euler, omega)
                chunk[live] = sample_actions(policy, o, *told).numpy()
            actions = np.where(taken[:, None], operator.act(world), chunk[:, t % s.execute])
        actions = actions.astype(np.float32)
        words = world.subtasks()
        for i in np.flatnonzero(live):
            step = (seen["state"][i], seen["keypoints"][i], actions[i], words[i], taken[i])
            rows[i].append(step)
        world.step(actions)
    episodes = []
    for row, success in zip(rows, world.success):
        episodes.append(tuple(map(np.array, zip(*row))) + (bool(success),))
    return episodes

def check_bit_for_bit(episodes, expected):
    assert len(episodes) == len(expected)
    for e, (state, keypoints, actions, subtask, taken, success) in zip(episodes, expected):
        assert np.array_equal(e.observations["state"], state)
        assert np.array_equal(e.observations["keypoints"], keypoints)
        assert np.array_equal(e.actions, actions)
        assert e.actions.dtype == np.float32
        assert np.array_equal(e.subtask, subtask)
        assert np.array_equal(e.intervention, taken)
        assert e.success == success

@pytest.mark.parametrize("kind", ["operator", "policy", "coach"])
def test_collection_through_the_loop_is_the_reference_bit_for_bit(kind):
    torch.manual_seed(0)
    s = Settings(execute=3, subtask_every=2)
    seeds = [5, 6, 7, 8, 9]
    policy = toy_policy().eval()
    spec = sim_tasks.TASKS["fold_shirt" if kind == "coach" else "fold_collar"]
    if kind == "operator":
        episodes = demonstrate(spec, seeds, "mixed")
        expected = reference_collect(s, spec, seeds)
    elif kind == "policy":
        episodes = roll_out(s, spec, seeds, policy, beta=2.0, indicator=False)
        expected = reference_collect(s, spec, seeds, policy, beta=2.0, indicator=False)
    else:
        episodes = coach(s, spec, seeds, policy, iteration=0)
        expected = reference_collect(s, spec, seeds, policy, skill=COACH, with_expert=True)
    check_bit_for_bit(episodes, expected)
    if kind == "coach":
        # Some are over, and some in the operator's hands, while others are not.
        assert len({len(e) for e in episodes}) > 1
        assert len({e.intervention[:60].sum() for e in episodes}) > 1
    else:
        assert not any(e.intervention.any() for e in episodes)

def test_a_copy_does_not_notice_that_another_is_over():
    """What one copy gets does not depend on who is still at it."""
    torch.manual_seed(0)
    policy = toy_policy().eval()
    spec = sim_tasks.TASKS["fold_shirt"]
    seen = World(spec, [1, 2, 3]).observe()
    live = np.array([False, True, True])

    def act(who):
        noise = collection.noise_of([1, 2, 3])
        return Actor(Settings(), [spec.prompt] * 3, policy, noise=noise)(seen, who)

    assert np.allclose(act(live)[1:], act(live | True)[1:], atol=1e-5)
    assert not act(live)[0].any()

def test_an_actor_begins_every_episode_with_a_new_subtask(monkeypatch):
    """Chunks per ℓ̂ are counted from the beginning of the episode, not across episodes."""
    predicted = []

    def predict(policy, seen, prompt):
        predicted.append(1)
        return torch.zeros(1, 2, dtype=torch.long)

    monkeypatch.setattr(collection, "predict_subtask", predict)
    spec = sim_tasks.TASKS["fold_shirt"]
    act = Actor(Settings(subtask_every=2), [spec.prompt], toy_policy().eval())
    seen = World(spec, [1]).observe()
    # Two episodes of three chunks: ℓ̂ before the first and the third of each.
    for _ in range(2):
        act.begin()
        for _ in range(3):
            act(seen, np.array([True]))
    assert len(predicted) == 4

# ---------------------------------------------------------------- pacing

def test_pacing_does_not_drift_whatever_the_ticks_cost():
    class Overshooting(SimulatedTime):
        """A sleep always lasts a little longer."""

        def sleep_until(self, deadline):
            super().sleep_until(deadline)
            self.t += 0.0007

    clock = Overshooting()
    rng = np.random.default_rng(0)
    pacer = Pacer(50, clock)
    for k in range(1, 5001):
        clock.t += rng.uniform(0, 0.019)
        pacer.wait()
        assert abs(clock.t - (pacer.start + k * 0.02)) <= 0.0008
    assert pacer.missed == 0

def test_a_late_tick_is_skipped_and_the_grid_kept():
    clock = SimulatedTime()
    pacer = Pacer(50, clock)
    # 15 ms after the deadline of tick 1: it begins at once.
    clock.t = 0.035
    pacer.wait()
    assert clock.t == 0.035
    assert pacer.missed == 0
    # 65 ms after the deadline of tick 2: it is skipped, and 3, 4, 5.
    clock.t = 0.105
    pacer.wait()
    assert clock.t == pytest.approx(0.12)
    assert pacer.missed == 4
    pacer.wait()
    assert clock.t == pytest.approx(0.14)

def test_a_tick_that_is_late_by_one_whole_period_is_skipped():
    clock = SimulatedTime()
    pacer = Pacer(4, clock)
    clock.t = 0.25 + 0.2421875  # almost
    pacer.wait()
    assert (pacer.missed, pacer.k) == (0, 1)
    clock.t = 0.75  # tick 2 was due at 0.5
    pacer.wait()
    assert (pacer.missed, pacer.k, clock.t) == (1, 3, 0.75)
    pacer.wait()
    assert (pacer.missed, clock.t) == (1, 1.0)  # no burst

@pytest.mark.parametrize("hz", [np.nan, np.inf, -np.inf, -50.0, 0])
def test_a_rate_is_a_finite_number_above_0(hz):
    with pytest.raises(ValueError, match=f"hz: {hz}"):
        Pacer(hz, SimulatedTime())

# ---------------------------------------------------------------- chunks

def counting(log, H=8):
    """A policy whose chunk c has the entries 100 c + (0 ... H - 1).

    It keeps (first entry seen, frozen) in log.
    """

    def policy(observation, live, frozen):
        known = None if frozen is None else frozen[0, :, 0].tolist()
        log.append((observation["state"][0, 0], known))
        entries = 100.0 * len(log) + np.arange(H)[None, :, None]
        return np.repeat(entries, 2, axis=2)

    return policy

def walk(chunks, clock, n):
    """Call chunks.next for n steps of 20 ms; the observation is the step."""
    out = []
    for t in range(n):
        observation = {"state": np.array([[t]])}
        a = chunks.next(t, observation, np.ones(1, bool), np.zeros(1, bool))
        out.append(None if a is None else a[0, 0])
        clock.t += 0.02
    return out

def test_blocking_chunks_are_executed_for_the_first_steps_and_then_replaced():
    log = []
    out = walk(Chunks(counting(log), 3), SimulatedTime(), 8)
    assert out == [100, 101, 102, 200, 201, 202, 300, 301]
    assert log == [(0, None), (3, None), (6, None)]

def test_the_latency_of_a_chunk_is_what_the_policy_took():
    clock = SimulatedTime()
    clock.t = 7.0
    answer = counting([])

    def slow(*given):
        clock.t += 0.25
        return answer(*given)

    chunks = Chunks(slow, 3, now=clock.now)
    walk(chunks, clock, 8)
    assert chunks.latencies == [0.25, 0.25, 0.25]

def test_real_time_chunks_are_requested_ahead_with_the_frozen_prefix_and_never_wait():
    log = []
    clock = SimulatedTime()
    chunks = Chunks(counting(log), 4, lead=2, start=background(clock, 0.035))
    out = walk(chunks, clock, 12)
    # Requested at 2, 6, 10; in force from 4, 8, 12, with the entry of that step.
    assert out == [100, 101, 102, 103, 202, 203, 204, 205, 302, 303, 304, 305]
    assert log[0] == (0, None)
    assert [frozen for _, frozen in log[1:]] == [[102, 103], [204, 205]]
    assert [t for t, _ in log] == [0, 2, 6]

def test_what_an_operator_does_meanwhile_nobody_knows():
    """Requested while they are in control, a chunk is not told what would have been done."""
    for taken, known in ((False, [102, 103]), (True, None)):
        log = []
        chunks = Chunks(counting(log), 4, lead=2)
        for t in range(3):
            now = np.array([taken and t == 2])
            chunks.next(t, {"state": np.array([[t]])}, np.ones(1, bool), now)
        assert log == [(0, None), (2, known)]

def test_chunks_share_no_memory_with_a_policy_or_a_loop():
    """The loop writes the operator's action into what it gets, the policy into what it is told."""
    mine = 1.0 * np.arange(8)[None, :, None]

    def policy(observation, live, frozen):
        if frozen is not None:
            assert frozen[0, :, 0].tolist() == [2, 3]
            frozen[:] = -7
        return mine

    chunks = Chunks(policy, 4, lead=2)
    for t in range(4):
        action = chunks.next(t, {}, np.ones(1, bool), np.zeros(1, bool))
        assert action.tolist() == [[t]]
        action[:] = -5
    assert mine[0, :, 0].tolist() == [*range(8)]

def test_a_late_chunk_lets_the_old_one_go_on_and_comes_in_where_it_should():
    log = []
    clock = SimulatedTime()
    # 5 steps in the place of 2
    out = walk(Chunks(counting(log), 4, lead=2, start=background(clock, 0.09)), clock, 9)
    assert out[:9] == [100, 101, 102, 103, 104, 105, 106, 205, 206]

def test_a_policy_of_a_second_makes_the_arm_stand_and_go():
    """Chunks that come after their time are thrown away.

    Those that were requested while standing are executed from the start.
    """
    log = []
    clock = SimulatedTime()
    chunks = Chunks(counting(log), 4, lead=2, start=background(clock, 1.0))
    out = walk(chunks, clock, 130)
    assert out[:8] == [*range(100, 108)]
    assert out[8] is None
    first = next(t for t in range(9, 130) if out[t] is not None)
    assert out[first] % 100 == 0
    assert out[first : first + 8] == [out[first] + k for k in range(8)]
    assert out.count(None) > 60

def test_a_chunk_of_the_wrong_shape_is_an_error_that_says_so():
    wrong = ((np.zeros((1, 3, 2)), 1), (np.zeros((2, 8, 2)), 1), (np.zeros((8, 2)), 8), ("no", 1))
    for chunk, n in wrong:
        with pytest.raises(ValueError, match="chunk of shape"):
            Chunks(lambda *x: chunk, 4).next(0, {}, np.ones(n, bool), np.zeros(n, bool))
    # 4 to execute, and 2 while the next one is computed
    short = Chunks(lambda *x: np.zeros((1, 5, 2)), 4, lead=2)
    with pytest.raises(ValueError, match="6 or more"):
        short.next(0, {}, np.ones(1, bool), np.zeros(1, bool))
    for lead in (-1, 4):
        with pytest.raises(ValueError, match="lead"):
            Chunks(None, 4, lead)

def test_the_future_of_a_background_call_brings_its_result_or_its_error():
    future = control.in_background(lambda: threading.current_thread().daemon)
    assert future.result(20) is True
    with pytest.raises(ZeroDivisionError):
        control.in_background(lambda: 1 / 0).result(20)

def test_a_chunk_begins_with_its_frozen_prefix_and_fits_it():
    """Data with a constant chunk c ~ N(0, 1).

    The exact posterior mean is known, and so is what fits a prefix.
    """
    policy = toy_policy()
    B = 400

    def field(context, a, eta):  # a (B, R, H, A), eta (B, R)
        eta = eta[..., None, None]
        H = a.shape[2]
        odds = eta / (1 - eta) ** 2
        c = odds * a.sum(2, keepdim=True) / (1 + H * eta * odds)
        return (a - c) / (1 - eta)

    policy.field = field
    policy.context = lambda *x: None
    policy.hidden_states = lambda *x, read: None
    seen = {"state": torch.zeros(B, 6), "keypoints": torch.zeros(B, 4, 20)}
    ids = torch.zeros(B, 5, dtype=torch.long)
    g = torch.Generator().manual_seed(0)
    omega = torch.randn(B, 8, 6, generator=g)
    frozen = torch.randn(B, 1, 6, generator=g).expand(B, 4, 6)
    how = {"steps": 20, "omega": omega}
    free = sample_actions(policy, seen, ids, ids[:, :2], **how)
    held = sample_actions(policy, seen, ids, ids[:, :2], frozen=frozen, **how)
    assert torch.equal(held[:, :4], frozen)

    def fit(x):
        return np.corrcoef(frozen[:, 0].flatten(), x[:, 4:].mean(1).flatten())[0, 1]

    assert abs(fit(free)) < 0.1
    assert fit(held) > 0.8

# ---------------------------------------------------------------- drive: the undisturbed loop

def test_an_undisturbed_episode_is_on_time_recorded_and_labelled():
    recording, arms, robot = rig(Script(length=40), operator=False)
    (e,) = recording.episodes
    assert recording.error is None
    assert recording.stalls == recording.missed == 0
    assert e.success is True
    assert e.source == "autonomous"
    assert np.allclose(np.diff(recording.sent_at), 0.02, atol=1e-9)
    assert len(e) == 40
    assert len(recording.latencies) == 10
    assert np.array_equal(e.actions, np.array(arms.received, np.float32))
    assert not e.intervention.any()
    assert np.allclose(e.observations["state"][1:], e.actions[:-1])  # they go where they are sent
    assert arms.held
    assert arms.log.count("hold") == 1

def test_chunk_boundaries_are_seamless_for_a_policy_that_heeds_the_prefix():
    """It continues from its last committed action: then every single step rises by 0.01."""

    def heeds(observation, live, frozen):
        first = observation["state"][:, None] + 0.01 if frozen is None else frozen[:, :1]
        return first + 0.01 * np.arange(8)[None, :, None]

    recording, arms, _ = rig(Script(length=40), heeds, operator=False)
    assert np.allclose(np.diff(recording.episodes[0].actions[:, 0]), 0.01, atol=1e-6)

def test_the_recorded_action_is_the_one_sent():
    safety = Safety(ramp_s=0, joint_speed=0.2)
    recording, arms, robot = rig(Script(length=20), safety=safety, operator=False)
    steps = np.diff(recording.episodes[0].actions[:, 0])
    assert np.allclose(steps, 0.004, atol=1e-6)  # asked: 0.01
    assert robot.clamped == 20
    # Nor is it what the safe robot wanted, if the robot clips again.
    stubborn = Still(WIDE)
    send = stubborn.send_action
    stubborn.send_action = lambda action: send({k: min(x, 0.05) for k, x in action.items()})
    recording, arms, _ = rig(Script(length=20), arms=stubborn, operator=False)
    assert recording.episodes[0].actions[:, 0].max() == np.float32(0.05)

# ---------------------------------------------------------------- drive: takeovers

def test_a_takeover_in_the_middle_of_a_chunk_lasts_to_the_next_chunk():
    """Control is wanted in steps 6 and 7: in force at once, handed back with the chunk of step 8.

    13 lasts to 15.
    """
    recording, arms, _ = rig(Script(steps={6, 7, 13}, value=0.3, length=24))
    (e,) = recording.episodes
    assert np.flatnonzero(e.intervention).tolist() == [6, 7, 13, 14, 15]
    assert e.source == "corrected"
    assert np.array_equal(np.isclose(e.actions[:, 0], 0.3), e.intervention)

def test_after_a_takeover_the_policy_is_not_told_of_a_prefix_that_never_was():
    without = []
    rise = rising(4)

    def policy(observation, live, frozen):
        without.append(frozen is None)
        return rise(observation, live, frozen)

    rig(Script(steps={5, 6, 7}, length=13), policy)
    assert without == [True, False, True, False]  # step 0, 2, 6 (taken over), 10

def test_a_takeover_in_the_last_step_is_recorded():
    recording, arms, _ = rig(Script(steps={39}, value=0.3, length=40))
    (e,) = recording.episodes
    assert len(e) == 40
    assert e.success
    assert np.flatnonzero(e.intervention).tolist() == [39]
    assert np.isclose(e.actions[-1, 0], 0.3)
    # The last one of the limit:
    script = Script(steps={99}, value=0.3, length=1000, success=False)
    recording, arms, _ = rig(script, limit=100)
    (e,) = recording.episodes
    assert len(e) == 100
    assert e.intervention[-1]
    assert e.success is False

def test_a_takeover_eases_in_as_after_a_hold():
    """A leader arm that is elsewhere: the arm sets off as slowly as from rest."""
    safety = Safety(ramp_s=0.2)
    script = Script(steps=range(20, 40), value=-0.5, length=40)
    recording, arms, robot = rig(script, rising(4), safety=safety)
    steps = np.diff(recording.episodes[0].actions[:, 0])
    assert np.allclose(steps[11:19], 0.01, atol=1e-6)  # eased in, the policy goes its own pace
    slow = -0.04 * np.minimum(np.arange(1, 16) / 10, 1)
    down = steps[19:34]
    end = np.flatnonzero(recording.episodes[0].actions[:, 0] <= -0.5 + 1e-6)
    assert len(end) == 0 and np.allclose(down[:11], slow[:11], atol=1e-6)

@pytest.mark.parametrize("hz", [1000, 10, None])
def test_a_real_robot_is_driven_at_the_rate_of_its_limits_alone(hz):
    arms = Still(WIDE)
    station = Station(safe(arms, WIDE), Task("lift", "lift it", 5), Script())
    with pytest.raises(ValueError, match=f"hz: {hz}, expected 50"):
        drive(station, rising(4), 4, hz=hz, clock=arms.clock)
    assert arms.received == []

# ---------------------------------------------------------------- drive: what is late

def test_a_slow_policy_makes_the_arm_stand_at_its_last_target_and_the_episode_goes_on():
    recording, arms, robot = rig(Script(length=90), delay=1.0, operator=False)
    (e,) = recording.episodes
    assert recording.error is None
    assert e.success
    assert len(e) == 90
    assert recording.stalls > 40
    moves = np.diff(e.actions, axis=0)
    assert (moves == 0).all(1).sum() >= recording.stalls - 1
    assert (moves >= -1e-6).all()
    assert np.allclose(np.diff(recording.sent_at), 0.02, atol=1e-9)  # commands every tick
    assert "hold" not in arms.log[:-1]  # the watchdog is fed

def test_a_late_observation_costs_ticks_and_the_robot_eases_in_again():
    arms = Still(Safety(), SimulatedTime())
    look = arms.get_observation
    spent = []

    def late():
        if arms.t == 31 and not spent:
            spent.append(arms.clock.t)
            arms.clock.t += 0.77
        return look()

    arms.get_observation = late
    safety = Safety(ramp_s=0.5)
    recording, arms, robot = rig(Script(length=60), safety=safety, arms=arms, operator=False)
    (e,) = recording.episodes
    assert recording.error is None
    assert e.success
    assert len(e) == 60
    assert 37 <= recording.missed <= 40
    # One long gap, no burst.
    gaps = np.diff(recording.sent_at)
    assert gaps.max() > 0.7
    assert (gaps > 0.0199).sum() >= 58
    k = int(np.argmax(gaps))
    assert arms.log[k + 1 : k + 3] == ["hold", "send"]
    assert abs(e.actions[k + 1, 0] - e.actions[k, 0]) <= 0.04 / 25 + 1e-6

# ---------------------------------------------------------------- drive: what fails

GARBAGE = {
    "nan": np.full((1, 8, 4), np.nan),
    "inf": np.full((1, 8, 4), np.inf),
    "shape": np.zeros((1, 8, 3)),
    "short": np.zeros((1, 2, 4)),
    "none": None,
    "text": "garbage",
}

def broken_policy(kind, at=3):
    """A policy whose answers are wrong from call `at` on."""
    calls = []
    rise = rising(4)

    def policy(observation, live, frozen):
        calls.append(kind)
        if len(calls) < at:
            return rise(observation, live, frozen)
        if kind == "raises":
            raise Fault("policy")
        return GARBAGE[kind]

    return policy

@pytest.mark.parametrize("kind", ["raises", *GARBAGE])
def test_a_policy_that_raises_or_returns_garbage_ends_in_a_hold_and_the_episode_is_kept(kind):
    script = Script(length=40, success=False)
    recording, arms, robot = rig(script, broken_policy(kind), operator=False)
    (e,) = recording.episodes
    expected = Fault if kind == "raises" else (CommandRejected, ValueError, TypeError)
    assert isinstance(recording.error, expected)
    assert arms.held
    assert arms.log[-1] == "hold"
    assert len(e) == 8
    assert np.array_equal(e.actions, np.array(arms.received, np.float32))
    assert e.success is False
    # In the very first call:
    recording, arms, robot = rig(Script(length=40), broken_policy(kind, at=1), operator=False)
    assert recording.error is not None
    assert recording.episodes == []
    assert arms.held
    assert "send" not in arms.log

FAULTS = [("disconnect", ConnectionError), ("freeze", BadObservation), ("nan", BadObservation)]

@pytest.mark.parametrize("fault, error", FAULTS)
def test_a_robot_that_fails_in_mid_episode_ends_in_a_hold_and_the_episode_is_kept(fault, error):
    arms = Still(WIDE)
    look = arms.get_observation

    def failing():
        arms.fault = fault if arms.t > 20 else None
        return look()

    arms.get_observation = failing
    script = Script(length=90, success=False)
    recording, arms, robot = rig(script, arms=arms, operator=False)
    (e,) = recording.episodes
    assert isinstance(recording.error, error)
    assert arms.held
    assert e.success is False
    assert len(e) == len(arms.received)
    assert 19 <= len(e) <= 50

def test_a_robot_that_cannot_even_be_held_any_more_loses_nothing():
    arms = Still(WIDE)
    send = arms.send_action

    def gone(*action):
        raise ConnectionError("gone")

    def sending(action):
        if len(arms.received) == 12:
            arms.get_observation = gone
            arms.send_action = gone
            arms.hold = gone
            gone()
        return send(action)

    arms.send_action = sending
    recording, _, _ = rig(Script(length=40), arms=arms, operator=False)
    assert isinstance(recording.error, ConnectionError)
    assert len(recording.episodes[0]) == 12

def test_an_arm_that_cannot_be_held_at_the_end_is_told_unless_something_else_came_first():
    for first in (None, RuntimeError("the policy")):
        arms = Still(WIDE)
        robot = safe(arms, WIDE)
        script = Script(length=5)
        station = Station(robot, Task("lift", "lift it", 100), script)

        def gone():
            raise ConnectionError("gone")

        def policy(observation, live, frozen):
            if first is not None:
                raise first
            return rising(4)(observation, live, frozen)

        station.hold = gone
        recording = drive(station, policy, 4, hz=50, clock=arms.clock)
        if first is None:
            assert isinstance(recording.error, ConnectionError)
        else:
            assert recording.error is first

class Releasing(SimulatedTime):
    """Time in which a policy's second call goes on only when somebody sleeps after a hold."""

    def __init__(self):
        super().__init__()
        self.arms = Still(WIDE, self)
        self.go = threading.Event()
        self.diary = []

    def sleep_until(self, deadline):
        super().sleep_until(deadline)
        if self.arms.log[-1:] == ["hold"]:
            self.go.set()
            time.sleep(0.001)  # of the real time, in which the thread goes on

    def begin(self, prompt):
        self.diary.append("begin")
        self.go.clear()

    def __call__(self, observation, live, frozen):
        """The policy."""
        self.diary.append("asked")
        if frozen is not None:
            self.go.wait(20)
        self.diary.append("answered")
        return observation["state"][:, None] + np.zeros((1, 8, 1))

def test_no_call_outlives_its_episode():
    """In real threads: one is in flight when the episode ends; the robot is held, then it waits."""
    clock = Releasing()
    script = Script(length=3)

    def begin(i):
        script.t = -1

    script.answers = [True, True]
    station = Station(safe(clock.arms, WIDE), Task("lift", "lift it", 100), script)
    threads = threading.active_count()
    how = dict(execute=4, hz=50, lead=2, clock=clock, start=control.in_background)
    for recording in record(station, begin, clock, 2, **how):
        assert recording.error is None
        assert clock.diary[-1] == "answered"
    assert clock.diary == ["begin", "asked", "answered", "asked", "answered"] * 2
    for _ in range(1000):
        if threading.active_count() > threads:
            time.sleep(0.001)
    assert threading.active_count() == threads

def test_a_policy_that_never_answers_is_waited_for_with_a_bound_and_no_episode_follows():
    arms = Still(WIDE)
    clock = arms.clock
    begun = []
    script = Script(length=3)

    def start(call):
        return background(clock, 1e9 if clock.t > 0 else 0.0)(call)

    station = Station(safe(arms, WIDE), Task("lift", "lift it", 100), script)
    how = dict(execute=4, hz=50, lead=2, clock=clock, start=start)
    kept = []
    with pytest.raises(TimeoutError, match="policy: still computing 10 s after"):
        for recording in record(station, begun.append, rising(4), 2, **how):
            kept.append(recording)
    assert begun == [0] and len(kept[0].episodes[0]) == 3
    assert 10 <= clock.t < 10.2
    assert arms.held

def test_who_ends_the_program_is_not_kept_waiting_for_a_label():
    arms = Still(WIDE)
    script = Script(length=40)
    wants = script.wants_control

    def stopping(observation):
        if script.t == 14:
            raise SystemExit(143)
        return wants(observation)

    script.wants_control = stopping
    script.outcome = lambda: pytest.fail("asked")
    recording, arms, _ = rig(script, arms=arms)
    assert isinstance(recording.error, SystemExit)
    (e,) = recording.episodes
    assert (len(e), e.success, arms.held) == (14, None, True)

    # While somebody is asked:
    def terminated():
        raise SystemExit(143)

    script = Script(length=10)
    script.outcome = terminated
    recording, _, _ = rig(script)
    assert isinstance(recording.error, SystemExit)
    assert recording.episodes[0].success is None

@pytest.mark.parametrize("stop", [Fault("leader"), KeyboardInterrupt(), "estop"])
def test_an_operator_who_fails_the_emergency_stop_and_ctrl_c_end_in_a_hold_too(stop):
    script = Script(length=40, success=False)
    arms = Still(WIDE)
    robot = safe(arms, WIDE)
    wants = script.wants_control

    def stopping(observation):
        if script.t == 14 and stop == "estop":
            robot.estop()
        elif script.t == 14:
            raise stop
        return wants(observation)

    script.wants_control = stopping
    recording, arms, robot = rig(script, arms=arms, robot=robot)
    expected = EmergencyStop if stop == "estop" else type(stop)
    assert isinstance(recording.error, expected)
    assert len(recording.episodes[0]) == 14
    assert arms.held
    assert arms.log[-1] in ("hold", "estop")
    assert recording.episodes[0].success is False

def test_the_robot_is_held_before_anybody_is_asked_and_without_an_answer_the_episode_stays():
    arms = Still(WIDE)
    script = Script(length=10)

    def nobody():
        assert arms.held
        raise EOFError

    script.outcome = nobody
    recording, arms, _ = rig(script, arms=arms, operator=False)
    assert isinstance(recording.error, EOFError)
    assert recording.episodes[0].success is None
    assert len(recording.episodes[0]) == 10

def test_an_interrupted_episode_of_a_robot_that_referees_itself_is_kept_unlabelled():
    bare = SimRobot("SimTasks/FoldCollar-v0", seed=1)
    calls = []
    with SafeRobot(bare, Safety(**bare.limits), thread=False) as robot:
        operator = Operator(bare.world, [1], BEST)

        def policy(observation, live, frozen):
            calls.append(live)
            if len(calls) > 10:
                raise RuntimeError("enough")
            return operator.act(bare.world)[:, None]

        recording = drive(Station(robot, bare.task, bare), policy, 1)
    (e,) = recording.episodes
    assert len(e) == 10
    assert e.success is None
    assert str(recording.error) == "enough"

# ---------------------------------------------------------------- record

def test_discard_and_redo(tmp_path):
    """redo, yes, no, then an error: three scenes, one of them twice.

    Every episode is yielded before anything is raised.
    """
    arms = Still(WIDE)
    begun = []
    told = []
    kept = []
    script = Script(answers=[REDO, True, False, True])
    policy = rising(4)
    # A policy that wants to know is told before each.
    policy.begin = lambda prompt: told.append((len(begun), prompt))
    path = str(tmp_path / "d.npz")

    def begin(i):
        begun.append(i)
        script.t = -1
        script.length = 10
        script.steps = {4} if i == 2 else set()
        arms.pose = np.full(4, 0.1)
        return script

    def act(observation):
        raise Fault("leader")

    script.act = act
    station = Station(safe(arms, WIDE), Task("lift", "lift it", 100), script)
    how = dict(execute=4, hz=50, lead=2, clock=arms.clock, start=background(arms.clock, 0.0))
    with pytest.raises(Fault):
        for recording in record(station, begin, policy, 5, **how):
            kept += recording.episodes
            save_dataset(kept, path)
    assert begun == [0, 0, 1, 2]
    assert told == [(n, "lift it") for n in (1, 2, 3, 4)]  # the scene is there
    outcomes = [(e.success, len(e)) for e in load_dataset(path)]
    assert outcomes == [(True, 10), (False, 10), (True, 4)]

# %% [markdown]
# # 08 · The driver and a takeover
#
# previous: [07 · extraction](07_extraction.ipynb) · [contents](../README.md#learn)
#
# **Beside the paper:** Sec. V-D (autonomous and corrected collection), Sec. VI-A and
# Fig. 5 (two arms, 50 Hz, chunks). Code: `hardware.py`, `control.py`, `robots/`.
#
# You will see what stands between a policy and two arms: a protocol, limits that hold, a
# loop at 50 Hz that runs for some fifteen seconds in real time, an operator who takes over,
# the episode that is recorded and the labels that follow from it. About a minute, of which
# fifteen seconds are the loop's waiting.
#
# Sections 1 to 3 give the same numbers everywhere. From section 4 on a clock takes part:
# what you see there is one run on one machine, and yours will differ in its milliseconds,
# and a little in what the arms do.

# %%
import sys
from pathlib import Path

# The folder above this one; Jupyter has no __file__, and starts in this one.
sys.path.insert(0, str(Path(globals().get("__file__", "notebook")).resolve().parents[1]))

import time

import matplotlib.pyplot as plt
import numpy as np
import torch

import recap
import show
import sim_tasks
from benchmarks.driver import SimulatedTime
from collection import Actor, demonstrate, roll_out
from control import Pacer, record
from data import episode_seeds
from hardware import CommandRejected, EmergencyStop, SafeRobot, Safety, Station, to_dict
from lab.plots import BLUE, GREEN, GREY, PURPLE, VERMILLION
from labels import all_positive, label
from recap import new_policy, new_value, train_policy, train_value
from robots.report import report
from robots.simulated import SimRobot
from settings import Settings
from sim_tasks.demonstrator import ScriptedOperator
from sim_tasks.render import draw
from value import predict_values

torch.set_num_threads(1)
plt.rcParams.update({"figure.dpi": 80, "font.size": 10})
show.progress(recap)

# %% [markdown]
# ## 1. A robot in thirty lines
# `hardware.BimanualRobot` is the whole protocol: features that are known while
# disconnected, flat dicts with `left_` and `right_`, radians and openings from 0 to 1. Below
# are two arms of six joints and a gripper each (the paper's), which go at once where they
# are sent.

# %%
PARTS = ("shoulder", "upper", "elbow", "fore", "wrist", "hand", "gripper")
LEFT = [f"left_{part}.pos" for part in PARTS]
RIGHT = [f"right_{part}.pos" for part in PARTS]

class TwoArms:
    """The protocol, and a diary of what the hardware was told."""

    names = LEFT + RIGHT
    action_features = observation_features = dict.fromkeys(names, float)
    is_connected = False

    def __init__(self):
        self.pose = np.tile([0.0] * 6 + [0.5], 2)
        self.diary = []

    def connect(self):
        self.is_connected = True

    def disconnect(self):
        self.is_connected = False

    def get_observation(self):
        return to_dict(self.pose, self.names)

    def send_action(self, action):
        self.pose = np.array([action[name] for name in self.names])
        self.diary.append("moves")
        return action  # what was *actually* sent

    def hold(self):
        self.diary.append("holds")

    def estop(self):
        self.diary.append("STOPS")

bare = TwoArms()
clock = SimulatedTime()  # a clock that moves only when we say so
robot = SafeRobot(bare, Safety(), clock.now, thread=False)
known = list(robot.action_features)[:7]
print("connected:", robot.is_connected, "- and yet it knows:", known, "...")

# %% [markdown]
# ## 2. Limits that cannot be forgotten
# A policy never talks to a robot, it talks to a `SafeRobot` around one. (The limits are on
# by default. In several public drivers they are an option that is off, or a clamp that lets
# NaN through.)

# %%
show.source(SafeRobot.send_action, SafeRobot._checked, SafeRobot._bounded)

# %% [markdown]
# <details><summary><b>Predict before you run:</b> what does a clamp to [−1, 1] make of
# NaN?</summary>
#
# NaN. Every comparison with NaN is false, so no limit ever applies to it.
# </details>

# %%
clipped = np.clip(np.nan, -1, 1)
print("np.clip(nan, -1, 1) is", clipped, "- which is why a clamp alone is no safety\n")
robot.connect()
here = dict(bare.get_observation())
joint = "left_elbow.pos"
gripper = "left_gripper.pos"
commands = {
    "stay": here,
    "elbow by 0.001 rad": here | {joint: 0.001},
    "elbow by 1 rad": here | {joint: 1.0},
    "gripper to 7": here | {gripper: 7.0},
    "NaN": here | {joint: np.nan},
    "a key too many": here | {"left_knee.pos": 0.0},
    "text": here | {joint: "0.1"},
}
for name, command in commands.items():
    clock.t += 0.02
    try:
        sent = robot.send_action(command)
        said = f"sent: elbow {sent[joint]:+.4f} rad, gripper {sent[gripper]:.4f}"
    except CommandRejected as error:
        said = f"CommandRejected: {error}"
    print(f"{name:<20}robot {bare.diary[-1]}   {said[:82]}")
print(f"\n{robot.commands} sent ({robot.clamped} clamped),",
      f"{robot.rejected} rejected, {robot.holds} holds")

# %% [markdown]
# What is not a number is never sent, and the robot holds. What is too far is cut to a step.
# The steps begin tiny (1/25 of 0.04 rad) and grow over half a second, after connecting and
# after every hold, so a first command cannot jump. The emergency stop latches:

# %%
robot.estop()
try:
    robot.send_action(here)
except EmergencyStop as error:
    print("EmergencyStop:", error, "\nrobot", bare.diary[-1])
robot.reset()
robot.send_action(dict(bare.get_observation()))
print("after reset: robot", bare.diary[-1])

# %% [markdown]
# Now one target, 2.5 rad away, again and again at 50 Hz; for half a second the program that
# sends it hangs.

# %%
bare = TwoArms()
clock = SimulatedTime()
robot = SafeRobot(bare, Safety(), clock.now, thread=False)
robot.connect()
target = dict(bare.get_observation()) | {joint: 2.5}
trace = []  # (time, elbow, hangs)
held = []  # times of the holds
for tick in range(150):
    clock.t = 0.02 * tick
    hangs = 60 <= tick < 85
    if not hangs:
        robot.send_action(target)
    before = robot.holds
    robot.check()  # the watchdog; in real time a thread calls it
    if robot.holds > before:
        held.append(clock.t)
    trace.append((clock.t, bare.get_observation()[joint], hangs))
t, elbow, hangs = map(np.array, zip(*trace))
steps = np.diff(elbow, prepend=0.0)
assert steps.max() <= Safety().joint_speed / 50 + 1e-12 and robot.holds == 1
waited = held[0] - t[hangs][0] + 0.02
print(f"largest step {steps.max():.4f} rad; held {waited:.2f} s after the last command")

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 2.9), layout="constrained", sharex=True)
axes[0].plot(t, elbow, color=BLUE)
axes[0].axhline(2.5, color=GREY, ls="--", lw=1)
axes[1].plot(t, steps * 1000, color=BLUE)
axes[1].axhline(Safety().joint_speed / 50 * 1000, color=GREY, ls="--", lw=1)
titles = ("left elbow (rad), dashed: the target", "step per command (mrad), dashed: the limit")
for ax, title in zip(axes, titles):
    ax.axvspan(t[hangs][0], t[hangs][-1] + 0.02, color=GREY, alpha=0.2, label="the program hangs")
    ax.axvline(held[0], color=VERMILLION, label="the watchdog holds")
    ax.set(title=title, xlabel="time (s)")
axes[0].legend(frameon=False, fontsize=9, loc="lower right")
plt.show()

# %% [markdown]
# The ramp at the left, the hold after 0.4 s without a command, and the same ramp again when
# commands come back.

# %% [markdown]
# ## 3. Fifty times a second, without drift
# `time.sleep(0.02)` at the end of each turn is slow by whatever the turn itself takes,
# forever. `control.Pacer` waits for fixed deadlines, start + k/50, and skips those that it
# has missed.

# %%
show.source(Pacer)

# %% [markdown]
# In simulated time: a turn takes 3 ms, one takes 90 ms.
#
# <details><summary><b>Predict before you run:</b> at how many turns a second does the naive
# loop run, that sleeps 20 ms after 3 ms of work?</summary>
#
# At 43 or less, for good. The Pacer loses only the deadlines of the one slow turn.
# </details>

# %%
def turns(wait, clock, n=100):
    """When each of n turns begins, s; turn 50 is slow."""
    begun = []
    for k in range(n):
        begun.append(clock.t)
        clock.t += 0.090 if k == 50 else 0.003
        wait()
    return np.array(begun)

sleeping = SimulatedTime()
naive = turns(lambda: sleeping.sleep_until(sleeping.t + 0.02), sleeping)
pacing = SimulatedTime()
pacer = Pacer(50, pacing)
paced = turns(pacer.wait, pacing)
late = 1000 * (paced - np.round(paced * 50) / 50)
# On the grid, and never in a burst:
assert np.abs(late).max() < 1e-6 and np.diff(paced).min() > 0.02 - 1e-9
print(f"100 turns: sleeping {100 / (naive[-1] + 0.023):.1f} Hz;",
      f"Pacer {100 / (paced[-1] + 0.02):.1f} Hz,",
      f"{pacer.missed} deadlines skipped, all others on the grid")

# %% [markdown]
# ## 4. The loop, in real time
# We need a policy. 500 gradient steps on 60 demonstrations of the best operator make a poor
# one: fast, and lost as soon as a grasp is not perfect, which it has never seen. It predicts
# chunks of 8 actions, of which 4 are executed.

# %%
s = Settings()
task = sim_tasks.TASKS["fold_shirt"]
demonstrations = demonstrate(task, episode_seeds(0, "driver fold_shirt", 60), "best")
policy = train_policy(new_policy(s), demonstrations, all_positive(demonstrations), s, 500)
actor = Actor(s, [task.prompt], policy, noise=[torch.Generator().manual_seed(0)])
requests = []  # (requested at, there at, chunk (8, 6), how many were frozen)

def watched(observation, live, frozen):
    """The policy, and a note of every chunk."""
    begun = time.monotonic()
    n = 0 if frozen is None else frozen.shape[1]
    chunk = actor(observation, live, frozen)
    assert n == 0 or np.allclose(chunk[:, :n], frozen, atol=1e-6)
    requests.append((begun, time.monotonic(), chunk[0], n))
    return chunk

# %% [markdown]
# `drive` runs one episode; `record` several, each with an operator. The operator is
# scripted: the `Gate` takes over at an edge grasp or a stall and hands back when the stage
# is done. `lead=2`: a chunk is requested two ticks before it is needed, in a background
# thread, and is told the two actions that will be executed meanwhile (its frozen prefix).
# The simulated robot makes one step of its world per command, so its world of 10 Hz runs at
# five times its speed.

# %%
bare = SimRobot("SimTasks/FoldShirt-v0")
recordings = []

def put_back(i):
    """Put the scene of episode i back; who watches over it."""
    bare.begin(100 + i)
    return ScriptedOperator(bare.world, [100 + i])

# The first call of a network is slow, so we make it before the loop begins.
observation = {name: x[:1] for name, x in demonstrations[0].observations.items()}
watched(observation, np.array([True]), None)
requests.clear()
with SafeRobot(bare, Safety(**bare.limits)) as robot:
    station = Station(robot, bare.task, bare)
    how = dict(execute=4, lead=2, hz=50, iteration=1)
    for recording in record(station, put_back, watched, 8, **how):
        recordings.append(recording)
        e = recording.episodes[0]
        print(f"{len(e):4} ticks, {recording.missed} missed, stood for {recording.stalls};",
              f"operator {e.intervention.mean():4.0%};", "success" if e.success else "failure")
print("\nthe last one as `python -m robots` reports it:\n" + report(recordings[-1], robot, 50))

# %%
periods = 1000 * np.concatenate([np.diff(recording.sent_at) for recording in recordings])  # ms
waits = 1000 * np.concatenate([recording.latencies for recording in recordings])
fig, axes = plt.subplots(1, 2, figsize=(10, 2.8), layout="constrained")
axes[0].hist(np.clip(periods, 0, 60), np.arange(0, 61, 1), color=BLUE)
axes[0].axvline(20, color=VERMILLION, lw=1)
axes[0].set(title="between two commands (red: 20 ms)", xlabel="ms (last bar: 59 or more)",
            yscale="log")
axes[1].hist(np.clip(waits, 0, 120), np.arange(0, 122, 2), color=BLUE)
axes[1].axvline(40, color=VERMILLION, lw=1)
axes[1].set(title="the policy's chunk (red: the two ticks it has)",
            xlabel="ms (last bar: 118 or more)")
print(f"{len(periods) / 50:.0f} s of driving; period: median {np.median(periods):.2f} ms,",
      f"{np.mean(np.abs(periods - 20) < 1):.0%} within 1 ms of 20")

# %% [markdown]
# The driver cannot make the operating system give it a core. On a busy computer the left
# picture is broad and some ticks are missed. What the Pacer guarantees is that the deadlines
# do not move (the rate in the report above counts the missed ones, and stays near 50 Hz),
# and that no burst makes up for what was late.
#
# A chunk that takes longer than its two ticks
# costs nothing as long as the old one lasts: that has 8 actions, of which 6 are used up when
# the new one is due. After that the arm stands at its last target and waits.
#
# Now the chunks themselves, in those 0.7 s in which the policy had the most to say. Each
# begins at the moment at which it was requested.

# %%
at = np.array([x[0] for x in requests])
frozen = np.array([x[3] for x in requests])

def recorded_at(moment):
    """The recording in which 0.7 s from that moment on were driven, or None."""
    for recording in recordings:
        if recording.sent_at[0] - 0.1 < moment < recording.sent_at[-1] - 0.7:
            return recording
    return None

def frozen_from(moment):
    """How many actions were frozen in those 0.7 s."""
    return frozen[(at >= moment) & (at < moment + 0.7)].sum()

first = max((moment for moment in at if recorded_at(moment) is not None), key=frozen_from)
recording = recorded_at(first)
sent_at = np.array(recording.sent_at) - first
sent = recording.episodes[0].actions[:, 0]
shown = (sent_at > -0.1) & (sent_at < 0.85)
fig, ax = plt.subplots(figsize=(10, 3.6), layout="constrained")
ax.plot(sent_at[shown], sent[shown], "o-", color="black", lw=1, ms=4, label="sent")
inside = [x for x in requests if 0 <= x[0] - first < 0.82]
for k, (begun, there, chunk, n) in enumerate(inside):
    x = begun - first + 0.02 * np.arange(8)
    colour = (BLUE, VERMILLION, GREEN, PURPLE)[k % 4]
    ax.plot(x, chunk[:, 0], "-", color=colour, lw=2, label="a chunk" if k == 0 else None)
    ax.plot(x[:n], chunk[:n, 0], "s", color=colour, ms=10, mfc="none",
            label="frozen" if k == 0 else None)
    ax.plot([begun - first, there - first], [0.03 + 0.03 * (k % 4)] * 2, color=colour, lw=4,
            transform=ax.get_xaxis_transform())
low, high = ax.get_ylim()
margin = high - low
ax.set(xlabel="time (s); bars at the bottom: the policy computes",
       ylabel="left shoulder target (rad)",
       xlim=(-0.1, 0.85), ylim=(low - 0.2 * margin, high + 0.1 * margin))
ax.legend(frameon=False, fontsize=9, ncol=3)
plt.show()

# %% [markdown]
# The squares are the frozen prefix: the two actions planned for the ticks in which the chunk
# is computed (the heights of two black dots, up to a tick later, unless a limit bounds the
# command, as at the start of an episode). From there the arm changes over to the new chunk
# without a jump.
#
# A chunk without squares is an episode's first, or was requested while the
# operator had control: what they will do, nobody knows. Where the dots leave all lines, the
# operator moved the arm, or a limit bounded the command.

# %% [markdown]
# ## 5. A takeover
# The first recorded episode in which the operator had control for a part of the time only:

# %%
recording = next(r for r in recordings if 0.1 < r.episodes[0].intervention.mean() < 0.9)
e = recording.episodes[0]
takes = np.flatnonzero(np.diff(e.intervention.astype(int), prepend=0) == 1)
gives = np.flatnonzero(np.diff(e.intervention.astype(int), append=0) == -1) + 1
numbers = ((0, BLUE, "shoulder"), (1, GREEN, "elbow"), (2, GREY, "gripper (0-1)"))
fig, axes = plt.subplots(2, 1, figsize=(9, 3.8), layout="constrained", sharex=True)
for ax, first, arm in zip(axes, (0, 3), ("left", "right")):
    for d, colour, name in numbers:
        ax.plot(e.actions[:, first + d], color=colour, label=f"{name} sent")
        ax.plot(e.observations["state"][:, first + d], ".", color=colour, ms=3)
    for begins, ends in zip(takes, gives):
        ax.axvspan(begins, ends, facecolor=VERMILLION, alpha=0.2, lw=0)
    ax.set_ylabel(f"{arm} arm (rad)")
fig.legend(*axes[0].get_legend_handles_labels(), ncol=3, frameon=False, fontsize=9,
           loc="outside lower center")
axes[0].set_title("shaded: the operator is in control (dots: measured)")
axes[1].set_xlabel("command (50 per second)")
plt.show()

# %%
last = len(e) - 1
moments = {"start": 0, "takes over": takes[0], "hands back": min(gives[0], last), "end": last}
fig, axes = plt.subplots(1, 4, figsize=(11, 3.1), layout="constrained")
for ax, (name, i) in zip(axes, moments.items()):
    ax.imshow(draw(e.observations["state"][i], e.observations["keypoints"][i], task, size=220))
    ax.set(xticks=[], yticks=[], title=f"{name} ({i})")
    ax.title.set_fontsize(9)

# %% [markdown]
# What is recorded is what Sec. V-D needs: the whole episode, the autonomous parts and the
# corrections, actions **as they were sent** (after the limits), who was in control at every
# step, and the label.

# %%
for name in ("task", "prompt", "source", "iteration", "success", "stages", "max_length"):
    print(f"{name:<13}", getattr(e, name))
arrays = e.observations | {"actions": e.actions, "intervention": e.intervention}
for name, x in arrays.items():
    print(f"{name:<13}", x.dtype, x.shape)
assert len(e) == len(recording.sent_at) and e.source == "corrected"
step = np.abs(np.diff(e.actions, axis=0))[:, [0, 1, 3, 4]].max()  # joints
limit = bare.limits["joint_speed"] / bare.task.hz  # rad per step
assert step <= limit + 1e-6
print(f"largest step of a joint: {step:.3f} rad; the limit: {limit:.2f} rad")

# %% [markdown]
# ## 6. The plain loop
# Simulated worlds need none of this. `collection.roll_out` plays `control.play`: observe,
# act, step, for n copies of a world side by side, without a clock, and chunks computed when
# they are needed. 20 autonomous episodes of the same policy:

# %%
begun = time.perf_counter()
autonomous = roll_out(s, task, episode_seeds(0, "driver", 20), policy, iteration=1)
simulated = sum(len(x) for x in autonomous) / sim_tasks.arms.CONTROL_HZ
recorded = [recording.episodes[0] for recording in recordings]
print(f"{simulated:.0f} s of simulated time in {time.perf_counter() - begun:.1f} s;",
      f"success {np.mean([x.success for x in autonomous]):.0%} alone,",
      f"{np.mean([x.success for x in recorded]):.0%} with the operator ({len(recorded)} episodes)")

# %% [markdown]
# ## 7. From the episode to labels
# A value function on all of it (a short training: V is rough), the advantages over 10 steps,
# $\epsilon_\ell$ such that 20 % of the *autonomous* steps are positive, and then the rule of
# Sec. IV-B: $I_t$ = True where the operator corrected.

# %%
V = train_value(new_value(s), demonstrations + autonomous + recorded, s, 120)
D = autonomous + recorded
values = predict_values(V, D)
forced = label(values, D, s, iteration=1)
s.force_corrections = False
judged = label(values, D, s, iteration=1)
s.force_corrections = True

def share(I, where):
    """The positive share of those steps.  I, where: lists of bool (T,)."""
    return np.mean(np.concatenate([positive[w] for positive, w in zip(I, where)]))

corrected = [x.intervention for x in D]
alone = [np.full(len(x), x.source == "autonomous") for x in D]
print(f"autonomous episodes: {share(forced, alone):.1%} positive")
print(f"corrected steps:     {share(forced, corrected):.0%} positive;",
      f"by the advantage {share(judged, corrected):.0%}")
assert share(forced, corrected) == 1 and abs(share(forced, alone) - 0.2) < 0.005

# %%
i = len(autonomous) + next(k for k, x in enumerate(recorded) if x is e)
fig, axes = plt.subplots(2, 1, figsize=(10, 3.6), layout="constrained", sharex=True,
                         height_ratios=(2, 1))
axes[0].plot(values[i], color=BLUE)
axes[0].set_ylabel("V(o$_t$)")
bars = ((judged[i], GREY), (e.intervention, VERMILLION), (forced[i], GREEN))
for row, (x, colour) in enumerate(bars):
    axes[1].broken_barh([(t, 1) for t in np.flatnonzero(x)], (row, 0.8), color=colour)
axes[1].set(xlabel="command", ylim=(-0.1, 3), xlim=(0, len(e)))
axes[1].set_yticks([0.4, 1.4, 2.4], ["A > ε", "operator", "I = True"])
for begins, ends in zip(takes, gives):
    axes[0].axvspan(begins, ends, facecolor=VERMILLION, alpha=0.2, lw=0)

# %% [markdown]
# The top row of bars is the union of the two below. The rule matters: by the advantage alone
# most of what the operator shows would be labelled negative, although it is what makes the
# difference between the two success rates above. What we would expect behind it, not
# measured here: an episode that the operator saves counts as a success, which lifts V before
# the mistake, too; and the operator is careful, not fast (Sec. V-D says the same of people).

# %% [markdown]
# ## 8. A real robot
# Nothing above knows that the arms are simulated. Behind the driver goes anything with the
# nine names of section 1. `robots/lerobot.py` has `LeRobotRobot` for LeRobot's bimanual
# followers (degrees become radians, 0-100 becomes 0-1). Its `LeaderArm` is a leader arm with
# its events (intervention, success, failure, record again):
#
#     # my_station.py
#     def robot():
#         return BiSO100Follower(...)       # use_degrees=True
#     def leader():
#         return ...                        # a teleoperator with get_teleop_events
#
#     python -m robots --robot lerobot:my_station:robot --leader my_station:leader \
#         --out mine.npz
#
# Without `--policy` the robot stands still until the operator takes over: that records
# demonstrations. Before anything else set the limits of your arms (`Safety`): the defaults
# of the joints are half a turn each way, wider than most arms. None of this was tried on
# real arms here; `python -m benchmarks --fuzz` and `--soak` try it against commands and
# faults at random.

# %% [markdown]
# ## Change this line and see
#
# - Sec. 2: `hangs = 60 <= tick < 85` to `hangs = 60 <= tick < 78`: the program is back after
#   0.36 s, before the watchdog bites. The assertion fails, because nothing was held.
# - Sec. 2: `| {joint: 2.5}` to `| {joint: 0.5}`: a near target, reached before the program
#   hangs; the ramp is the same.
# - Sec. 3: `sleeping.sleep_until(sleeping.t + 0.02)` to `sleeping.sleep_until(sleeping.t +
#   0.017)`, "because the work takes 3 ms": 47.8 Hz. The one slow turn shifts all that follow.
#
# ## In three sentences
#
# > Between a policy and two arms stand limits that cannot be forgotten and a clock that does not
# > drift. A chunk is requested ahead of time and is told what will be done meanwhile, so the arms
# > do not wait. What is recorded is what was *sent*, with a note of who had control at each
# > step.
#
# previous: [07 · extraction](07_extraction.ipynb) · [contents](../README.md#learn)

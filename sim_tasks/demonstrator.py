"""The scripted operator: demonstrations of mixed quality, and takeovers (Sec. V-D).

The operator looks at the world and answers with joint targets.  They keep nothing in mind but what
was drawn for the episode beforehand (their pace, care and pauses), so they can take over from any
state that a policy got itself into.  Per arm: open the gripper, go to the handle, close, carry to
the goal, open; then wait.
"""

from dataclasses import dataclass

import numpy as np

from .arms import EDGE, GOOD_RADIUS, NOTHING, SAFE_SPEED, forward_kinematics, inverse_kinematics

METADATA = ("fast", "slow", "careful", "careless")  # words of `Operator.metadata`
MAX_ATTEMPTS = 12  # grasps per stage and arm for which errors are drawn

@dataclass(frozen=True)
class Skill:
    """How an operator works; probabilities per grasp, stage, step or episode as named."""

    careful: float = 0.5  # P(good grasp) at the first attempt, per arm and stage
    careful_again: float = 0.8  # ... at later attempts
    paces: tuple = (0.010, 0.017, 0.032)  # m per step, drawn per stage, the same for both arms
    pace_p: tuple = (0.4, 0.4, 0.2)
    reckless: float = 0.2  # P(keeps the pace with an edge grasp, does not slow down), per grasp
    pause: float = 0.05  # P(a pause begins) per step
    wrong: float = 0.5  # P(goes the wrong way) per episode, where there are two
    # P(keeps the pace with a full cup or a slipping portafilter, too), per stage
    hasty: float = 0.2
    aim_noise: float = 0.006  # m

MIXED = Skill()  # the pre-training mix
GOOD = Skill(careful=0.75, pace_p=(0.3, 0.5, 0.2), pause=0.04)  # "high-quality SFT" demonstrations
BEST = Skill(
    careful=1.0, careful_again=1.0, paces=(0.032,), pace_p=(1.0,), pause=0.0, wrong=0.0, hasty=0.0
)
# Corrections are careful, but not fast ("even expert human operators cannot ... improve subtle
# aspects, such as overall speed").
COACH = Skill(
    careful=1.0, careful_again=1.0, paces=(0.017,), pace_p=(1.0,), pause=0.0, wrong=0.0, hasty=0.0
)

SKILLS = {"mixed": MIXED, "good": GOOD, "best": BEST, "coach": COACH}

# m per step: how fast one carries an edge grasp that one has noticed, where SAFE_SPEED is safe
EDGE_PACE = 0.014
FULL_PACE = 0.65  # ... and what can spill, as a fraction of the speed at which it does
SHORT = 0.056  # a careless operator stops that far from the handle, m
ARRIVED = 0.010  # m

class Operator:
    """One operator per copy of a world.  seeds: one int per copy; skill: a `Skill`."""

    def __init__(self, world, seeds, skill=MIXED):
        spec, n = world.spec, world.n
        if len(seeds) != n:
            raise ValueError(f"seeds: {len(seeds)}, expected one per copy of the world, {n}")
        stages, limit = len(spec.stages), spec.max_steps
        self.pace = np.empty((n, stages))
        self.careless = np.empty((n, stages, 2, MAX_ATTEMPTS), bool)
        self.reckless = np.empty((n, stages, 2, MAX_ATTEMPTS), bool)
        self.aim_error = np.empty((n, stages, 2, MAX_ATTEMPTS, 2))
        self.pausing = np.zeros((n, limit), bool)
        self.goes_wrong, self.hasty = np.zeros(n, bool), np.zeros((n, stages), bool)
        careful = np.where(np.arange(MAX_ATTEMPTS) == 0, skill.careful, skill.careful_again)
        for i, seed in enumerate(seeds):  # all chance comes from the copy's own seed
            rng = np.random.default_rng([21, seed])
            self.pace[i] = rng.choice(skill.paces, stages, p=skill.pace_p)
            self.careless[i] = rng.random(self.careless.shape[1:]) >= careful
            self.reckless[i] = rng.random(self.reckless.shape[1:]) < skill.reckless
            self.aim_error[i] = rng.normal(0, skill.aim_noise, self.aim_error.shape[1:])
            for t in np.flatnonzero(rng.random(limit) < skill.pause):
                self.pausing[i, t : t + rng.integers(3, 8)] = True
            self.goes_wrong[i] = (
                spec.stages[0].wrong_goals is not None and rng.random() < skill.wrong
            )
            self.hasty[i] = rng.random(stages) < skill.hasty

    def metadata(self):
        """s in words (Sec. V-A), one text per copy, as an annotator who knows the operator would
        write it.

        Pace: "fast" where the mean over the stages is above 0.018 m per step.  Quality: "careful"
        where at least two thirds of the first attempts at a grasp are.
        """
        fast = self.pace.mean(1) > 0.018  # (n, stages) -> (n,)
        careful = ~self.careless[..., 0]  # (n, stages, arm)
        careful = careful.mean((1, 2)) > 0.66  # (n,)
        return [
            f"{'fast' if f else 'slow'} {'careful' if c else 'careless'}"
            for f, c in zip(fast, careful)
        ]

    def act(self, world):
        """Joint targets and gripper openings (n, 6) for the state that the world is in."""
        rows, n = np.arange(world.n), world.n
        stage = np.minimum(world.stage, len(world.spec.stages) - 1)
        attempt = np.minimum(world.attempts, MAX_ATTEMPTS - 1)  # (n, arm)
        arms = np.arange(2)
        hands, held = world.hands, world.hold != NOTHING  # (n, arm, xy), (n, arm)

        # where to: the goal with what is held, else the handle (the careless one stops short of it)
        careless = self.careless[rows[:, None], stage[:, None], arms, attempt]
        error = self.aim_error[rows[:, None], stage[:, None], arms, attempt]
        goal = world.goal
        if world.wrong_goals is not None:
            goal = np.where(self.goes_wrong[:, None, None], world.wrong_goals[rows, stage], goal)
        # while carrying, the half (not the hand) is to arrive
        to_goal = goal - world.handles
        to_handle = world.handles + error - hands
        gap = np.linalg.norm(to_handle, axis=-1, keepdims=True)
        short = to_handle * np.clip(1 - SHORT / np.maximum(gap, 1e-9), 0, None)
        to_handle = np.where(careless[..., None], short, to_handle)
        way = np.where(held[..., None], to_goal, to_handle)  # (n, arm, xy)
        length = np.linalg.norm(way, axis=-1)

        # a half that lies on the wrong side is taken back, unless it was meant to be there
        waits = world.placed & ~(world.wrong & ~self.goes_wrong[:, None])
        arrived = length < ARRIVED
        pause = self.pausing[rows, np.minimum(world.t, world.spec.max_steps - 1)][:, None]
        empty_and_closed = ~held & (world.grippers < 0.5)
        stands = waits | arrived | pause | empty_and_closed
        pace = np.tile(self.pace[rows, stage][:, None], 2)  # (n, arm)
        safe, hasty = world.safe_speed[rows, stage, None], self.hasty[rows, stage, None]  # (n, 1)
        rash = np.where(
            safe < SAFE_SPEED, hasty, self.reckless[rows[:, None], stage[:, None], arms, attempt]
        )
        slows = (world.hold == EDGE) & ~rash
        pace = np.where(slows, np.minimum(pace, EDGE_PACE * (safe / SAFE_SPEED)), pace)
        # (n, 1)
        full_pace = np.where(hasty, np.inf, FULL_PACE * world.spill_speed[rows, stage, None])
        pace = np.where(held, np.minimum(pace, full_pace), pace)
        step = np.where(stands, 0, np.minimum(length, pace))
        way = way * (step / np.maximum(length, 1e-9))[..., None]
        joints = inverse_kinematics(hands + way, world.body)
        joints = np.where(stands[..., None], world.joints, joints)

        # gripper: closed while carrying, closing at the handle, else open
        grip_closed = np.where(held, ~arrived, arrived & ~waits & ~empty_and_closed)
        # ... a pause freezes it as it is, and a closing once begun is finished
        begun = (world.grippers < 1) & (world.grippers >= 0.5) & ~held & arrived & ~waits
        grip_closed = np.where(pause & ~begun, world.grippers < 0.5, grip_closed | begun)
        # (n, arm*3)
        return np.concatenate([joints, np.where(grip_closed, 0.0, 1.0)[..., None]], -1).reshape(
            n, 6
        )

class Gate:
    """The gate of the human-gated corrections: when the operator takes over, and hands back.

    They take over on a mistake: something held by its edge (it is going to slip), a half on its way
    to or at the wrong place, or no progress (the way that both hands still have to go did not
    shrink by 5 mm) for STALL steps.  They hand back when the stage in which they took over is done.
    """

    STALL = 12

    def __init__(self, world):
        self.in_control = np.zeros(world.n, bool)
        self.stage = np.zeros(world.n, int)
        self.best = np.full(world.n, np.inf)  # shortest remaining way so far in the stage, m
        self.since = np.zeros(world.n, int)  # steps since it last shrank

    def update(self, world):
        """Look at the world.  Returns whom the operator moves in the coming step, bool (n,)."""
        new_stage = world.stage != self.stage
        self.in_control &= ~new_stage
        self.best[new_stage], self.since[new_stage] = np.inf, 0
        self.stage = world.stage.copy()
        way = remaining_way(world)
        progress = way < self.best - 0.005
        self.since = np.where(progress, 0, self.since + 1)
        self.best = np.where(progress, way, self.best)
        mistake = (world.hold == EDGE).any(1) | world.wrong.any(1)
        # carried the wrong way for longer than a good grasp's radius
        if world.wrong_goals is not None:
            start = world.handles0[:, 0]
            away = np.linalg.norm(world.goal - world.handles, axis=-1) - np.linalg.norm(
                world.goal - start, axis=-1
            )
            mistake |= ((world.hold != NOTHING) & (away > GOOD_RADIUS)).any(1)
        self.in_control |= (mistake | (self.since >= self.STALL)) & ~world.done
        return self.in_control.copy()

class ScriptedOperator:
    """An operator who watches a policy: takes over when the `Gate` says so.

    seeds: one int per copy of the world.  Two methods, as `control.play` and `control.drive` ask.
    """

    def __init__(self, world, seeds, skill=COACH):
        self.world = world
        self.gate = Gate(world)
        self.hands = Operator(world, seeds, skill)

    def wants_control(self, observation):
        return self.gate.update(self.world)

    def act(self, observation):
        return self.hands.act(self.world)

def remaining_way(world):
    """Metres that both hands have to go in this stage, (n,): to the handle if empty, and on."""
    carry = np.linalg.norm(world.goal - world.handles, axis=-1)
    reach = np.where(world.hold == NOTHING, np.linalg.norm(world.handles - world.hands, axis=-1), 0)
    return np.where(world.placed & ~world.wrong, 0, carry + reach).sum(1)

def hasty(observation, live=None, frozen=None):
    """A scripted policy that sees only the observation: to the handle, grasp, carry, let go.  ->
    chunk (n, 8, 6)

    In the first stage it grasps too soon, by the edge: what an operator sees, and corrects.  For
    `python -m robots`.
    """
    # (n, arm, 2 + 1), (n, 4, 20)
    state, keys = observation["state"].reshape(-1, 2, 3), observation["keypoints"]
    # (n, arm, xy)
    hands, handles, goals = forward_kinematics(state[..., :2]), keys[:, :2, :2], keys[:, 2:, :2]
    held, placed = keys[:, :2, 7:9].any(-1), keys[:, :2, 10] > 0  # (n, arm)
    way = np.where(held[..., None], goals - handles, handles - hands)
    length = np.linalg.norm(way, axis=-1)  # (n, arm), m
    to_go = np.maximum(length - np.where(~held & (keys[:, :1, 11] > 0), SHORT, 0), 0)
    stands = placed | (~held & (state[..., 2] < 0.5))  # ... or closed upon nothing: open first
    chunk = []
    for k in range(1, 9):
        step = np.where(stands, 0, np.minimum(to_go, 0.02 * k))  # m
        joints = inverse_kinematics(hands + way * (step / np.maximum(length, 1e-9))[..., None])
        there = ~stands & (to_go < 0.02 * (k - 1) + 0.005)
        chunk.append(
            np.concatenate([joints, np.where(held != there, 0.0, 1.0)[..., None]], -1).reshape(
                -1, 6
            )
        )
    return np.stack(chunk, axis=1)

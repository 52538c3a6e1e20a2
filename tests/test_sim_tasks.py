"""The toy world against closed forms, the operators by what they are for, Gymnasium's face.

Copies are mostly placed by hand (`world.joints`), without actuation noise, so that what must
happen can be written down: a hand that turns about its shoulder by m·δ has moved by the chord
2 r sin(mδ / 2).
"""
import dataclasses
import re
import sys
import warnings
from functools import lru_cache

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import sim_tasks
from sim_tasks import arms, render
from sim_tasks.arms import (
    ACTION_DIM,
    BODIES,
    CONTROL_HZ,
    EDGE,
    GOOD,
    GOOD_RADIUS,
    GRASP_RADIUS,
    JOINT_HIGH,
    JOINT_LOW,
    JOINT_NOISE,
    NOTHING,
    RELEASE_RADIUS,
    SAFE_SPEED,
    SLIP_DISTANCE,
    STATIC,
    World,
    forward_kinematics,
    inverse_kinematics,
)
from sim_tasks.demonstrator import BEST, COACH, MIXED, Gate, Operator, remaining_way
from sim_tasks.demonstrator import GOOD as GOOD_SKILL
from sim_tasks.render import draw

SHIRT, DIVERSE, COLLAR, ESPRESSO, BOX = sim_tasks.TASKS.values()
# one item: no items
ALL = pytest.mark.parametrize("spec", (SHIRT, COLLAR, ESPRESSO, BOX), ids=lambda spec: spec.name)
IDS = {
    "SimTasks/FoldShirt-v0": SHIRT,
    "SimTasks/FoldDiverse-v0": DIVERSE,
    "SimTasks/FoldCollar-v0": COLLAR,
    "SimTasks/Espresso-v0": ESPRESSO,
    "SimTasks/Box-v0": BOX,
}
EVERY_BODY = pytest.mark.parametrize("body", BODIES.values(), ids=lambda body: body.name)
LEFT, RIGHT = 0, 1
BASES, JOINT_SPEED = np.array(STATIC.bases), STATIC.joint_speed
# (6,) of an action
LOW, HIGH = np.tile(np.append(JOINT_LOW, 0), 2), np.tile(np.append(JOINT_HIGH, 1), 2)

# ---------------------------------------------------------------- tools

def still(spec, n=1):
    """A world without actuation noise."""
    world = World(spec, range(n))
    world.noise[:] = 0
    return world

def action(world, joints=None, grippers=1.0):
    """(n, 6): go to joints (n, 2, 2), None: stay; grippers: broadcast to (n, arm)."""
    joints = world.joints if joints is None else joints
    grippers = np.broadcast_to(grippers, (world.n, 2))[..., None]
    return np.concatenate([joints, grippers], -1).reshape(world.n, ACTION_DIM)

def put(world, arm, points):
    """Put the hand of one arm at points (n, 2), and what it holds with it."""
    hands = world.hands
    moved, held = points - hands[:, arm], world.hold[:, arm] != NOTHING
    hands[:, arm] = points
    world.joints = inverse_kinematics(hands)
    world.handles[held, arm] += moved[held]

def grip(world, arm, opening):
    """Drive one gripper all the way; nothing else moves.  Two steps."""
    grippers = world.grippers.copy()
    grippers[:, arm] = opening
    for _ in range(2):
        world.step(action(world, grippers=grippers))

def grasp(world, arm, offset=(0, 0)):
    """Close the gripper of one arm at its handle + offset, m."""
    put(world, arm, world.handles[:, arm] + offset)
    grip(world, arm, 0)

def deliver(world, arm, points):
    """Grasp a half well and release it at points (n, 2)."""
    grasp(world, arm)
    assert (world.hold[:, arm] == GOOD).all()
    put(world, arm, points)
    grip(world, arm, 1)

def snapshot(world):
    return {name: x.copy() for name, x in vars(world).items() if isinstance(x, np.ndarray)}

def changed(before, world, rows=slice(None)):
    """Names of the world's arrays that differ from a snapshot, bit for bit, in the given copies."""
    return [
        name
        for name, x in snapshot(world).items()
        if name != "active" and x[rows].tobytes() != before[name][rows].tobytes()
    ]

def hands_of(joints):
    """Hands once more, independently: links as complex numbers, the right arm seen in a mirror.

    (..., arm, joint)
    """
    z = 0.45 * np.exp(1j * joints[..., 0]) * (1 + np.exp(1j * joints[..., 1]))  # (..., arm)
    return np.stack([np.stack([z[..., 0].real - 0.3, 0.3 - z[..., 1].real], -1), z.imag], -1)

def operate(spec, seeds, skill, body=STATIC, item=None):
    """Let an operator work to the end; yields (world, actions) before every step."""
    world = World(spec, seeds, body, item)
    operator = Operator(world, seeds, skill)
    while not world.done.all():
        actions = operator.act(world)
        yield world, actions
        world.step(actions)

@lru_cache
def outcome(spec, skill, n=200, body=STATIC, item=None):
    """The world when all copies are over."""
    for world, _ in operate(spec, range(n), skill, body, item):
        pass
    return world

def skip_to(world, subtask):
    """Let every stage before the one with this subtask be done by hand."""
    while world.subtasks()[0] != subtask:
        k = world.stage[0]
        for arm in np.flatnonzero(world.spec.stages[k].arms):
            deliver(world, arm, world.goals[:, k, arm])

def throughput(world):
    """Successes per simulated hour, failures' time included."""
    return world.success.sum() / (world.t.sum() / CONTROL_HZ / 3600)

# ---------------------------------------------------------------- kinematics

def test_forward_kinematics_and_its_inverse_over_all_joint_angles():
    joints = np.random.default_rng(0).uniform(JOINT_LOW, JOINT_HIGH, (5000, 2, 2))
    hands = forward_kinematics(joints)
    np.testing.assert_allclose(hands, hands_of(joints), rtol=0, atol=1e-12)
    np.testing.assert_allclose(inverse_kinematics(hands), joints, rtol=0, atol=1e-9)

def test_a_pose_by_hand():
    straight_up = np.array([[np.pi / 2, 0.0], [np.pi / 2, 0.0]])
    np.testing.assert_allclose(
        forward_kinematics(straight_up), [[-0.3, 0.9], [0.3, 0.9]], atol=1e-12
    )
    # upper arm along the left arm's +x (to the right), forearm bent back towards the robot
    bent = np.array([[0.0, -np.pi / 2], [0.0, -np.pi / 2]])
    np.testing.assert_allclose(
        forward_kinematics(bent), [[0.15, -0.45], [-0.15, -0.45]], atol=1e-12
    )

def test_the_arms_are_mirror_images():
    joints = np.random.default_rng(1).uniform(JOINT_LOW, JOINT_HIGH, (1000, 1, 2)).repeat(2, axis=1)
    hands = forward_kinematics(joints)
    np.testing.assert_allclose(hands[:, LEFT] * (-1, 1), hands[:, RIGHT], atol=1e-15)
    points = np.random.default_rng(2).uniform((-1, -1), (1, 1), (1000, 2))
    both = inverse_kinematics(np.stack([points, points * (-1, 1)], axis=1))
    np.testing.assert_allclose(both[:, LEFT], both[:, RIGHT], atol=1e-12)

def test_out_of_reach_is_projected_along_the_ray_and_in_reach_is_reached():
    rng = np.random.default_rng(3)
    angle = rng.uniform(-np.pi, np.pi, (3000, 2))
    ray = np.stack([np.cos(angle), np.sin(angle)], -1)  # (n, arm, xy)
    # equal links, elbow at -0.15 rad
    longest = 0.9 * np.cos(0.15 / 2)
    for low, high, expected, tolerance in ((0.92, 3.0, longest, 1e-12), (0.01, 0.09, 0.105, 0.006)):
        joints = inverse_kinematics(BASES + ray * rng.uniform(low, high, (3000, 2, 1)))
        reached = forward_kinematics(joints) - BASES
        length = np.linalg.norm(reached, axis=-1)
        np.testing.assert_allclose(length, expected, rtol=0, atol=tolerance)
        np.testing.assert_allclose(reached / length[..., None], ray, atol=1e-9)
        assert (joints[..., 1] <= JOINT_HIGH[1] + 1e-9).all() and (
            joints[..., 1] >= JOINT_LOW[1] - 0.02
        ).all()
    points = BASES + ray * rng.uniform(0.11, longest, (3000, 2, 1))
    np.testing.assert_allclose(forward_kinematics(inverse_kinematics(points)), points, atol=1e-9)

# ---------------------------------------------------------------- bodies

@EVERY_BODY
def test_kinematics_of_unequal_links(body):
    joints = np.random.default_rng(4).uniform(JOINT_LOW, JOINT_HIGH, (5000, 2, 2))
    hands = forward_kinematics(joints, body)
    (a, b), local = np.transpose(body.links), hands - body.bases
    # the law of cosines, and the bearing by two complex numbers, the right arm in a mirror
    np.testing.assert_allclose(
        (local**2).sum(-1), a**2 + b**2 + 2 * a * b * np.cos(joints[..., 1]), atol=1e-12
    )
    # (n, arm)
    z = np.exp(1j * joints[..., 0]) * (a + b * np.exp(1j * joints[..., 1]))
    np.testing.assert_allclose(local, np.stack([z.real * (1, -1), z.imag], -1), atol=1e-12)
    np.testing.assert_allclose(inverse_kinematics(hands, body), joints, rtol=0, atol=1e-8)
    # out of reach, the ray from the base is kept, and the elbow stands at its limit
    for scale, elbow in ((3.0, -0.15), (0.01, -2.9)):
        # (arm,)
        edge = np.sqrt(a**2 + b**2 + 2 * a * b * np.cos(elbow))
        length = scale * np.linalg.norm(local, axis=-1)
        beyond = length > edge if scale > 1 else length < edge
        assert beyond.mean() > 0.5
        projected = inverse_kinematics(np.array(body.bases) + scale * local, body)
        np.testing.assert_allclose(projected[..., 1][beyond], elbow, atol=1e-9)
        reached = (forward_kinematics(projected, body) - body.bases)[beyond]
        cross = reached[:, 0] * local[beyond][:, 1] - reached[:, 1] * local[beyond][:, 0]
        assert np.abs(cross).max() < 1e-9 and (reached * local[beyond]).sum(-1).min() > 0

def test_equal_links_are_computed_as_if_there_were_no_others_to_the_last_bit():
    """So that an episode of the static body does not depend on the existence of the other ones."""
    rng, L = np.random.default_rng(5), 0.45
    joints, hands = (
        rng.uniform(JOINT_LOW, JOINT_HIGH, (2000, 2, 2)),
        rng.uniform(-1, 1, (2000, 2, 2)),
    )
    shoulder, forearm = joints[..., 0], joints[..., 0] + joints[..., 1]
    x, y = L * (np.cos(shoulder) + np.cos(forearm)), L * (np.sin(shoulder) + np.sin(forearm))
    np.testing.assert_array_equal(
        forward_kinematics(joints), np.stack([(1, -1) * x, y], -1) + BASES
    )
    local = (hands - BASES) * (1, 1)
    x, y = (1, -1) * local[..., 0], local[..., 1]
    half = np.arccos(np.clip(np.hypot(x, y), 2 * L * np.cos(1.45), 2 * L * np.cos(0.075)) / (2 * L))
    np.testing.assert_array_equal(
        inverse_kinematics(hands), np.stack([np.arctan2(y, x) + half, -2 * half], -1)
    )

@EVERY_BODY
def test_every_body_reaches_every_handle_and_goal(body):
    for spec in sim_tasks.TASKS.values():
        for stages in [item.stages for item in spec.items] or [spec.stages]:
            for stage in stages:
                ends = [(stage.handles, spec.spread), (stage.goals, spec.goal_spread)]
                ends += (
                    [(stage.wrong_goals, spec.goal_spread)] if stage.wrong_goals is not None else []
                )
                for points, spread in ends:
                    # (4, 1, xy)
                    corners = np.array([[i, j] for i in (-1, 1) for j in (-1, 1)])[:, None] * spread
                    # (4, arm, joint)
                    joints = inverse_kinematics(np.array(points) + corners, body)
                    reached = forward_kinematics(np.clip(joints, JOINT_LOW, JOINT_HIGH), body)
                    error = np.linalg.norm(reached - points - corners, axis=-1)[
                        :, np.array(stage.arms)
                    ]
                    assert error.max() < 0.005, (spec.name, stage.subtask)

@EVERY_BODY
def test_a_body_moves_at_its_own_speed(body):
    world = World(SHIRT, range(3), body)
    world.noise[:] = 0
    before = world.joints
    world.step(action(world, before + 1.0, grippers=0))
    moved = np.minimum(before + body.joint_speed, JOINT_HIGH) - before
    np.testing.assert_allclose(world.joints - before, moved, atol=1e-12)
    np.testing.assert_allclose(world.grippers, max(0, 1 - body.gripper_speed))

@EVERY_BODY
@pytest.mark.parametrize("spec", sim_tasks.TASKS.values(), ids=lambda spec: spec.name)
def test_every_body_can_do_every_task(spec, body):
    world = outcome(spec, BEST, 40, body)
    assert world.success.mean() >= 0.95
    # of both handles, for the left arm's joints
    offsets = world.observe()["keypoints"][:, :2, 2:4].astype(float)
    reached = forward_kinematics((world.joints[:, :1] + offsets)[:, :, None].repeat(2, 2), body)[
        :, :, LEFT
    ]
    near = np.linalg.norm(world.handles - body.bases[LEFT], axis=-1) < 0.8
    np.testing.assert_allclose(reached[near], world.handles[near], atol=1e-5)

# ---------------------------------------------------------------- motion

def test_joints_cover_at_most_joint_speed_and_arrive_where_they_can():
    world, rng = still(SHIRT, 50), np.random.default_rng(0)
    arrived = 0
    for _ in range(30):
        before = world.joints
        target = np.clip(before + rng.uniform(-0.16, 0.16, (50, 2, 2)), JOINT_LOW, JOINT_HIGH)
        world.step(action(world, target))
        near = np.abs(target - before) <= JOINT_SPEED
        np.testing.assert_allclose(world.joints[near], target[near], atol=1e-12)
        np.testing.assert_allclose(
            (world.joints - before)[~near],
            JOINT_SPEED * np.sign(target - before)[~near],
            atol=1e-12,
        )
        arrived += near.mean() / 30
    assert 0.4 < arrived < 0.6  # both cases occurred
    for _ in range(60):
        world.step(action(world, np.full((50, 2, 2), 99.0)))
    np.testing.assert_array_equal(world.joints, np.broadcast_to(JOINT_HIGH, (50, 2, 2)))

def test_joint_noise_has_the_stated_deviation():
    world, moved = World(SHIRT, range(100)), []
    for _ in range(60):
        before = world.joints
        world.step(action(world))  # stay: what moves is the noise
        moved.append(world.joints - before)
    # 24,000 draws: the deviation's own is 0.5 %
    moved = np.array(moved)
    assert np.std(moved) == pytest.approx(JOINT_NOISE, rel=0.02)
    assert abs(moved.mean()) < 4 * JOINT_NOISE / np.sqrt(moved.size)

def test_gripper_speed():
    world = still(SHIRT)
    seen = []
    for opening in (0.0, 0.0, 0.0, 0.3, 0.7, 7.0, 7.0, -7.0, 0.9):
        world.step(action(world, grippers=[[opening, 1.0]]))
        seen.append(world.grippers[0, LEFT])
        assert world.grippers[0, RIGHT] == 1
    np.testing.assert_allclose(seen, [0.5, 0.0, 0.0, 0.3, 0.7, 1.0, 1.0, 0.5, 0.9], atol=1e-12)
    # what the line above was computed with
    assert STATIC.gripper_speed == 0.5

@ALL
def test_starting_states_lie_where_the_task_says(spec):
    world = World(spec, range(300))
    where = np.array([s.handles for s in spec.stages])
    handles, goals = world.handles0 - where, world.goals - np.array([s.goals for s in spec.stages])
    for jitter, half_width in ((handles, spec.spread), (goals, spec.goal_spread)):
        assert 0.95 * half_width < np.abs(jitter).max() <= half_width
        # of a uniform draw
        assert np.std(jitter) == pytest.approx(half_width / np.sqrt(3), rel=0.05)
    assert np.ptp(goals, axis=(1, 2)).max() < 1e-12  # an episode's goals move together
    if spec.stages[0].wrong_goals is not None:  # ... and so does the wrong way to do it
        np.testing.assert_allclose(
            world.wrong_goals - np.array([s.wrong_goals for s in spec.stages]), goals, atol=1e-12
        )
    assert (world.grippers == 1).all() and (world.hold == NOTHING).all()
    assert np.abs(world.hands - [[-0.25, 0.32], [0.25, 0.32]]).max() <= 0.03 + 1e-9

# ---------------------------------------------------------------- chance

@ALL
def test_an_episode_is_the_same_alone_and_among_many(spec):
    def record(seeds):
        log = [
            (w.observe(), actions, w.success.copy(), w.slips.copy())
            for w, actions in operate(spec, seeds, MIXED)
        ]
        return [{**o, "actions": a, "success": s, "slips": k} for o, a, s, k in log]

    seeds = [5, 2**62 + 1, 0, 11, 3, 8, 77, 12]
    together, again = record(seeds), record(seeds)
    for i in (1, 6):
        alone = record(seeds[i : i + 1])
        assert len(alone) > 10
        for many, twice, one in zip(together, again, alone):
            for name, x in one.items():
                assert x[0].tobytes() == many[name][i].tobytes() == twice[name][i].tobytes(), (
                    name,
                    seeds[i],
                )
    # seeds do differ
    assert together[0]["keypoints"][0].tobytes() != together[0]["keypoints"][1].tobytes()

def test_reset_takes_new_seeds_and_forgets_the_old_episode():
    world = World(COLLAR, range(4))
    for _ in range(COLLAR.max_steps):
        world.step(action(world, grippers=0))
    world.reset([9, 8, 7, 6])
    assert changed(snapshot(World(COLLAR, [9, 8, 7, 6])), world) == []

# ---------------------------------------------------------------- grasping, slipping, releasing

@pytest.mark.parametrize("arm", (LEFT, RIGHT))
def test_the_distance_decides_how_a_grasp_holds(arm):
    distance = np.array(
        [
            0.0,
            0.02,
            GOOD_RADIUS - 1e-4,
            GOOD_RADIUS + 1e-4,
            0.05,
            GRASP_RADIUS - 1e-4,
            GRASP_RADIUS + 1e-4,
            0.15,
        ]
    ).repeat(5)
    expected = np.array([GOOD, GOOD, GOOD, EDGE, EDGE, EDGE, NOTHING, NOTHING]).repeat(5)
    world = still(SHIRT, len(distance))
    angle = np.random.default_rng(arm).uniform(0, 2 * np.pi, len(distance))
    handles = world.handles.copy()
    grasp(world, arm, distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1))
    np.testing.assert_array_equal(world.hold[:, arm], expected)
    assert (world.hold[:, 1 - arm] == NOTHING).all()
    np.testing.assert_array_equal(world.handles, handles)  # taken, not moved
    # and it looks like it: columns 7 (by the edge) and 8 (well) of that half's row
    flags = world.observe()["keypoints"][:, arm, 7:9]
    np.testing.assert_array_equal(flags, np.stack([expected == EDGE, expected == GOOD], -1))

def test_only_closing_grasps():
    world = still(SHIRT)
    grip(world, LEFT, 0)  # closed, away from the handle
    put(world, LEFT, world.handles[:, LEFT])
    for _ in range(3):
        world.step(action(world, grippers=[[0, 1]]))
    # arriving with a closed gripper takes nothing
    assert world.hold[0, LEFT] == NOTHING
    grip(world, LEFT, 1)
    grip(world, LEFT, 0)
    assert world.hold[0, LEFT] == GOOD

def swing(world, arm, turn):
    """Turn one shoulder by turn (n,) rad, grippers as they are: the hand moves along an arc about
    the base.
    """
    joints = world.joints.copy()
    joints[:, arm, 0] += turn
    world.step(action(world, joints, world.grippers))

def test_an_edge_grasp_slips_exactly_after_slip_distance():
    n = 60
    world = still(SHIRT, n)
    grasp(world, LEFT, (0.05, 0))
    assert (world.hold[:, LEFT] == EDGE).all()
    start, held_at = world.handles[:, LEFT].copy(), world.hands[:, LEFT].copy()
    radius = np.linalg.norm(held_at - BASES[LEFT], axis=-1)  # of the arc, (n,)
    turn = -np.linspace(0.01, JOINT_SPEED, n)  # rad per step
    # the chord of one step
    lost = 2 * radius * np.sin(-turn / 2) > SAFE_SPEED
    assert 10 < lost.sum() < n - 10
    slipped = np.zeros(n, bool)
    for m in range(1, 17):
        swing(world, LEFT, turn)
        # m steps further on the arc
        way = 2 * radius * np.sin(-m * turn / 2)
        just_now = (way > SLIP_DISTANCE) & ~slipped
        slipped |= just_now
        np.testing.assert_array_equal(world.hold[:, LEFT], np.where(slipped, NOTHING, EDGE))
        np.testing.assert_array_equal(world.slips, slipped)
        # until then it moved with the hand; then it sprang back
        hand = hands_of(world.joints)[:, LEFT]
        np.testing.assert_allclose(
            world.handles[~slipped, LEFT], (start + hand - held_at)[~slipped], atol=1e-9
        )
        np.testing.assert_array_equal(world.handles[slipped, LEFT], start[slipped])
        # column 9: what has been used up of SLIP_DISTANCE
        np.testing.assert_allclose(
            world.observe()["keypoints"][:, LEFT, 9],
            np.where(slipped, 0, way / SLIP_DISTANCE),
            atol=1e-6,
        )
        np.testing.assert_array_equal(world.done, slipped & lost)
    assert slipped.all()
    np.testing.assert_array_equal(world.lost, lost)
    assert not (world.success | world.timeout | world.wrong_mode).any()
    # what was not lost can be grasped again
    grip(world, LEFT, 1)
    put(world, LEFT, np.where(world.done[:, None], world.hands[:, LEFT], world.handles[:, LEFT]))
    grip(world, LEFT, 0)
    np.testing.assert_array_equal(world.hold[:, LEFT] == GOOD, ~lost)

def test_a_good_grasp_never_slips():
    world = still(SHIRT, 20)
    # 3.4 cm beside the handle
    offset = np.full((20, 2), 0.024)
    grasp(world, RIGHT, offset)
    for m in range(1, 15):
        swing(world, RIGHT, np.full(20, -JOINT_SPEED if m < 12 else JOINT_SPEED))
        np.testing.assert_allclose(
            hands_of(world.joints)[:, RIGHT] - world.handles[:, RIGHT], offset, atol=1e-9
        )
    assert (
        np.linalg.norm(world.handles - world.handles0[:, 0], axis=-1)[:, RIGHT] > 3 * SLIP_DISTANCE
    ).all()
    assert (
        (world.hold[:, RIGHT] == GOOD).all() and (world.slips == 0).all() and not world.done.any()
    )
    np.testing.assert_array_equal(world.observe()["keypoints"][:, RIGHT, 9], 0)

@pytest.mark.parametrize("arm", (LEFT, RIGHT))
def test_a_release_counts_within_release_radius_of_the_goal(arm):
    distance = np.array([0, 0.03, RELEASE_RADIUS - 1e-4, RELEASE_RADIUS + 1e-4, 0.1]).repeat(8)
    world = still(SHIRT, len(distance))
    angle = np.random.default_rng(arm).uniform(0, 2 * np.pi, len(distance))
    there = world.goal[:, arm] + distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    grasp(world, arm, (0.01, 0.02))
    # the half, not the hand, is what must be there
    put(world, arm, there + (0.01, 0.02))
    grip(world, arm, 1)
    placed = distance < RELEASE_RADIUS
    np.testing.assert_array_equal(world.placed[:, arm], placed)
    assert not world.placed[:, 1 - arm].any() and (world.stage == 0).all()
    np.testing.assert_allclose(
        world.handles[:, arm],
        np.where(placed[:, None], there, world.handles0[:, 0, arm]),
        atol=1e-9,
    )
    assert (world.hold == NOTHING).all()
    # a half that lies at its goal is not taken up again
    grip(world, arm, 0)
    assert (world.hold[placed, arm] == NOTHING).all() and world.placed[placed, arm].all()

def test_one_arm_done_stays_done_while_the_other_fails_and_tries_again():
    world = still(SHIRT, 3)
    deliver(world, LEFT, world.goal[:, LEFT])
    lies = world.handles[:, LEFT].copy()
    grasp(world, RIGHT, (0.05, 0))
    for _ in range(8):
        swing(world, RIGHT, np.full(3, -0.03))
    assert (world.slips == 1).all() and not world.done.any()
    grip(world, RIGHT, 1)
    assert (
        world.placed[:, LEFT].all()
        and not world.placed[:, RIGHT].any()
        and (world.stage == 0).all()
    )
    np.testing.assert_array_equal(world.handles[:, LEFT], lies)
    deliver(world, RIGHT, world.goal[:, RIGHT])
    assert (world.stage == 1).all()

def test_in_a_later_stage_it_springs_back_to_where_that_stage_began():
    world = still(SHIRT, 2)
    for arm in (LEFT, RIGHT):
        deliver(world, arm, world.goal[:, arm])
    deliver(world, RIGHT, world.handles0[:, 1, RIGHT] + (0.0, 0.15))
    assert not world.placed.any()
    np.testing.assert_array_equal(world.handles, world.handles0[:, 1])

@ALL
def test_stages_follow_one_another_until_success(spec):
    world = still(dataclasses.replace(spec, max_steps=1000), 4)
    for k, stage in enumerate(spec.stages):
        assert (world.stage == k).all() and not world.done.any()
        assert list(world.subtasks()) == [stage.subtask] * 4
        np.testing.assert_array_equal(world.handles, world.handles0[:, k])  # put out anew
        np.testing.assert_array_equal(world.placed, np.tile(~np.array(stage.arms), (4, 1)))
        assert (world.hold == NOTHING).all()
        for arm in np.flatnonzero(stage.arms):
            # both halves, not one
            assert (world.stage == k).all()
            deliver(world, arm, world.goals[:, k, arm])
    assert (world.stage == len(spec.stages)).all() and world.success.all() and world.done.all()
    assert not (world.timeout | world.lost | world.wrong_mode).any()

def test_an_arm_without_a_part_takes_nothing():
    world = still(BOX, 2)
    for k in (0, 1):
        for arm in (LEFT, RIGHT):
            deliver(world, arm, world.goals[:, k, arm])
    assert list(world.subtasks()) == ["label box"] * 2 and not world.active[2][LEFT]
    grasp(world, LEFT)
    assert (
        (world.hold[:, LEFT] == NOTHING).all()
        and world.placed[:, LEFT].all()
        and (world.attempts == 0).all()
    )

# ---------------------------------------------------------------- critical mistakes

def chords(world, arm, speeds):
    """Turns of the shoulder (n,) that move the hand by speeds (n,) m in one step."""
    radius = np.linalg.norm(world.hands[:, arm] - BASES[arm], axis=-1)
    turns = 2 * np.arcsin(speeds / (2 * radius))
    assert (turns < JOINT_SPEED).all()
    return turns

def test_the_full_cup_spills_exactly_above_its_speed():
    limit = ESPRESSO.stages[-1].spill_speed
    speeds = np.append(np.linspace(0.002, 0.024, 30), [limit - 1e-6, limit + 1e-6])
    world = still(dataclasses.replace(ESPRESSO, max_steps=1000), len(speeds))
    # empty it can be carried at any speed
    for subtask in ("bring cup", "serve coffee"):
        skip_to(world, subtask)
        arm = RIGHT if subtask == "serve coffee" else LEFT
        # ... and an empty hand may hurry
        swing(world, arm, -chords(world, arm, speeds))
        grasp(world, arm)
        np.testing.assert_array_equal(
            world.observe()["keypoints"][0, :, 19],
            np.float32(SAFE_SPEED / limit if arm == RIGHT else 0),
        )
        assert not world.done.any() and (world.hold[:, arm] == GOOD).all()
        swing(world, arm, -chords(world, arm, speeds))
        spilled = (speeds > limit) & (subtask == "serve coffee")
        for name in ("spilled", "done", "mistakes"):
            np.testing.assert_array_equal(getattr(world, name), spilled)
        assert (
            list(world.failure) == ["spilled" if s else "" for s in spilled]
            and not world.success.any()
        )
        grip(world, arm, 1)
    assert 5 < spilled.sum() < 27
    # what is over makes no more of them
    assert not world.mistakes[spilled].any() and world.mistakes.dtype == bool

@pytest.mark.parametrize(
    "subtask, arm, limit",
    (
        ("bring portafilter", LEFT, 0.014),
        ("tamp coffee", LEFT, SAFE_SPEED),
        ("lock portafilter", RIGHT, 0.014),
    ),
)
def test_a_slip_of_the_portafilter_ends_the_episode_at_a_lower_speed(subtask, arm, limit):
    speeds = np.append(np.linspace(0.005, 0.027, 25), [limit - 1e-6, limit + 1e-6])
    world = still(dataclasses.replace(ESPRESSO, max_steps=1000), len(speeds))
    skip_to(world, subtask)
    assert world.observe()["keypoints"][:, :, 18] == pytest.approx(limit / SAFE_SPEED)
    grasp(world, arm, (0.05, 0))
    # a shoulder's arc: the same speed in every step
    turns = chords(world, arm, speeds)
    for _ in range(16):
        swing(world, arm, np.where(world.slips == 0, -turns, 0))
    assert (world.slips == 1).all()
    np.testing.assert_array_equal(world.done, speeds > limit)
    assert list(world.failure) == ["dropped" if s > limit else "" for s in speeds]

def test_the_operator_minds_the_cup_and_the_portafilter_unless_he_is_reckless():
    fast = dataclasses.replace(BEST, paces=(0.032,))
    assert not outcome(ESPRESSO, fast).spilled.any()
    assert outcome(ESPRESSO, dataclasses.replace(fast, hasty=1.0)).spilled.mean() > 0.98
    clumsy = dataclasses.replace(BEST, careful=0.0, reckless=0.0)
    assert outcome(ESPRESSO, clumsy).lost.mean() < 0.1
    world = outcome(ESPRESSO, dataclasses.replace(clumsy, hasty=1.0))
    # the portafilter, at once
    assert world.lost.mean() > 0.98 and (world.stage == 0).mean() > 0.95

# ---------------------------------------------------------------- a record of mistakes

def test_mistakes_are_flagged_in_the_very_step():
    world, flags = still(COLLAR), []
    step = world.step

    def recorded(actions):
        step(actions)
        flags.append(bool(world.mistakes[0]))

    def during(what, *args):
        flags.clear()
        what(*args)
        return flags.copy()

    world.step = recorded
    # closing takes two steps, opening one
    assert during(grasp, world, LEFT) == [False, False]
    put(world, LEFT, world.goal[:, LEFT] - (0, 0.1))
    assert during(grip, world, LEFT, 1) == [True, False]  # let go before the goal
    assert during(grasp, world, LEFT, (0.05, 0)) == [False, True]  # by the edge
    # a slip
    assert during(lambda: [swing(world, LEFT, np.array([-0.03])) for _ in range(6)]) == [
        False
    ] * 4 + [True, False]
    assert during(grip, world, LEFT, 1) == [False, False]  # there is nothing in it
    # collar down
    assert during(deliver, world, LEFT, world.wrong_goals[:, 0, LEFT]) == [
        False,
        False,
        True,
        False,
    ]
    assert during(deliver, world, LEFT, world.goal[:, LEFT]) == [False] * 4  # taken back
    # nothing in reach: time is lost, no more
    assert during(grasp, world, RIGHT, (0.2, 0)) == [False, False]
    assert not world.done.any()
    grip(world, RIGHT, 1)
    assert during(grasp, world, RIGHT, (-0.05, 0)) == [False, True]
    # off the table
    assert during(lambda: [swing(world, RIGHT, np.array([-0.07])) for _ in range(3)]) == [
        False,
        True,
        False,
    ]
    assert world.lost[0] and world.failure[0] == "dropped"

@pytest.mark.parametrize("spec", (COLLAR, DIVERSE, ESPRESSO), ids=lambda spec: spec.name)
def test_mistakes_are_what_the_states_before_and_after_a_step_tell(spec):
    """Told from outside: a fresh edge grasp, one more slip, held before but now neither held nor
    at its goal, an end.
    """
    before, counted = None, 0
    for world, _ in operate(spec, range(80), MIXED):
        now = (
            world.hold.copy(),
            world.slips.copy(),
            world.stage.copy(),
            world.lost | world.spilled,
        )
        if before is not None:
            hold, slips, stage, gone = before
            let_go = (hold != NOTHING) & (world.hold == NOTHING) & ~(world.placed & ~world.wrong)
            told = (
                ((hold == NOTHING) & (world.hold == EDGE)).any(1)
                | (world.slips > slips)
                | (now[3] & ~gone)
            )
            # a new stage begins with empty hands
            told |= let_go.any(1) & (stage == world.stage)
            np.testing.assert_array_equal(world.mistakes, told)
            counted += told.sum()
        before = now
    assert counted > 80

@pytest.mark.parametrize("spec", sim_tasks.TASKS.values(), ids=lambda spec: spec.name)
def test_failure_says_why(spec):
    world = outcome(spec, MIXED)
    np.testing.assert_array_equal(world.failure == "", world.success)
    for text, flag in (
        ("dropped", world.lost),
        ("spilled", world.spilled),
        ("wrong way", world.wrong_mode),
        ("time", world.timeout),
    ):
        np.testing.assert_array_equal(world.failure == text, flag)
    assert set(World(spec, range(9)).failure) == {""}

# ---------------------------------------------------------------- items

NAMES = [item.name for item in DIVERSE.items]

def test_prompts_name_the_item_and_seeds_draw_them_alike():
    world = World(DIVERSE, range(2200))
    assert (
        len(set(NAMES)) == 11
        and DIVERSE.measured in NAMES
        and list(world.prompts()) == [f"fold {NAMES[i]}" for i in world.item]
    )
    assert max(len(prompt.split()) for prompt in world.prompts()) == 3
    counts = np.bincount(world.item, minlength=11)
    # four standard errors
    assert np.abs(counts - 200).max() < 4 * np.sqrt(2200 / 11 * 10 / 11)
    assert list(World(DIVERSE, [7, 3]).item) == [world.item[7], world.item[3]]
    assert list(World(BOX, [1, 2]).prompts()) == ["build box"] * 2

def test_drawing_an_item_moves_nothing_else():
    items, shirt = World(DIVERSE, range(50)), World(SHIRT, range(50))

    def nominal(field):
        return np.array([[getattr(s, field) for s in DIVERSE.items[i].stages] for i in items.item])

    np.testing.assert_allclose(
        items.handles0 - nominal("handles"),
        shirt.handles0 - [s.handles for s in SHIRT.stages],
        atol=1e-12,
    )
    np.testing.assert_allclose(
        items.goals - nominal("goals"), shirt.goals - [s.goals for s in SHIRT.stages], atol=1e-12
    )
    np.testing.assert_array_equal(items.joints, shirt.joints)

def test_a_chosen_item_is_kept_and_an_unknown_one_names_the_nearest():
    world = World(DIVERSE, range(5), item="jeans")
    world.reset(range(5, 10))
    assert set(world.prompts()) == {"fold jeans"}
    with pytest.raises(
        ValueError,
        match=r"item: 'button-up shrt', did you mean 'button-up shirt'\?  One of towel, ",
    ):
        World(DIVERSE, [0], item="button-up shrt")
    with pytest.raises(ValueError, match="item: 'towel': fold_shirt has no items"):
        World(SHIRT, [0], item="towel")
    env = sim_tasks.laundry.FoldDiverseEnv()
    assert (
        env.reset(seed=0, options={"item": "long-sleeve shirt"})[1]["prompt"]
        == "fold long-sleeve shirt"
    )
    with pytest.raises(ValueError, match="item: 'hat', did you mean"):
        env.reset(seed=0, options={"item": "hat"})
    with pytest.raises(ValueError, match=r"options: \['colour', 'item'\], expected 'item' alone"):
        env.reset(seed=0, options={"colour": "red"})

@pytest.mark.parametrize("name", NAMES)
def test_an_item_wants_to_be_grasped_as_exactly_as_it_says(name):
    radius = DIVERSE.items[NAMES.index(name)].stages[0].good_radius
    distance = np.array(
        [0.0, radius - 1e-6, radius + 1e-6, GRASP_RADIUS - 1e-6, GRASP_RADIUS + 1e-6]
    )
    world = World(DIVERSE, range(5), item=name)
    world.noise[:] = 0
    assert world.observe()["keypoints"][..., 17] == pytest.approx(radius / GRASP_RADIUS)
    grasp(world, LEFT, distance[:, None] * (0.6, 0.8))
    np.testing.assert_array_equal(world.hold[:, LEFT], [GOOD, GOOD, EDGE, EDGE, NOTHING])
    np.testing.assert_array_equal(world.mistakes, world.hold[:, LEFT] == EDGE)

def test_every_item_can_be_done_and_the_button_up_shirt_is_the_hardest():
    worlds = {
        skill: outcome(DIVERSE, skill, n)
        for skill, n in ((MIXED, 1100), (GOOD_SKILL, 1100), (BEST, 440), (COACH, 440))
    }
    rates = {
        skill: [w.success[w.item == i].mean() for i in range(11)] for skill, w in worlds.items()
    }
    assert min(rates[BEST]) >= 0.95 and min(rates[COACH]) >= 0.95
    assert 0.3 < np.mean(rates[MIXED]) < 0.5 and 0.6 < np.mean(rates[GOOD_SKILL]) < 0.75
    for skill in (MIXED, GOOD_SKILL):
        *others, shirt = rates[skill]
        assert NAMES[-1] == "button-up shirt" and shirt < min(others) - 0.03
    assert throughput(worlds[BEST]) > 3 * throughput(worlds[MIXED])

# ---------------------------------------------------------------- two ways to do it

@pytest.mark.parametrize("first", (LEFT, RIGHT))
@pytest.mark.parametrize("left", ("up", "down"))
@pytest.mark.parametrize("right", ("up", "down"))
def test_only_collar_up_counts(left, right, first):
    world = still(COLLAR, 5)
    ways = {"up": world.goals[:, 0], "down": world.wrong_goals[:, 0]}
    to = (ways[left], ways[right])
    for arm in (first, 1 - first):
        assert not world.done.any()
        # near it is good enough
        deliver(world, arm, to[arm][:, arm] + (0.02, 0.03))
    up = left == right == "up"
    assert world.done.all() and (world.success == up).all() and (world.wrong_mode == (not up)).all()
    assert not world.lost.any() and not world.timeout.any() and (world.stage == int(up)).all()

def test_a_half_on_the_wrong_side_can_be_taken_back():
    world = still(COLLAR, 5)
    deliver(world, LEFT, world.wrong_goals[:, 0, LEFT])
    assert world.wrong[:, LEFT].all() and not world.done.any()
    # column 10: released there, too
    np.testing.assert_array_equal(world.observe()["keypoints"][:, LEFT, 10], 1)
    np.testing.assert_allclose(world.handles[:, LEFT], world.wrong_goals[:, 0, LEFT], atol=1e-12)
    grasp(world, LEFT)
    assert (world.hold[:, LEFT] == GOOD).all() and not world.wrong.any() and not world.placed.any()
    put(world, LEFT, world.goals[:, 0, LEFT])
    grip(world, LEFT, 1)
    deliver(world, RIGHT, world.goals[:, 0, RIGHT])
    assert world.success.all() and not world.wrong_mode.any()

def test_taken_back_and_dropped_elsewhere_it_springs_back_to_the_start():
    world = still(COLLAR)
    deliver(world, LEFT, world.wrong_goals[:, 0, LEFT])
    deliver(world, LEFT, world.handles0[:, 0, LEFT] + (0.0, 0.05))
    np.testing.assert_array_equal(world.handles[:, LEFT], world.handles0[:, 0, LEFT])
    assert not world.placed.any() and not world.wrong.any()

def test_only_a_release_is_wrong_not_the_way_across():
    world = still(COLLAR, 2)
    grasp(world, LEFT)
    put(world, LEFT, world.wrong_goals[:, 0, LEFT])
    # held over the wrong place
    world.step(action(world, grippers=world.grippers))
    assert not world.wrong.any() and (world.hold[:, LEFT] == GOOD).all()
    put(world, LEFT, np.stack([world.goals[0, 0, LEFT], world.handles0[1, 0, LEFT]]))
    grip(world, LEFT, 1)
    # at the goal; dropped elsewhere
    np.testing.assert_array_equal(world.placed[:, LEFT], [True, False])
    assert not world.wrong.any()

def test_the_coach_takes_back_what_lies_on_the_wrong_side_unless_it_was_put_there_on_purpose():
    world = still(COLLAR, 20)
    deliver(world, RIGHT, world.wrong_goals[:, 0, RIGHT])
    coach = Operator(world, range(20), COACH)
    while not world.done.all():
        world.step(coach.act(world))
    assert world.success.all()
    world = still(COLLAR, 20)
    deliver(world, RIGHT, world.wrong_goals[:, 0, RIGHT])
    stubborn = Operator(world, range(20), dataclasses.replace(COACH, wrong=1.0))
    while not world.done.all():
        world.step(stubborn.act(world))
    assert world.wrong_mode.all()

# ---------------------------------------------------------------- the end of an episode

@ALL
def test_the_time_limit(spec):
    world = still(spec, 2)
    for t in range(spec.max_steps):
        assert not world.done.any() and (world.t == t).all()
        world.step(action(world))
    assert world.done.all() and world.timeout.all() and (world.t == spec.max_steps).all()
    assert not (world.success | world.lost | world.wrong_mode).any()

def test_success_in_the_last_step_is_a_success():
    world = still(COLLAR)
    deliver(world, LEFT, world.goal[:, LEFT])
    grasp(world, RIGHT)
    put(world, RIGHT, world.goal[:, RIGHT])
    world.t[:] = COLLAR.max_steps - 1
    world.step(action(world))
    assert world.success.all() and world.done.all() and not world.timeout.any()

def test_what_is_over_stays_frozen_and_the_others_go_on():
    world, rng = still(COLLAR, 3), np.random.default_rng(0)
    deliver(world, LEFT, world.goal[:, LEFT])
    deliver(
        world,
        RIGHT,
        np.where([[True], [False], [False]], world.goal[:, RIGHT], world.handles0[:, 0, RIGHT]),
    )
    np.testing.assert_array_equal(world.done, [True, False, False])
    before = snapshot(world)
    for _ in range(10):
        # open
        world.step(
            np.where(
                np.arange(6) % 3 == 2, rng.uniform(0.5, 1, (3, 6)), rng.uniform(LOW, HIGH, (3, 6))
            )
        )
    assert changed(before, world, slice(0, 1)) == []
    assert {"t", "joints", "grippers"} <= set(changed(before, world, slice(1, 3)))
    np.testing.assert_array_equal(world.t - before["t"], [0, 10, 10])

# ---------------------------------------------------------------- what is seen, and what is refused

@ALL
def test_keypoint_columns_mean_what_they_say(spec):
    seen_edge = seen_placed = 0
    for world, _ in operate(spec, range(25), MIXED):
        if world.t.max() % 9:
            continue
        state, keypoints = world.observe()["state"], world.observe()["keypoints"]
        np.testing.assert_allclose(state.reshape(25, 2, 3)[..., :2], world.joints, atol=1e-6)
        np.testing.assert_allclose(state.reshape(25, 2, 3)[..., 2], world.grippers, atol=1e-6)
        points = np.concatenate([world.handles, world.goal], axis=1)  # (n, 4, xy)
        np.testing.assert_allclose(keypoints[..., 0:2], points, atol=1e-6)
        # 2:4, 4:6: an arm whose joints move by that many radians is at the point, if it can reach
        # it
        for arm in (LEFT, RIGHT):
            # (n, 4, arm, joint)
            joints = world.joints[:, None] + keypoints[:, :, [2 + 2 * arm, 3 + 2 * arm]][:, :, None]
            within = np.linalg.norm(points - BASES[arm], axis=-1) < 0.9 * np.cos(0.075)
            assert within.mean() > 0.5
            np.testing.assert_allclose(
                hands_of(joints)[:, :, arm][within], points[within], atol=1e-5
            )
        stage = np.minimum(world.stage, len(spec.stages) - 1)
        for i in range(25):
            takes_part = spec.stages[stage[i]].arms
            for row in range(4):
                arm, half = row % 2, row < 2
                expected = [
                    takes_part[arm],
                    half and world.hold[i, arm] == EDGE,
                    half and world.hold[i, arm] == GOOD,
                ]
                np.testing.assert_array_equal(keypoints[i, row, 6:9], expected)
                used = (
                    np.linalg.norm(world.handles[i, arm] - world.grasped_at[i, arm]) / SLIP_DISTANCE
                )
                assert keypoints[i, row, 9] == pytest.approx(used * expected[1], abs=1e-6)
                assert keypoints[i, row, 10] == (half and world.placed[i, arm])
                seen_edge += expected[1]
                seen_placed += half and takes_part[arm] and world.placed[i, arm]
            np.testing.assert_array_equal(
                keypoints[i, :, 11:17], np.tile(np.arange(6) == stage[i], (4, 1))
            )
    assert seen_edge > 10 and seen_placed > 5
    assert state.dtype == keypoints.dtype == np.float32

def test_observe_gives_fresh_arrays_and_changes_nothing():
    world = World(SHIRT, range(3))
    before = snapshot(world)
    first = world.observe()
    kept = {name: x.copy() for name, x in first.items()}
    world.step(action(world))
    for name, x in first.items():
        # a step does not reach into what was handed out
        np.testing.assert_array_equal(x, kept[name])
        x[:] = 99
    assert all(np.abs(x).max() < 10 for x in world.observe().values())
    world = World(SHIRT, range(3))
    for x in world.observe().values():
        x[:] = 99
    Operator(world, range(3), MIXED).act(world)[:] = 99
    assert changed(before, world) == []

@pytest.mark.parametrize("bad", (np.nan, np.inf, -np.inf))
def test_actions_that_are_not_finite_are_refused_before_anything_moves(bad):
    world = World(SHIRT, range(4))
    world.step(action(world, grippers=0))
    before, actions = snapshot(world), action(world)
    actions[2, 4] = bad
    with pytest.raises(ValueError, match=rf"actions: {bad} in copy 2"):
        world.step(actions)
    assert changed(before, world) == []

@pytest.mark.parametrize("shape", ((4, 5), (3, 6), (6,), (4, 2, 3)))
def test_actions_of_a_wrong_shape_are_refused(shape):
    world = World(SHIRT, range(4))
    before = snapshot(world)
    with pytest.raises(
        ValueError, match=rf"actions: shape {re.escape(str(shape))}, expected \(4, 6\)"
    ):
        world.step(np.zeros(shape))
    assert changed(before, world) == []

# ---------------------------------------------------------------- the operator

@ALL
def test_the_operator_at_his_best_and_on_average(spec):
    best, coach, good, mixed = (outcome(spec, skill) for skill in (BEST, COACH, GOOD_SKILL, MIXED))
    assert best.success.mean() >= 0.99 and coach.success.mean() >= 0.99
    assert 0.1 < mixed.success.mean() < 0.8  # enough of both to learn from
    # careless, slow: both cost him
    assert mixed.lost.any() and mixed.timeout.any() and mixed.slips.mean() > 0.5
    assert mixed.lost.mean() < 0.25
    assert not best.slips.any() and not best.lost.any()
    # headroom: the mean is far from the best, the SFT demonstrations lie between, corrections are
    # not the fastest
    assert throughput(mixed) < throughput(good) < throughput(coach) < throughput(best)
    assert throughput(best) > 3 * throughput(mixed)

def test_about_half_of_the_mixed_collars_go_the_wrong_way():
    world = outcome(COLLAR, MIXED, 400)
    finished = world.success | world.wrong_mode
    assert finished.sum() > 100
    assert 0.35 < world.wrong_mode.sum() / finished.sum() < 0.65
    # there is one way only
    assert not outcome(SHIRT, MIXED).wrong_mode.any()

def test_what_is_drawn_for_an_operator():
    n = 600
    world = World(BOX, range(n))
    operator = Operator(world, range(n), MIXED)

    # within four standard errors
    def near(draws, p):
        draws = np.asarray(draws)
        assert abs(draws.mean() - p) < 4 * np.sqrt(p * (1 - p) / draws.size)

    near(operator.careless[..., 0], 1 - MIXED.careful)
    near(operator.careless[..., 1:], 1 - MIXED.careful_again)
    near(operator.reckless, MIXED.reckless)
    near(operator.hasty, MIXED.hasty)
    for pace, p in zip(MIXED.paces, MIXED.pace_p):
        near(operator.pace == pace, p)
    assert np.std(operator.aim_error) == pytest.approx(MIXED.aim_noise, rel=0.02)
    # at work at a step: no pause of 3-7 steps, all lengths alike, began in the seven steps up to it
    at_work = np.prod([1 - MIXED.pause * longer for longer in (1, 1, 1, 0.8, 0.6, 0.4, 0.2)])
    assert operator.pausing[:, 7:].mean() == pytest.approx(1 - at_work, abs=0.01)
    assert not operator.goes_wrong.any()
    near(Operator(World(COLLAR, range(n)), range(n), MIXED).goes_wrong, MIXED.wrong)

def test_an_operators_draws_do_not_depend_on_the_batch():
    seeds = [4, 99, 2**62, 7]
    many = Operator(World(COLLAR, seeds), seeds, MIXED)
    for i, seed in enumerate(seeds):
        one = Operator(World(COLLAR, [seed]), [seed], MIXED)
        for name, x in vars(one).items():
            assert x[0].tobytes() == getattr(many, name)[i].tobytes(), name
    assert not np.array_equal(many.aim_error[0], many.aim_error[1])

@ALL
@pytest.mark.parametrize("how", ("trembling", "far away"))
def test_the_coach_can_take_over_from_any_state(spec, how):
    n, rng = 100, np.random.default_rng(7)
    world = World(dataclasses.replace(spec, max_steps=4 * spec.max_steps), range(n))
    actions = rng.uniform(LOW, HIGH, (n, 6))
    # at random in every step, or all the way to a random pose
    for _ in range(40):
        if how == "trembling":
            actions = rng.uniform(LOW, HIGH, (n, 6))
        world.step(actions)
    over = world.done.copy()
    assert over.sum() < 0.8 * n
    assert how == "trembling" or np.abs(world.hands - [[-0.25, 0.32], [0.25, 0.32]]).max() > 0.5
    operator = Operator(world, range(n), COACH)
    while not world.done.all():
        world.step(operator.act(world))
    assert world.success[~over].mean() >= 0.95

# ---------------------------------------------------------------- who is in control

def test_remaining_way_at_the_start_by_hand():
    world = still(BOX, 6)
    hands = hands_of(world.joints)
    expected = sum(
        np.linalg.norm(world.handles0[:, 0, i] - hands[:, i], axis=-1)
        + np.linalg.norm(world.goals[:, 0, i] - world.handles0[:, 0, i], axis=-1)
        for i in (0, 1)
    )
    np.testing.assert_allclose(remaining_way(world), expected, atol=1e-12)
    deliver(world, LEFT, world.goal[:, LEFT])
    grasp(world, RIGHT)
    # left nothing, right: to carry
    np.testing.assert_allclose(
        remaining_way(world),
        np.linalg.norm(world.goal - world.handles0[:, 0], axis=-1)[:, RIGHT],
        atol=1e-12,
    )

@pytest.mark.parametrize("arm", (LEFT, RIGHT))
def test_the_gate_sees_an_edge_grasp(arm):
    world = still(SHIRT, 3)
    gate = Gate(world)
    assert not gate.update(world).any()
    # good, by the edge, nothing
    grasp(world, arm, np.array([[0.0, 0], [0.05, 0], [0.1, 0]]))
    np.testing.assert_array_equal(gate.update(world), [False, True, False])

def test_the_gate_sees_a_stall_after_stall_steps():
    world = still(SHIRT, 2)
    gate, joints = Gate(world), inverse_kinematics(world.handles)
    start = world.joints.copy()
    for t in range(40):
        # copy 1 goes to its handles first, 0.01 m or more a step
        on_its_way = t < 10
        expected = [t >= Gate.STALL, t >= 10 + Gate.STALL]
        np.testing.assert_array_equal(gate.update(world), expected, err_msg=f"step {t}")
        fraction = (t + 1) / 10 if on_its_way else 1
        target = np.where([[[False]], [[True]]], start + fraction * (joints - start), start)
        # placed: the speed limit does not matter here
        world.joints = target

def test_the_gate_sees_the_wrong_way():
    world = still(COLLAR, 4)
    gate = Gate(world)
    gate.update(world)
    grasp(world, LEFT)
    assert not gate.update(world).any()
    # down, along y
    way = np.sign(world.wrong_goals[:, 0, LEFT] - world.goals[:, 0, LEFT])
    # m towards the wrong goal
    far = np.array([[0.6 * GOOD_RADIUS], [1.4 * GOOD_RADIUS], [-0.1], [-0.15]])
    put(world, LEFT, world.handles[:, LEFT] + far * way * (0, 1))
    np.testing.assert_array_equal(gate.update(world), [False, True, False, False])
    world = still(COLLAR, 2)
    gate = Gate(world)
    gate.update(world)
    deliver(world, RIGHT, np.stack([world.goal[0, RIGHT], world.wrong_goals[1, 0, RIGHT]]))
    # it lies there already
    np.testing.assert_array_equal(gate.update(world), [False, True])

@ALL
def test_the_gate_hands_back_when_the_stage_is_done_and_not_before(spec):
    n = 60
    world = World(dataclasses.replace(spec, max_steps=2 * spec.max_steps), range(n))
    sloppy, coach, gate = (
        Operator(world, range(n), MIXED),
        Operator(world, range(n), COACH),
        Gate(world),
    )
    before, stage = np.zeros(n, bool), world.stage.copy()
    handed_back = 0
    while not world.done.all():
        live, now = ~world.done, gate.update(world)
        next_stage = world.stage > stage
        # a new stage begins in the policy's hands
        assert not (now & next_stage)[live].any()
        # and within one he keeps what he has taken
        assert not (before & ~now & ~next_stage)[live].any()
        handed_back += (before & next_stage)[live].sum()
        before, stage = now, world.stage.copy()
        world.step(np.where(now[:, None], coach.act(world), sloppy.act(world)))
    assert handed_back > 10 or len(spec.stages) == 1
    assert (
        world.success.mean() > outcome(spec, MIXED).success.mean() + 0.1
        and world.success.mean() > 0.8
    )

@ALL
def test_the_gate_leaves_the_best_alone(spec):
    world = World(spec, range(200))
    operator, gate = Operator(world, range(200), BEST), Gate(world)
    while not world.done.all():
        assert not gate.update(world).any()
        world.step(operator.act(world))

def test_the_gate_takes_over_nothing_that_is_over():
    world = still(COLLAR)
    for arm in (LEFT, RIGHT):
        deliver(world, arm, world.wrong_goals[:, 0, arm])
    assert world.done.all() and world.wrong.all()
    assert not Gate(world).update(world).any()

# ---------------------------------------------------------------- Gymnasium

@pytest.mark.parametrize("render_mode", (None, "rgb_array"))
@pytest.mark.parametrize("name", IDS)
def test_the_environment_checker_has_nothing_to_say(name, render_mode, capsys):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        env = gymnasium.make(name, render_mode=render_mode)
        check_env(env.unwrapped)
    # joint angles are radians, not numbers in [-1, 1]: the one recommendation that is not followed
    assert len(said) == 1 and "recommend using a symmetric and normalized space" in str(
        said[0].message
    )
    assert capsys.readouterr() == ("", "")

@pytest.mark.parametrize("name", IDS)
def test_the_docstring_has_gymnasiums_sections(name):
    spec, doc = IDS[name], type(gymnasium.make(name).unwrapped).__doc__
    assert re.findall(r"^ *## (.+)$", doc, re.M) == [
        "Description",
        "Observation Space",
        "Action Space",
        "Rewards",
        "Starting State",
        "Episode End",
    ]
    sections = re.split(r"^ *## .+$", doc, flags=re.M)
    assert min(len(text.strip()) for text in sections) > 50
    assert "runcated" not in doc  # a time-out terminates
    # where it quotes numbers
    for steps, seconds in re.findall(r"(\d+) steps \(([\d.]+) s\)", doc):
        assert (int(steps), float(seconds)) == (spec.max_steps, spec.max_steps / CONTROL_HZ)
    for pattern, metres in (
        (r"handles jittered by \+-([\d.]+) cm", spec.spread),
        (r"goals by \+-([\d.]+) cm", spec.goal_spread),
        (r"([\d.]+) to [\d.]+ cm beside", GOOD_RADIUS),
        (r"to ([\d.]+) cm beside", GRASP_RADIUS),
        (r"after ([\d.]+) cm of carrying", SLIP_DISTANCE),
        (r"more than ([\d.]+) cm per step", SAFE_SPEED),
    ):
        for centimetres in re.findall(pattern, doc):
            assert float(centimetres) == pytest.approx(100 * metres), pattern

@pytest.mark.parametrize("name", IDS)
def test_the_environment_is_a_world_with_one_copy(name):
    """Observations, rewards (Eq. 5), ends and info, against `World.step`, for every way in which
    an episode ends.
    """
    spec, env = IDS[name], gymnasium.make(name)
    ends = outcome(spec, MIXED)
    assert env.unwrapped.task is spec
    kinds = [
        kind
        for kind in (ends.success, ends.lost, ends.spilled, ends.timeout, ends.wrong_mode)
        if kind.any()
    ]
    assert len(kinds) >= 3
    for kind in kinds:
        seed = int(np.flatnonzero(kind)[0])
        observation, info = env.reset(seed=seed)
        rewards = []
        for world, actions in operate(spec, [seed], MIXED):
            for key, x in world.observe().items():
                assert observation[key].tobytes() == x[0].tobytes()
            assert env.observation_space.contains(observation)
            assert set(info) == {"success", "failure", "stages", "subtask", "prompt"}
            assert (
                info["success"] is False
                and info["failure"] == ""
                and info["prompt"] == world.prompts()[0]
            )
            assert info["subtask"] == world.subtasks()[0] == spec.stages[world.stage[0]].subtask
            assert list(info["stages"]) == [k < world.stage[0] for k in range(len(spec.stages))]
            observation, reward, terminated, truncated, info = env.step(actions[0])
            rewards.append(reward)
            assert type(terminated) is bool and type(truncated) is bool and type(reward) is float
            if len(rewards) < ends.t[seed]:
                assert not terminated and not truncated
        # Running out of time is a failure; Gymnasium's own clock says "truncated" besides.
        assert (terminated, truncated) == (True, ends.t[seed] == spec.max_steps)
        assert type(info["success"]) is bool and info["success"] == ends.success[seed] == all(
            info["stages"]
        )
        assert rewards == [-1.0] * (ends.t[seed] - 1) + [
            0.0 if ends.success[seed] else -float(spec.max_steps)
        ]
    env.close()

def test_seeds_name_episodes_and_unseeded_ones_differ():
    env = gymnasium.make("SimTasks/FoldShirt-v0")
    first, second, third = env.reset(seed=3)[0], env.reset()[0], env.reset()[0]
    again = [env.reset(seed=3)[0], env.reset()[0], env.reset()[0]]
    for one, other in zip((first, second, third), again):
        assert all(one[key].tobytes() == other[key].tobytes() for key in one)
    assert len({x["keypoints"].tobytes() for x in again}) == 3

@pytest.mark.parametrize("name", IDS)
def test_a_time_out_is_a_failure_that_terminates(name):
    """Stable-Baselines3 bootstraps from V where `truncated and not terminated`: never here.

    C_fail stands in the reward already.
    """
    spec = IDS[name]
    registered = gymnasium.spec(name)
    assert registered.max_episode_steps == spec.max_steps
    stay = np.tile([1.5, -1.0, 1.0], 2).astype(np.float32)
    for env, clock in ((gymnasium.make(name), True), (gymnasium.make(name).unwrapped, False)):
        env.reset(seed=0)
        for t in range(spec.max_steps):
            _, reward, terminated, truncated, info = env.step(stay)
            assert terminated == (t + 1 == spec.max_steps)
            assert not (truncated and not terminated)
        # Gymnasium's TimeLimit says what its own clock says, the environment does not.
        assert truncated == clock and not info["success"] and info["failure"] == "time"
        assert reward == -spec.max_steps

def test_a_step_needs_a_reset_before_it():
    for env in (gymnasium.make("SimTasks/Box-v0").unwrapped, sim_tasks.laundry.FoldCollarEnv()):
        action = env.action_space.sample()
        with pytest.raises(gymnasium.error.ResetNeeded, match=r"step\(\) before reset\(\)"):
            env.step(action)
        env.reset(seed=1)
        steps = 1
        while not env.step(action)[2]:
            steps += 1
        assert steps <= env.task.max_steps
        before = env.world.t.copy()
        with pytest.raises(gymnasium.error.ResetNeeded, match="after the end of the episode"):
            env.step(action)
        assert np.array_equal(env.world.t, before)
        env.reset()
        env.step(action)
    with pytest.raises(gymnasium.error.ResetNeeded):
        vector_of("SimTasks/Box-v0", 2).step(np.zeros((2, 6), np.float32))

# ---------------------------------------------------------------- many environments in one world

def vector_of(name, n):
    return gymnasium.make_vec(name, num_envs=n, vectorization_mode="vector_entry_point")

def by_seed(t, i):
    """An action of copy i at step t."""
    return np.random.default_rng([t, i]).uniform(LOW, HIGH).astype(np.float32)

@pytest.mark.parametrize("name", ["SimTasks/FoldDiverse-v0", "SimTasks/Espresso-v0"])
def test_the_vector_environment_is_n_single_ones_step_by_step(name):
    n = 4
    spec = IDS[name]
    envs = vector_of(name, n)
    singles = [gymnasium.make(name).unwrapped for _ in range(n)]
    operators = []
    for i, one in enumerate(singles):
        one.reset(seed=20 + i)
        operators.append(Operator(one.world, [20 + i], MIXED))
    seen, info = envs.reset(seed=20)
    assert envs.num_envs == n and envs.observation_space.contains(seen)
    assert envs.single_action_space == singles[0].action_space
    over = np.zeros(n, bool)
    for _ in range(spec.max_steps):
        live = ~over
        acting = zip(operators, singles)
        actions = np.float32([operator.act(one.world)[0] for operator, one in acting])
        seen, reward, terminated, truncated, info = envs.step(actions)
        assert envs.observation_space.contains(seen) and not truncated.any()
        for i in np.flatnonzero(live):
            o, r, end, _, told = singles[i].step(actions[i])
            assert all(seen[key][i].tobytes() == x.tobytes() for key, x in o.items())
            assert (reward[i], bool(terminated[i])) == (r, end)
            for key in ("success", "failure", "subtask"):
                assert info[key][i] == told[key]
        over |= terminated
        if over.all():
            break
    assert over.all()

@pytest.mark.parametrize("name", ["SimTasks/FoldDiverse-v0", "SimTasks/Box-v0"])
def test_what_is_over_begins_anew_at_the_next_step_and_the_others_do_not_notice(name, monkeypatch):
    """Every episode of every copy against a world of its own, with the seed that was drawn."""
    n = 3
    spec = IDS[name]
    envs = vector_of(name, n).unwrapped
    assert envs.metadata["autoreset_mode"] is gymnasium.vector.AutoresetMode.NEXT_STEP
    seen, _ = envs.reset(seed=5)
    seeds = list(range(5, 5 + n))
    drawn = []
    real = envs._draw

    def noted(count):
        drawn.extend(real(count))
        return drawn[-count:]

    monkeypatch.setattr(envs, "_draw", noted)
    worlds = [World(spec, [seed]) for seed in seeds]
    operators = [Operator(world, [seed], MIXED) for world, seed in zip(worlds, seeds)]
    over = np.zeros(n, bool)
    episodes = 0
    for _ in range(2 * spec.max_steps + 5):
        actions = np.full((n, ACTION_DIM), np.nan, np.float32)  # not used where one begins
        for i in np.flatnonzero(~over):
            actions[i] = operators[i].act(worlds[i])[0]
        begins = over.copy()
        n_drawn = len(drawn)
        seen, reward, over, truncated, info = envs.step(actions)
        assert len(drawn) == n_drawn + begins.sum() and not truncated.any()
        fresh = iter(drawn[n_drawn:])
        for i in range(n):
            if begins[i]:
                seed = next(fresh)
                worlds[i] = World(spec, [seed])
                operators[i] = Operator(worlds[i], [seed], MIXED)
                episodes += 1
                assert reward[i] == 0
            else:
                worlds[i].step(actions[i][None])
                last = 0.0 if worlds[i].success[0] else -float(spec.max_steps)
                assert reward[i] == (last if worlds[i].done[0] else -1)
            for key, x in worlds[i].observe().items():
                assert seen[key][i].tobytes() == x[0].tobytes()
            assert over[i] == worlds[i].done[0] and info["success"][i] == worlds[i].success[0]
            assert info["subtask"][i] == worlds[i].subtasks()[0]
            assert envs.world.prompts()[i] == worlds[i].prompts()[0]
    assert episodes >= n and len(set(drawn)) == len(drawn) == episodes

def test_a_seed_names_all_episodes_of_a_vector_environment():
    def play(seed):
        envs = vector_of("SimTasks/FoldCollar-v0", 2)
        seen = [envs.reset(seed=seed)[0]["keypoints"]]
        for t in range(2 * COLLAR.max_steps):
            actions = np.array([by_seed(t, i) for i in range(2)])
            seen.append(envs.step(actions)[0]["keypoints"])
        return np.array(seen)

    assert np.array_equal(play(3), play(3)) and not np.array_equal(play(3), play(4))
    envs = vector_of("SimTasks/FoldCollar-v0", 2)
    unseeded = [envs.reset()[0]["keypoints"].tobytes() for _ in range(2)]
    assert unseeded[0] != unseeded[1]
    each = envs.reset(seed=[9, 4])[0]["keypoints"]
    alone = [gymnasium.make("SimTasks/FoldCollar-v0").reset(seed=seed)[0] for seed in (9, 4)]
    assert all(np.array_equal(x, one["keypoints"]) for x, one in zip(each, alone))

def test_the_vector_environment_takes_one_python_step_for_all():
    """Calls of Python functions per step: as many for 64 copies as for 2, not 32 times as many."""

    def calls(make, n):
        envs = make(n)
        envs.reset(seed=0)
        actions = np.tile(np.tile([1.5, -1.0, 1.0], 2), (n, 1)).astype(np.float32)
        count = 0

        def note(frame, event, argument):
            nonlocal count
            count += event == "call"

        sys.setprofile(note)
        try:
            for _ in range(5):
                envs.step(actions)
        finally:
            sys.setprofile(None)
        return count

    def sync(n):
        return gymnasium.make_vec("SimTasks/Box-v0", num_envs=n, vectorization_mode="sync")

    def ours(n):
        return vector_of("SimTasks/Box-v0", n)

    assert calls(ours, 64) <= 1.1 * calls(ours, 2)
    assert calls(sync, 64) > 20 * calls(ours, 64)

def test_the_observation_space_holds_whatever_a_policy_does():
    """Corners of the action space, also with a half in the hand: the arms end up behind the robot.
    """
    env = gymnasium.make("SimTasks/FoldShirt-v0")
    world, rng = World(SHIRT, range(300)), np.random.default_rng(0)
    for arm in (LEFT, RIGHT):
        grasp(world, arm)
    corners = np.where(rng.random((300, 6)) < 0.5, LOW, HIGH)
    corners[:, [2, 5]] = 0
    for t in range(60):
        world.step(corners)
        seen = world.observe()
        for i in range(0, 300, 1 if t == 59 else 30):
            assert env.observation_space.contains({key: x[i] for key, x in seen.items()})

def test_a_bad_action_names_itself_in_the_environment_too():
    env = gymnasium.make("SimTasks/Box-v0").unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match="actions: nan"):
        env.step(np.array([0, 0, 0, np.nan, 0, 0], np.float32))
    with pytest.raises(ValueError, match="actions: shape"):
        env.step(np.zeros(7, np.float32))

def test_pictures_of_stored_observations_show_the_stage_and_the_body():
    for spec in (DIVERSE, ESPRESSO):
        stored, seen = {}, set()
        for world, _ in operate(spec, [3], BEST):
            stored[int(world.stage[0])] = {key: x[0].copy() for key, x in world.observe().items()}
        for k, o in stored.items():
            picture = draw(o["state"], o["keypoints"], spec)
            assert (
                draw(o["state"], o["keypoints"], spec, body=BODIES["long"]) != picture
            ).any(-1).mean() > 0.01
            seen.add(picture.tobytes())
        assert len(seen) == len(spec.stages)
    # the bench stands where the episode's goals are: moved by 2 cm, the far corner of the machine
    # is, too
    o, moved = stored[0], stored[0]["keypoints"].copy()
    moved[2:, 1] -= 0.02
    here, there = (
        draw(o["state"], k, ESPRESSO)[50:75, 100:200].astype(int) for k in (o["keypoints"], moved)
    )
    assert np.abs(here - there).max() > 50

@EVERY_BODY
def test_the_environment_has_its_body_and_draws_it(body):
    env = sim_tasks.laundry.FoldShirtEnv(render_mode="rgb_array", body=body)
    seen, world = env.reset(seed=3)[0], World(SHIRT, [3], body)
    assert all(seen[key].tobytes() == x[0].tobytes() for key, x in world.observe().items())
    np.testing.assert_array_equal(
        env.render(), draw(seen["state"], seen["keypoints"], SHIRT, body=body)
    )
    # its hands are where its kinematics puts them: a gripper that closes changes the picture there,
    # and only there
    point = np.array([-0.1, 0.8])
    seen["state"][:2] = inverse_kinematics(np.array([point, (0.3, 0.3)]), body)[LEFT]
    opened = draw(seen["state"], seen["keypoints"], SHIRT, body=body)
    seen["state"][2] = 0.3
    rows, columns = np.nonzero(
        (draw(seen["state"], seen["keypoints"], SHIRT, body=body) != opened).any(-1)
    )
    # (pixels, xy)
    at = np.stack(
        [render.LEFT + columns * render.VIEW / 240, render.TOP - rows * render.VIEW / 240], -1
    )
    assert len(at) > 15 and np.linalg.norm(at - point, axis=-1).max() < 0.12

def test_rendering():
    with pytest.raises(ValueError, match="render_mode: 'human'"):
        sim_tasks.laundry.FoldShirtEnv(render_mode="human")
    env = sim_tasks.laundry.FoldShirtEnv(render_mode="rgb_array")
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"render\(\) before reset\(\)"):
        env.render()
    env.reset(seed=0)
    picture = env.render()
    assert picture.dtype == np.uint8 and picture.shape == (240, 240, 3)
    # something is drawn
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    # looking changes nothing
    np.testing.assert_array_equal(env.render(), picture)
    for _ in range(5):
        env.step(np.tile([1.5, -1.0, 0.0], 2).astype(np.float32))
    assert (env.render() != picture).any(-1).mean() > 0.005
    blind = sim_tasks.laundry.FoldShirtEnv()
    blind.reset(seed=0)
    with pytest.warns(UserWarning, match="render mode"):
        assert blind.render() is None

def test_no_grasp_comes_for_free():
    """Where a stage begins, each hand has further to go to its handle than the careless operator
    stops short.
    """
    for task in (DIVERSE, ESPRESSO):
        for of in task.items or (task,):
            hands = [np.array([-0.25, 0.32]), np.array([0.25, 0.32])]
            for stage in of.stages:
                for arm in np.flatnonzero(stage.arms):
                    assert np.linalg.norm(stage.handles[arm] - hands[arm]) > 0.10, (
                        task.name,
                        stage.subtask,
                    )
                    hands[arm] = np.array(stage.goals[arm])

def test_constants_stand_in_the_order_that_the_mechanics_need():
    """Good within edge within nothing; what slips is still on its way.

    The speeds allow both to lose and to keep.
    """
    stages = [
        stage
        for task in sim_tasks.TASKS.values()
        for of in (task, *task.items)
        for stage in of.stages
    ]
    assert all(0 < stage.good_radius < GRASP_RADIUS for stage in stages)
    carries = [
        np.linalg.norm(np.subtract(s.handles, s.goals), axis=-1)[np.array(s.arms)].min()
        for s in stages
    ]
    # what is held by the edge slips on its way
    assert SLIP_DISTANCE + RELEASE_RADIUS < min(carries)
    assert max(MIXED.paces) > SAFE_SPEED > min(MIXED.paces)
    assert max(len(task.stages) for task in sim_tasks.TASKS.values()) <= arms.MAX_STAGES

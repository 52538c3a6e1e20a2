"""The questions: answers against a slow reader, scenes that are possible, and no answer that can
be guessed.
"""
import math
from collections import Counter

import numpy as np
import pytest

from sim_tasks.arms import (
    GOOD_RADIUS,
    GRASP_RADIUS,
    JOINT_HIGH,
    JOINT_LOW,
    KEYPOINT_DIM,
    RELEASE_RADIUS,
    World,
    forward_kinematics,
    inverse_kinematics,
)
from sim_tasks.cameras import CAMERAS, SIZE, cameras
from sim_tasks.laundry import FOLD_SHIRT
from sim_tasks.questions import WEB_WORDS, answers, questions

N = 4000
MARGIN = 1e-5  # m: the columns are rounded to float32

@pytest.fixture(scope="module")
def pairs():
    return questions(N, seed=1)

def hand_of(state, arm):
    """Hand (x, y) of one arm, from the angles of one state (6,)."""
    q1, q2 = (float(q) for q in state[3 * arm : 3 * arm + 2])
    reach = 0.45 * (math.cos(q1) + math.cos(q1 + q2))
    return (-0.3 + reach, 0.3 - reach)[arm], 0.45 * (math.sin(q1) + math.sin(q1 + q2))

def slow_answer(question, state, keypoints):
    """One answer, word by word from one scene; None where rounding decides."""
    words = question.split()
    arm = 1 if "right" in words else 0
    if words[0] == "where":
        x, y = keypoints[arm, :2] if words[2] == "handle" else hand_of(state, arm)
        if abs(x) < MARGIN or abs(y - 0.45) < MARGIN:
            return None
        return ("far " if y > 0.45 else "near ") + ("right" if x > 0 else "left")
    if words[-1] == "holds":
        return "well" if keypoints[arm, 8] == 1 else "edge" if keypoints[arm, 7] == 1 else "nothing"
    if words[-1] == "gripper":
        return "open" if state[(2, 5)[arm]] >= 0.5 else "closed"
    if words[0] == "how":
        columns = {"held": (7, 8), "placed": (10,)}[words[2]]
        return ["zero", "one", "two"][sum(int(keypoints[i, c]) for i in (0, 1) for c in columns)]
    if question == "which arm nearer":
        left, right = (math.dist(hand_of(state, i), keypoints[i, :2]) for i in (0, 1))
        return None if abs(left - right) < MARGIN else "left" if left < right else "right"
    assert question == "what look"
    return ["one", "two", "three", "four", "five", "six"][list(keypoints[3, 11:17]).index(1)]

def test_answers_against_a_slow_reader(pairs):
    rows = zip(pairs["question"], pairs["answer"], pairs["state"], pairs["keypoints"])
    expected = [
        (answer, slow_answer(question, state, keypoints))
        for question, answer, state, keypoints in rows
    ]
    assert all(answer == slow for answer, slow in expected if slow is not None)
    assert sum(slow is None for _, slow in expected) < 5

def test_no_answer_can_be_guessed(pairs):
    """Each question is frequent, and its most frequent answer is right less than 70 % of the time.
    """
    asked = Counter(pairs["question"].tolist())
    assert len(asked) == 12 and min(asked.values()) > 0.7 * N / 12
    for question, count in asked.items():
        found = Counter(pairs["answer"][pairs["question"] == question].tolist())
        assert max(found.values()) < 0.7 * count, f"{question}: {found}"
        assert min(found.values()) > 0.03 * count, f"{question}: {found}"

def test_words(pairs):
    """WEB_WORDS is what is used, each once; lengths as the prompt and the subtask have room for."""
    used = {
        word for text in [*set(pairs["question"]), *set(pairs["answer"])] for word in text.split()
    }
    assert used == set(WEB_WORDS) and len(WEB_WORDS) == len(set(WEB_WORDS))
    assert max(len(text.split()) for text in set(pairs["question"])) == 3
    assert max(len(text.split()) for text in set(pairs["answer"])) == 2

def test_determinism(pairs):
    again, other = questions(N, seed=1), questions(N, seed=2)
    assert pairs.keys() == again.keys() == {"state", "keypoints", "question", "answer"}
    for name in pairs:
        assert np.array_equal(pairs[name], again[name]) and not np.array_equal(
            pairs[name], other[name]
        )

def test_pictures_on_request():
    plain, seen = questions(5, seed=3), questions(5, seed=3, cameras=True)
    assert seen.keys() == plain.keys() | set(CAMERAS)
    assert all(np.array_equal(plain[name], seen[name]) for name in plain)
    expected = cameras(plain["state"], plain["keypoints"])
    for camera in CAMERAS:
        assert seen[camera].shape == (5, SIZE, SIZE, 3) and np.array_equal(
            seen[camera], expected[camera]
        )

# ---------------------------------------------------------------- the scenes

def test_format_is_that_of_a_world(pairs):
    seen = World(FOLD_SHIRT, range(3)).observe()
    for name, array in seen.items():
        assert pairs[name].shape[1:] == array.shape[1:] and pairs[name].dtype == array.dtype
    # (n, arm, joints + gripper)
    state, keypoints = pairs["state"].reshape(N, 2, 3), pairs["keypoints"]
    assert (state[..., :2] >= JOINT_LOW - 1e-6).all() and (
        state[..., :2] <= JOINT_HIGH + 1e-6
    ).all()
    assert (state[..., 2] >= 0).all() and (state[..., 2] <= 1).all()
    assert set(np.unique(keypoints[..., [6, 7, 8, 10, *range(11, 17)]])) == {0, 1}
    assert (keypoints[..., 11:17].sum(-1) == 1).all() and (
        keypoints[..., 11:17] == keypoints[:, :1, 11:17]
    ).all()
    assert not keypoints[:, 2:, 7:11].any() and KEYPOINT_DIM == keypoints.shape[-1]
    assert (keypoints[:, :2, 6] == keypoints[:, 2:, 6]).all()

def test_joint_offsets_lead_to_the_points(pairs):
    """Columns 2:6, added to the joints: each arm's hand is where the point is, or as near as it
    can reach.
    """
    state, keypoints = (
        pairs["state"].reshape(N, 2, 3).astype(float),
        pairs["keypoints"].astype(float),
    )
    for row in range(4):
        # (n, arm, xy)
        there = forward_kinematics(state[..., :2] + keypoints[:, row, 2:6].reshape(N, 2, 2))
        points = np.repeat(keypoints[:, row, None, :2], 2, axis=1)
        np.testing.assert_allclose(there, forward_kinematics(inverse_kinematics(points)), atol=1e-5)

def test_scenes_are_possible(pairs):
    """Held: in play, by a closed gripper within its grasp.

    Placed or not in play: at the goal, and not held.
    """
    state, keypoints = pairs["state"].reshape(N, 2, 3), pairs["keypoints"][:, :2].astype(float)
    # (n, arm) each
    in_play, edge, well, carried, placed = np.moveaxis(keypoints[..., 6:11], -1, 0)
    hands = forward_kinematics(state[..., :2].astype(float))
    distance = np.linalg.norm(hands - keypoints[..., :2], axis=-1)
    held = (edge + well).astype(bool)
    assert (
        ((edge + well + placed) <= 1).all()
        and ((in_play + placed) >= 1).all()
        and in_play[held].all()
    )
    assert (distance[held] < GRASP_RADIUS + MARGIN).all() and (
        distance[well == 1] < GOOD_RADIUS + MARGIN
    ).all()
    assert (distance[edge == 1] > GOOD_RADIUS - MARGIN).all() and (
        state[..., 2][held] < 0.5 + 1e-6
    ).all()
    assert (carried[edge == 0] == 0).all() and 0.4 < carried[edge == 1].mean() < 0.6
    to_goal = np.linalg.norm(keypoints[..., :2] - pairs["keypoints"][:, 2:, :2], axis=-1)
    assert (to_goal[placed == 1] < RELEASE_RADIUS + MARGIN).all()
    # left is left
    assert (keypoints[:, 0, 0] <= keypoints[:, 1, 0]).all()

def test_answers_about_a_world():
    """What a robot sees can be asked about, too: one shirt with the left half held, and the right
    hand far away.
    """
    world = World(FOLD_SHIRT, [0])
    hands = world.handles + np.array([[0.01, 0.0], [0.2, 0.1]])
    world.joints, world.grippers[0, 0] = inverse_kinematics(hands), 0
    world.hold[0, 0] = 2
    found = {question: answer[0] for question, answer in answers(**world.observe()).items()}
    assert found["what left holds"] == "well" and found["what right holds"] == "nothing"
    assert found["left gripper"] == "closed" and found["right gripper"] == "open"
    assert found["where left handle"] == "near left" and found["where right hand"].endswith("right")
    assert found["how many held"] == "one" and found["how many placed"] == "zero"
    assert found["which arm nearer"] == "left" and found["what look"] == "one"

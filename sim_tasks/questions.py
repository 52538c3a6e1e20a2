"""Questions about pictures, with answers: the toy's stand-in for vision-language data from the web.

The paper co-trains on such data in two places: the VLA in pre-training ("vision-language data from
the web", Secs. V-A and V-D), and the value function, "to prevent overfitting", on a small mixture
of it (Sec. V-C).  What counts there is that the backbone has to read pictures and words for more
than one purpose.  Here: random scenes on the same table, as no task makes them, and questions about
them in words.

    observation           state and keypoints as in `World.observe`; on request the pictures
    question, 2-3 words   goes where the prompt ℓ goes
    answer, 1-2 words     goes where the subtask ℓ̂ goes

    where left handle, where left hand   near left ... far right: a quarter of the table
    what left holds                      nothing, edge, well: how it has grasped its handle
    left gripper                         open, closed
    (... and the same four of the right)
    how many held, how many placed       zero, one, two; what is not in play counts as placed
    which arm nearer                     left, right: whose hand is nearer to its own handle
    what look                            one ... six: which stage the item looks like

Deviations: no web, no photographs, no language beyond twelve questions, and every answer is
certain.
"""

import numpy as np

from .arms import (
    GOOD_RADIUS,
    GRASP_RADIUS,
    JOINT_HIGH,
    JOINT_LOW,
    KEYPOINT_DIM,
    MAX_STAGES,
    N_KEYPOINTS,
    RELEASE_RADIUS,
    forward_kinematics,
    inverse_kinematics,
    joint_offsets,
)
from .cameras import cameras as photograph

TABLE_LOW, TABLE_HIGH = (-0.50, 0.15), (0.50, 0.75)  # where things may lie, m
FAR = 0.45  # m from the robot: from here on "far"
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
# Every word of the questions and answers
WEB_WORDS = (
    "where",
    "left",
    "right",
    "handle",
    "hand",
    "near",
    "far",
    "what",
    "holds",
    "nothing",
    "edge",
    "well",
    "gripper",
    "open",
    "closed",
    "how",
    "many",
    "held",
    "placed",
    "which",
    "arm",
    "nearer",
    "look",
) + NUMBERS

def scenes(n, rng):
    """n random scenes, each possible in itself: what is held is within the grasp of a closed hand,
    what is placed lies at its goal.  -> state (n, 6), keypoints (n, 4, KEYPOINT_DIM), float32,
    columns as in `World.observe`.
    """
    handles = rng.uniform(TABLE_LOW, TABLE_HIGH, (n, 2, 2))  # (n, arm, xy)
    handles[..., 0].sort(axis=1)  # the left handle is the one further left: pictures show no names
    goals = rng.uniform(TABLE_LOW, TABLE_HIGH, (n, 2, 2))
    # most hands are about to grasp, or have grasped; the others are anywhere
    hands = handles + disc(n, rng, 0.09)
    elsewhere = rng.random((n, 2, 1)) < 0.1
    hands = np.where(elsewhere, rng.uniform(TABLE_LOW, TABLE_HIGH, (n, 2, 2)), hands)
    joints = np.clip(inverse_kinematics(hands), JOINT_LOW, JOINT_HIGH)  # (n, arm, joint)
    closed = rng.random((n, 2)) < 0.6
    grippers = 0.5 * rng.random((n, 2)) + np.where(closed, 0, 0.5)  # (n, arm)

    in_play = rng.random((n, 2)) < 0.9
    # (n, arm): out of reach?
    distance = np.linalg.norm(forward_kinematics(joints) - handles, axis=-1)
    held = closed & in_play & (distance < GRASP_RADIUS)
    well = held & (distance < GOOD_RADIUS)
    edge = held & ~well
    placed = ~held & (~in_play | (rng.random((n, 2)) < 0.5))
    goals = np.where(placed[..., None], handles + disc(n, rng, RELEASE_RADIUS), goals)

    points = np.concatenate([handles, goals], 1)  # (n, 4, xy)
    keypoints = np.zeros((n, N_KEYPOINTS, KEYPOINT_DIM), np.float32)
    keypoints[..., 0:2] = points
    keypoints[..., 2:6] = joint_offsets(joints, points)
    keypoints[..., 6] = np.tile(in_play, 2)  # (n, 2 + 2)
    # (n, arm, 4)
    keypoints[:, :2, 7:11] = np.stack([edge, well, edge * rng.random((n, 2)), placed], -1)
    keypoints[..., 11 : 11 + MAX_STAGES] = np.eye(MAX_STAGES)[rng.integers(MAX_STAGES, size=n)][
        :, None
    ]
    # nothing that asks for more care than usual
    keypoints[..., 17:20] = (GOOD_RADIUS / GRASP_RADIUS, 1, 0)
    state = np.concatenate([joints, grippers[..., None]], -1).reshape(n, 6)  # (n, 2*(2+1))
    return state.astype(np.float32), keypoints

def disc(n, rng, radius):
    """Random offsets (n, arm, xy) shorter than radius, in m; all lengths are equally frequent."""
    length, angle = radius * rng.random((n, 2)), 2 * np.pi * rng.random((n, 2))
    return length[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1)

def answers(state, keypoints):
    """All questions about each of n scenes, as of `World.observe`: {question: answers (n,) str}."""

    def quarter(points):  # (n, xy) -> (n,) str
        return np.char.add(
            np.where(points[:, 1] < FAR, "near ", "far "),
            np.where(points[:, 0] < 0, "left", "right"),
        )

    arms = state.reshape(-1, 2, 3)  # (n, arm, joints + gripper)
    hands, handles = forward_kinematics(arms[..., :2]), keypoints[:, :2, :2]  # (n, arm, xy)
    edge, well, placed = (keypoints[:, :2, column] > 0.5 for column in (7, 8, 10))  # (n, arm)
    distance = np.linalg.norm(hands - handles, axis=-1)  # (n, arm)
    numbers, found = np.array(NUMBERS), {}
    for i, arm in enumerate(("left", "right")):
        found[f"where {arm} handle"] = quarter(handles[:, i])
        found[f"where {arm} hand"] = quarter(hands[:, i])
        found[f"what {arm} holds"] = np.select(
            [edge[:, i], well[:, i]], ["edge", "well"], "nothing"
        )
        found[f"{arm} gripper"] = np.where(arms[:, i, 2] >= 0.5, "open", "closed")
    found["how many held"] = numbers[(edge | well).sum(1)]
    found["how many placed"] = numbers[placed.sum(1)]
    found["which arm nearer"] = np.where(distance[:, 0] < distance[:, 1], "left", "right")
    found["what look"] = numbers[1 + keypoints[:, 0, 11 : 11 + MAX_STAGES].argmax(1)]
    return found

def questions(n, seed, cameras=False):
    """n questions, each about a scene of its own, with their answers.

    -> {"state": (n, 6), "keypoints": (n, 4, KEYPOINT_DIM), "question": (n,) str, "answer": (n,)
    str}, and with cameras=True the pictures "base", "left_wrist", "right_wrist", uint8 (n, 24, 24,
    3).  All questions are equally frequent; everything follows from the seed.
    """
    rng = np.random.default_rng([22, seed])
    state, keypoints = scenes(n, rng)
    found = answers(state, keypoints)
    asked = rng.integers(len(found), size=n)
    answer = np.stack(list(found.values()))[asked, np.arange(n)]  # (questions, n) -> (n,)
    pairs = {
        "state": state,
        "keypoints": keypoints,
        "question": np.array(list(found))[asked],
        "answer": answer,
    }
    return pairs | photograph(state, keypoints) if cameras else pairs

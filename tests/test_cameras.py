"""The cameras against a slow painter, mirror images, what may change which pixels, and what can be
read from them.

The slow painter goes pixel by pixel and thing by thing, with `math` alone; the pictures must agree
to one grey level.
"""
import math

import numpy as np
import pytest

import sim_tasks
from sim_tasks.arms import (
    GOOD_RADIUS,
    KEYPOINT_DIM,
    RELEASE_RADIUS,
    World,
    forward_kinematics,
    inverse_kinematics,
)
from sim_tasks.cameras import BLUR, CAMERAS, PIXEL, SIZE, STAGE_INK, cameras

ALL = pytest.mark.parametrize("name", sim_tasks.TASKS)
LEFT, RIGHT = 0, 1
IN_PLAY, EDGE, WELL, CARRIED, PLACED = range(6, 11)  # columns of the keypoints

# ---------------------------------------------------------------- tools

def scenes(n, seed=0, stage=0):
    """State (n, 6) and keypoints (n, 4, KEYPOINT_DIM): free handles on either side, a hand within
    8 cm of each.
    """
    rng = np.random.default_rng(seed)
    # (n, arm, xy)
    handles = rng.uniform((-0.40, 0.35), (-0.20, 0.60), (n, 2, 2)) * ((1, 1), (-1, 1))
    goals = rng.uniform((-0.40, 0.70), (-0.20, 0.80), (n, 2, 2)) * ((1, 1), (-1, 1))
    # (n, arm, joint)
    joints = inverse_kinematics(handles + rng.uniform(-0.08, 0.08, (n, 2, 2)))
    # (n, 2*(2+1))
    state = np.concatenate([joints, rng.random((n, 2, 1))], -1).reshape(n, 6)
    keypoints = np.zeros((n, 4, KEYPOINT_DIM))
    # (n, 4, xy)
    keypoints[:, :, :2] = np.concatenate([handles, goals], 1)
    keypoints[:, :, IN_PLAY], keypoints[:, :, 11 + stage] = 1, 1
    return state.astype(np.float32), keypoints.astype(np.float32)

def random_scenes(n, seed=0):
    """As `scenes`, but everything anywhere and in any status."""
    rng = np.random.default_rng(seed)
    state, keypoints = scenes(n, seed)
    keypoints[:, :, :2] = rng.uniform((-0.6, 0.1), (0.6, 0.9), (n, 4, 2))
    keypoints[:, :, IN_PLAY] = np.tile(rng.integers(0, 2, (n, 2)), 2)
    # one of: edge, well, (carried), placed
    keypoints[:, :2, 7:11] = np.eye(4)[rng.integers(0, 4, (n, 2))]
    keypoints[:, :2, CARRIED] = rng.random((n, 2)) * keypoints[:, :2, EDGE]
    keypoints[:, :, 11:17] = np.eye(6)[rng.integers(0, 6, n)][:, None]
    return state, keypoints

def seen_from(camera, state, points):
    """Points (..., 2) of the table in the frame of a camera of one scene: metres to the right of
    its middle, and up.
    """
    if camera == "base":
        return points - (0.0, 0.45)
    arm = CAMERAS.index(camera) - 1
    joints = state.reshape(2, 3)[:, :2].astype(float)
    hand = forward_kinematics(joints)[arm]
    straight = joints.copy()
    # the elbow is half way to where a straight arm ends
    straight[:, 1] = 0
    base = np.array([(-0.3, 0.0), (0.3, 0.0)])[arm]
    up = hand - (forward_kinematics(straight)[arm] + base) / 2
    up /= np.linalg.norm(up)
    return np.stack([(points - hand) @ (up[1], -up[0]), (points - hand) @ up], -1)

def touched(camera, state, points, radius=0.0):
    """Which pixels (SIZE, SIZE) a spot at any of the points, of that radius in m, may reach."""
    pixel = PIXEL[CAMERAS.index(camera)]
    reach = radius / pixel + BLUR
    middle = np.arange(SIZE) - (SIZE - 1) / 2
    mask = np.zeros((SIZE, SIZE), bool)
    for x, y in seen_from(camera, state, np.reshape(points, (-1, 2))) / pixel:
        # (row, column)
        mask |= (abs(middle[None] - x) < reach) & (abs(-middle[:, None] - y) < reach)
    return mask

def changed(before, after, camera):
    """Pixels (SIZE, SIZE) that differ between two scenes."""
    return (cameras(*before)[camera][0] != cameras(*after)[camera][0]).any(-1)

def absorbed(pictures):
    """Ink per channel, from the light that is left: undoes 255 exp(-ink)."""
    return -np.log((pictures + 0.25) / 255.25)

# ---------------------------------------------------------------- the pictures

@ALL
def test_format_and_determinism(name):
    seen = World(sim_tasks.TASKS[name], range(3)).observe()
    first, second = cameras(**seen), cameras(**seen)
    assert tuple(first) == CAMERAS
    for camera in CAMERAS:
        assert first[camera].shape == (3, SIZE, SIZE, 3) and first[camera].dtype == np.uint8
        assert np.array_equal(first[camera], second[camera])
        assert first[camera].max() == 255  # free table
    # there is something
    assert first["base"].min() < 128
    assert cameras(np.zeros((0, 6)), np.zeros((0, 4, 17)))["base"].shape == (0, SIZE, SIZE, 3)

def slow_picture(camera, state, keypoints):
    """One picture (SIZE, SIZE, 3), pixel by pixel: things as a list of (point, radius, ink)."""
    things, arms = [], state.astype(float).reshape(2, 3)
    for i, side in enumerate((1, -1)):
        row, goal = keypoints[i].astype(float), keypoints[2 + i].astype(float)
        pale = 1 if row[IN_PLAY] else 0.35
        things.append((goal[:2], RELEASE_RADIUS, (0, 0, 0.7 * pale)))
        look = STAGE_INK[list(row[11:17]).index(1)]
        things.append(((row[0] + side * 0.07, row[1]), 0.06, [pale * ink for ink in look]))
        if row[WELL]:
            ink = (0.4, 1.2, 0)
        elif row[EDGE]:
            ink = (0, 0.4 + 0.8 * row[CARRIED], 1.2)
        else:
            ink = (1.2, 0, 1.2) if row[PLACED] else (1.1, 0.4, 0)
        things.append((row[:2], 0.035, [pale * x for x in ink]))
        q1, q2, opening = arms[i]
        x, y = -0.3 * side, 0.0
        for angle in (q1, q1 + q2):
            dx, dy = side * math.cos(angle), math.sin(angle)
            things += [
                ((x + dx * 0.045 * (j + 0.5), y + dy * 0.045 * (j + 0.5)), 0.035, (0.15,) * 3)
                for j in range(10)
            ]
            x, y = x + 0.45 * dx, y + 0.45 * dy
        gap = 0.014 + 0.022 * opening
        things += [((x + s * gap * dy, y - s * gap * dx), 0.016, (0.35,) * 3) for s in (-1, 1)]
    pixel = PIXEL[CAMERAS.index(camera)]
    picture = np.zeros((SIZE, SIZE, 3))
    for point, radius, ink in things:
        right, up = seen_from(camera, state, np.array(point)) / pixel
        reach = math.hypot(radius / pixel, BLUR)
        for r in range(SIZE):
            for c in range(SIZE):
                u, v = (c - 11.5 - right) / reach, (11.5 - r - up) / reach
                picture[r, c] += np.array(ink) * max(0, 1 - u * u) ** 2 * max(0, 1 - v * v) ** 2
    return 255 * np.exp(-picture)

def test_against_a_slow_painter():
    state, keypoints = random_scenes(5, seed=0)
    # all occur
    assert all(0 < keypoints[:, :2, c].mean() < 1 for c in (IN_PLAY, EDGE, WELL, CARRIED, PLACED))
    pictures = cameras(state, keypoints)
    for i, camera in enumerate(("base", "base", "base", "left_wrist", "right_wrist")):
        assert abs(pictures[camera][i] - slow_picture(camera, state[i], keypoints[i])).max() <= 1

def test_alone_as_among_many():
    """Bit for bit, whatever the number of copies and the place among them.

    Float64 input makes the same picture.
    """
    state, keypoints = random_scenes(21)
    together = cameras(state, keypoints)
    for i in range(21):
        for camera, picture in cameras(
            state[i : i + 1].astype(float), keypoints[i : i + 1].astype(float)
        ).items():
            assert np.array_equal(picture[0], together[camera][i])
    for camera, pictures in cameras(state[5:18], keypoints[5:18]).items():
        assert np.array_equal(pictures, together[camera][5:18])

def test_mirrored_scene_makes_mirrored_pictures():
    """Left and right exchanged: each picture is the other's mirror image, to one grey level (order
    of sums).
    """
    state, keypoints = random_scenes(20, seed=1)
    # equal numbers are mirrored poses
    mirrored_state = state.reshape(-1, 2, 3)[:, ::-1].reshape(-1, 6)
    mirrored_keypoints = keypoints[:, [1, 0, 3, 2]] * np.where(np.arange(KEYPOINT_DIM) == 0, -1, 1)
    here, there = cameras(state, keypoints), cameras(mirrored_state, mirrored_keypoints)
    for camera, other in (
        ("base", "base"),
        ("left_wrist", "right_wrist"),
        ("right_wrist", "left_wrist"),
    ):
        assert abs(here[camera].astype(int) - there[other][:, :, ::-1]).max() <= 1

def test_wrist_camera_turns_with_the_forearm():
    """What is ahead of the forearm is above the middle, whatever the arm's pose.

    The own forearm never moves.
    """
    state, keypoints = scenes(50)
    keypoints[:, :, :2] = -2  # nothing on the table
    # the right arm is far away
    state[:, 3:] = np.array([-0.5, -0.2, 1])
    state[:, 2] = 1
    pictures = cameras(state, keypoints)["left_wrist"]
    assert (pictures == pictures[0]).all() and pictures.min() < 200
    joints = state.reshape(-1, 2, 3)[:, 0, :2]
    # (n,): direction of the left forearm
    angle = joints.sum(-1)
    hand = forward_kinematics(state.reshape(-1, 2, 3)[..., :2])[:, 0]
    keypoints[:, 0, :2] = hand + 0.10 * np.stack([np.cos(angle), np.sin(angle)], -1)
    ink = absorbed(cameras(state, keypoints)["left_wrist"]) - absorbed(pictures)
    row, column = np.indices((SIZE, SIZE))
    # a free handle's, not the cloth's
    green = ink[..., 1]
    # (n,)
    rows, columns = ((green * at).sum((1, 2)) / green.sum((1, 2)) for at in (row, column))
    np.testing.assert_allclose(rows, 11.5 - 0.10 / PIXEL[1], atol=0.1)
    np.testing.assert_allclose(columns, 11.5, atol=0.1)

# ---------------------------------------------------------------- what may change which pixels

def variants():
    """(name, change(state, keypoints) in place, the points that it concerns (state, keypoints),
    their radius in m).
    """

    def column(row, c, value):
        def change(state, keypoints):
            keypoints[0, row, c] = value

        return change

    # in `World.observe`, of a handle and its goal
    def play(state, keypoints):
        keypoints[0, [0, 2], IN_PLAY] = 0

    def handle(state, keypoints):
        return keypoints[0, 0, :2]

    def half(state, keypoints):
        return np.stack(
            [keypoints[0, 0, :2] + (offset, 0) for offset in (0, 0.07)] + [keypoints[0, 2, :2]]
        )

    def hand(state, keypoints):
        return forward_kinematics(state.reshape(2, 3)[:, :2])[0]

    def gripper(state, keypoints):
        state[0, 2] = 1 - state[0, 2]

    def look(state, keypoints):
        keypoints[0, :, 11:17] = np.eye(6)[3]

    def cloths(state, keypoints):
        return keypoints[0, :2, :2] + ((0.07, 0), (-0.07, 0))

    yield "edge", column(0, EDGE, 1), handle, 0.035
    yield "well", column(0, WELL, 1), handle, 0.035
    yield "placed", column(0, PLACED, 1), handle, 0.035
    yield "carried", column(0, CARRIED, 0.3), handle, 0.035
    # both fingers, up to 3.6 cm from the hand
    yield "left gripper", gripper, hand, 0.052
    yield "stage", look, cloths, 0.06
    yield "in play", play, half, 0.06

@pytest.mark.parametrize(
    "name, change, concerned, radius", [pytest.param(*v, id=v[0]) for v in variants()]
)
def test_a_variable_changes_its_pixels_and_no_others(name, change, concerned, radius):
    for seed in range(5):
        before = scenes(1, seed=seed)
        after = before[0].copy(), before[1].copy()
        change(*after)
        for camera in CAMERAS:
            difference = changed(before, after, camera)
            assert not (difference & ~touched(camera, before[0], concerned(*before), radius)).any()
            # the left half is in the base and the left picture
            if camera != "right_wrist":
                assert difference.any(), f"{name} cannot be seen in {camera}"
        # the right half is too far away to notice the left one
        if name != "stage":
            assert not changed(before, after, "right_wrist").any()

@pytest.mark.parametrize("row, radius", ((0, 0.06), (2, RELEASE_RADIUS)), ids=("handle", "goal"))
def test_a_thing_that_moves_changes_where_it_was_and_where_it_is(row, radius):
    before = scenes(1, seed=4)
    after = before[0].copy(), before[1].copy()
    after[1][0, row, :2] += (0.02, -0.03)
    for camera in CAMERAS:
        points = np.stack(
            [x[1][0, row, :2] + (offset, 0) for x in (before, after) for offset in (0, 0.07)]
        )
        difference = changed(before, after, camera)
        assert not (difference & ~touched(camera, before[0], points, radius)).any()
        assert difference.any() or camera == "right_wrist" or row == 2

def test_only_what_can_be_seen_is_drawn():
    """The joint offsets (columns 2:6) are for detectors.

    Columns that come after the known ones are not drawn.
    """
    state, keypoints = scenes(4)
    # (n, 4, KEYPOINT_DIM + 3)
    more = np.concatenate([keypoints, np.ones((4, 4, 3))], -1)
    more[:, :, 2:6] = 9
    for camera, pictures in cameras(state, keypoints).items():
        assert np.array_equal(pictures, cameras(state, more)[camera])

# ---------------------------------------------------------------- what can be read

def read_out(features, targets):
    """Least squares on the first half of the rows.

    The error on the other half, root mean square distance.
    """
    features = np.concatenate([features, np.ones((len(features), 1))], -1)  # (n, features + 1)
    half = len(features) // 2
    weights = np.linalg.lstsq(features[:half], targets[:half], rcond=None)[0]
    return np.sqrt(((features[half:] @ weights - targets[half:]) ** 2).sum(-1).mean())

def centroid(pictures):
    """Soft centroid (n, 2) of what absorbs green, but not blue: free handles, and neither arms nor
    goals.
    """
    ink = absorbed(pictures)
    weight = np.maximum(ink[..., 1] - ink[..., 2] - 0.02, 0)  # (n, row, column)
    at = np.stack(np.indices(pictures.shape[1:3]), -1)  # (row, column, 2)
    return np.einsum("nrc,rck->nk", weight, at) / weight.sum((1, 2))[:, None]

def test_a_linear_read_out_finds_the_handle():
    """Left handle: in the wrist picture to millimetres, far below GOOD_RADIUS.

    The base picture is the coarser one.
    """
    state, keypoints = scenes(600)
    handles = keypoints[:, 0, :2].astype(float)
    pictures = cameras(state, keypoints)
    # (n, right and up)
    in_frame = np.stack([seen_from("left_wrist", s, h) for s, h in zip(state, handles)])
    wrist = read_out(centroid(pictures["left_wrist"]), in_frame)
    base = read_out(centroid(pictures["base"][:, :, : SIZE // 2]), handles)
    print(f"read-out of the left handle: wrist {100 * wrist:.2f} cm, base {100 * base:.2f} cm")
    assert wrist < 0.002 < GOOD_RADIUS / 10
    assert wrist < base < 0.03

# ---------------------------------------------------------------- errors

@pytest.mark.parametrize(
    "state, keypoints, message",
    (
        (np.zeros((2, 5)), np.zeros((2, 4, 17)), "shapes"),
        (np.zeros((2, 6)), np.zeros((3, 4, 17)), "shapes"),
        (np.zeros((2, 6)), np.zeros((2, 17)), "shapes"),
        (np.zeros((2, 6)), np.zeros((2, 4, 16)), "at least 17"),
        (np.full((2, 6), np.nan), np.zeros((2, 4, 17)), "not finite"),
        (np.zeros((2, 6)), np.full((2, 4, 17), np.inf), "not finite"),
    ),
    ids=("state", "numbers", "dimensions", "columns", "nan", "inf"),
)
def test_errors(state, keypoints, message):
    with pytest.raises(ValueError, match=message):
        cameras(state, keypoints)

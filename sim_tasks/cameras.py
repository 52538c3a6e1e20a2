"""The three small cameras of the station, from stored observations alone, for `--vision`.

Stands for the base camera and the two wrist cameras of the paper's station (Fig. 5), scaled down
from 448 pixels a side (π0.6 model card) to 24, and from photographs to spots of colour. A picture
is made from `state` and `keypoints`, not from a `World`: stored episodes get theirs at any time,
the same ones to the bit.  Nothing here is random.

How to read a picture
  base           the table from above, 1.5 m square, 6 cm a pixel: everything, but the last
                 centimetres are mere shades
  *_wrist        34 cm around that arm's hand, 1.4 cm a pixel.  The camera turns with the
                 forearm: ahead is up, the hand is always in the middle, between its two fingers
  yellow         a goal; its radius is RELEASE_RADIUS
  a small spot   a handle: blue free, purple held well, orange held by the edge (the redder, the
                 further it has been carried), green released at its goal
  a wide spot    the cloth beside the handle; its colour is the stage (STAGE_INK).  It lies
                 inwards of the handle: the left half has it on its right, the right half on its
                 left, and so they can be told apart (goals cannot; the left one is further left)
  pale           handles, cloths and goals that are not in play
  grey           the links; darker: the fingers

Tasks look different by what lies on the table, and by nothing else.

How it is drawn: everything is a spot of translucent ink on white paper, a link is a row of them.
Inks add up and light is what they let through, 255 exp(-ink): nothing hides anything.  A spot is a
product of two one-dimensional bumps, so all spots of a picture are one matrix product (pixel rows x
spots) @ (spots x pixel columns and colours). A bump is exactly zero beyond its radius: nothing
changes a pixel that it does not touch.
"""

import numpy as np

from .arms import (
    ACTION_DIM,
    MAX_STAGES,
    MIRROR,
    N_KEYPOINTS,
    RELEASE_RADIUS,
    STATIC,
    forward_kinematics,
)

CAMERAS = ("base", "left_wrist", "right_wrist")
SIZE = 24  # pixels a side, if nothing else is asked for
SIDE = np.array([1.5, 0.336, 0.336])  # m that a picture shows, per camera
PIXEL = SIDE / SIZE  # m, per camera
CENTRE = np.array([0.0, 0.45])  # the point in the middle of the base picture, m
BLUR = 1.7  # pixels: spots are widened so that they move smoothly (anti-aliasing)
BLOCK = 8  # copies drawn at once: temporaries stay in the cache

# Radii in m, in the order in which `spots` lists them: 2 goals, 2 cloths, 2 handles, 4 fingers, 4
# links
LINK_SPOTS = 10  # a link is a row of so many
# (spots,)
RADIUS = np.repeat([RELEASE_RADIUS, 0.06, 0.035, 0.016, 0.035], [2, 2, 2, 4, 4 * LINK_SPOTS])
CLOTH = 0.07  # m from a handle to the middle of its cloth

# Inks: how much red, green and blue they absorb.  (0, 0, 1) looks yellow.
GOAL_INK = np.array([0.0, 0.0, 0.7])
FREE, WELL, EDGE, CARRIED, PLACED = np.array(
    [[1.1, 0.4, 0.0], [0.4, 1.2, 0.0], [0.0, 0.4, 1.2], [0.0, 0.8, 0.0], [1.2, 0.0, 1.2]]
)
# (MAX_STAGES, rgb)
STAGE_INK = 0.5 * np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1], [1, 1, 0], [0, 1, 1], [0, 0, 1]])
LINK_INK, FINGER_INK = np.full(3, 0.15), np.full(3, 0.35)
PALE = 0.35  # what is left of the ink of things not in play

def across(forward):
    """The direction to the right of `forward`; (..., xy) -> (..., xy)."""
    return np.stack([forward[..., 1], -forward[..., 0]], -1)

def spots(hands, forward, arms, keypoints):
    """Everything that can be seen.  -> points (n, spots, xy) in m, inks (n, spots, rgb)

    hands and forward (n, arm, xy): where the hands are, and unit vectors along the forearms; arms
    (n, arm, 3): the state of each; keypoints as in `cameras`.
    """
    n = len(arms)
    forearm = np.array(STATIC.links)[:, 1, None] * forward  # (n, arm, xy): the station's own robot
    # (n, 3, arm, xy)
    corners = np.stack([np.broadcast_to(STATIC.bases, hands.shape), hands - forearm, hands], 1)
    share = (np.arange(LINK_SPOTS)[:, None] + 0.5) / LINK_SPOTS
    links = corners[:, :-1, :, None] + share * np.diff(corners, axis=1)[:, :, :, None]
    links = links.reshape(n, 4 * LINK_SPOTS, 2)  # (n, 2 links * arm * LINK_SPOTS, xy)
    gap = (0.014 + 0.022 * arms[..., 2:]) * across(forward)  # (n, arm, xy): as `render` has it
    handles, goals = keypoints[:, :2, :2], keypoints[:, 2:, :2]  # (n, arm, xy)
    cloths = handles + CLOTH * MIRROR[:, None] * (1, 0)  # (n, arm, xy): inwards
    points = np.concatenate([goals, cloths, handles, hands - gap, hands + gap, links], 1)

    # columns of the keypoints: see `World.observe`
    strength = PALE + (1 - PALE) * keypoints[:, :, 6, None]  # (n, 4, 1)
    edge, well, carried, placed = (keypoints[:, :2, c, None] for c in range(7, 11))  # (n, arm, 1)
    free = 1 - np.clip(edge + well + placed, 0, 1)
    # (n, arm, rgb)
    handle = free * FREE + well * WELL + edge * EDGE + carried * CARRIED + placed * PLACED
    cloth = keypoints[:, :2, 11 : 11 + MAX_STAGES] @ STAGE_INK  # (n, arm, rgb)
    inks = [
        strength[:, 2:] * GOAL_INK,
        strength[:, :2] * cloth,
        strength[:, :2] * handle,
        np.broadcast_to(FINGER_INK, (n, 4, 3)),
        np.broadcast_to(LINK_INK, (n, 4 * LINK_SPOTS, 3)),
    ]
    return points, np.concatenate(inks, 1)  # (n, 2 + 2 + 2 + 4 + 4*LINK_SPOTS, .)

def expose(state, keypoints, size):
    """`cameras` for a block of copies: uint8 (camera, n, size, size, 3)."""
    pixel = SIDE / size  # m, per camera
    n, S = len(state), len(RADIUS)
    arms = state.reshape(n, 2, 3)  # (n, arm, joints + gripper)
    hands = forward_kinematics(arms[..., :2])
    angle = arms[..., 0] + arms[..., 1]
    forward = np.stack([MIRROR * np.cos(angle), np.sin(angle)], -1)  # (n, arm, xy)
    points, inks = spots(hands, forward, arms, keypoints)

    # 1. where the spots are in each picture: pixels to the right of its middle, and up
    centre = np.stack([np.broadcast_to(CENTRE, (n, 2)), *hands.swapaxes(0, 1)])  # (camera, n, xy)
    up = np.stack([np.broadcast_to((0.0, 1.0), (n, 2)), *forward.swapaxes(0, 1)])  # (camera, n, xy)
    axes = np.stack([across(up), up], -1)  # (camera, n, xy, right or up)
    # (camera, n, spots, right or up)
    seen = (points - centre[:, :, None]) @ axes / pixel[:, None, None, None]

    # 2. bumps (1 - d²/r²)² in columns and rows, zero beyond the radius r
    # (camera, 1, spots, 1, 1), pixels
    r = np.hypot(RADIUS / pixel[:, None], BLUR)[:, None, :, None, None]
    # (right or up, size): middles of the pixels
    grid = (np.arange(size) - (size - 1) / 2) * np.array([[1.0], [-1.0]])
    # (camera, n, spots, right or up, size)
    bump = (grid / r - seen[..., None] / r).astype(np.float32)
    np.multiply(bump, bump, out=bump)
    np.subtract(1, bump, out=bump)
    np.maximum(bump, 0, out=bump)
    np.multiply(bump, bump, out=bump)

    # 3. ink, and the light that comes through it
    # (camera, n, spots, size, rgb)
    columns = bump[..., 0, :, None] * inks[:, :, None].astype(np.float32)
    rows = bump[..., 1, :].swapaxes(-1, -2)  # (camera, n, size, spots)
    ink = rows @ columns.reshape(3, n, S, size * 3)  # (camera, n, size, size*rgb)
    light = 255 * np.exp(-ink).reshape(3, n, size, size, 3)  # (camera, n, size, size, rgb)
    return (light + 0.5).astype(np.uint8)

def cameras(state, keypoints, size=SIZE):
    """Pictures of all three cameras.  -> {"base", "left_wrist", "right_wrist"}: uint8 (n, size,
    size, 3)

    state (n, 6) and keypoints (n, 4, at least 17) as in `World.observe`, of n copies or steps; each
    picture depends on its own row alone.  Rows of a picture run downwards, colours are red, green,
    blue. Raises ValueError on a wrong shape or a value that is not finite.
    """
    # float32, as they are stored: whoever passes more digits gets the same pictures
    state, keypoints = np.asarray(state, np.float32), np.asarray(keypoints, np.float32)
    n = len(state)
    columns = 11 + MAX_STAGES  # that are drawn; there may be more
    if state.shape != (n, ACTION_DIM) or keypoints[..., :columns].shape != (
        n,
        N_KEYPOINTS,
        columns,
    ):
        raise ValueError(
            f"state, keypoints: shapes {state.shape}, {keypoints.shape}, expected "
            f"(n, {ACTION_DIM}), (n, {N_KEYPOINTS}, at least {columns})"
        )
    if not (np.isfinite(state).all() and np.isfinite(keypoints).all()):
        raise ValueError("state, keypoints: not finite, expected finite numbers")
    pictures = np.empty((len(CAMERAS), n, size, size, 3), np.uint8)
    for i in range(0, n, BLOCK):
        pictures[:, i : i + BLOCK] = expose(state[i : i + BLOCK], keypoints[i : i + BLOCK], size)
    return dict(zip(CAMERAS, pictures))

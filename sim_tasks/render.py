"""Pictures of the table, drawn from one observation alone; GIFs of episodes.

Stands for the photographs in the paper (Figs. 1, 5 and 6) and the thumbnails of its Fig. 4: nothing
learns from these pictures.  `draw` needs no simulator: a stored episode can be drawn afterwards,
step by step.

How to read a picture
  dashed green ring    a goal; its radius is RELEASE_RADIUS.  Filled, with a tick: placed
  crossed purple ring  the goal that does not count (collar down).  Filled, with a cross: placed
  white dot            a handle that nobody holds
  blue disc            a good grasp
  orange, frayed ring  an edge grasp: the threads grow with what `carried` has used up
  caption              the stages done so far (dots) and the current subtask ℓ̂

The item is scenery: polygons hung on the two handles (what moves) and on the two goals (what lies
still).  Colours are those of Okabe and Ito, and no meaning rests on colour alone.
"""

import os
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .arms import MAX_STAGES, MIRROR, RELEASE_RADIUS, STATIC, forward_kinematics

SUPERSAMPLE = 3  # drawn that many times larger, then averaged: anti-aliasing
# the square that is seen: its side and its upper left corner, m
VIEW, LEFT, TOP = 1.46, -0.73, 1.17
FLOOR, TABLE, RIM = "#dcd8d0", "#f7f4ee", "#b9b2a6"
DARK, METAL, LIGHT = "#343a46", "#7d8696", "#ffffff"
# Okabe-Ito, the purple darkened
GREEN, BLUE, ORANGE, PURPLE = "#009e73", "#0072b2", "#d55e00", "#a3458c"
CLOTH, CLOTH_BACK, SEAM = "#b5d7ee", "#86b3d3", "#5b8cb0"
CARD, CARD_BACK, FOLD = "#e3c9a0", "#c9a877", "#94734a"
STEEL, COFFEE = "#c3c9d3", "#5a3a22"
# by size in pixels; loading it takes longer than a picture
FONT = lru_cache(ImageFont.load_default)

class Pen:
    """ImageDraw in metres on the table (x right, y away from the robot).  Points: (..., 2)."""

    def __init__(self, size):
        self.scale = size * SUPERSAMPLE / VIEW  # pixels per metre
        self.image = Image.new("RGB", (size * SUPERSAMPLE,) * 2, FLOOR)
        self.ink = ImageDraw.Draw(self.image)

    def pixels(self, points):
        """(..., 2) in m -> flat list of tuples, as ImageDraw wants them; rows run downwards."""
        # (points, xy)
        flat = (np.asarray(points, float).reshape(-1, 2) - (LEFT, TOP)) * (self.scale, -self.scale)
        return [tuple(p) for p in flat.tolist()]

    def line(self, points, width, colour, rounded=False):
        """Through all points; rounded: with round ends."""
        self.ink.line(self.pixels(points), colour, max(1, round(width * self.scale)), joint="curve")
        for end in (points[0], points[-1]) if rounded else ():
            self.disc(end, width / 2, colour)

    def area(self, points, colour, edge=None, width=0.008):
        """A polygon; without a colour the open line along its points."""
        if colour is not None:
            self.ink.polygon(self.pixels(points), colour)
            points = [*points, *points[:2]]  # past the start: no notch at the corner
        if edge is not None:
            self.line(points, width, edge)

    def disc(self, at, radius, colour, edge=None, width=0.008):
        (x, y), r = self.pixels(at)[0], radius * self.scale
        self.ink.ellipse((x - r, y - r, x + r, y + r), colour, edge, round(width * self.scale))

    def ring(self, at, radius, colour, width=0.010, n=10):
        """A ring of n dashes."""
        (x, y), r = self.pixels(at)[0], radius * self.scale
        for angle in np.arange(n) * 360 / n:
            self.ink.arc(
                (x - r, y - r, x + r, y + r),
                angle,
                angle + 220 / n,
                colour,
                round(width * self.scale),
            )

    def cross(self, at, colour, arm=0.015):
        for side in (-arm, arm):
            self.line(at + np.array([(-side, -arm), (side, arm)]), 0.010, colour)

    def text(self, at, words):
        """Dark, to the right of a point, 1/18 of the picture high."""
        font = FONT(self.scale * VIEW / 18)
        self.ink.text(self.pixels(at)[0], words, DARK, font, anchor="lm")

class Sketch(Pen):
    """A pen that only notes its strokes: tuples (kind, numbers, colour, edge colour or text).

    numbers, in 1/GRAIN of the picture's side, x to the right, y downwards:
    "line", "area": [width, x, y, x, y, ...], of a line or of an area's edge.  "disc", "ring":
    [width, x, y, radius].  "text": [height, x, y].
    """

    GRAIN = 500

    def __init__(self):
        self.scale = self.GRAIN / VIEW
        self.strokes = []

    def note(self, kind, points, colour, edge=None, width=0.0, *more):
        x = np.subtract(points, (LEFT, TOP)).reshape(-1, 2) * (self.scale, -self.scale)
        numbers = [width * self.scale, *x.ravel().tolist(), *(self.scale * y for y in more)]
        self.strokes.append((kind, tuple(round(x) for x in numbers), colour, edge))

    def line(self, points, width, colour, rounded=False):
        self.note("line", points, colour, None, width)

    def area(self, points, colour, edge=None, width=0.008):
        if colour is None:
            self.line(points, width, edge)
        else:
            self.note("area", points, colour, edge, width)

    def disc(self, at, radius, colour, edge=None, width=0.008):
        self.note("disc", at, colour, edge, width, radius)

    def ring(self, at, radius, colour, width=0.010, n=10):
        self.note("ring", at, None, colour, width, radius)

    def text(self, at, words):
        self.note("text", at, DARK, words, VIEW / 18)

def on(pair, shape):
    """Hang a shape on two points: (u, v) -> middle + u * half the span + v across; (points, 2)."""
    middle, half = (pair[0] + pair[1]) / 2, (pair[1] - pair[0]) / 2
    across = np.array([-half[1], half[0]]) / max(np.hypot(*half), 1e-6)
    return np.array([middle + u * half + v * across for u, v in shape])

def mirrored(*right):
    """Close a shape with the mirror image of its right half, which runs from top to bottom."""
    return *right, *[(-u, v) for u, v in right[::-1]]

def box(u, low, high):
    """A rectangle from -u to u and from v = low to v = high."""
    return mirrored((u, high), (u, low))

def disc(radius, v=0.0):
    """A circle about (0, v), for hooks on which u and v are metres."""
    return [(radius * np.cos(a), v + radius * np.sin(a)) for a in np.arange(24) * np.pi / 12]

def at(hook, thing, x=0.0):
    """The layers of a thing, its (shape, colour, edge colour) hung on a hook; x m to the right."""
    return [(hook, [(u + x, v) for u, v in shape], *colours) for shape, *colours in thing]

# what cannot be said by a polygon that hangs on two points: one function each; h, g: handles, goals
# (arm, xy) in m

def flatten(outline):
    """A heap that becomes an outline as the handles move as far apart as the goals are."""

    def layer(pen, h, g):
        flat = np.clip((np.hypot(*(h[1] - h[0])) / np.hypot(*(g[1] - g[0])) - 0.40) / 0.56, 0, 1)
        shape = on(h, [(u, v * (0.5 + 0.5 * flat)) for u, v in outline])
        # (points, xy)
        crumple = 0.022 * np.array([np.sin([5 * i, 3 * i]) for i in range(len(outline))])
        pen.area(shape + (1 - flat) * crumple, CLOTH, SEAM)
        for u in (-0.5, -0.1, 0.35) if flat < 0.9 else ():
            pen.line(on(h, [(u, 0.03), (u + 0.2, -0.05), (u - 0.05, -0.11)]), 0.006, CLOTH_BACK)

    return layer

def flaps(hinge, low, high, front, back, edge):
    """Two flaps that turn about hinges at u = -hinge, +hinge; their tips are the handles."""

    def layer(pen, h, g):
        for side, tip in zip((-1, 1), h):
            a, b = on(g, [(side * hinge, low), (side * hinge, high)])
            beyond = side * (tip - a)[0]  # m; negative: folded over
            spread = 0.22 * (b - a) * min(1, abs(beyond) / 0.05)
            pen.area(
                np.array([a, tip - spread, tip + spread, b]), back if beyond < 0 else front, edge
            )

    return layer

def collar(pen, h, g):
    """The band between the neck and the handles; folded down, one sees its back."""
    neck, tips = on(g, [(-1, -0.185), (1, -0.185)]), on(h, [(1.12, 0.012), (-1.12, 0.012)])
    up = tips[:, 1].mean() > neck[:, 1].mean()
    pen.area(np.concatenate([neck, tips]), LIGHT if up else CLOTH_BACK, SEAM)  # (2 + 2, xy)

# Outlines.  With the handles 0.5 m apart, u = 1 is 0.25 m from the middle.
TEE = mirrored(
    (0.24, 0.08), (0.62, 0.08), (1.12, 0.045), (1.04, -0.055), (0.60, -0.045), (0.58, -0.28)
) + ((0, 0.045),)
VEST = mirrored((1.2, -0.17), (2.2, -0.26), (1.95, -0.36), (1.35, -0.31), (1.35, -0.56))
GARMENT = mirrored((0.5, 0.06), (1.06, 0.04), (1.0, -0.06), (0.8, -0.05), (0.78, -0.26), (0, -0.26))
NECK = ((-0.5, 0.07), (-0.25, 0.03), (0.25, 0.03), (0.5, 0.07))
LABEL = [
    ("label", box(1, -0.04, 0.04), LIGHT, DARK),
    *[("label", ((-0.7, v), (0.7, v)), None, METAL) for v in (-0.015, 0.015)],
]

# What lies on the table in each stage, from below upwards: (it hangs on, shape, colour, colour of
# the edge); without
# a colour it is an open line.  What hangs on "handles" moves with them, what hangs on "goals" lies
# still.
SCENES = {
    # from a basket
    "flatten shirt": [("goals", box(0.72, -0.25, -0.03), FLOOR, RIM), flatten(TEE)],
    "fold sleeves": [
        ("goals", box(1.5, -0.26, 0.07), CLOTH, SEAM),
        ("goals", NECK, None, SEAM),
        flaps(1.5, -0.14, 0.06, CLOTH, CLOTH_BACK, SEAM),
    ],
    # ... onto the pile of those done
    "stack shirt": [
        ("goals", box(1.5, -0.08, 0.13), "#f0e442", RIM),
        ("goals", box(1.25, -0.10, 0.10), "#e8c6da", RIM),
        ("handles", box(1.12, -0.13, 0.09), CLOTH, SEAM),
        ("handles", NECK, None, SEAM),
        ("handles", ((0, 0.03), (0, -0.13)), None, CLOTH_BACK),
    ],
    "fold collar": [
        ("goals", VEST, CLOTH, SEAM),
        ("goals", ((0, -0.2), (0, -0.56)), None, SEAM),
        collar,
    ],
    # from a pile
    "pick sheet": [
        *[("goals", box(1, v, v + 0.17), CARD_BACK, FOLD) for v in (-0.27, -0.29)],
        ("handles", box(1.25, -0.085, 0.085), CARD, FOLD),
        *[("handles", ((u, -0.08), (u, 0.08)), None, CARD_BACK) for u in (-0.6, 0.6)],
    ],
    "build box": [
        ("goals", box(1.75, -0.08, 0.20), CARD, FOLD),
        flaps(1.75, -0.08, 0.20, CARD, CARD_BACK, FOLD),
    ],
    "label box": [
        ("box", box(1.25, -0.10, 0.10), CARD, FOLD),
        ("box", ((-1.2, 0), (1.2, 0)), None, FOLD),
        *LABEL,
    ],
    "place box": [
        ("goals", box(1.85, -0.15, 0.15), METAL, DARK),
        ("goals", box(1.65, -0.13, 0.13), RIM, None),
        ("handles", box(1.25, -0.10, 0.10), CARD, FOLD),
        ("handles", ((-1.2, 0), (1.2, 0)), None, FOLD),
        *LABEL,
    ],
    # diverse items: a garment of no particular kind, as large as its handles and goals say
    "flatten item": [("goals", box(0.6, -0.27, -0.05), FLOOR, RIM), flatten(GARMENT)],
    "fold item": [
        ("goals", box(1.5, -0.24, 0.06), CLOTH, SEAM),
        flaps(1.5, -0.20, 0.05, CLOTH, CLOTH_BACK, SEAM),
    ],
    "stack item": [
        ("goals", box(1.5, -0.08, 0.13), "#f0e442", RIM),
        ("goals", box(1.3, -0.10, 0.10), "#e8c6da", RIM),
        ("handles", box(1.15, -0.13, 0.09), CLOTH, SEAM),
        ("handles", ((-1.1, -0.02), (1.1, -0.02)), None, CLOTH_BACK),
    ],
}

# Espresso.  "from k", "to k" are the places where the part of stage k begins and ends, u and v are
# metres
PORTAFILTER = [
    (box(0.016, -0.15, -0.03), DARK, LIGHT),
    (disc(0.045), METAL, DARK),
    (disc(0.030), COFFEE, None),
]
TAMPER = [(disc(0.036), METAL, DARK), (disc(0.018), CARD_BACK, DARK)]
LEVER = [(box(0.045, -0.018, 0.018), CARD_BACK, DARK)]
CUP = [
    (((0.03, 0.012), (0.065, 0.012), (0.065, -0.012), (0.03, -0.012)), LIGHT, DARK),
    (disc(0.042), LIGHT, DARK),
]
FULL_CUP = [*CUP, (disc(0.032), COFFEE, None)]
# machine
BENCH = [
    *at(
        "to 4",
        [(box(0.19, 0.03, 0.26), STEEL, DARK), (box(0.15, 0.19, 0.23), LIGHT, METAL)],
        x=-0.10,
    ),
    # ... group, tray
    *at("to 4", [(disc(0.055), RIM, DARK)]),
    *at("to 5", [(box(0.06, -0.05, 0.05), RIM, DARK)]),
    # grinder, beans
    *at("to 1", [(box(0.055, 0.01, 0.19), STEEL, DARK), (disc(0.045, 0.13), CARD_BACK, DARK)]),
    *at("from 2", [(box(0.012, 0, 0.19), METAL, DARK)]),  # its lever's slot
    *at("from 1", [(box(0.07, -0.05, 0.05), CARD, FOLD)]),
    *at("from 3", [(box(0.06, -0.05, 0.05), CARD, FOLD)]),
    # cups, saucer
    *at("from 5", [(box(0.08, -0.06, 0.06), CARD, FOLD)]),
    *at("to 6", [(disc(0.065), LIGHT, METAL)]),
]
for subtask, portafilter, lever, tamper, cup in (  # where each of them is
    ("bring portafilter", "left", "from 2", "from 3", "from 5"),
    ("grind beans", "to 1", "right", "from 3", "from 5"),
    ("tamp coffee", "to 1", "to 2", "left", "from 5"),
    ("lock portafilter", "right", "from 2", "from 3", "from 5"),
    ("bring cup", "to 4", "from 2", "from 3", "left"),
    ("serve coffee", "to 4", "from 2", "from 3", "right"),
):
    filled = PORTAFILTER[:2] if subtask == "bring portafilter" else PORTAFILTER
    SCENES[subtask] = [
        *BENCH,
        *at(portafilter, filled),
        *at(lever, LEVER),
        *at(tamper, TAMPER),
        *at(cup, FULL_CUP if subtask == "serve coffee" else CUP),
    ]
PLAIN = [("handles", box(1.3, -0.07, 0.07), CARD, FOLD)]  # any other stage: a board

def item(pen, subtask, h, g, places):
    """Draw the layers of a stage.  h, g: handles and goals (arm, xy), m.  places: more hooks."""
    # being brought, or on the box already
    label = h[1] if subtask == "label box" else on(h, [(0.5, 0.02)])[0]
    hooks = {
        "handles": h,
        "goals": g,
        "label": label + np.array([(-0.055, 0), (0.055, 0)]),
        # it waits where its label is to go
        "box": g[1] + np.array([(-0.20, -0.02), (0.04, -0.02)]),
    }
    # 2 m long: u and v are metres
    for name, point in {**places, "left": h[0], "right": h[1]}.items():
        hooks[name] = point + np.array([(-1, 0), (1, 0)])
    for layer in SCENES.get(subtask, PLAIN):
        if callable(layer):
            layer(pen, h, g)
        else:
            pen.area(on(hooks[layer[0]], layer[1]), *layer[2:])

def arm(pen, base, elbow, hand, opening):
    """Two links and a gripper: two fingers on either side of the hand, `opening` (0-1) apart."""
    along = (hand - elbow) / np.hypot(*(hand - elbow))
    across = np.array([-along[1], along[0]])
    palm = hand - 0.05 * along
    pen.disc(base, 0.055, DARK)
    # a light rim sets it off the item
    for width, colour in ((0.052, LIGHT), (0.044, DARK), (0.024, METAL)):
        pen.line([base, elbow, palm], width, colour, rounded=True)
    pen.disc(elbow, 0.016, LIGHT, DARK)
    gap = 0.014 + 0.022 * opening  # m from the hand's axis
    pen.line([palm - gap * across, palm + gap * across], 0.022, DARK, rounded=True)
    for side in (-gap, gap):
        pen.line(
            [palm + side * across, hand + side * across + 0.012 * along], 0.014, DARK, rounded=True
        )

def mark(pen, handle, edge, good, carried, placed, right):
    """The state of one half: four flags of `World.observe`, and whether it lies where it should."""
    if placed:
        pen.disc(handle, 0.034, GREEN if right else PURPLE, LIGHT)
        if right:
            # a tick
            pen.line(
                handle + np.array([(-0.017, 0), (-0.005, -0.014), (0.018, 0.014)]), 0.010, LIGHT
            )
        else:
            pen.cross(handle, LIGHT)
    elif good:
        pen.disc(handle, 0.030, BLUE, LIGHT)
    elif edge:
        pen.disc(handle, 0.028, None, LIGHT, 0.022)
        pen.disc(handle, 0.024, None, ORANGE, 0.013)
        for angle in np.arange(9) * 2 * np.pi / 9:  # the threads
            ray = np.array([np.cos(angle), np.sin(angle)])
            pen.line(
                [handle + 0.02 * ray, handle + (0.028 + 0.042 * min(carried, 1)) * ray],
                0.008,
                ORANGE,
            )
    else:
        pen.disc(handle, 0.020, LIGHT, DARK)

def draw(state, keypoints, task, size=240, body=STATIC):
    """The table as seen from above in one observation.

    state (6,): joint angles (rad) and gripper openings (0-1), [left 2 + 1, right 2 + 1]; keypoints
    (4, 20) as in `World.observe`; task: a TaskSpec; body: the robot -> uint8 (size, size, 3).
    `size` in pixels.
    """
    pen = Pen(size)
    paint(pen, state, keypoints, task, body)
    return np.array(pen.image.reduce(SUPERSAMPLE))

def sketch(state, keypoints, task, body=STATIC):
    """The same picture as a list of strokes, for whoever draws them: see `Sketch`."""
    pen = Sketch()
    paint(pen, state, keypoints, task, body)
    return pen.strokes

def paint(pen, state, keypoints, task, body):
    """What `draw` and `sketch` show, from below upwards; arguments as there."""
    state = np.asarray(state, float).reshape(2, 3)  # (arm, joints + gripper)
    keys = np.asarray(keypoints, float)
    handles, goals = keys[:2, :2], keys[2:, :2]  # (arm, xy)
    active, status = np.flatnonzero(keys[:2, 6] > 0.5), keys[:2, 7:11]  # arms with a part; (arm, 4)
    right = np.hypot(*(handles - goals).T) < RELEASE_RADIUS  # (arm,)
    k = int(keys[0, 11 : 11 + MAX_STAGES].argmax())  # the current stage, or the last one
    stage = task.stages[k]

    # the table, what has been done, what is to be done
    pen.area([(-2, -0.10), (-2, 0.98), (2, 0.98), (2, -0.10)], TABLE, RIM)
    # a stage that is over shows only at the very end
    done = k + (status[active, 3] * right[active]).all()
    for i in range(len(task.stages)):
        pen.disc((-0.66 + 0.06 * i, 1.075), 0.02, DARK if i < done else FLOOR, DARK)
    pen.text((-0.64 + 0.06 * len(task.stages), 1.075), stage.subtask)

    # where the parts of the other stages are, as far as one arm alone brings them: all goals moved
    # by the same offset
    places, moved = {}, (goals - stage.goals)[0]
    for i, other in enumerate(task.stages):
        if sum(other.arms) == 1:
            arm_of = other.arms.index(True)
            places |= {
                f"from {i + 1}": other.handles[arm_of] + moved,
                f"to {i + 1}": other.goals[arm_of] + moved,
            }
    item(pen, stage.subtask, handles, goals, places)
    for i in active:
        pen.ring(goals[i], RELEASE_RADIUS, GREEN)
        if stage.wrong_goals is not None:
            # it is not in the observation: the nominal one, moved by what the goal has been moved
            wrong = np.add(stage.wrong_goals, goals - stage.goals)[i]
            pen.ring(wrong, RELEASE_RADIUS, PURPLE)
            pen.cross(wrong, PURPLE)

    # the arms, and on top of them how they hold what they hold
    bases, upper = np.array(body.bases), np.array(body.links)[:, :1]  # (arm, xy), (arm, 1)
    # (arm, xy)
    elbows = bases + upper * np.stack([MIRROR * np.cos(state[:, 0]), np.sin(state[:, 0])], -1)
    hands = forward_kinematics(state[:, :2], body)
    for i in range(2):
        arm(pen, bases[i], elbows[i], hands[i], state[i, 2])
    for i in active:
        mark(pen, handles[i], *status[i], right[i])

def write_gif(frames, path, fps=10):
    """Write frames, a sequence of uint8 (height, width, 3), as a looping GIF; whole or not at all.

    One palette for all frames, and no dithering: what does not move is not stored again.
    """
    # (frames, height, width)
    some = np.stack(frames[:: max(1, len(frames) // 24)]).astype(int) @ (65536, 256, 1)
    colours, counts = np.unique(some, return_counts=True)
    # the most frequent: flat areas keep theirs exactly
    colours = colours[np.argsort(-counts)[:256]]
    palette = Image.new("P", (1, 1))
    palette.putpalette(
        np.stack([colours >> 16, colours >> 8 & 255, colours & 255], -1).astype(np.uint8).tobytes()
    )
    first, *rest = [
        Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames
    ]
    temporary = f"{path}.{os.getpid()}.tmp"  # in the same folder, so that the replacement is atomic
    try:
        first.save(
            temporary, "GIF", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0
        )
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)

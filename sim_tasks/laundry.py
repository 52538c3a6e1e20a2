"""Laundry: the t-shirt (speed to gain) and the diverse items of Sec. VI-A, the collar of Fig. 12
(one failure mode to remove)."""

from dataclasses import replace

from .arms import GOOD_RADIUS, Item, Stage
from .env import BimanualEnv
from .toys import Toy

FOLD_SHIRT = Toy(
    beta=2.0,
    name="fold_shirt",
    prompt="fold shirt",
    max_steps=150,
    spread=0.03,  # paper: 200 s
    stages=(
        Stage(
            "flatten shirt",
            handles=((-0.10, 0.42), (0.10, 0.42)),
            goals=((-0.25, 0.55), (0.25, 0.55)),
        ),
        Stage(
            "fold sleeves",
            handles=((-0.22, 0.36), (0.22, 0.36)),
            goals=((-0.10, 0.55), (0.10, 0.55)),
        ),
        Stage(
            "stack shirt", handles=((-0.12, 0.45), (0.12, 0.45)), goals=((0.10, 0.66), (0.28, 0.66))
        ),
    ),
)

FOLD_COLLAR = Toy(
    # paper: 200 s, a fixed flattened start
    name="fold_collar",
    prompt="fold collar up",
    max_steps=55,
    spread=0.01,
    stages=(
        Stage(
            "fold collar",
            handles=((-0.12, 0.45), (0.12, 0.45)),
            goals=((-0.12, 0.63), (0.12, 0.63)),
            wrong_goals=((-0.12, 0.27), (0.12, 0.27)),
        ),
    ),
)

def garment(name, width, length, grasp, good_radius=GOOD_RADIUS):
    """An `Item`.  width, length: of the flat thing, m.  grasp: where on its half width, 0-1."""
    half, near = width / 2, 0.60 - length  # the far edge lies at y = 0.60 m, the near one at `near`

    def stage(subtask, *ends):  # ends: the right half's handle and goal; the left one's mirror them
        handles, goals = [((-x, y), (x, y)) for x, y in ends]
        return Stage(subtask, handles, goals, good_radius=good_radius)

    stack = stage("stack item", (0.5 * half, 0.44), (0.4 * half, 0.66))
    # the pile is on the right
    stack = replace(stack, goals=tuple((x + 0.18, y) for x, y in stack.goals))
    return Item(
        name,
        (
            stage("flatten item", (0.4 * half, 0.40), (half, 0.56)),
            stage("fold item", (grasp * half, near), (0.4 * half, 0.60)),
            stack,
        ),
    )

ITEMS = (
    garment("towel", 0.48, 0.22, 1.0, 0.065),  # thick: almost any grasp of its corners holds
    garment("t-shirt", 0.52, 0.22, 0.9),
    garment("shorts", 0.44, 0.22, 0.9),
    garment("skirt", 0.46, 0.22, 0.8),
    garment("jeans", 0.42, 0.25, 0.7, 0.040),
    garment("sweater", 0.56, 0.24, 0.9, 0.038),
    garment("polo", 0.54, 0.24, 0.9, 0.032),
    garment("long-sleeve shirt", 0.58, 0.24, 0.9, 0.032),
    garment("socks", 0.26, 0.18, 0.8, 0.030),
    garment("underwear", 0.32, 0.20, 0.9, 0.030),
    # the hardest: the largest, to be held the most exactly
    garment("button-up shirt", 0.70, 0.30, 0.95, 0.024),
)

FOLD_DIVERSE = Toy(
    # paper: 500 s
    name="fold_diverse",
    prompt="fold",
    max_steps=165,
    spread=0.03,
    stages=ITEMS[0].stages,
    items=ITEMS,
    measured="button-up shirt",
)

class FoldShirtEnv(BimanualEnv):
    """Laundry (t-shirts and shorts), Sec. VI-A: flatten the shirt, fold it, stack it.

    ## Description
    Three stages, both arms in each: grasp your half of the shirt at its handle, carry it to the
    goal, let go.  An edge grasp (3.5 to 7.5 cm beside the handle) slips after 7 cm of carrying and
    the half springs back; if it slips at more than 2.6 cm per step, the shirt falls off the table.
    The headroom is speed: a policy that never pauses and grasps well needs 40 % of the time of a
    successful demonstration.

    ## Observation Space
    Dict: `state` Box(6,), joint angles (rad) and gripper openings (0-1), [left 2 + 1, right 2 + 1];
    `keypoints` Box(4, 20), rows [left handle, right handle, left goal, right goal], columns as in
    `World.observe`.

    ## Action Space
    Box(6,): absolute joint targets (rad) and gripper openings (0-1), [left 2 + 1, right 2 + 1], at
    10 Hz.  At most 0.08 rad and half a gripper opening are covered per step.

    ## Rewards
    Eq. 5: -1 per step, 0 at the step of success, -C_fail at the last step of a failure (C_fail =
    the time limit).

    ## Starting State
    Hands near the front of the table, grippers open; handles jittered by +-3 cm, goals by +-1 cm.

    ## Episode End
    Terminated: stacked (success); thrown off the table, or 150 steps (15 s) are over (failures).
    """

    task = FOLD_SHIRT

class FoldDiverseEnv(BimanualEnv):
    """Laundry (diverse items), Sec. VI-A: one of eleven items, which the prompt names.

    ## Description
    Three stages as in FoldShirt, for a towel, t-shirt, shorts, skirt, jeans, sweater, polo,
    long-sleeve shirt, socks, underwear or button-up shirt: "fold jeans".  The items differ in size,
    in where they are grasped, and in how close to the handle a grasp must be to hold: within 6.5 cm
    (towel) to 2.4 cm (button-up shirt, the largest and hardest, on which the paper measures).
    Beyond that, up to 7.5 cm beside the handle, it is an edge grasp; it slips after 7 cm of
    carrying, and if it slips at more than 2.6 cm per step, the item falls off the table.

    ## Observation Space
    Dict: `state` Box(6,), joint angles (rad) and gripper openings (0-1), [left 2 + 1, right 2 + 1];
    `keypoints` Box(4, 20), rows [left handle, right handle, left goal, right goal], columns as in
    `World.observe`; column 17 is how close a good grasp must be.  The item's name is in
    `info["prompt"]`.

    ## Action Space
    Box(6,): absolute joint targets (rad) and gripper openings (0-1), [left 2 + 1, right 2 + 1], at
    10 Hz.

    ## Rewards
    Eq. 5: -1 per step, 0 at the step of success, -C_fail at the last step of a failure (C_fail =
    the time limit).

    ## Starting State
    The item is drawn from the seed, or chosen: `reset(options={"item": "button-up shirt"})`.  Hands
    near the front of the table, grippers open; handles jittered by +-3 cm, goals by +-1 cm.

    ## Episode End
    Terminated: stacked (success); thrown off the table, or 165 steps (16.5 s) are over (failures).
    """

    task = FOLD_DIVERSE

class FoldCollarEnv(BimanualEnv):
    """Laundry (targeted failure removal), Fig. 12: one fold, of whose two ways one counts.

    ## Description
    One stage, both arms: grasp your half, carry it to the far side (collar up) or to the near side
    (collar down).  Only up counts.  Half of the demonstrations go down.  Grasps slip as in
    FoldShirt.  A half that was released on the wrong side can be taken back as long as the other
    half has not been released, too.

    ## Observation Space
    Dict: `state` Box(6,), joint angles (rad) and gripper openings (0-1), [left 2 + 1, right 2 + 1];
    `keypoints` Box(4, 20), rows [left handle, right handle, left goal, right goal], columns as in
    `World.observe`.

    ## Action Space
    Box(6,): absolute joint targets (rad) and gripper openings (0-1), [left 2 + 1, right 2 + 1], at
    10 Hz.

    ## Rewards
    Eq. 5: -1 per step, 0 at the step of success, -C_fail at the last step of a failure (C_fail =
    the time limit).

    ## Starting State
    A nearly fixed, flattened shirt: handles and goals jittered by +-1 cm, hands near the front of
    the table.

    ## Episode End
    Terminated: both halves released, all up (success) or some down (failure); thrown off the
    table, or 55 steps (5.5 s) are over (failures).
    """

    task = FOLD_COLLAR

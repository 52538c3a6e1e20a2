"""Laundry: the t-shirt of Sec. VI-A (speed to gain) and the collar of Fig. 12 (one failure mode to remove)."""
from .arms import Stage, TaskSpec
from .env import BimanualEnv

FOLD_SHIRT = TaskSpec(
    name="fold_shirt", prompt="fold shirt", max_steps=150, spread=0.03,      # paper: 200 s
    stages=(
        Stage("flatten shirt", handles=((-0.10, 0.42), (0.10, 0.42)), goals=((-0.25, 0.55), (0.25, 0.55))),
        Stage("fold sleeves", handles=((-0.22, 0.36), (0.22, 0.36)), goals=((-0.10, 0.55), (0.10, 0.55))),
        Stage("stack shirt", handles=((-0.12, 0.45), (0.12, 0.45)), goals=((0.10, 0.66), (0.28, 0.66))),
    ))

FOLD_COLLAR = TaskSpec(
    name="fold_collar", prompt="fold collar up", max_steps=55, spread=0.01,  # paper: 200 s, a fixed flattened start
    stages=(
        Stage("fold collar", handles=((-0.12, 0.45), (0.12, 0.45)), goals=((-0.12, 0.63), (0.12, 0.63)),
              wrong_goals=((-0.12, 0.27), (0.12, 0.27))),
    ))


class FoldShirtEnv(BimanualEnv):
    """Laundry (t-shirts and shorts), Sec. VI-A: take the shirt from the basket and flatten it, fold it, stack it.

    ## Description
    Three stages, both arms in each: grasp your half of the shirt at its handle, carry it to the goal, let go.
    An edge grasp (3.5 to 7.5 cm beside the handle) slips after 7 cm of carrying and the half springs back; if it
    slips at more than 2.6 cm per step, the shirt falls off the table.  The headroom is speed: a policy that
    never pauses and grasps well needs 40 % of the time of a successful demonstration.

    ## Observation Space
    Dict: `state` Box(6,), joint angles (rad) and gripper openings (0-1), [left 2 + 1, right 2 + 1];
    `keypoints` Box(4, 17), rows [left handle, right handle, left goal, right goal], columns as in `World.observe`.

    ## Action Space
    Box(6,): absolute joint targets (rad) and gripper openings (0-1), [left 2 + 1, right 2 + 1], at 10 Hz.  At most
    0.08 rad and half a gripper opening are covered per step.

    ## Rewards
    Eq. 5: -1 per step, 0 at the step of success, -C_fail at the last step of a failure (C_fail = the time limit).

    ## Starting State
    Hands near the front of the table, grippers open; handles jittered by +-3 cm, goals by +-1 cm.

    ## Episode End
    Terminated: stacked (success), or thrown off the table (failure).  Truncated: 150 steps (15 s) are over; in
    this setting that is a failure, and `info["success"]` says so.
    """
    task = FOLD_SHIRT


class FoldCollarEnv(BimanualEnv):
    """Laundry (targeted failure removal), Fig. 12: one fold, two ways to do it, only "collar up" counts.

    ## Description
    One stage, both arms: grasp your half, carry it to the far side (collar up) or to the near side (collar down).
    Only up counts.  Half of the demonstrations go down.  Grasps slip as in FoldShirt.  A half that was released
    on the wrong side can be taken back as long as the other half has not been released, too.

    ## Observation Space
    Dict: `state` Box(6,), joint angles (rad) and gripper openings (0-1), [left 2 + 1, right 2 + 1];
    `keypoints` Box(4, 17), rows [left handle, right handle, left goal, right goal], columns as in `World.observe`.

    ## Action Space
    Box(6,): absolute joint targets (rad) and gripper openings (0-1), [left 2 + 1, right 2 + 1], at 10 Hz.

    ## Rewards
    Eq. 5: -1 per step, 0 at the step of success, -C_fail at the last step of a failure (C_fail = the time limit).

    ## Starting State
    A nearly fixed, flattened shirt: handles and goals jittered by +-1 cm, hands near the front of the table.

    ## Episode End
    Terminated: both halves released, all up (success) or some down (failure); or thrown off the table (failure).
    Truncated: 55 steps (5.5 s) are over, a failure.
    """
    task = FOLD_COLLAR

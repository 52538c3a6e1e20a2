"""Cafe (Sec. VI-A): the longest chain, one arm and then the other, with mistakes that end it."""

from .arms import Stage
from .env import BimanualEnv
from .toys import Toy

# What stands where, m.  An arm without a part in a stage has its handle and goal where the
# portafilter or the cup is.
RACK, GRINDER, TAMPER, CUPS = (-0.26, 0.52), (-0.06, 0.45), (-0.24, 0.37), (-0.19, 0.69)
LEVER, PULLED, GROUP, SPOUT, COUNTER = (
    (0.10, 0.38),
    (0.10, 0.57),
    (0.21, 0.57),
    (0.08, 0.66),
    (0.27, 0.40),
)
# m per step: the portafilter's safe_speed, the full cup's spill_speed
SLIPPERY, SPILLING = 0.014, 0.017

ESPRESSO = Toy(
    # paper: 200 s
    name="espresso",
    prompt="make espresso",
    max_steps=310,
    spread=0.02,
    goal_spread=0.01,
    stages=(
        Stage(
            "bring portafilter",
            handles=(RACK, LEVER),
            goals=(GRINDER, LEVER),
            arms=(True, False),
            safe_speed=SLIPPERY,
        ),
        Stage("grind beans", handles=(GRINDER, LEVER), goals=(GRINDER, PULLED), arms=(False, True)),
        Stage(
            "tamp coffee", handles=(TAMPER, GRINDER), goals=(GRINDER, GRINDER), arms=(True, False)
        ),
        Stage(
            "lock portafilter",
            handles=(CUPS, GRINDER),
            goals=(CUPS, GROUP),
            arms=(False, True),
            safe_speed=SLIPPERY,
        ),
        Stage("bring cup", handles=(CUPS, GROUP), goals=(SPOUT, GROUP), arms=(True, False)),
        Stage(
            "serve coffee",
            handles=(SPOUT, SPOUT),
            goals=(SPOUT, COUNTER),
            arms=(False, True),
            spill_speed=SPILLING,
        ),
    ),
)

class EspressoEnv(BimanualEnv):
    """Cafe (double shot espresso), Sec. VI-A: six stages, one arm and then the other.

    ## Description
    The left arm brings the portafilter to the grinder, the right one pulls the grinder's lever, the
    left one tamps, the right one locks the portafilter into the machine, the left one puts a cup
    under it, the right one serves.  Grasps slip as in FoldShirt, with two critical mistakes (the
    paper's): dropping the portafilter: it is heavy.  In "bring portafilter" and "lock portafilter"
    an edge grasp that slips faster than 1.4 cm per step loses it (elsewhere: than 2.6 cm per step);
    spilling: in "serve coffee" the cup is full.  Carried faster than 1.7 cm per step, it spills,
    however well it is held.

    ## Observation Space
    Dict: `state` Box(6,), joint angles (rad) and gripper openings (0-1), [left 2 + 1, right 2 + 1];
    `keypoints` Box(4, 20), rows [left handle, right handle, left goal, right goal], columns as in
    `World.observe`; column 18 tells the portafilter's stages from the others, column 19 the full
    cup's.

    ## Action Space
    Box(6,): absolute joint targets (rad) and gripper openings (0-1), [left 2 + 1, right 2 + 1], at
    10 Hz.

    ## Rewards
    Eq. 5: -1 per step, 0 at the step of success, -C_fail at the last step of a failure (C_fail =
    the time limit).

    ## Starting State
    Hands near the front of the table, grippers open; handles jittered by +-2 cm, goals by +-1 cm.

    ## Episode End
    Terminated: served (success); something dropped, the coffee spilled, or 310 steps (31 s) are
    over (failures).  `info["failure"]` says which: "dropped", "spilled" or "time"; `info["stages"]`
    holds the six stages.
    """

    task = ESPRESSO

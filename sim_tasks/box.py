"""Box assembly (Secs. VI-A and VI-C): four scored stages."""

from .arms import Stage
from .env import BimanualEnv
from .toys import Toy

BOX = Toy(
    corrected=100,
    name="box",
    prompt="build box",
    max_steps=200,
    spread=0.03,  # paper: 600 s
    stages=(
        Stage(
            "pick sheet", handles=((-0.15, 0.30), (0.15, 0.30)), goals=((-0.18, 0.50), (0.18, 0.50))
        ),
        Stage(
            "build box", handles=((-0.30, 0.56), (0.30, 0.56)), goals=((-0.12, 0.42), (0.12, 0.42))
        ),
        Stage(
            "label box",
            handles=((-0.12, 0.42), (0.34, 0.34)),
            goals=((-0.12, 0.42), (0.08, 0.46)),
            arms=(False, True),
        ),
        # grasped at its far corners: neither hand is there already
        Stage(
            "place box", handles=((-0.24, 0.34), (0.22, 0.34)), goals=((-0.28, 0.66), (-0.08, 0.66))
        ),
    ),
)

class BoxEnv(BimanualEnv):
    """Box assembly, Sec. VI-A: pick a sheet, build the box, label it, place it in the crate.

    ## Description
    Four stages, scored one by one (Fig. 8, right): both arms pick the sheet, both fold it into a
    box, the right arm alone brings the label, both place the box in the crate.  Grasps slip as in
    FoldShirt; most failures are running out of time, as in the paper.

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
    Hands near the front of the table, grippers open; handles jittered by +-3 cm, goals by +-1 cm.

    ## Episode End
    Terminated: the box is in the crate (success), something fell off the table, or the time limit
    (`task.max_steps`) is over (failures).  `info["stages"]` holds the successes of the four stages.
    """

    task = BOX

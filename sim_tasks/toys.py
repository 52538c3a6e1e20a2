"""The five toys as tasks: a `arms.TaskSpec` with its rate, sizes, words, world and operators."""

from dataclasses import dataclass

import numpy as np

from .arms import ACTION_DIM, CONTROL_HZ, STATIC, TaskSpec, World
from .demonstrator import SKILLS, Operator, ScriptedOperator
from .render import draw, sketch

# Every word of the toys' prompts, subtasks and questions: all of them share one vocabulary.
WORDS = tuple(
    """
    fold shirt collar up build box flatten sleeves stack pick sheet label place where left right
    handle hand near far what holds nothing edge well gripper open closed how many held placed which
    arm nearer look zero one two three four five six towel socks underwear shorts skirt t-shirt
    jeans polo sweater long-sleeve button-up item make espresso bring portafilter grind beans tamp
    coffee lock cup serve
    """.split()
)

@dataclass(frozen=True)
class Toy(TaskSpec):
    """A toy task; the fields and methods are those of `task.Task`."""

    positive: float = 0.2
    beta: float = 1.5
    corrected: int = 50
    sft_steps: int = 700

    hz = CONTROL_HZ
    lookahead_s = 1.0
    action_dim = ACTION_DIM
    n_arms = 2
    absolute = (2, 5)  # the grippers
    near = (2, 6)  # both arms' joint offsets to a keypoint
    state_mean = ()  # radians are of the order of 1 as they are
    state_std = ()
    words = WORDS
    prompt_length = 5
    subtask_length = 2
    has_demonstrator = True
    has_coach = True
    has_world = True
    example = None  # sizes are read off the world

    @property
    def subtasks(self):
        return tuple(stage.subtask for stage in self.stages)

    def world(self, seeds, body=None, item=None):
        return World(self, seeds, STATIC if body is None else body, item)

    def demonstrator(self, world, seeds, skill):
        return Operator(world, seeds, SKILLS[skill])

    def coach(self, world, seeds):
        return ScriptedOperator(world, seeds)

    def picture(self, observation):
        return draw(observation["state"], observation["keypoints"], self)

    def sketch(self, observation):
        return sketch(observation["state"], observation["keypoints"], self)

    def visible_quality(self, observations):
        """Steps that anyone who watches would call good or bad: (good, bad), bool (T,) each.

        Good: a half is about to be grasped well.  Bad: it is about to be grasped by its edge, or
        both arms and grippers stand still (three steps in a row).
        """
        state = observations["state"]
        # Rows 0 and 1 of the keypoints: handles; columns 7 and 8: held by the edge, held well.
        handles = observations["keypoints"][:, :2]
        edge = begins(handles[..., 7] > 0)
        well = begins(handles[..., 8] > 0)
        motion = np.abs(np.diff(state, axis=0)).max(1)  # (T - 1,)
        still = np.append(motion < 0.015, False)  # (T,); joint noise is 0.003
        pause = still & np.append(still[1:], False) & np.append(False, still[:-1])
        return well & ~edge, edge | pause

def begins(held):
    """Is one of the arms about to hold?  held: bool (T, arm) -> bool (T,)"""
    return np.append((held[1:] & ~held[:-1]).any(1), False)

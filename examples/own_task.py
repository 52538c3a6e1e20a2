"""A task of your own, whole: open the lid with the left hand, drop the ball in with the right.

    python recap.py --task examples/own_task.py:LID_AND_BALL --quick

Here is one copy of the world and an expert that decides by the state alone; copies, operators of
any quality and the coach are made out of it (sim_tasks/scene.py).  More: docs/OWN_TASK.md.
"""
import numpy as np

from sim_tasks.arms import forward_kinematics, inverse_kinematics, joint_offsets
from sim_tasks.task import Task

CLOSE = 0.02  # m: so near, a thing is at its place
FAST = 0.025  # m per step: what is held loosely slips away at this speed
LEFT = 0  # the arms; also the lid and the ball
RIGHT = 1

class LidAndBall:
    def reset(self, seed):
        rng = np.random.default_rng(seed)
        hands = np.array([[-0.25, 0.32], [0.25, 0.32]]) + rng.uniform(-0.03, 0.03, (2, 2))
        self.joints = inverse_kinematics(hands)  # (arm, joint), rad
        self.grippers = np.ones(2)  # 1 is open
        self.things = np.array([[-0.12, 0.50], [0.25, 0.50]]) + rng.uniform(-0.05, 0.05, (2, 2))
        box = self.things[LEFT]
        self.goals = np.array([box + [-0.12, 0.08], box])  # of the lid, of the ball
        self.held = np.zeros(2, bool)
        self.stage = 0
        self.lost = False

    def observe(self):
        state = np.column_stack([self.joints, self.grippers]).ravel()  # (6,)
        points = np.concatenate([self.things, self.goals])  # (4, xy)
        offsets = joint_offsets(self.joints[None], points[None])[0]  # (4, both arms' joints), rad
        status = np.full((4, 2), self.stage)  # 0: the lid's turn, 1: the ball's
        status[:, 0] = [*self.held, 0, 0]
        return {"state": state, "keypoints": np.column_stack([points, offsets, status])}

    def step(self, action):
        action = action.reshape(2, 3)  # (arm, two joints and a gripper)
        before = forward_kinematics(self.joints)
        self.joints = self.joints + np.clip(action[:, :2] - self.joints, -0.08, 0.08)
        was_open = self.grippers > 0.5
        self.grippers = np.clip(action[:, 2], self.grippers - 0.5, self.grippers + 0.5).clip(0, 1)
        closed = self.grippers <= 0.5
        hands = forward_kinematics(self.joints)
        self.things[self.held] += (hands - before)[self.held]
        # A loose grip loses what it holds in a fast motion; a ball that falls rolls away.
        speed = np.linalg.norm(hands - before, axis=1)
        slips = self.held & (self.grippers > 0.1) & (speed > FAST)
        self.lost = bool(slips[RIGHT])
        near = np.linalg.norm(hands - self.things, axis=1) < 2 * CLOSE
        takes = was_open & closed & near & (np.arange(2) == self.stage)
        self.held = (self.held & closed & ~slips) | takes
        arrived = np.linalg.norm(self.things - self.goals, axis=1) < 2 * CLOSE
        self.stage += arrived[self.stage] and not self.held[self.stage]

    def expert(self):
        """To the thing, close, to its goal, open; the other arm stays."""
        arm = self.stage
        hands = forward_kinematics(self.joints)
        held = self.held[arm]
        way = self.goals[arm] - self.things[arm] if held else self.things[arm] - hands[arm]
        length = np.linalg.norm(way)
        hands[arm] += way * min(1, 0.04 / max(length, 1e-6))
        action = np.column_stack([inverse_kinematics(hands), np.ones(2)])
        closes = length > CLOSE if held else length < CLOSE and self.grippers[arm] > 0.5
        action[arm, 2] = 0 if closes else 1
        return action.ravel()

    def remaining(self):
        arm = self.stage
        carry = np.linalg.norm(self.things[arm] - self.goals[arm])
        reach = np.linalg.norm(forward_kinematics(self.joints)[arm] - self.things[arm])
        return carry + (0 if self.held[arm] else reach)

LID_AND_BALL = Task(
    name="lid_and_ball", prompt="put the ball into the box", subtasks=("open lid", "drop ball"),
    hz=10, max_steps=90, action_dim=6, scene=LidAndBall, near=(2, 6), speed=0.08,
)  # fmt: skip

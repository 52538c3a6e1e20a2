"""Two ALOHA arms hand over a cube: gym-aloha's TransferCube in MuJoCo, as a task for RECAP.

    pip install -r requirements-aloha.txt
    pip install --no-deps "gym-aloha==0.1.*"            its XML and meshes alone, no dm_control
    python recap.py --task examples/aloha.py:TRANSFER_CUBE
    MUJOCO_GL=egl python -m examples.aloha RUN          before.gif, after.gif (pictures need GL)

The right arm picks up the cube, the left arm takes it in the air, the right arm lets go.
Success: the left arm alone has held the cube in the air for 0.3 s.  gym-aloha asks for less: its
highest reward is a touch by one left finger while the cube is off the table.
Robot: per arm 6 joints and a gripper, position servos, MuJoCo at 500 Hz.  Targets come at 10 Hz
and are interpolated to 50 Hz, the rate of gym-aloha.
Units: m, rad; gripper openings 0 (closed) to 1 (open).  World: x to the right, z up.
"""
import atexit
import functools
import sys
from dataclasses import replace
from pathlib import Path

import gym_aloha
import mujoco
import numpy as np
from PIL import Image

from sim_tasks.scene import Skill
from sim_tasks.task import Task

SIDES = ("left", "right")
LEFT, RIGHT = range(2)
HOME = (0, -0.96, 1.16, 0, -0.3, 0)  # rad, gym-aloha's start of each arm
CLOSED = 0.021  # m, a finger's way from the middle
OPEN = 0.057
CUBE = 0.59  # the opening at which the fingers touch the cube, 4 cm wide
TIP = 0.135  # m, from the wrist to the point between the fingers that is to meet the cube
MEET = np.array([0.0, 0.5, 0.25])  # where the cube is handed over
LIFTED = 0.04  # m, height of the cube's middle; on the table it is 0.02
HELD = 3  # steps that the left arm alone must hold
REACH = 0.70  # m, around the right arm's base
RIGHT_BASE = (0.469, 0.5)
STEP = 0.05  # m, the furthest that the expert moves a hand in one step
TURN = 0.4  # rad, likewise
GAIN = 0.8  # the share of a short way that the expert covers in one step
RADIUS = 0.2  # m, makes metres of radians where both are weighed

def axes(ahead, across):
    """A rotation matrix: columns where the fingers point, along which they close, and the third."""
    return np.stack([ahead, across, np.cross(ahead, across)], axis=1)

# The right hand comes from above, tilted by 60°, and takes the cube by its sides.  The left one
# comes level, rolled by 90°: its fingers take top and bottom, between those of the right.
GRASP = (axes((1.0, 0.0, 0.0), (0.0, 0.0, 1.0)), axes((-0.5, 0.0, -0.75**0.5), (0.0, -1.0, 0.0)))

@functools.cache
def model():
    """The compiled MuJoCo model: one for all copies of the scene, and for all threads."""
    folder = Path(gym_aloha.__file__).parent / "assets"
    return mujoco.MjModel.from_xml_path(str(folder / "bimanual_viperx_transfer_cube.xml"))

def ramp(x, low, high):
    """0 below `low`, 1 above `high`, a straight line between.  (low > high: falling.)"""
    return float(np.clip((x - low) / (high - low), 0, 1))

def shorten(vector, longest):
    """The vector, or one of length `longest` in its direction if it is longer."""
    return vector * min(1, longest / max(np.linalg.norm(vector), 1e-9))

def turning(start, end):
    """The rotation vector between two rotation matrices (3,), about rad; right to first order."""
    return 0.5 * np.cross(start, end, axis=0).sum(1)

class AlohaScene:
    """One copy of the task."""

    def __init__(self):
        self.model = model()
        self.data = mujoco.MjData(self.model)
        self.cube_geom = self.model.geom("red_box").id
        self.wrists = [self.model.body(f"vx300s_{side}/gripper_link").id for side in SIDES]
        finger = "vx300s_{}/10_{}_gripper_finger"
        self.fingers = np.zeros((2, 2), int)
        for arm, side in np.ndindex(2, 2):
            self.fingers[arm, side] = self.model.geom(finger.format(SIDES[arm], SIDES[side])).id

    def reset(self, seed):
        """Arms at home, hands open, the cube somewhere in 20 x 20 cm right of the middle."""
        d = self.data
        mujoco.mj_resetData(self.model, d)
        x, y = np.random.default_rng(seed).uniform((0.0, 0.4), (0.2, 0.6))
        d.qpos[:16] = (*HOME, OPEN, -OPEN) * 2
        d.qpos[16:] = (x, y, 0.02, 1, 0, 0, 0)
        d.ctrl[:] = d.qpos[:16]
        self.touch = np.zeros((2, 2), bool)  # (arm, finger)
        self.alone = 0
        self._look()

    def step(self, action):
        """One step of 0.1 s.  action: (14,), targets [left joints, gripper, right ...]."""
        d = self.data
        action = np.reshape(action, (2, 7)).astype(float)
        opening = CLOSED + np.clip(action[:, 6:], 0, 1) * (OPEN - CLOSED)
        target = np.concatenate([action[:, :6], opening, -opening], axis=1).ravel()  # (16,)
        start = d.ctrl.copy()
        self.touch[:] = False
        for i in range(1, 6):
            d.ctrl[:] = start + (target - start) * i / 5
            mujoco.mj_step(self.model, d, nstep=10)  # 10 x 2 ms; other threads go on meanwhile
            # A finger touches in this step if it does at any of the five moments: contacts flicker.
            pairs = d.contact.geom  # (contacts, 2)
            self.touch |= np.isin(self.fingers, pairs[(pairs == self.cube_geom).any(1)])
        self._look()

    def _look(self):
        """Read off the simulator what the other methods need, and count the stages."""
        d = self.data
        mujoco.mj_forward(self.model, d)
        self.cube = d.geom_xpos[self.cube_geom].copy()  # (3,)
        self.joints = d.qpos[:16].reshape(2, 8)[:, :6].copy()  # (arm, 6)
        self.opening = (d.qpos[[6, 14]] - CLOSED) / (OPEN - CLOSED)  # (arm,)
        self.hand = d.xmat[self.wrists].reshape(2, 3, 3)  # (arm, xyz, axis), as in `axes`
        self.tip = d.xpos[self.wrists] + TIP * self.hand[:, :, 0]  # (arm, 3)
        self.holds = self.touch.all(1)  # (arm,)

        # A stage counts while it lasts: a dropped cube is at stage 0 again.
        air = self.cube[2] > LIFTED
        taken = air and self.holds[LEFT]
        self.alone = self.alone + 1 if taken and not self.touch[RIGHT].any() else 0
        self.stage = 0
        if air and self.holds[RIGHT]:
            self.stage = 1
        if taken:
            self.stage = 2
        if self.alone >= HELD:
            self.stage = 3
        # Lost: off the table, or lying where the right arm cannot get it.
        away = np.linalg.norm(self.cube[:2] - RIGHT_BASE)
        self.lost = bool(self.cube[2] < 0 or (self.cube[2] < LIFTED and away > REACH))

    def observe(self):
        """state (14,), joints and openings as in actions; keypoints (3, 18): left, right, cube."""
        state = np.concatenate([self.joints, self.opening[:, None]], axis=1).ravel()
        way = self.cube - self.tip  # (arm, 3), from the hands to the cube
        # A hand: where it is, how it is turned, the way to the cube (as its own axes see it, once
        # for the last centimetres), its opening, its touches.
        seen = np.einsum("aij,ai->aj", self.hand, way)
        arms = np.concatenate([
            4 * (self.tip - MEET), self.hand[:, :, 0], self.hand[:, :, 1], 4 * way,
            np.tanh(seen / 0.03), self.opening[:, None], self.touch,
        ], axis=1)  # fmt: skip
        # The cube: where, how it is turned, the way between the hands, who holds it.
        turned = self.data.geom_xmat[self.cube_geom].reshape(3, 3)[:, :2].ravel()  # (6,)
        cube = np.concatenate([
            4 * (self.cube - MEET), turned, 4 * (self.tip[RIGHT] - self.tip[LEFT]),
            np.tanh((self.cube - MEET) / 0.03), self.holds, [20 * (self.cube[2] - LIFTED)],
        ])  # fmt: skip
        # Far away (thrown off the table) numbers stay finite and small.
        keypoints = np.clip(np.concatenate([arms, cube[None]]), -4, 4)
        return {"state": state.astype(np.float32), "keypoints": keypoints.astype(np.float32)}

    def remaining(self):
        """Metres that are left in this stage, roughly."""
        to_cube = np.linalg.norm(self.cube - self.tip, axis=1)  # (arm,)
        to_meet = np.linalg.norm(self.cube - MEET)
        if self.stage == 0:
            return to_cube[RIGHT] + to_meet
        if self.stage == 1:
            return to_cube[LEFT] + to_meet
        # Letting go: the right hand opens, and leaves.
        return max(0.0, 0.15 - to_cube[RIGHT]) + 0.05 * (1 - min(self.opening[RIGHT], 1))

    # ---------------------------------------------------------------- the expert

    def expert(self):
        """The action (14,) of an expert, from what is seen alone.

        Nothing is kept in mind and next to nothing is decided by a threshold: where one way of
        moving gives way to another, they blend.  A policy that is nearly there then moves, too.
        """
        near = ramp(np.linalg.norm(self.cube - MEET), 0.12, 0.06)  # the cube is where they meet
        # The left arm: beside the meeting point; onto the cube as it arrives; then hold it.
        goal, grip = self._approach(LEFT)
        goal = MEET + near * (goal - MEET) - 0.12 * (1 - near) * GRASP[LEFT][:, 0]
        if self.holds[LEFT]:
            goal = self.tip[LEFT] + shorten(MEET - self.tip[LEFT], 0.01)
            grip = 0.0
        left = self._move(LEFT, goal, GRASP[LEFT], grip)

        # The right arm: to the cube; up, then across; open, and back out as the fingers come off.
        goal, grip = self._approach(RIGHT)
        turned = GRASP[RIGHT]
        if self.holds[RIGHT]:
            way = MEET - self.tip[RIGHT]
            way[:2] *= ramp(self.cube[2], 0.02, 0.06)
            goal = self.tip[RIGHT] + way
            grip = 0.0
        if self.stage >= 2:
            off = ramp(self.opening[RIGHT], CUBE + 0.03, CUBE + 0.18)
            goal = self.tip[RIGHT] - 0.08 * off * self.hand[RIGHT][:, 0]
            grip = 1.0
            turned = self.hand[RIGHT]
        right = self._move(RIGHT, goal, turned, grip)
        return np.concatenate([left, right])

    def _approach(self, arm):
        """Where to go for a grasp, (3,), and how far to open: a funnel whose tip is the cube."""
        ahead = GRASP[arm][:, 0]
        target = self.cube - 0.01 * ahead * (arm == LEFT)  # leave the right hand some room
        way = target - self.tip[arm]
        depth = way @ ahead
        # Further back, the further the hand is beside the way in or turned from it ...
        beside = np.linalg.norm(way - depth * ahead)
        turn = np.linalg.norm(turning(self.hand[arm], GRASP[arm]))
        back = min(0.08, 2.5 * max(0.0, beside - 0.01) + 0.15 * turn)
        # ... and back again to open, should it be closed before it is there.
        back += 0.06 * ramp(depth, 0, 0.03) * ramp(self.opening[arm], 0.8, 0.6)
        return target - back * ahead, ramp(np.linalg.norm(way), 0.015, 0.035)

    def _move(self, arm, goal, turned, grip):
        """One arm's action (7,) towards a pose: a damped least-squares step on the Jacobian.

        goal: of the tip, (3,).  turned: of the hand, (3, 3).  grip: opening, 0 to 1.
        """
        columns = slice(8 * arm, 8 * arm + 6)
        jacobian = np.empty((2, 3, self.model.nv))  # of the tip's position and of the rotation
        wrist = self.wrists[arm]
        mujoco.mj_jac(self.model, self.data, *jacobian, self.tip[arm], wrist)
        J = np.concatenate([jacobian[0, :, columns], RADIUS * jacobian[1, :, columns]])  # (6, 6)
        way = shorten(GAIN * (goal - self.tip[arm]), STEP)
        turn = shorten(turning(self.hand[arm], turned), TURN)
        error = np.concatenate([way, RADIUS * turn])
        change = J.T @ np.linalg.solve(J @ J.T + 1e-4 * np.eye(6), error)
        # The servos are springs, and gravity makes them sag: aim higher by as much.
        sag = self.data.qfrc_bias[columns] / self.model.actuator_gainprm[columns, 0]
        return np.append(self.joints[arm] + change + sag, grip)

# ---------------------------------------------------------------- pictures

class NoPicture(RuntimeError):
    """There is no GL."""

@functools.cache
def renderer(height, width):
    """MuJoCo's renderer, one per size.  NoPicture where there is no GL."""
    try:
        gl = mujoco.Renderer(model(), height, width)
    except Exception as error:  # EGL, OSMesa and GLFW have one each
        message = "no picture: MuJoCo finds no GL, expected MUJOCO_GL=egl or osmesa to work"
        raise NoPicture(message) from error
    atexit.register(gl.close)
    return gl

def frame(scene, camera="angle", size=(240, 320)):
    """The scene as a picture, uint8 (height, width, 3).

    camera: "angle", "top", "front_close", "left_wrist" or "right_wrist".
    """
    gl = renderer(*size)
    gl.update_scene(scene.data, camera)
    gl.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0  # four times as fast
    return gl.render()

class TopCamera(AlohaScene):
    """The same with what the camera above sees: python recap.py --vision --cameras top."""

    def observe(self):
        return super().observe() | {"top": frame(self, "top", (48, 48))}

# ---------------------------------------------------------------- the task

# Operators of this task: the mixed ones succeed in about 70 %, the good ones nearly always.
SKILLS = {
    "mixed": Skill(error=0.045, careful=0.4),
    "good": Skill(error=0.03, careful=0.75, pause=0.03, pace_p=(0.3, 0.5, 0.2)),
}
TRANSFER_CUBE = Task(
    name="transfer_cube", prompt="hand over cube", subtasks=("pick cube", "take cube", "let go"),
    hz=10, max_steps=150, action_dim=14, scene=AlohaScene, speed=0.25, skills=SKILLS,
)  # fmt: skip
FROM_ABOVE = replace(TRANSFER_CUBE, name="transfer_cube_top", scene=TopCamera)

# ---------------------------------------------------------------- before and after

def film(scene, seed, episode, path):
    """Replay an episode of β = 1, which is the same again, and write it as a GIF."""
    from lab.pictures import captioned

    scene.reset(seed)
    pictures = [frame(scene)]
    for action in episode.actions:
        scene.step(action)
        pictures.append(frame(scene))
    images = [Image.fromarray(picture) for picture in captioned(pictures, episode, beta=1)]
    images += 7 * images[-1:]  # a pause on the last one
    images[0].save(path, append_images=images[1:], save_all=True, duration=100, loop=0)

def before_and_after(folder):
    """before.gif and after.gif of a finished run: one scene that π⁰ fails and π^K masters."""
    from collection import roll_out
    from data import episode_seeds
    from lab.files import load_network, read_json
    from settings import Settings

    s = Settings(**read_json(folder, "settings.json"))
    seeds = episode_seeds(s.seed, "pictures", 20)
    films = []
    for name in ("pi_0", f"pi_{s.iterations}"):
        films.append(roll_out(s, s.target, seeds, load_network(f"{folder}/{name}.npz")))
    for seed, before, after in zip(seeds, *films):
        if after.success and not before.success:
            film(AlohaScene(), seed, before, f"{folder}/before.gif")
            film(AlohaScene(), seed, after, f"{folder}/after.gif")
            return
    print("no scene among 20 that the first policy fails and the last one masters")

def main(words):
    """words: of the command line.  Returns its status."""
    from data import UserError
    from lab.program import run_program

    def work():
        if len(words) != 1:
            raise UserError(f"{words}, expected the folder of a finished run")
        try:
            before_and_after(words[0])
        except NoPicture as error:
            raise UserError(str(error)) from error

    return run_program("aloha.py", work)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The settings of a run, and the command line made from them: a field is an option, its help a line here.

The help says what the paper uses where it names a number and ours is another: fewer episodes, and 10 Hz in the place of
50, so that N = 10 steps are the paper's one second.  A default None is filled in by `__post_init__`: it hangs on the task,
or on --vision.  Names of the method: recap.py.
"""
import argparse
import math
from dataclasses import dataclass, field, fields

import sim_tasks
from backbone import CAMERAS
from policy import FLOW_WEIGHTS, PolicyConfig
from sim_tasks.demonstrator import METADATA


def setting(default, help):
    """A field with its line of help, which is its comment, too."""
    return field(default=default, metadata={"help": help})


@dataclass
class Settings:
    task: str = setting("fold_shirt", "target task ℓ: " + ", ".join(sim_tasks.TASKS))
    iterations: int = setting(2, "K of Algorithm 1")
    seed: int = setting(0, "of everything that is drawn, evaluation episodes included")
    beta: float | None = setting(None, "guidance at evaluation, beside β = 1 (default 2 for fold_shirt, else 1.5; "
                                 "App. E: 1.5 to 2.5)")
    device: str = setting("cpu", "cpu, cuda or mps")
    supervised: bool = setting(False, "also train the network without the indicator, pre-trained and SFT")
    # what the networks read and learn besides (each switchable; all off is the plain run)
    vision: bool = setting(False, "read camera images in the place of keypoints")
    cameras: str = setting("base left_wrist right_wrist", "which images with --vision, in one string")
    metadata: bool = setting(False, "train with the operator's pace and quality, s of Sec. V-A, in the prompt")
    metadata_dropout: float = setting(0.3, "how often s is left out in training")
    ask: str = setting("", "s at evaluation, e.g. 'fast careful' (needs --metadata)")
    web: float = setting(0.0, "web questions per step of the data, in the batches of V and π")
    # data
    pretraining_tasks: str = setting(" ".join(sim_tasks.TASKS), "tasks of D_demo, in one string; the target's is added")
    bodies: bool = setting(False, "pre-train on demonstrations of other robot bodies, too")
    demonstrations: int = setting(100, "of every task for pre-training, and of the target task for SFT")
    autonomous: int = setting(150, "episodes collected per iteration without help (paper: 300 to 600)")
    corrected: int | None = setting(None, "episodes collected per iteration with human-gated corrections (default 100 for "
                                    "box, else 50; paper: 360 beside 600 for box, none for t-shirts)")
    episodes: int = setting(300, "evaluation episodes per policy and β")
    # labels (App. F)
    lookahead: int = setting(10, "N of the advantage in fine-tuning, steps (paper: 50 at 50 Hz)")
    positive_pretraining: float = setting(0.3, "fraction of positive labels in pre-training")
    positive: float | None = setting(None, "fraction of positive labels among the newest autonomous steps (default 0.4 "
                                     "for fold_collar, else 0.2; paper: 0.1 for t-shirts and shorts, else 0.4)")
    dropout: float = setting(0.3, "how often the indicator is left out in training")
    c_fail: float = setting(1.0, "C_fail of Eq. 5 in time limits of the task")
    clip_returns: bool = setting(False, "the other range: R / limit, clipped at -1")
    force_corrections: bool = setting(True, "I = True where the operator corrected")
    value_on_corrections: bool = setting(True, "V learns from corrected episodes, too")
    # training
    batch: int = setting(32, "steps per batch of the policy")
    draws: int = setting(4, "draws of (ω, η) per step of the batch")
    learning_rate: float = setting(3e-3, "of π_pre, peak of a cosine")
    fine_tuning_rate: float = setting(2e-3, "of π⁰, π¹, ...")
    pretraining_steps: int | None = setting(None, "gradient steps of π_pre (default 5000, with --vision 10000)")
    sft_steps: int | None = setting(None, "gradient steps of π⁰ (default 700, with --vision 6000)")
    policy_steps: int | None = setting(None, "gradient steps of π^k, k >= 1, from π_pre (default 3500, with --vision 9000)")
    value_learning_rate: float = setting(2e-3, "of the value function")
    value_pretraining_steps: int = setting(1200, "gradient steps of V_pre")
    value_steps: int = setting(600, "gradient steps of V^k, from V_pre")
    value_batch: int = setting(128, "steps per batch of the value function")
    restart: str = setting("pretrained", "π^k starts from: pretrained (Algorithm 1) or last (π^{k-1})")
    token_loss: bool = setting(True, "train the backbone on the action tokens")
    insulation: bool = setting(True, "knowledge insulation: no gradient from the expert into the backbone")
    output: str = setting("clean", "what the expert puts out: clean (â) or velocity (f)")
    flow_weight: str = setting("clean", "α_η of Eq. 4: clean ((1 - η)²), constant (1), or paper (e^{-η/2} / 2, App. C)")
    # acting
    execute: int = setting(4, "actions executed of each chunk of H = 8")
    euler: int = setting(5, "Euler steps per chunk")
    subtask_every: int = setting(2, "chunks per prediction of the subtask ℓ̂")

    def __post_init__(self):
        if self.positive is None:
            self.positive = self.positive_for(self.task)
        if self.corrected is None:
            self.corrected = 100 if self.task == "box" else 50
        if self.beta is None:
            self.beta = self.beta_for(self.task)

        # images take more steps to learn than keypoints
        for name, keypoints, images in (("pretraining_steps", 5000, 10_000), ("sft_steps", 700, 6000),
                                        ("policy_steps", 3500, 9000)):
            if getattr(self, name) is None:
                setattr(self, name, images if self.vision else keypoints)

        def check(name, ok, expected):
            if not ok:
                raise ValueError(f"{name}: {getattr(self, name)!r}, expected {expected}")
        check("task", self.task in sim_tasks.TASKS, "one of " + ", ".join(sim_tasks.TASKS))
        check("beta", self.beta >= 0 and math.isfinite(self.beta), "a number >= 0")
        check("device", self.device in ("cpu", "cuda", "mps"), "cpu, cuda or mps")
        check("c_fail", self.c_fail >= 0 and math.isfinite(self.c_fail), "a number >= 0")
        words = lambda name, known: all(word in known for word in getattr(self, name).split())
        check("cameras", words("cameras", CAMERAS) and self.cameras, "some of " + ", ".join(CAMERAS))
        check("pretraining_tasks", words("pretraining_tasks", sim_tasks.TASKS), "some of " + ", ".join(sim_tasks.TASKS))
        check("bodies", not (self.bodies and self.vision), "no other bodies with --vision: the pictures show the static robot")
        check("ask", words("ask", METADATA) and len(self.ask.split()) <= 2, "up to two of " + ", ".join(METADATA))
        check("ask", self.metadata or not self.ask, "nothing without --metadata: no network would know the words")
        for name, known in (("restart", ("pretrained", "last")), ("output", ("clean", "velocity")),
                            ("flow_weight", FLOW_WEIGHTS)):
            check(name, getattr(self, name) in known, " or ".join(known))
        check("metadata_dropout", 0 <= self.metadata_dropout <= 1, "a number in [0, 1]")
        check("web", 0 <= self.web <= 4, "a number in [0, 4]")
        integer = lambda name, least: isinstance(getattr(self, name), int) and getattr(self, name) >= least
        for name in ("iterations", "seed", "corrected"):
            check(name, integer(name, 0), "an integer >= 0")
        for name in ("demonstrations", "autonomous", "episodes", "lookahead", "batch", "draws", "pretraining_steps", "sft_steps",
                     "policy_steps", "value_pretraining_steps", "value_steps", "value_batch", "euler", "subtask_every"):
            check(name, integer(name, 1), "an integer >= 1")
        for name in ("learning_rate", "fine_tuning_rate", "value_learning_rate"):
            check(name, 0 < getattr(self, name) < 1, "a number in (0, 1)")
        # without dropout the unconditional branch that guidance needs is never trained; at 1 the conditional one
        for name in ("positive_pretraining", "positive", "dropout"):
            check(name, 0 < getattr(self, name) < 1, "a number in (0, 1)")
        check("execute", integer("execute", 1) and self.execute <= PolicyConfig().horizon, f"1 to {PolicyConfig().horizon}")

    def positive_for(self, task):
        """Fraction of positive labels for ε_ℓ of `task`: as set for the target, the default for any other."""
        if task == self.task and self.positive is not None:
            return self.positive
        return 0.4 if task == "fold_collar" else 0.2

    def beta_for(self, task):
        """The recommended β of `task`, likewise."""
        if task == self.task and self.beta is not None:
            return self.beta
        return 2.0 if task == "fold_shirt" else 1.5

    @property
    def pretraining(self):
        """Names of the tasks of D_demo; the target's is always among them."""
        return [task for task in sim_tasks.TASKS if task in self.pretraining_tasks.split() or task == self.task]

    @property
    def seen_cameras(self):
        """Names of the images that the networks read: () is keypoints."""
        return tuple(self.cameras.split()) if self.vision else ()


# --quick: every stage runs, but so few steps teach a policy next to nothing
QUICK = dict(iterations=1, demonstrations=20, autonomous=20, corrected=5, episodes=30, pretraining_steps=150,
             sft_steps=50, policy_steps=100, value_pretraining_steps=60, value_steps=40)


def parse(argv):
    """The command line.  -> Namespace; a setting that was not given is None, so that `Settings` fills in its default."""
    parser = argparse.ArgumentParser(prog="recap.py", description="RECAP (Algorithm 1) on a toy bimanual task.")
    for f in fields(Settings):
        option = "--" + f.name.replace("_", "-")
        kind = type(f.default) if f.default is not None else float if f.name in ("beta", "positive") else int
        if kind is bool:      # --option or --no-option
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=None,
                                help=f.metadata["help"] + f" (default {'yes' if f.default else 'no'})")
        else:
            parser.add_argument(option, type=kind, default=None, metavar=kind.__name__.upper(),
                                help=f.metadata["help"] + ("" if f.default is None else f" (default {f.default})"))
    parser.add_argument("--out", help="output folder, new or empty (default runs/TASK-N, the first free N)")
    parser.add_argument("--quick", action="store_true", help="a first look in at most 30 seconds: little data, few steps")
    parser.add_argument("--generalist", metavar="RUN", nargs="+", help="train one policy and one V from scratch on the data "
                        "of these finished runs (one per task) and compare")
    parser.add_argument("--summary", metavar="OUT", nargs="+", help="only print the mean over finished runs (of several seeds)")
    parser.add_argument("--resume", metavar="OUT", help="go on with an interrupted run, with its settings")
    return parser.parse_args(argv)

"""Every setting of a run, with the paper's value where it names one.

A field is an option of `python recap.py`; its help, default and paper's value are a line here.  Our
numbers are smaller: fewer episodes, and 10 Hz instead of 50, so that N = 10 steps are the
paper's one second.  A default None hangs on the task (`sim_tasks.task.Task` has the numbers), or on
--vision: `__post_init__` fills it in.
Names of the method: recap.py.
"""
from dataclasses import dataclass, field
from functools import cached_property

import sim_tasks
from data import UserError, interface_of
from policy import FLOW_WEIGHTS, PolicyConfig
from sim_tasks.cameras import CAMERAS
from sim_tasks.demonstrator import METADATA

CHUNK_S = 0.8  # s of actions in a chunk, of which half is carried out

@dataclass(frozen=True)
class Size:
    """How large the networks are: fields of `PolicyConfig` and `ValueConfig`; what goes with it."""

    policy: dict
    value: dict
    rates: tuple  # learning rates: of π_pre, of π^k, of V
    horizon: int | None = None  # H; None: CHUNK_S
    image: int = 24  # pixels a side, with --vision

# "toy" is for a CPU; the others, about 5 and 50 million weights, are for a GPU (docs/SCALE.md).
SIZES = {
    "toy": Size({}, {}, (3e-3, 2e-3, 2e-3)),
    "small": Size(
        dict(width=256, layers=4, heads=4, expert_width=256, n_coefficients=8),
        dict(width=192, layers=4, heads=4), (1e-3, 7e-4, 7e-4), 32, 64,
    ),
    "base": Size(
        dict(width=512, layers=8, heads=8, expert_width=512, n_coefficients=8),
        dict(width=384, layers=8, heads=8), (5e-4, 3e-4, 3e-4), 32, 64,
    ),
}  # fmt: skip

def group(title):
    """A function that makes the fields of one group: (default, help, paper, default in words)."""

    def setting(default, help, paper=None, usual=None):
        about = {"group": title, "help": help, "paper": paper, "usual": usual}
        return field(default=default, metadata=about)

    return setting


task_ = group("task")
data_ = group("data")
labels_ = group("labels")
training_ = group("training")
acting_ = group("acting")

@dataclass
class Settings:
    task: str = task_(
        "fold_shirt", "target task ℓ: " + ", ".join(sim_tasks.TASKS) + ", or my_file.py:MY_TASK"
    )
    iterations: int = task_(2, "K of Algorithm 1", paper="1 to 2")
    seed: int = task_(0, "of everything that is drawn, evaluation episodes included")
    device: str = task_("cpu", "cpu, cuda or mps")
    size: str = task_("toy", "of the networks: toy, small or base", paper="Gemma 3 4B, 860M")
    supervised: bool = task_(False, "also train π_0.6, the network without the indicator")

    data: str = data_("", "episodes instead of demonstrations: .npz or a LeRobot folder")
    pretraining_tasks: str | None = data_(
        None, "tasks of D_demo, in one string; the target's is added",
        usual="all toys; the target alone where it is none of them",
    )  # fmt: skip
    bodies: bool = data_(False, "pre-train on other robot bodies, too", paper="many robots")
    demonstrations: int = data_(100, "of every task for pre-training, and of the target for SFT")
    autonomous: int = data_(150, "episodes per iteration without help", paper="300 to 600")
    corrected: int | None = data_(
        None, "episodes per iteration with human-gated corrections",
        paper="360 beside 600 for box, none for t-shirts", usual="the task's: box 100, else 50",
    )  # fmt: skip
    vision: bool = data_(False, "read camera images instead of keypoints", paper="yes")
    cameras: str = data_("base left_wrist right_wrist", "which images with --vision, in one string")
    metadata: bool = data_(False, "the operator's pace and care, s, in π's prompt", paper="yes")
    metadata_dropout: float = data_(0.3, "how often s is left out in training")
    web: float = data_(0.0, "web questions per step of the data", paper="a small mixture")

    lookahead: int | None = labels_(
        None, "N of the advantage in fine-tuning, steps", paper="50 at 50 Hz", usual="1 s: 10"
    )
    positive_pretraining: float = labels_(0.3, "share of positive labels in pre-training", "0.3")
    positive: float | None = labels_(
        None, "share of positive labels among the newest autonomous steps",
        paper="0.1 for t-shirts, else 0.4", usual="the task's: 0.2",
    )  # fmt: skip
    c_fail: float = labels_(1.0, "C_fail of Eq. 5, in time limits of the task", paper="large")
    clip_returns: bool = labels_(False, "the other range: R / limit, clipped at -1")
    force_corrections: bool = labels_(True, "I = True where the operator corrected", paper="yes")
    value_clock: bool = labels_(False, "V sees how much of the time limit is over")
    value_on_corrections: bool = labels_(True, "V learns from corrected episodes, too", paper="yes")

    dropout: float = training_(0.3, "how often the indicator is left out in training", paper="0.3")
    bf16: bool = training_(False, "train with matrix products in bfloat16, for a GPU")
    balance: float = training_(
        0.0, "share of positives where the indicator is shown, in fine-tuning; 0: that of the data"
    )
    batch: int = training_(32, "steps per batch of the policy")
    draws: int = training_(4, "draws of (ω, η) per step of the batch")
    learning_rate: float | None = training_(
        None, "of π_pre, peak of a cosine", usual="0.003; small 0.001, base 0.0005"
    )
    fine_tuning_rate: float | None = training_(
        None, "of π⁰, π¹, ...", usual="0.002; small 0.0007, base 0.0003"
    )
    pretraining_steps: int | None = training_(
        None, "gradient steps of π_pre", usual="5000, with --vision 10000"
    )
    sft_steps: int | None = training_(
        None, "gradient steps of π⁰", usual="the task's: 700; with --vision 6000"
    )
    policy_steps: int | None = training_(
        None, "gradient steps of π^k, k >= 1", usual="3500, with --vision 9000"
    )
    value_learning_rate: float | None = training_(
        None, "of V", usual="0.002; small 0.0007, base 0.0003"
    )
    value_pretraining_steps: int = training_(1200, "gradient steps of V_pre")
    value_steps: int = training_(600, "gradient steps of V^k, from V_pre")
    value_batch: int = training_(128, "steps per batch of the value function")
    restart: str = training_(
        "pretrained", "π^k starts from: pretrained, last (π^{k-1}), or all (V^k goes on, too)",
        paper="pretrained",
    )  # fmt: skip
    token_loss: bool = training_(True, "train the backbone on the action tokens", paper="yes")
    insulation: bool = training_(True, "no gradient from the expert to the backbone", paper="yes")
    output: str = training_("clean", "what the expert puts out: clean (â) or velocity (f)")
    flow_weight: str = training_(
        "clean", "α_η of Eq. 4: clean ((1 - η)²), constant (1), paper (e^{-η/2} / 2)", "paper"
    )

    beta: float | None = acting_(
        None, "guidance at evaluation, beside β = 1", paper="1, or 1.5 to 2.5",
        usual="the task's: fold_shirt 2, else 1.5",
    )  # fmt: skip
    evaluation_episodes: int = acting_(300, "evaluation episodes per policy and β")
    evaluation_metadata: str = acting_("", "s at evaluation, like 'fast careful' (--metadata)")
    horizon: int | None = acting_(
        None, "H, actions of a chunk", paper="not said; π₀: 50 at 50 Hz",
        usual="0.8 s: 8; small, base: 32",
    )  # fmt: skip
    execute: int | None = acting_(None, "actions executed of each chunk", usual="0.4 s: 4")
    euler: int = acting_(5, "Euler steps per chunk")
    subtask_every: int = acting_(2, "chunks per prediction of the subtask ℓ̂")

    def __post_init__(self):
        if self.size not in SIZES:
            raise UserError(f"size: {self.size!r}, expected {' or '.join(SIZES)}")
        rates = ("learning_rate", "fine_tuning_rate", "value_learning_rate")
        self._fill(**dict(zip(rates, SIZES[self.size].rates)))
        target = self.target
        horizon = round(CHUNK_S * target.hz)
        # Images take more steps to learn than keypoints.
        self._fill(
            pretraining_tasks=" ".join(sim_tasks.TASKS) if target.name in sim_tasks.TASKS else "",
            lookahead=max(1, round(target.lookahead_s * target.hz)),
            positive=target.positive,
            corrected=target.corrected if target.has_coach else 0,
            beta=target.beta,
            pretraining_steps=10_000 if self.vision else 5000,
            sft_steps=6000 if self.vision else target.sft_steps,
            policy_steps=9000 if self.vision else 3500,
            horizon=SIZES[self.size].horizon or max(2, horizon),
        )
        # However long the chunk, the policy looks again after as much time.
        self._fill(execute=max(1, min(horizon, self.horizon) // 2))
        check_settings(self)

    def _fill(self, **defaults):
        """Put a default where nothing was set."""
        for name, value in defaults.items():
            if getattr(self, name) is None:
                setattr(self, name, value)

    @property
    def target(self):
        """The task ℓ itself."""
        return sim_tasks.find_task(self.task)

    @cached_property
    def interface(self):
        """What goes into the networks and out of them, `backbone.Interface`."""
        cameras = self.cameras.split() if self.vision else ()
        return interface_of(self.target, cameras, SIZES[self.size].image)

    def positive_for(self, task):
        """Share of positive labels for ε_ℓ of the task of that name."""
        if task == self.target.name or task not in sim_tasks.TASKS:
            return self.positive
        return sim_tasks.TASKS[task].positive

    def beta_for(self, task):
        """The recommended β of the task of that name, likewise."""
        if task == self.target.name or task not in sim_tasks.TASKS:
            return self.beta
        return sim_tasks.TASKS[task].beta

    @property
    def pretraining(self):
        """Names of the tasks of D_demo; the target's is always among them."""
        named = self.pretraining_tasks.split()
        names = [task for task in sim_tasks.TASKS if task in named or task == self.task]
        return names if self.task in names else [*names, self.task]

def check_settings(s):
    """UserError names the first setting that cannot be, its value, and what was expected."""

    def check(name, ok, expected):
        if not ok:
            raise UserError(f"{name}: {getattr(s, name)!r}, expected {expected}")

    def check_words(name, known):
        ok = all(word in known for word in getattr(s, name).split())
        check(name, ok, "some of " + ", ".join(known))

    def check_integer(name, least, most=10**9):
        value = getattr(s, name)
        check(name, isinstance(value, int) and value >= least, f"an integer >= {least}")
        check(name, value <= most, f"an integer <= {most:,}")

    # Far more than anybody needs, and far less than float32 can hold.
    check("beta", 0 <= s.beta <= 1000, "a number >= 0 and <= 1000")
    check("c_fail", 0 <= s.c_fail <= 1000, "a number >= 0 and <= 1000")
    check("device", s.device in ("cpu", "cuda", "mps"), "cpu, cuda or mps")
    check("restart", s.restart in ("pretrained", "last", "all"), "pretrained, last or all")
    check("output", s.output in ("clean", "velocity"), "clean or velocity")
    check("flow_weight", s.flow_weight in FLOW_WEIGHTS, " or ".join(FLOW_WEIGHTS))
    toy = s.target.name in sim_tasks.TASKS
    if toy:
        check_words("cameras", CAMERAS)
    check("cameras", s.cameras.split(), "names of images, like " + ", ".join(CAMERAS))
    if s.vision:
        interface_of(s.target, s.cameras.split())  # does it see these?
    check_words("pretraining_tasks", sim_tasks.TASKS)
    check("corrected", s.target.has_coach or not s.corrected, "0: the task has no coach")
    check("bodies", toy or not s.bodies, "none of another task than the toys")
    still = "no other bodies with --vision: the pictures show the static robot"
    check("bodies", not (s.bodies and s.vision), still)
    check_words("evaluation_metadata", METADATA)
    check("evaluation_metadata", len(s.evaluation_metadata.split()) <= 2, "two words at most")
    unknown = "nothing without --metadata: no network would know the words"
    check("evaluation_metadata", s.metadata or not s.evaluation_metadata, unknown)
    check("balance", 0 <= s.balance < 1, "a number in [0, 1)")
    check("metadata_dropout", 0 <= s.metadata_dropout <= 1, "a number in [0, 1]")
    check("web", 0 <= s.web <= 4, "a number in [0, 4]")
    alone = "none: no toy shares its sizes with the target"
    check("pretraining_tasks", toy or not s.pretraining_tasks.split(), alone)
    check("web", toy or s.web == 0, "0: the questions are about the toys")
    check("value_clock", not (s.value_clock and s.web), "no --web: a question has no clock")
    for name in ("iterations", "corrected"):
        check_integer(name, 0, 10**6)
    check_integer("seed", 0, 2**63 - 1)  # what torch takes
    for name in (
        "lookahead", "pretraining_steps", "sft_steps", "policy_steps", "value_pretraining_steps",
        "value_steps", "euler", "subtask_every", "horizon", "execute",
    ):  # fmt: skip
        check_integer(name, 1)
    # What is held in memory at once.
    for name in ("demonstrations", "autonomous", "evaluation_episodes", "batch", "value_batch"):
        check_integer(name, 1, 10**6)
    check_integer("draws", 1, 1000)
    check("horizon", s.horizon <= 1000, "at most 1000 actions")
    kept = SIZES[s.size].policy.get("n_coefficients", PolicyConfig.n_coefficients)
    check("horizon", s.horizon >= kept, f"at least the {kept} coefficients of a chunk")
    check("execute", s.execute <= s.horizon, f"1 to H = {s.horizon}")
    for name in ("learning_rate", "fine_tuning_rate", "value_learning_rate"):
        check(name, 0 < getattr(s, name) < 1, "a number in (0, 1)")
    # Without dropout the branch that guidance needs is never trained; at 1 the other one is not.
    for name in ("positive_pretraining", "positive", "dropout"):
        check(name, 0 < getattr(s, name) < 1, "a number in (0, 1)")

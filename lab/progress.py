"""Where a run is: its status line, and history.jsonl, the losses of every training.

    on a terminal     one bar, at the bottom
    elsewhere         a line, every LINE_S seconds at most
    history.jsonl     {"name", "step", "of", "loss", "norm"} a line, as `recap.optimise` tells them
"""
import json
import shutil
import sys
from collections import namedtuple

from tqdm import tqdm

from data import UserError

LINE_S = 10.0  # s between two lines
KINDS = {"D": "episodes", "V": "value function", "pi": "policy", "supervised": "plain policy"}

# A product of Algorithm 1: its gradient steps, and what making and measuring it costs, in policy
# steps.
Stage = namedtuple("Stage", "steps making measuring")

# Costs, in steps of the policy, as measured on a CPU: rough, and only ever compared.
VALUE_STEP = 0.8
EPISODE_STEP = 0.006  # one control step of one of the episodes that run side by side

def stages_of(s):
    """{name: `Stage`} of all that `recap.recap` makes with the settings s, in its order."""
    episode = EPISODE_STEP * s.target.max_steps
    evaluation = s.evaluation_episodes * episode if s.target.has_world else 0
    n_demonstrated = s.demonstrations * len(s.pretraining)
    stages = {}
    if s.supervised:
        steps = {"small": s.pretraining_steps, "pre": s.pretraining_steps, "sft": s.sft_steps}
        for name, n in steps.items():
            stages[f"supervised_{name}"] = Stage(n, n, evaluation)
    n_value = s.value_pretraining_steps
    stages |= {
        "D_demo": Stage(0, 0.3 * n_demonstrated * episode, 0),
        "V_pre": Stage(n_value, VALUE_STEP * n_value, 0.1 * evaluation),
        "pi_pre": Stage(s.pretraining_steps, s.pretraining_steps, evaluation),
        "D_0": Stage(0, 0.3 * s.demonstrations * episode, 0),
        "V_0": Stage(s.value_steps, VALUE_STEP * s.value_steps, 0),
        "pi_0": Stage(s.sft_steps, s.sft_steps, evaluation),
    }
    for k in range(1, s.iterations + 1):
        stages[f"D_{k}"] = Stage(0, (s.autonomous + s.corrected) * episode, 0)
        stages[f"V_{k}"] = Stage(s.value_steps, VALUE_STEP * s.value_steps, 0.5 * evaluation)
        stages[f"pi_{k}"] = Stage(s.policy_steps, s.policy_steps, 2 * evaluation)
    return stages

class Quiet:
    """What tells nothing but lines: the interface of `Progress`, as `Run` uses it."""

    watch = None  # of `recap.optimise`

    def begin(self, name):
        """The product of this name comes next."""

    def end(self, name, made):
        """It is there, and measured.  made: in this process, not read from its file."""

    def line(self, text):
        """Print one line."""
        tqdm.write(text)  # above a bar, where there is one
        sys.stdout.flush()

    def close(self):
        """The run is over."""

class Progress(Quiet):
    """stages: of `stages_of`.  history: a path.  seconds: callable, what the run has taken so far.

    writer: a TensorBoard SummaryWriter, or None.
    """

    def __init__(self, stages, history, seconds, writer=None):
        self.stages = stages
        self.history = history
        self.seconds = seconds
        self.writer = writer
        self.names = []  # of the products, as they came
        self.left = sum(map(cost, stages.values()))
        self.spent = 0.0  # cost of what was made in this process
        self.begun = seconds()
        self.told = self.begun  # when the last line was printed
        self.bar = tqdm(
            total=1.0, bar_format="{desc} |{bar}|", disable=None, leave=False,
            ncols=min(100, shutil.get_terminal_size().columns),
        )  # fmt: skip

    def begin(self, name):
        self.names.append(name)
        self.tell(0.0)

    def end(self, name, made):
        cost_of_it = cost(self.stages.get(name))
        self.left -= cost_of_it
        self.spent += cost_of_it if made else 0

    def watch(self, step, loss, norm):
        name = self.names[-1]
        of = self.stages[name].steps if name in self.stages else step
        row = {"name": name, "step": step, "of": of, "loss": loss, "norm": norm}
        with open(self.history, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self.writer is not None:
            self.writer.add_scalar(f"loss/{name}", loss, step)
            self.writer.add_scalar(f"gradient norm/{name}", norm, step)
        self.tell(step / of, loss)

    def tell(self, trained, loss=None):
        """Show where the run is, where it is time to.  trained: of this network, 0-1."""
        due = self.seconds() - self.told >= LINE_S
        if self.bar.disable and not due:
            return
        where, what, times, done = self.words(trained, loss)
        if self.bar.disable:
            self.told = self.seconds()
            self.line(f"[{self.told:5.0f} s] {where:<18} {what}{times}")
        else:
            self.bar.n = done
            self.bar.set_description_str(f"{where}: {what}, {clock(self.seconds())}{times}")

    def words(self, trained, loss):
        """Which stage, what it is, what remains of the run, and how much of it is done, 0-1."""
        name = self.names[-1]
        total = len(self.stages.keys() | set(self.names))
        what = f"{name}, {KINDS.get(name.split('_')[0], 'network')}"
        if loss is not None:
            what += f": {trained:.0%}, loss {loss:.3f}"
        stage = self.stages.get(name)
        made = trained * stage.making if stage else 0
        spent = self.spent + made
        left = self.left - made
        times = ""
        if spent > 0.01 * left:  # else there is too little to judge by
            times = f", {clock((self.seconds() - self.begun) * left / spent)} to go"
        return f"stage {len(self.names)} of {total}", what, times, spent / max(spent + left, 1e-9)

    def close(self):
        """Take the bar away."""
        self.bar.close()
        if self.writer is not None:
            self.writer.close()

def cost(stage):
    """Of making and measuring a product; 0 of one that nobody foresaw (None)."""
    return stage.making + stage.measuring if stage else 0.0

def clock(seconds):
    """Seconds as minutes and seconds, 3:05, or with hours, 1:03:05."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"

def read_history(path):
    """{name: [[step, loss, norm], ...]}, of each training that of the last process alone."""
    found = {}
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return {}
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # a process was killed as it wrote
            continue
        points = found.setdefault(row["name"], [])
        if points and row["step"] <= points[-1][0]:
            points.clear()
        points.append([row["step"], row["loss"], row["norm"]])
    return found

def summary_writer():
    """TensorBoard's SummaryWriter.  UserError where the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        message = "the package is not there, expected it: pip install tensorboard"
        raise UserError(f"--tensorboard: {message}") from None
    return SummaryWriter

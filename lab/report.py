"""report.html: one run in one page that needs nothing else, neither network nor server.

    what was measured so far        results    read from the small files of the run's folder
    episodes, step by step          groups     some of every D_k, chosen by a rule, and of
                                               before.npz and after.npz
    where the time goes             times
    the page                        page       report.html of this folder, with the data in it

All is read from files: a run that is not over, or is of an older version, has a page, too.
"""
import base64
import gzip
import io
import json
import os
from dataclasses import asdict, fields

import numpy as np
from PIL import Image

from data import UserError
from labels import indicators, step_advantages
from lab.files import load_dataset, load_network, read_json, write_text
from lab.progress import read_history, stages_of
from lab.words import label_words, value_words
from settings import Settings
from value import predict_values

TEMPLATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "report.html")
EACH = 2  # episodes of every kind: successes, failures, corrected ones
PICTURES = 60  # at most so many of an episode, where they are not sketched
ROWS = (
    "demonstrations", "supervised_small", "supervised", "supervised_sft", "rl_pretrained",
    "offline_rl_sft",
)  # fmt: skip

class Report:
    """The page of the run in a folder.  settings: of the run.

    wanted: (k, i), episode i of D_k, which the page opens with; None: it chooses.
    """

    def __init__(self, settings, folder, wanted=None):
        self.settings = settings
        self.folder = folder
        self.wanted = wanted
        self.groups = {}  # name -> packed episodes: made once

    def path(self, name):
        return os.path.join(self.folder, name)

    def json(self, name):
        """A small file of the run; None where it is not there (yet)."""
        try:
            return read_json(self.path(name))
        except FileNotFoundError:
            return None

    def write(self):
        """Write report.html with what there is.  Returns its path."""
        data = self.results()
        data["times"] = self.times()
        data["groups"] = self.all_groups()
        data["start"] = None if self.wanted is None else "D_{}:{}".format(*self.wanted)
        path = self.path("report.html")
        write_text(path, page(data))
        return path

    # ---- what was measured

    def results(self):
        """Everything but the episodes."""
        s = self.settings
        metrics = self.json("metrics.json")
        ks = range(1, s.iterations + 1)
        named = [(f"V_{k}", self.json(f"value_V_{k}.json")) for k in ("pre", *ks)]
        labels = [self.json(f"labels_{k}.json") for k in ks]
        default = asdict(Settings(task=s.task))
        changed = {f.name: getattr(s, f.name) for f in fields(s)}
        changed = {name: x for name, x in changed.items() if x != default[name]}
        return {
            "kind": "run", "task": s.target.name, "prompt": s.target.prompt, "seed": s.seed,
            "folder": os.path.abspath(self.folder), "beta": s.beta, "changed": changed,
            "subtasks": list(s.target.subtasks), "finished": metrics is not None,
            "seconds": metrics["seconds"] if metrics else self.json("seconds.json") or 0,
            "there": sum(os.path.exists(self.path(f"{name}.npz")) for name in stages_of(s)),
            "stages": metrics["stages"] if metrics else self.stages(),
            "n_products": len(stages_of(s)),
            "history": read_history(self.path("history.jsonl")),
            "value": [[name, found, value_words(found)] for name, found in named if found],
            "labels": [[found, label_words(found)] for found in labels if found],
            "positive": s.positive, "lookahead": s.lookahead, "hz": s.target.hz,
            "joints": s.interface.relative,  # the others are grippers
            "per_arm": s.interface.action_dim // s.interface.n_arms,
        }  # fmt: skip

    def stages(self):
        """Rows of the table of a run that is not over, from its eval_*.json, in their order."""
        rows = []
        for name in os.listdir(self.folder):
            if name.startswith("eval_") and name.endswith(".json"):
                rows.append(self.json(name))
        names = [*ROWS, *(f"recap_{k}" for k in range(1, self.settings.iterations + 1))]
        rows = [row for row in rows if row["name"] in names]
        return sorted(rows, key=lambda row: (names.index(row["name"]), row["beta"] or 0))

    # ---- episodes

    def all_groups(self):
        """{name: base64 of a gzip of JSON}: the page unpacks what it shows."""
        s = self.settings
        for k in range(s.iterations + 1):
            needs = [f"D_{k}.npz", f"V_{k}.npz"] + ([f"labels_{k}.json"] if k else [])
            if f"D_{k}" not in self.groups and self.have(needs):
                self.groups[f"D_{k}"] = packed(self.dataset(k))
        K = s.iterations
        needs = ["before.npz", "after.npz", f"V_{K}.npz"]
        if K and "before" not in self.groups and self.have([*needs, f"labels_{K}.json"]):
            before = load_dataset(self.path("before.npz"))
            after = load_dataset(self.path("after.npz"))
            chosen = choose_pairs(before, after)
            self.groups["before"] = packed(self.described(before, chosen, K))
            self.groups["after"] = packed(self.described(after, chosen, K))
        return self.groups

    def have(self, names):
        return all(os.path.exists(self.path(name)) for name in names)

    def dataset(self, k):
        """Some episodes of D_k, of each kind."""
        episodes = load_dataset(self.path(f"D_{k}.npz"))
        chosen = choose(episodes)
        if self.wanted is not None and self.wanted[0] == k:
            i = self.wanted[1]
            if not 0 <= i < len(episodes):
                message = f"{k}:{i}, expected an episode of D_{k}, 0 to {len(episodes) - 1}"
                raise UserError(f"--episode: {message}")
            chosen = sorted({*chosen, i})
        return self.described(episodes, chosen, k)

    def described(self, episodes, chosen, k):
        """Episodes as the page wants them, seen by V^k."""
        s = self.settings
        some = [episodes[i] for i in chosen]
        V = predict_values(load_network(self.path(f"V_{k}.npz")), some)
        epsilon = self.json(f"labels_{k}.json")["epsilon"] if k else None
        found = []
        for i, e, v, A in zip(chosen, some, V, step_advantages(V, some, s, iteration=None)):
            I = np.ones(len(e), bool)  # SFT calls all positive
            if k:
                I = indicators(A, epsilon, e.intervention if s.force_corrections else None)
            found.append({
                "index": i, "kind": kind_of(e), "success": e.success, "hz": e.hz,
                "prompt": e.prompt, "limit": e.max_length, "V": rounded(v), "A": rounded(A),
                "I": bits(I), "intervention": bits(e.intervention), "subtask": e.subtask.tolist(),
                "state": rounded(e.observations["state"]),
            } | seen(s.target, e))  # fmt: skip
        return {"V": f"V_{k}", "epsilon": epsilon, "episodes": found}

    # ---- where the time goes

    def times(self):
        """Of demonstrations and of both policies: mean s per episode in every subtask."""
        rows = []
        last = f"D_{self.settings.iterations}"
        for name, about in (
            ("D_0", "operators of the task's demonstrations"), ("before", "π⁰ (offline RL + SFT)"),
            ("after", f"the last π (RECAP, β = {self.settings.beta:g})"),
        ):  # fmt: skip
            if self.have([f"{name}.npz"]) and (name != "D_0" or self.have([f"{last}.npz"])):
                episodes = load_dataset(self.path(f"{name}.npz"))
                joints = self.settings.interface.relative
                rows.append({"name": about} | time_spent(episodes, joints))
        return rows

def time_spent(episodes, joints):
    """Mean s per episode of each subtask, and of that standing still.

    joints: which numbers of the state move as the robot does, not grippers.
    """
    motion = []
    for e in episodes:
        q = e.observations["state"][:, joints]  # (T, joints)
        motion.append(np.abs(np.diff(q, axis=0)).max(1, initial=0))  # (T - 1,)
    # Slower than a tenth of a fast motion of the same robot.
    moves = np.concatenate(motion)
    still = 0.1 * np.quantile(moves, 0.95) if len(moves) else 0
    spent = {}
    stood = {}
    for e, moved in zip(episodes, motion):
        for text, slow in zip(e.subtask.tolist(), [*(moved < still).tolist(), False]):
            spent[text] = spent.get(text, 0) + 1 / e.hz / len(episodes)
            stood[text] = stood.get(text, 0) + slow / e.hz / len(episodes)
    return {
        "episodes": len(episodes), "success": float(np.mean([e.success for e in episodes])),
        "spent": spent, "still": stood,
    }  # fmt: skip

# ---------------------------------------------------------------- which episodes

def kind_of(e):
    """Corrected ones are of their own kind, however they ended; the operator may only watch."""
    if e.intervention.any() and e.source == "corrected":
        return "corrected"
    return "success" if e.success else "failure"

def choose(episodes):
    """Of every kind EACH episodes, evenly spread over its lengths: sorted indices."""
    chosen = []
    for kind in ("success", "failure", "corrected"):
        own = [i for i, e in enumerate(episodes) if kind_of(e) == kind]
        own.sort(key=lambda i: (len(episodes[i]), i))
        for part in range(EACH):
            if own:
                chosen.append(own[int((part + 0.5) / EACH * len(own))])
    return sorted(set(chosen))

def choose_pairs(before, after):
    """Indices of seeds, most typical first: for each pair of outcomes the one of median length.

    before, after: episodes of the same seeds.  Pairs of outcomes come by how many have them.
    """
    kinds = {}
    for i, (b, a) in enumerate(zip(before, after)):
        kinds.setdefault((b.success, a.success), []).append(i)
    chosen = []
    for own in sorted(kinds.values(), key=len, reverse=True):
        own.sort(key=lambda i: (len(before[i]) + len(after[i]), i))
        chosen.append(own[len(own) // 2])
    return chosen

# ---------------------------------------------------------------- what one sees of a step

def seen(task, e):
    """The frames of an episode as the page draws them, o_T at the end where it was kept.

    {"strokes", "frames"}: of a sketch, each stroke once, and of every frame which ones.
    {"pictures", "every"}: else JPEGs, of every so many-th step.
    {"keypoints"}: else those, (T, numbers), each in its range, 0-99.
    """
    steps = [{name: x[t] for name, x in e.observations.items()} for t in range(len(e))]
    if e.last is not None:
        steps.append(e.last)
    if task.sketch(steps[0]) is not None:
        strokes = {}  # stroke -> its number
        frames = []
        for step in steps:
            frames.append([strokes.setdefault(x, len(strokes)) for x in task.sketch(step)])
        return {"strokes": list(strokes), "frames": frames}
    every = -(-len(steps) // PICTURES)
    pictures = [picture_of(task, step) for step in steps[::every]]
    if pictures[0] is not None:
        return {"pictures": [jpeg(picture) for picture in pictures], "every": every}
    if "keypoints" not in steps[0]:
        return {}
    x = np.stack([step["keypoints"] for step in steps]).reshape(len(steps), -1)  # (T + 1, numbers)
    low = x.min(0)
    scaled = 99 * (x - low) / np.maximum(x.max(0) - low, 1e-9)
    return {"keypoints": scaled.round().astype(int).tolist()}

def picture_of(task, observation):
    """uint8 (height, width, 3): the task's own, or all of its cameras side by side; or None."""
    picture = task.picture(observation)
    cameras = [x for x in observation.values() if x.ndim == 3 and x.dtype == np.uint8]
    if picture is None and cameras:
        height = max(len(x) for x in cameras)
        padded = [np.pad(x, ((0, height - len(x)), (0, 0), (0, 0))) for x in cameras]
        coloured = [np.broadcast_to(x, (*x.shape[:2], 3)) for x in padded]  # from 1 or 3 channels
        picture = np.concatenate(coloured, axis=1)  # (height, widths, 3)
    return picture

def jpeg(picture, side=240):
    """base64 of a JPEG of at most `side` pixels."""
    image = Image.fromarray(picture)
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=70)
    return base64.b64encode(file.getvalue()).decode()

def rounded(x):
    return np.asarray(x, float).round(3).tolist()

def bits(x):
    """bool (T,) as a text of 0 and 1."""
    return "".join("01"[int(b)] for b in x)

# ---------------------------------------------------------------- the page

def packed(data):
    """base64 of a gzip of JSON, a tenth of its size."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()

def page(data):
    """The HTML of a page with these data."""
    with open(TEMPLATE, encoding="utf-8") as file:
        template = file.read()
    # "</" would end the script that holds them.
    text = json.dumps(data, ensure_ascii=False).replace("</", "<\\/")
    return template.replace("/*DATA*/null", text)

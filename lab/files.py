"""Datasets, networks and texts as files: .npz without pickle, written all or nothing.

    a list of `data.Episode`       save_dataset, load_dataset
    V and π                        save_network, load_network
    one of either                  save, load
    the folder of a run            claim, refuse_full
"""
import contextlib
import json
import os
import tempfile
from dataclasses import asdict

import numpy as np
import torch

from data import SOURCES, Episode, Interface, UserError
from policy import VLA, PolicyConfig
from value import ValueConfig, ValueFunction

KINDS = {"VLA": (VLA, PolicyConfig), "ValueFunction": (ValueFunction, ValueConfig)}

class BadFile(UserError):
    """A file that is truncated, damaged, or not one of ours."""

@contextlib.contextmanager
def judged(path, what):
    """While the content of a file is read: BadFile, which names it, for whatever is wrong there."""
    try:
        yield
    except Exception as error:  # zip, header, missing array, bad value, a disk that fails
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BadFile(f"{path}: not {what}, or truncated ({reason})") from error

SCRATCH = ".writing-"  # names of folders of what is not finished begin so

def write_atomically(path, write, suffix="", move=os.replace):
    """Call write(temporary path), then move(it, path): the file into place in one step.

    The temporary file lies in a scratch folder beside `path`; an interruption leaves the old file.
    """
    folder = os.path.dirname(os.path.abspath(path))
    with tempfile.TemporaryDirectory(dir=folder, prefix=SCRATCH) as scratch:
        temporary = os.path.join(scratch, "file" + suffix)
        try:
            write(temporary)  # `write` creates it, so that its permissions follow the umask
            sync(temporary)  # else after a power cut a name may stand for no content
            move(temporary, path)
        except OSError as error:
            if error.filename is None:  # as where the disk is full
                error.filename = os.fspath(path)
            raise

def sync(path):
    """Wait until a file, or all those of a folder, are on the disk."""
    paths = [path]
    for folder, _, names in os.walk(path):
        paths += [os.path.join(folder, name) for name in names]
    for path in paths:
        if os.path.isfile(path):
            with open(path, "rb+") as file:
                os.fsync(file.fileno())

def write_text(path, text, move=os.replace):
    """Write a text file.  move: as of `write_atomically`."""

    def write(temporary):
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)

    write_atomically(path, write, move=move)

def read_json(*path):
    """What a JSON file holds.  BadFile where it is none."""
    path = os.path.join(*path)
    with open(path, encoding="utf-8") as file, judged(path, "a JSON file"):
        return json.load(file)

def shortest(x):
    """A number in a name: as short as can be, and another one for every other number."""
    short = f"{x:g}"
    return short if float(short) == x else repr(float(x))

def write_arrays(path, arrays, compressed=True):
    """Write {name: array} to an .npz."""
    write = np.savez_compressed if compressed else np.savez
    write_atomically(path, lambda temporary: write(temporary, **arrays), ".npz")

# ---------------------------------------------------------------- folders of runs

def claim(folder, settings):
    """Take a folder for a run: settings.json of the dict `settings` is the first file in it.

    Of several programs that want the folder at once one gets it, the others a UserError.  One that
    is killed here leaves a folder that the next one can take.
    """
    refuse_full(folder, " (--resume goes on with an interrupted run)")
    os.makedirs(folder, exist_ok=True)
    text = json.dumps(settings, indent=1, allow_nan=False)
    try:
        write_text(os.path.join(folder, "settings.json"), text, move=move_if_new)
    except FileExistsError:
        raise UserError(f"--out: {folder} was taken by another run just now") from None

def move_if_new(source, target):
    """Move a file in one step.  FileExistsError if there is one of that name."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        with open(target, "xb"):  # exclusive, too
            pass
        os.replace(source, target)

def refuse_full(folder, hint=""):
    """UserError where a folder, or something else of that name, holds anything already."""
    if not os.path.lexists(folder):
        return
    full = not os.path.isdir(folder)
    if not full:
        full = any(not name.startswith(SCRATCH) for name in os.listdir(folder))
    if full:
        message = "exists and is not an empty folder, expected a new one"
        raise UserError(f"--out: {folder} {message}{hint}")

# ---------------------------------------------------------------- datasets

PENDING = ".episodes"  # D.npz.episodes: what a recording session has not yet added to D.npz

# fields of `Episode` by their shape in a file: one row per step, one entry per episode
PER_STEP = ("actions", "subtask", "intervention")
PER_EPISODE = ("task", "prompt", "max_length", "source", "iteration", "metadata", "hz")

def save_dataset(episodes, path):
    """Write a list of episodes: the steps of all in a row, and their lengths to cut them again.

    UserError for an empty list, and where observations disagree in names, shapes or dtypes.
    """
    if not episodes:
        raise UserError("episodes: an empty dataset, expected at least one episode")
    names = list(episodes[0].observations)
    for i, e in enumerate(episodes):
        if set(e.observations) != set(names):
            found = sorted(e.observations)
            raise UserError(
                f"observations: {found} in episode {i}, expected {sorted(names)} as in episode 0"
            )
    # Three states in a number: True 1, False 0, not labelled -1.
    success = [-1 if e.success is None else int(e.success) for e in episodes]
    arrays = {
        "lengths": np.array([len(e) for e in episodes]),
        "n_stages": np.array([len(e.stages) for e in episodes]),
        "stages": in_a_row("stages", [e.stages for e in episodes]),
        "success": np.array(success),
    }
    for name in PER_STEP:
        arrays[name] = in_a_row(name, [getattr(e, name) for e in episodes])
    for name in PER_EPISODE:
        arrays[name] = np.array([getattr(e, name) for e in episodes])
    for name in names:
        steps = in_a_row(name, [e.observations[name] for e in episodes])
        arrays[f"observations/{name}"] = steps
    if all(map(has_last, episodes)):
        for name in names:
            arrays[f"last/{name}"] = np.stack([e.last[name] for e in episodes])
    write_arrays(path, arrays)

def has_last(e):
    """Does the episode keep o_T, in the shapes of its other observations?"""
    last = e.last or {}
    shapes = {name: np.shape(x) for name, x in last.items()}
    return shapes == {name: np.shape(x)[1:] for name, x in e.observations.items()}

def in_a_row(name, arrays):
    """Concatenate one array of every episode.  UserError where they disagree: nothing is cast."""
    arrays = [np.asarray(a) for a in arrays]
    if any(a.dtype.kind == "O" for a in arrays):
        raise UserError(f"{name}: Python objects, expected numbers or texts")
    kinds = {(a.shape[1:], "text" if a.dtype.kind == "U" else str(a.dtype)) for a in arrays}
    if len(kinds) > 1:
        found = sorted(kinds, key=str)
        raise UserError(f"{name}: {found} in one dataset, expected one shape and dtype")
    return np.concatenate(arrays)  # (Σ T, ...)

def load_dataset(path):
    """Read what `save_dataset` wrote.  BadFile for anything else, OSError if it can't be opened."""
    with open(path, "rb") as stream, judged(path, "a dataset written by save_dataset"):
        return episodes_of(arrays_of(stream))

def arrays_of(stream):
    """{name: array} of an .npz."""
    with np.load(stream, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}

def episodes_of(arrays):
    """Cut the arrays of `save_dataset` into episodes again."""
    lengths = arrays["lengths"]
    ends = np.cumsum(lengths)  # (episodes,): where each one's steps end
    stage_ends = np.cumsum(arrays["n_stages"])
    if len(ends) == 0 or ends[-1] != len(arrays["actions"]):
        raise ValueError(f"lengths of {len(ends)} episodes, {len(arrays['actions'])} steps")
    prefix = "observations/"
    names = [name.removeprefix(prefix) for name in arrays if name.startswith(prefix)]
    episodes = []
    for i, end in enumerate(ends):
        steps = slice(end - lengths[i], end)
        stages = slice(stage_ends[i] - arrays["n_stages"][i], stage_ends[i])
        fields = {name: arrays[name][steps] for name in PER_STEP}
        fields |= {name: arrays[name][i].item() for name in PER_EPISODE}
        fields["observations"] = {name: arrays[prefix + name][steps] for name in names}
        last = {name: arrays[f"last/{name}"][i] for name in names if f"last/{name}" in arrays}
        fields["last"] = last or None
        fields["success"] = None if arrays["success"][i] < 0 else bool(arrays["success"][i])
        fields["stages"] = arrays["stages"][stages]
        episodes.append(numbered_episode(i, **fields))
    return episodes

def numbered_episode(i, **fields):
    """The `Episode` of these fields.  UserError, which says its number, where there can be none."""
    try:
        return Episode(**fields)
    except UserError as error:
        raise UserError(f"episode {i}: {error}") from None

def describe_dataset(episodes):
    """One line: how many episodes of each kind, and how many of them succeed."""
    parts = []
    for source in SOURCES:
        success = [e.success for e in episodes if e.source == source]
        if success:
            parts.append(f"{len(success)} {source} episodes ({np.mean(success):.0%} succeed)")
    return ", ".join(parts)

# ---------------------------------------------------------------- networks

def save_network(network, path):
    """Write a network's weights and its config, a dataclass: plain arrays and JSON."""
    arrays = {f"weights/{name}": x.cpu().numpy() for name, x in network.state_dict().items()}
    arrays["kind"] = np.array(type(network).__name__)
    arrays["config"] = np.array(json.dumps(asdict(network.config)))
    write_arrays(path, arrays, compressed=False)

def load_network(path):
    """Read what `save_network` wrote, in eval mode.  BadFile and OSError as above."""
    with open(path, "rb") as stream, judged(path, f"a checkpoint of {' or '.join(KINDS)}"):
        return network_of(arrays_of(stream))

def network_of(arrays):
    """Make the network of the arrays of `save_network`."""
    make, config = KINDS[arrays["kind"].item()]
    settings = json.loads(arrays["config"].item())
    settings["interface"] = Interface(**tuples(settings["interface"]))
    network = make(config(**settings))
    prefix = "weights/"
    weights = {
        name.removeprefix(prefix): torch.as_tensor(x)
        for name, x in arrays.items()
        if name.startswith(prefix)
    }
    network.load_state_dict(weights)
    return network.eval()

def tuples(settings):
    """JSON has no tuples: every list becomes one."""
    return {name: tuple(x) if isinstance(x, list) else x for name, x in settings.items()}

# ---------------------------------------------------------------- either

def save(product, path):
    """A dataset or a network."""
    if isinstance(product, list):
        save_dataset(product, path)
    else:
        save_network(product, path)

def load(path):
    """What `save` wrote."""
    with open(path, "rb") as stream, judged(path, "a dataset or a checkpoint"):
        with np.load(stream, allow_pickle=False) as file:
            is_network = "kind" in file.files
    return load_network(path) if is_network else load_dataset(path)

"""Datasets, networks and texts as files: .npz without pickle, written all or nothing.

    a list of `data.Episode`       save_dataset, load_dataset
    V and π                        save_network, load_network
    one of either                  save, load
"""
import json
import os
import tempfile
from dataclasses import asdict

import numpy as np
import torch

from data import SOURCES, Episode, Interface
from policy import VLA, PolicyConfig
from value import ValueConfig, ValueFunction

KINDS = {"VLA": (VLA, PolicyConfig), "ValueFunction": (ValueFunction, ValueConfig)}

class BadFile(ValueError):
    """A file that is truncated, damaged, or not one of ours."""

def write_atomically(path, write, suffix=""):
    """Call write(temporary path), then move the file into place in one step.

    The temporary file lies in a scratch folder beside `path`; an interruption leaves the old file.
    """
    folder = os.path.dirname(os.path.abspath(path))
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as scratch:
        temporary = os.path.join(scratch, "file" + suffix)
        write(temporary)  # `write` creates it, so that its permissions follow the umask
        os.replace(temporary, path)

def write_text(path, text):
    """Write a text file."""

    def write(temporary):
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)

    write_atomically(path, write)

def read_json(*path):
    """What a JSON file holds."""
    with open(os.path.join(*path), encoding="utf-8") as file:
        return json.load(file)

def write_arrays(path, arrays, compressed=True):
    """Write {name: array} to an .npz."""
    write = np.savez_compressed if compressed else np.savez
    write_atomically(path, lambda temporary: write(temporary, **arrays), ".npz")

# ---------------------------------------------------------------- datasets

# fields of `Episode` by their shape in a file: one row per step, one entry per episode
PER_STEP = ("actions", "subtask", "intervention")
PER_EPISODE = ("task", "prompt", "max_length", "source", "iteration", "metadata", "hz")

def save_dataset(episodes, path):
    """Write a list of episodes: the steps of all in a row, and their lengths to cut them again.

    ValueError for an empty list, and where observations disagree in names, shapes or dtypes.
    """
    if not episodes:
        raise ValueError("episodes: an empty dataset, expected at least one episode")
    names = list(episodes[0].observations)
    for i, e in enumerate(episodes):
        if set(e.observations) != set(names):
            found = sorted(e.observations)
            raise ValueError(
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
    write_arrays(path, arrays)

def in_a_row(name, arrays):
    """Concatenate one array of every episode.  ValueError where they disagree: nothing is cast."""
    arrays = [np.asarray(a) for a in arrays]
    kinds = {(a.shape[1:], "text" if a.dtype.kind == "U" else str(a.dtype)) for a in arrays}
    if len(kinds) > 1:
        found = sorted(kinds, key=str)
        raise ValueError(f"{name}: {found} in one dataset, expected one shape and dtype")
    return np.concatenate(arrays)  # (Σ T, ...)

def load_dataset(path):
    """Read what `save_dataset` wrote.  BadFile for anything else, FileNotFoundError for none."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return episodes_of(arrays)
    except FileNotFoundError:
        raise
    except Exception as error:  # zip, header, missing array, bad value: it is not ours
        reason = f"not a dataset written by save_dataset, or truncated ({error})"
        raise BadFile(f"{path}: {reason}") from error

def episodes_of(arrays):
    """Cut the arrays of `save_dataset` into episodes again."""
    lengths = arrays["lengths"]
    ends = np.cumsum(lengths)  # (episodes,): where each one's steps end
    stage_ends = np.cumsum(arrays["n_stages"])
    if len(ends) == 0 or ends[-1] != len(arrays["actions"]):
        raise ValueError(f"lengths of {len(ends)} episodes, {len(arrays['actions'])} steps")
    prefix = "observations/"
    episodes = []
    for i, end in enumerate(ends):
        steps = slice(end - lengths[i], end)
        stages = slice(stage_ends[i] - arrays["n_stages"][i], stage_ends[i])
        fields = {name: arrays[name][steps] for name in PER_STEP}
        fields |= {name: arrays[name][i].item() for name in PER_EPISODE}
        fields["observations"] = {
            name.removeprefix(prefix): x[steps]
            for name, x in arrays.items()
            if name.startswith(prefix)
        }
        fields["success"] = None if arrays["success"][i] < 0 else bool(arrays["success"][i])
        fields["stages"] = arrays["stages"][stages]
        episodes.append(Episode(**fields))
    return episodes

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
    """Read what `save_network` wrote, in eval mode.  BadFile and FileNotFoundError as above."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return network_of(arrays)
    except FileNotFoundError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        what = f"not a checkpoint of {' or '.join(KINDS)}, or truncated"
        raise BadFile(f"{path}: {what} ({reason})") from error

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
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            is_network = "kind" in file.files
    except FileNotFoundError:
        raise
    except Exception as error:
        raise BadFile(f"{path}: not a dataset or a checkpoint, or truncated ({error})") from error
    return load_network(path) if is_network else load_dataset(path)

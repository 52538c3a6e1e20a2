"""What a run of a robot leaves behind: `Episode`; datasets and checkpoints as one .npz file each (no pickle).

    τ = (o_0, a_0, ..., o_T), its success label (Secs. III, V-C)     Episode
    human corrections a_t (Sec. V-D)                                 Episode.intervention, source "corrected"
    D_demo, D_ℓ (Algorithm 1)                                        a list of episodes, of any number of tasks

Every step has an observation and an action: the paper's o_T, after which nothing is done, is not kept.  Nothing is ever
dropped from D_ℓ (Algorithm 1, line 7).  Files are written atomically, so an interrupted save leaves the old file whole.
"""
import json
import os
import tempfile
from dataclasses import asdict, dataclass

import numpy as np
import torch

SOURCES = ("demonstration", "autonomous", "corrected")


@dataclass
class Episode:
    """One run.  T steps; actions are those *sent to the robot*.

    Raises ValueError where lengths disagree, a number is not finite, or the source is unknown.
    """
    task: str                  # its id, to which ε_ℓ and the time limit belong
    prompt: str                # ℓ_t in words
    max_length: int            # the task's limit in steps: normalises the returns (Sec. V-C)
    observations: dict         # name -> array (T, ...)
    actions: np.ndarray        # (T, A)
    subtask: np.ndarray        # (T,) str: the annotation that ℓ̂ learns
    intervention: np.ndarray   # (T,) bool: the operator was in control
    success: bool | None       # None: not labelled yet, an error wherever a label is needed
    stages: np.ndarray         # (n_stages,) bool: successes of the scored stages
    source: str                # one of SOURCES; "corrected": a policy ran and an operator could take over
    iteration: int = 0         # k of Algorithm 1 (π^{k-1} acted); 0 for demonstrations
    metadata: str = ""         # s in words

    def __post_init__(self):
        T = len(self.actions)
        if T == 0:
            raise ValueError("actions: 0 steps, expected at least one")
        for name, array in [*self.observations.items(), ("subtask", self.subtask), ("intervention", self.intervention)]:
            if len(array) != T:
                raise ValueError(f"{name}: {len(array)} steps, expected {T} as actions")
        for name, array in [*self.observations.items(), ("actions", self.actions)]:
            if not np.isfinite(array).all():
                raise ValueError(f"{name}: not finite at step {int(np.argwhere(~np.isfinite(array))[0, 0])}, "
                                 "expected finite numbers")
        if self.source not in SOURCES:
            raise ValueError(f"source: {self.source!r}, expected one of {SOURCES}")

    def __len__(self):
        return len(self.actions)


def write_atomically(path, write, suffix=""):
    """Call write(temporary path) in a scratch folder beside `path`, then move the file into place in one step."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(path)), prefix=".writing-") as scratch:
        temporary = os.path.join(scratch, "file" + suffix)
        write(temporary)                   # `write` creates it, so that its permissions follow the umask
        os.replace(temporary, path)


# fields of `Episode` by their shape in a file: one row per step, one entry per episode
PER_STEP = ("actions", "subtask", "intervention")
PER_EPISODE = ("task", "prompt", "max_length", "source", "iteration", "metadata")


def in_a_row(name, arrays):
    """Concatenate one array of every episode.  ValueError where they disagree: nothing is cast silently."""
    arrays = [np.asarray(a) for a in arrays]
    kinds = {(a.shape[1:], "text" if a.dtype.kind == "U" else str(a.dtype)) for a in arrays}
    if len(kinds) > 1:
        raise ValueError(f"{name}: {sorted(kinds, key=str)} in one dataset, expected one shape and dtype")
    return np.concatenate(arrays)          # (sum T, ...)


def save_dataset(episodes, path):
    """Write a list of episodes to one .npz: steps of all episodes in a row, and their lengths to cut them again.

    ValueError for an empty list, and where episodes disagree in their observations' names, shapes or dtypes.
    """
    if not episodes:
        raise ValueError("episodes: an empty dataset, expected at least one episode")
    for i, e in enumerate(episodes):
        if set(e.observations) != set(episodes[0].observations):
            raise ValueError(f"observations: {sorted(e.observations)} in episode {i}, expected "
                             f"{sorted(episodes[0].observations)} as in episode 0")
    arrays = {"lengths": np.array([len(e) for e in episodes]),
              "n_stages": np.array([len(e.stages) for e in episodes]),
              "stages": in_a_row("stages", [e.stages for e in episodes]),
              # three states in a number: True 1, False 0, not labelled -1
              "success": np.array([-1 if e.success is None else int(e.success) for e in episodes])}
    arrays |= {name: in_a_row(name, [getattr(e, name) for e in episodes]) for name in PER_STEP}
    arrays |= {name: np.array([getattr(e, name) for e in episodes]) for name in PER_EPISODE}
    arrays |= {f"observations/{key}": in_a_row(key, [e.observations[key] for e in episodes])
               for key in episodes[0].observations}
    write_atomically(path, lambda temporary: np.savez_compressed(temporary, **arrays), ".npz")


def load_dataset(path):
    """Read what `save_dataset` wrote.  ValueError for a truncated or foreign file, FileNotFoundError for none."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        ends = np.cumsum(arrays["lengths"])                      # (episodes,): where each one's steps end
        stage_ends = np.cumsum(arrays["n_stages"])
        if len(ends) == 0 or ends[-1] != len(arrays["actions"]):
            raise ValueError(f"lengths of {len(ends)} episodes, {len(arrays['actions'])} steps")
        episodes = []
        for i, (end, length) in enumerate(zip(ends, arrays["lengths"])):
            steps = slice(end - length, end)
            fields = {name: arrays[name][steps] for name in PER_STEP} | {name: arrays[name][i].item() for name in PER_EPISODE}
            observations = {name.removeprefix("observations/"): arrays[name][steps]
                            for name in arrays if name.startswith("observations/")}
            success = None if arrays["success"][i] < 0 else bool(arrays["success"][i])
            stages = arrays["stages"][stage_ends[i] - arrays["n_stages"][i]:stage_ends[i]]
            episodes.append(Episode(observations=observations, success=success, stages=stages, **fields))
    except FileNotFoundError:
        raise
    except Exception as error:      # zip, header, missing array, bad value: whatever is wrong with it, it is not ours
        raise ValueError(f"{path}: not a dataset written by save_dataset, or truncated ({error})") from error
    return episodes


# ---------------------------------------------------------------- networks: plain arrays and JSON, no pickle

def save_network(network, path, log=None):
    """Write a network's weights, its config (a dataclass) and a JSON-able log to one .npz."""
    arrays = {f"weights/{name}": tensor.cpu().numpy() for name, tensor in network.state_dict().items()}
    arrays |= {"kind": np.array(type(network).__name__), "config": np.array(json.dumps(asdict(network.config))),
               "log": np.array(json.dumps(log))}
    write_atomically(path, lambda temporary: np.savez(temporary, **arrays), ".npz")


def load_network(path, kinds):
    """Read what `save_network` wrote.  kinds: {class name: (class, config class)}.  -> (network in eval mode, log)

    ValueError for a truncated or foreign file, FileNotFoundError for none.
    """
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            make, config = kinds[file["kind"].item()]
            settings = json.loads(file["config"].item())         # JSON has no tuples
            network = make(config(**{name: tuple(x) if isinstance(x, list) else x for name, x in settings.items()}))
            prefix = "weights/"
            network.load_state_dict({name.removeprefix(prefix): torch.as_tensor(file[name])
                                     for name in file.files if name.startswith(prefix)})
            return network.eval(), json.loads(file["log"].item())
    except FileNotFoundError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: not a checkpoint of {' or '.join(kinds)}, or truncated ({reason})") from error

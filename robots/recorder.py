"""Episodes on their way into one dataset, each a file of its own until the session ends."""
import contextlib
import os

import numpy as np

from data import UserError
from lab.files import PENDING, BadFile, load_dataset, save_dataset

class Recorder:
    """Adds episodes to a dataset: one file for each at once, all in one when the session ends.

    So an evening costs what its episodes cost, nothing is kept in memory, and what a killed
    session has left behind is found by the next one.  `with recorder:` ends with `join`.
    path: of the dataset (.npz); it may exist.  BadFile where it is something else.
    """

    def __init__(self, path):
        self.path = path
        self.folder = path + PENDING
        self.join()
        self.earlier = self._earlier_episodes()
        self.n = len(self.earlier)

    def _earlier_episodes(self):
        if not os.path.exists(self.path):
            return []
        try:
            return load_dataset(self.path)
        except BadFile as error:
            message = f"--out: {error}: nothing is added to it, expected a new file"
            raise BadFile(message) from error

    def check_fits(self, station):
        """UserError, before anything moves, where new episodes could not follow the earlier."""
        seen = station.observe()
        here = kinds_of(seen | {"actions": seen["state"]})
        for last in self.earlier[-1:]:
            there = kinds_of(last.observations | {"actions": last.actions})
            if here != there:
                expected = f"expected what is seen here, {here}"
                raise UserError(f"--out: {self.path} holds {there}, {expected}")
            if last.hz != station.task.hz:
                expected = f"expected {station.task.hz} as here"
                raise UserError(f"--out: {self.path} is of {last.hz} Hz, {expected}")
        self.earlier = []  # seen, and read again when they are joined

    def add(self, episode):
        """Save one.  An interruption is passed on when it is saved."""
        path = os.path.join(self.folder, f"{self.n:06d}.npz")
        while os.path.exists(path):  # another session writes here, too
            self.n += 1
            path = os.path.join(self.folder, f"{self.n:06d}.npz")
        os.makedirs(self.folder, exist_ok=True)  # another session may have ended, and removed it
        try:
            save_dataset([episode], path)
        except (KeyboardInterrupt, SystemExit):
            save_dataset([episode], path)
            raise
        finally:
            self.n += 1

    def join(self):
        """Into one dataset.  An interruption leaves the files, for the next session."""
        if not os.path.isdir(self.folder):
            return
        names = sorted(name for name in os.listdir(self.folder) if name.endswith(".npz"))
        if names:
            episodes = self._earlier_episodes()
            there = list(episodes)
            for name in names:
                found = load_dataset(os.path.join(self.folder, name))
                # Its number is that in the dataset: a session may have been killed in this step.
                number = int(name[:-4])
                if not (number < len(there) and same(found[0], there[number])):
                    episodes += found
            save_dataset(episodes, self.path)
        for name in names:
            os.remove(os.path.join(self.folder, name))
        with contextlib.suppress(OSError):  # another session writes here, or was killed at it
            os.rmdir(self.folder)

    def __enter__(self):
        os.makedirs(self.folder, exist_ok=True)
        return self

    def __exit__(self, *error):
        self.join()

def same(one, other):
    """Are two episodes the same recording?"""
    return np.array_equal(one.actions, other.actions)

def kinds_of(observation):
    """{name: (shape of a step, dtype)}."""
    return {name: (x.shape[1:], str(x.dtype)) for name, x in observation.items()}

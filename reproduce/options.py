"""What the command line asks for, and where results and pictures are written."""
import json
import os
import sys
from dataclasses import dataclass

import matplotlib.pyplot as plt

import sim_tasks
from data import UserError
from lab.files import read_json, write_atomically, write_text

RESULTS = "results"
IMAGES = "docs/images"
QUICK = "runs/quick"  # --quick shows that everything runs; what it draws is no result

SEEDS = (31, 32, 33, 34, 35)
NEW_SEEDS = (41, 42, 43, 44, 45)  # of --again and `headline`: what stands on SEEDS, once more
ALL_TASKS = tuple(sim_tasks.TASKS)

class UsageError(UserError):
    """The command line asks for what cannot be."""

@dataclass
class Options:
    """The command line, and the files that follow from it."""

    seeds: tuple
    jobs: int  # processes
    quick: bool
    only: list | None = None  # names of tasks, methods or points; None: all
    runs: list | None = None  # folders of finished runs, for the generalist
    replace: bool = False  # results of other seeds
    again: bool = False  # on NEW_SEEDS: results in a folder of their own, no pictures

    def parts(self, known, name):
        """Those of `known` that --only asks for, all without it.

        name: of the figure.  UsageError if none is left, or if others stay in results/NAME.json
        that are of other seeds.
        """
        asked = [part for part in known if not self.only or part in self.only]
        if not asked:
            expected = f"expected some of {', '.join(known)} for {name}"
            raise UsageError(f"--only: {' '.join(self.only)}, {expected}")
        old = self.read(name)
        if old and self.only and set(old["rows"]) - set(asked) and old["seeds"] != list(self.seeds):
            expected = f"expected {tuple(old['seeds'])} as for the other parts in {name}.json"
            raise UsageError(f"--seeds: {tuple(self.seeds)}, {expected}")
        return asked

    def check_seeds(self, name):
        """UsageError if seeds of results/NAME.json would be lost, and are not to be replaced."""
        old = self.read(name)
        if old is None or self.replace or self.quick or self.runs:
            return
        if not set(old["seeds"]) <= set(self.seeds):
            message = f"{name}.json is of {tuple(old['seeds'])}, expected these among them"
            raise UsageError(f"--seeds: {tuple(self.seeds)}, {message} (or --replace, to lose it)")

    def header(self, episodes):
        """One line above a table."""
        count = f"n = {len(self.seeds)} seeds {tuple(self.seeds)}"
        return f"{count}, {episodes} evaluation episodes each; mean ± s.e. over seeds"

    def path(self, kind, name):
        """Of a file in RESULTS or IMAGES; with --quick in the same below runs/quick."""
        folder = os.path.join(kind, "again") if self.again else kind
        return os.path.join(QUICK, folder, name) if self.quick else os.path.join(folder, name)

    def new_path(self, kind, name):
        """The same of a file to be written: its folder is there."""
        path = self.path(kind, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def read(self, name):
        """results/NAME.json, {"seeds", "rows": {part or row: ...}}, or None."""
        path = self.path(RESULTS, f"{name}.json")
        return read_json(path) if os.path.exists(path) else None

    def keep(self, name, rows):
        """Write results/NAME.json; parts that --only left out stay.  Returns all its rows."""
        if self.only:
            old = self.read(name)
            if old:
                rows = old["rows"] | rows
        text = json.dumps({"seeds": list(self.seeds), "rows": rows}, indent=1)
        write_text(self.new_path(RESULTS, f"{name}.json"), text)
        return rows

    def draw(self, name, function, *arguments):
        """docs/images/NAME.png: the Figure that function(*arguments) returns; not with --again.

        Where it fails there is a warning: the numbers are kept already.
        """
        if self.again:
            return
        path = self.new_path(IMAGES, f"{name}.png")
        try:
            figure = function(*arguments)
            write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110), ".png")
        except Exception as error:
            print(f"warning: no {path} ({type(error).__name__}: {error})", file=sys.stderr)
        plt.close("all")

"""The second core: a product is measured in another process while the next one is made.

What is measured is kept in files of the run's folder (`Run.json`).  The other process only makes
these files; the run then finds them there, and does all else in the order of Algorithm 1.  So no
number depends on who made it.  If the other process is killed, the run measures by itself.
"""
import contextlib
import os
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import torch
from torch import nn

import sim_tasks
from lab.files import load
from lab.run import Run
from lab.workers import inherits, workers
from ranks import size

@contextlib.contextmanager
def aside(run):
    """The run as one that measures in a second process, where there is a core for it."""
    # The cores of several ranks are busy: they share the measuring out.
    busy = os.cpu_count() == 1 or run.settings.device != "cpu" or size() > 1
    if busy or (run.settings.task in sim_tasks.ADDED and not inherits()):
        yield run
        return
    with workers(1) as pool:
        beside = AsideRun(run.settings, run.out, run.given, pool)
        yield beside
        beside.finish()

class AsideRun(Run):
    """A run that leaves its measuring to another process.  Arguments as `Run`, and its pool.

    pool: one worker (`lab.workers.workers`).
    """

    def __init__(self, settings, out, given, pool):
        super().__init__(settings, out, given)
        self.pool = pool
        self.waiting = []  # (Future, name, product, arguments), in the order of Algorithm 1

    def measure(self, name, product, arguments):
        # No network goes there: torch would move its weights to shared memory while they are in
        # use here.  The other process reads them from their files.
        others = tuple(None if isinstance(x, nn.Module) else x for x in arguments)
        twin = (self.settings, self.out, self.given, name, others)
        try:
            future = self.pool.submit(measure_there, *twin)
        except BrokenProcessPool:  # it was killed
            future = Future()
            future.set_result(None)
        self.waiting.append((future, name, product, arguments))
        while self.waiting and self.waiting[0][0].done():
            self.read_next()

    def finish(self):
        """Wait for all that is not measured yet."""
        while self.waiting:
            self.read_next()

    def read_next(self):
        """Measure what is first in line: from its files, or without them if there are none."""
        future, name, product, arguments = self.waiting.pop(0)
        with contextlib.suppress(BrokenProcessPool):
            future.result()
        super().measure(name, product, arguments)

class FromFiles(dict):
    """{name: product} of a run, each read when it is asked for.  out: the run's folder."""

    def __init__(self, out):
        super().__init__()
        self.out = out

    def __missing__(self, name):
        self[name] = load(os.path.join(self.out, f"{name}.npz"))
        return self[name]

class Twin(Run):
    """The run as it is in the other process: it leaves files and says nothing."""

    def say(self, name, *lines):
        pass

def measure_there(settings, out, given, name, arguments):
    """In the other process: leave the files of what is measured of one product."""
    torch.set_num_threads(1)  # as in the run: other bits would come of two
    twin = Twin(settings, out, given)
    twin.made = FromFiles(out)
    is_dataset = name.startswith("D_")  # of these, arguments are all that is read
    twin.measure(name, None if is_dataset else twin.made[name], arguments)

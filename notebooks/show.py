"""What the notebooks show besides their own outputs: the source of a function, and progress.

    show.source(labels.rewards)    the function as it stands in its module, coloured
    show.progress(recap)           a line under a cell that trains, in the place of tqdm's bar

Used by the notebooks alone.
"""
import inspect
import sys
import textwrap
import time
from pathlib import Path

from IPython.display import Markdown, display

ROOT = Path(__file__).resolve().parent.parent

def source_of(thing):
    """The source of a function or class in Markdown: where it stands, and the code."""
    thing = inspect.unwrap(thing)  # without a decorator's wrapper
    lines, first = inspect.getsourcelines(thing)
    path = Path(inspect.getsourcefile(thing)).resolve().relative_to(ROOT)
    where = f"[`{path.as_posix()}`](../{path.as_posix()}), line {first}"
    code = textwrap.dedent("".join(lines)).rstrip()
    return f"{where}\n\n```python\n{code}\n```"

def source(*things):
    """Show the source of functions or classes, as it stands in the modules."""
    for thing in things:
        name = f"{thing.__module__}.{thing.__qualname__}"
        display(Markdown(source_of(thing)), metadata={"source_of": name})

class Progress:
    """Takes tqdm's place: one line, written anew twice a second, that vanishes at the end."""

    def __init__(self, iterable, desc="", **_):
        self.steps = iterable
        self.name = desc
        self.loss = ""

    def set_postfix(self, **numbers):
        self.loss = ", ".join(f"{name} {x}" for name, x in numbers.items())

    def __iter__(self):
        n = len(self.steps)
        line = display(Markdown(""), display_id=True)  # None outside of a notebook
        last = time.monotonic()
        for i, step in enumerate(self.steps):
            if line is not None and time.monotonic() - last > 0.5:
                last = time.monotonic()
                line.update(Markdown(f"*{self.name}: step {i:,} of {n:,}, {self.loss}*"))
            yield step
        if line is not None:
            line.update(Markdown(""))

def progress(recap):
    """Let the loop that trains V and π show its progress in the notebook."""
    sys.modules[recap.optimise.__module__].tqdm = Progress

"""Every option of every program with every kind of nonsense: it works, or says so in one line.

What a program would do once it has understood its command line is left out here.
"""
import argparse
import contextlib
import io
import shutil
import sys

import pytest

import sim_tasks
from benchmarks import __main__ as benchmarks
from helpers import ROOT, episode
from lab import annotate, cli
from lab.files import save_dataset
from reproduce import __main__ as reproduce
from robots import __main__ as robots

sys.path[:0] = [f"{ROOT}/exercises", f"{ROOT}/exercises/hunts"]
import grade  # noqa: E402  (of exercises/ and exercises/hunts/)
import hunt  # noqa: E402

NONSENSE = (
    "", " ", "x", "nan", "inf", "-inf", "-1", "0", "1.5", "1e308", "-1e308", "1e-320", "9" * 400,
    "999999999", "٣", "ü β", "a b", "--", "..", "/proc", "/dev/null", "no/such/file", "no.npz", "'",
    "\udcff", "x" * 5000, "%s %d {}", "task.py:NOTHING", ":", "a:b:c", "a,b", "None", "0x10", "1_0",
)  # fmt: skip

def nothing(*given, **more):
    """In the place of the work."""

# ---------------------------------------------------------------- (parser, main, what it needs)

def of_recap(patch):
    patch.setattr(cli, "finish", nothing)
    return cli.parser(), lambda argv: cli.main(nothing, nothing, None, argv), ()

def of_annotate(patch):
    save_dataset([episode(5, seed=i) for i in range(3)], "D.npz")
    patch.setattr(annotate, "annotate", lambda D, s, *rest: (s("fold_shirt"), {"value": ()}, {}))
    patch.setattr(annotate, "write", nothing)
    whole = ("D.npz", "--out", "new")
    return annotate.parser(), lambda argv: annotate.main(None, None, None, argv), whole

def of_reproduce(patch):
    for known in (reproduce.FIGURES, reproduce.KNOBS, reproduce.MORE):
        for name in known:
            patch.setitem(known, name, nothing)
    return reproduce.parser(), reproduce.main, ("fig7",)

def of_robots(patch):
    patch.setattr(robots, "record", lambda *given, **more: [])
    return robots.parser(), robots.main, ()

def of_benchmarks(patch):
    for name in ("control_loop", "measure", "scale"):
        patch.setattr(benchmarks, name, nothing)
    for name in ("fuzz", "soak"):
        patch.setattr(benchmarks, name, lambda n: {"violations": 0})
    return benchmarks.parser(), benchmarks.main, ()

def of_grade(patch):
    patch.setattr(grade, "run_tests", lambda tree, tests, ended: (None, None))
    return grade.parser(), grade.main, (ROOT,)

def of_hunt(patch):
    for name in ("give", "check", "write_pages", "catch"):
        patch.setattr(hunt, name, lambda *given: {})
    patch.setattr("pictures.write_figures", nothing)
    patch.setattr(hunt, "HERE", hunt.Path("."))
    return hunt.parser(), hunt.main, ()

# ---------------------------------------------------------------- all of them

@pytest.mark.parametrize(
    "of", [of_recap, of_annotate, of_reproduce, of_robots, of_benchmarks, of_grade, of_hunt],
    ids=lambda of: of.__name__.removeprefix("of_"),
)  # fmt: skip
def test_no_option_takes_nonsense_for_a_fault_of_ours(of, tmp_path, monkeypatch):
    """In another folder, whose name has a space and a letter beyond ASCII, without a terminal."""
    folder = tmp_path / "ü b"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    parser, main, whole = of(monkeypatch)
    there = set(folder.iterdir())
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        option = action.option_strings[-1:]
        n = action.nargs if isinstance(action.nargs, int) else 1
        for text in NONSENSE if n > 0 else NONSENSE[:1]:
            monkeypatch.setattr(sim_tasks, "ADDED", {})
            arguments = [*whole, *option, *[text] * n]
            problem = wrong_end(main, arguments)
            assert problem is None, (arguments, problem)
            for made in set(folder.iterdir()) - there:
                shutil.rmtree(made) if made.is_dir() else made.unlink()

def wrong_end(main, arguments):
    """What is wrong with how a program took its arguments, or None."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = main(arguments)
        except SystemExit as leave:
            status = leave.code
        except Exception as error:
            return repr(error)
    if not status or isinstance(status, str):  # 0, None: it works; hunt.py's verdicts are a text
        return None
    *usage, last = said.getvalue().strip().splitlines() or [""]
    one_line = "error: " in last and all(line.startswith(("usage", " ")) for line in usage)
    return None if status == 2 and one_line else (status, said.getvalue())

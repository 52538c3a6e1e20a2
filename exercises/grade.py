"""Points per exercise.

    python exercises/grade.py                   of the tree that this file stands in
    python exercises/grade.py TREE [TREE ...]   of these, by the tests that stand beside this file
    python exercises/grade.py TREE --parameters hidden/parameters.py    ... with other numbers

The tests are copied to a scratch folder and run there, so what a student did to tests or points
counts for nothing.  Code runs with your rights: grade strangers' work where that does no harm.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from syllabus import EXERCISES

HERE = Path(__file__).resolve().parent
TIMEOUT_S = 1800  # of one tree; every test has an end of its own (tests/conftest.py)

def outcomes(tree, parameters=None):
    """Run the exercises' tests on the modules of `tree`.

    parameters: a file in the place of tests/parameters.py.
    Returns {test: a list, for each of its parameters the error, None if it passed}.
    """
    with tempfile.TemporaryDirectory() as scratch:
        tests = Path(scratch) / "tests"
        report = Path(scratch) / "report.xml"
        shutil.copytree(HERE / "tests", tests, ignore=shutil.ignore_patterns("__pycache__"))
        if parameters is not None:
            shutil.copy(parameters, tests / "parameters.py")
        environment = os.environ | {
            "EXERCISES_TREE": str(Path(tree).resolve()), "OMP_NUM_THREADS": "1",
            "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        # One module that cannot be imported costs the exercises that need it, not the others.
        options = ["-q", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
        subprocess.run(
            [sys.executable, "-m", "pytest", *options, f"--junitxml={report}", "--rootdir", tests,
             tests],
            cwd=tests, env=environment, timeout=TIMEOUT_S,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        found = {}
        for case in ElementTree.parse(report).iter("testcase"):
            name = case.get("name").split("[")[0]
            found.setdefault(name, []).append(error_of(case))
        return found

def error_of(case):
    """What a test case of the report says that is wrong; None if it passed."""
    for entry in case:
        if entry.tag in ("failure", "error", "skipped"):
            return entry.get("message") or entry.tag
    return None

def grade(tree, parameters=None):
    """Arguments as `outcomes`.

    Returns {exercise: [(part, function, test, points, of how many, first error or None)]}.
    """
    found = outcomes(tree, parameters)
    marks = {}
    for exercise, (_, parts) in EXERCISES.items():
        marks[exercise] = []
        for i, part in enumerate(parts, 1):
            for test, points in part.points.items():
                errors = found.get(test, ["the test did not run: can the modules be imported?"])
                error = next((x for x in errors if x is not None), None)
                got = points if error is None else 0
                row = (f"{exercise}.{i}", part.function, test, got, points, error)
                marks[exercise].append(row)
    return marks

def show(marks):
    """The marks as text: a line per exercise, and below it what is missing and why."""
    lines = []
    everything = []
    for exercise, rows in marks.items():
        lines.append(f"{exercise}  {total(EXERCISES[exercise][0], rows, 50)}")
        everything += rows
        for part, function, test, _, _, error in rows:
            if error is not None:
                lines.append(f"     {part} {function}: {test}")
                lines.append("         " + " ".join(error.split())[:300])
    lines.append(total("all", everything, 53))
    return "\n".join(lines)

def total(title, rows, width):
    """A line: the points of these rows, and of how many."""
    got = sum(row[3] for row in rows)
    points = sum(row[4] for row in rows)
    return f"{title:<{width}}{got:>4} of {points:>3}"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="grade.py", description="Points per exercise.")
    parser.add_argument(
        "trees", metavar="TREE", nargs="*", default=[HERE.parent],
        help="student trees (default: this one)",
    )  # fmt: skip
    parser.add_argument(
        "--parameters", help="a file in the place of tests/parameters.py: hidden tests"
    )
    args = parser.parse_args()
    for tree in args.trees:
        print(f"{tree}\n{show(grade(tree, args.parameters))}\n")

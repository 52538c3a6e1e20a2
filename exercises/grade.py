"""Points per exercise.

    python exercises/grade.py                                   of the tree that this file stands in
    python exercises/grade.py TREE [TREE ...]                   of these, by the tests that stand beside this file
    python exercises/grade.py TREE --parameters hidden/parameters.py        ... with the numbers of that file

The tests are copied to a scratch folder and run there, so what a student did to tests or points in his own tree counts for
nothing.  Code runs with your rights: grade strangers' work where that does no harm.
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
TIMEOUT_S = 1800      # of one tree; every test has an end of its own (tests/conftest.py)


def outcomes(tree, parameters=None):
    """Run the exercises' tests on the modules of `tree`.  -> {test: [error of each of its parameters, None if it passed]}"""
    with tempfile.TemporaryDirectory() as scratch:
        tests, report = Path(scratch) / "tests", Path(scratch) / "report.xml"
        shutil.copytree(HERE / "tests", tests, ignore=shutil.ignore_patterns("__pycache__"))
        if parameters is not None:
            shutil.copy(parameters, tests / "parameters.py")
        environment = os.environ | {"EXERCISES_TREE": str(Path(tree).resolve()), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg",
                                    "PYTHONDONTWRITEBYTECODE": "1"}
        # one module that cannot be imported costs the exercises that need it, not the others
        subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--continue-on-collection-errors",
                        f"--junitxml={report}", "--rootdir", tests, tests], cwd=tests, env=environment, timeout=TIMEOUT_S,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found = {}
        for case in ElementTree.parse(report).iter("testcase"):
            bad = [x for x in case if x.tag in ("failure", "error", "skipped")]
            found.setdefault(case.get("name").split("[")[0], []).append(bad[0].get("message") or bad[0].tag if bad else None)
        return found


def grade(tree, parameters=None):
    """-> {exercise: [(part, function, test, points, of how many, first error or None)]}"""
    found, marks = outcomes(tree, parameters), {}
    for n, (_, parts) in EXERCISES.items():
        marks[n] = []
        for i, part in enumerate(parts, 1):
            for test, points in part.points.items():
                errors = found.get(test, ["the test did not run: can the modules be imported?"])
                error = next((x for x in errors if x is not None), None)
                marks[n].append((f"{n}.{i}", part.function, test, points if error is None else 0, points, error))
    return marks


def show(marks):
    """The marks as text: a line per exercise, and below it what is missing and why."""
    lines, total = [], lambda rows, column: sum(row[column] for row in rows)
    for n, rows in marks.items():
        lines.append(f"{n}  {EXERCISES[n][0]:<50}{total(rows, 3):>4} of {total(rows, 4):>3}")
        for part, function, test, points, _, error in rows:
            if error is not None:
                lines += [f"     {part} {function}: {test}", "         " + " ".join(error.split())[:300]]
    everything = [row for rows in marks.values() for row in rows]
    return "\n".join([*lines, f"{'all':<53}{total(everything, 3):>4} of {total(everything, 4):>3}"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="grade.py", description="Points per exercise.")
    parser.add_argument("trees", metavar="TREE", nargs="*", default=[HERE.parent], help="student trees (default: this one)")
    parser.add_argument("--parameters", help="a file in the place of tests/parameters.py: hidden tests")
    args = parser.parse_args()
    for tree in args.trees:
        print(f"{tree}\n{show(grade(tree, args.parameters))}\n")

"""Points per exercise.

    python exercises/grade.py                   of the tree that this file stands in
    python exercises/grade.py TREE [TREE ...]   of these, by the tests that stand beside this file
    python exercises/grade.py TREE --parameters hidden/parameters.py    ... with other numbers
    python exercises/grade.py handed_in/* --csv marks.csv --feedback feedback    of a class
    python exercises/grade.py TREE --gradescope results.json

The tests are copied to a scratch folder and run there, so what a student did to tests or points
counts for nothing.  A test that ends its process costs its own points: the others go on.
Code runs with your rights: grade strangers' work where that does no harm.
"""
import argparse
import csv
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from syllabus import EXERCISES, numbered, on_any_terminal

HERE = Path(__file__).resolve().parent
TREE_S = 1800  # of one tree; every test has an end of its own (tests/conftest.py)
RUN_S = 300  # of one process, if what loops can't be interrupted

class NotGraded(Exception):
    """There is nothing to give points to: no tree, or no way to run tests."""

# ---------------------------------------------------------------- running the tests

def outcomes(tree, parameters=None):
    """Run the exercises' tests on the modules of `tree`.

    parameters: a file in the place of tests/parameters.py.
    Returns {test: a list, for each of its parameters the error, None if it passed}.
    """
    check_tree(Path(tree))
    ended = {}  # of every test, and of every file that could not be read: its error, or None
    until = time.monotonic() + TREE_S
    with tempfile.TemporaryDirectory() as scratch:
        tests = Path(scratch) / "tests"
        no_points = shutil.ignore_patterns("__pycache__", "test_0_*")
        shutil.copytree(HERE / "tests", tests, ignore=no_points)
        if parameters is not None:
            shutil.copy(parameters, tests / "parameters.py")
        # A process that is ended by what it runs is followed by another one, for the rest.
        going_on = True
        while going_on and time.monotonic() < until:
            running, how = run_tests(tree, tests, ended)
            going_on = running is not None
            if going_on:
                ended[running] = how
        return by_test(ended, tests)

def check_tree(tree):
    """NotGraded where this is not the folder of a student."""
    names = sorted({f"{part.function.split('.')[0]}.py" for part in numbered().values()})
    lacking = [name for name in names if not (tree / name).is_file()]
    if lacking:
        found = "there is no such folder"
        if tree.is_dir():
            found = f"it lacks {', '.join(lacking)}"
        inside = sorted(path.parent for path in tree.glob(f"*/{names[0]}"))
        hint = f" (is it {inside[0]}?)" if inside else ""
        raise NotGraded(f"no student's tree, {found}{hint}")

def run_tests(tree, tests, ended):
    """One process for all tests that have not ended yet; what they say is added to `ended`.

    Returns what was running as the process ended, and how it did; (None, None): nothing, all is
    done.
    """
    diary = tests.parent / "diary"
    diary.write_text("", encoding="utf-8")
    environment = os.environ | {
        "EXERCISES_TREE": str(Path(tree).resolve()), "EXERCISES_DIARY": str(diary),
        "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    # One module that cannot be imported costs the exercises that need it, not the others.
    options = ["-q", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    options += [f"--deselect={name}" for name in ended if "::" in name]
    options += [f"--ignore={tests / name}" for name in ended if "::" not in name]
    with open(tests.parent / "errors", "w+", encoding="utf-8", errors="replace") as errors:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", *options, "--rootdir", tests, tests],
                cwd=tests, env=environment, timeout=RUN_S, stdout=subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip
            how = how_it_ended(done.returncode)
        except subprocess.TimeoutExpired:
            how = f"still running after {RUN_S} s: an endless loop?"
        errors.seek(0)
        said = errors.read().strip().splitlines()
    running = None
    lines = diary.read_text(encoding="utf-8").splitlines()
    for entry in map(json.loads, lines):
        if "done" in entry:
            return None, None
        running = entry.get("began")
        if "ended" in entry:
            ended[entry["ended"]] = entry["error"]
    if not lines:
        raise NotGraded(f"the tests did not begin: {said[-1] if said else how}")
    return running, how

def how_it_ended(status):
    """The exit status of a process, in words."""
    how = signal.Signals(-status).name if status < 0 else f"status {status}"
    return f"the process of the tests ended ({how})"

def by_test(ended, tests):
    """{test: [error or None]} of {node id of a test, or a file of tests: error or None}."""
    found = {}
    for name, error in ended.items():
        file, _, test = name.partition("::")
        own = [test.split("[")[0]]
        if not test:  # none of the tests in it could run
            own = re.findall(r"^def (test_\w+)", (tests / file).read_text(encoding="utf-8"), re.M)
            error = f"while modules were imported: {reason(error)}"
        for test in own:
            found.setdefault(test, []).append(error)
    return found

def reason(text):
    """From what pytest says of a file that it can't read: the place and the error."""
    errors = [line[1:].strip() for line in re.findall(r"^E .*", text, re.M)]
    if not any(error.startswith("File ") for error in errors):  # where a syntax error is
        errors = re.findall(r"^(.+\.py:\d+): in ", text, re.M)[-1:] + errors
    return " ".join(errors) or text

# ---------------------------------------------------------------- points

def grade(tree, parameters=None):
    """Arguments as `outcomes`.

    Returns {exercise: [(part, function, test, points, of how many, first error or None)]}.
    """
    found = outcomes(tree, parameters)
    marks = {}
    for exercise, (_, listed) in EXERCISES.items():
        marks[exercise] = []
        for i, part in enumerate(listed, 1):
            for test, points in part.points.items():
                errors = found.get(test, ["the test did not run"])
                error = next((x for x in errors if x is not None), None)
                got = points if error is None else 0
                row = (f"{exercise}.{i}", part.function, test, got, points, error)
                marks[exercise].append(row)
    return marks

def points_of(rows):
    """(points, of how many) of these rows."""
    return sum(row[3] for row in rows), sum(row[4] for row in rows)

def all_of(marks):
    """The rows of all exercises."""
    rows = []
    for of_one in marks.values():
        rows += of_one
    return rows

# ---------------------------------------------------------------- what is said

def show(marks):
    """The marks as text: a line per exercise, and below it what is missing and why."""
    lines = []
    for exercise, rows in marks.items():
        lines.append(f"{exercise}  {total(EXERCISES[exercise][0], rows, 50)}")
        said = None
        for part, function, test, _, _, error in rows:
            if error is not None:
                lines.append(f"     {part} {function}: {test}")
                if error != said:
                    lines.append("         " + " ".join(error.split())[:300])
                said = error
    lines.append(total("all", all_of(marks), 53))
    return "\n".join(lines)

def total(title, rows, width):
    """A line: the points of these rows, and of how many."""
    got, points = points_of(rows)
    return f"{title:<{width}}{got:>4} of {points:>3}"

def gradescope(marks):
    """The marks as Gradescope's autograder reads them: results.json."""
    tests = []
    for part, function, test, got, points, error in all_of(marks):
        name = f"{part} {function}: {test}"
        tests.append({"name": name, "score": got, "max_score": points, "output": error or ""})
    return {"tests": tests}

def names_of(trees):
    """A name for each tree, by which files can be called: what their paths differ in."""
    paths = [Path(tree).resolve() for tree in trees]
    common = os.path.commonpath([path.parent for path in paths])
    return ["-".join(path.relative_to(common).parts) for path in paths]

# ---------------------------------------------------------------- the command line

def parser():
    parser = argparse.ArgumentParser(prog="grade.py", description="Points per exercise.")
    parser.add_argument(
        "trees", metavar="TREE", nargs="*", default=[HERE.parent],
        help="student trees (default: this one)",
    )  # fmt: skip
    parser.add_argument(
        "--parameters", metavar="FILE", help="in the place of tests/parameters.py: hidden tests"
    )
    parser.add_argument("--csv", metavar="FILE", help="a table: a row per tree")
    parser.add_argument("--feedback", metavar="FOLDER", help="for a text per tree")
    parser.add_argument("--gradescope", metavar="FILE", help="results.json, of a single tree")
    return parser

def check(args):
    """NotGraded for what would fail only after the first tree."""
    if importlib.util.find_spec("pytest") is None:
        raise NotGraded(f"{sys.executable} has no pytest: pip install -r requirements.txt")
    if args.parameters and not os.path.isfile(args.parameters):
        raise NotGraded(f"--parameters: there is no file {args.parameters}")
    if args.gradescope and len(args.trees) > 1:
        raise NotGraded(f"--gradescope: {len(args.trees)} trees, expected a single one")

def run(args):
    """Grade the trees, one after the other.  Returns how many could not be graded."""
    check(args)
    rows = [["tree", *EXERCISES, "all", "not graded"]]
    for tree, name in zip(args.trees, names_of(args.trees)):
        try:
            marks = grade(tree, args.parameters)
        except NotGraded as error:
            print(f"grade.py: error: {tree}: {error}", file=sys.stderr)
            rows.append([tree, *[""] * (len(EXERCISES) + 1), error])
        else:
            print(f"{tree}\n{show(marks)}\n", flush=True)
            points = [points_of(of_one)[0] for of_one in (*marks.values(), all_of(marks))]
            rows.append([tree, *points, ""])
            if args.feedback:
                write(Path(args.feedback) / f"{name}.txt", show(marks) + "\n")
            if args.gradescope:
                write(args.gradescope, json.dumps(gradescope(marks), indent=1))
        if args.csv:  # after each tree: what was graded is kept, whatever comes
            write_csv(args.csv, rows)
    return sum(row[-1] != "" for row in rows[1:])

def write(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")

def write_csv(path, rows):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)

def main(argv=None):
    """Returns the status: 2 if something could not be graded."""
    on_any_terminal()
    args = parser().parse_args(argv)
    try:
        return 2 if run(args) else 0
    except (NotGraded, OSError) as error:
        print(f"grade.py: error: {error}", file=sys.stderr)
        return 2

if __name__ == "__main__":
    sys.exit(main())

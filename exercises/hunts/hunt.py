"""Silent-bug hunts: hand one out, or prove that the tests catch them.

    python exercises/hunts/hunt.py --give 7 OUT   a tree with bug 7 in it, its page as README.md
    python exercises/hunts/hunt.py --check 7 TEST a student's test: does it tell bug 7 from none?
    python exercises/hunts/hunt.py 7 12           apply these to a copy each, run its tests
    python exercises/hunts/hunt.py                all of them (minutes), and write table.md
    python exercises/hunts/hunt.py --pages        write anew what the symptom pages print
    python exercises/hunts/hunt.py --figures 7    draw pictures anew, one small run each
"""
import argparse
import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bugs import BUGS
from trees import HERE, give, modules_from, plant

from make_student_tree import OURS, PACKAGES, ROOT, UNSEEN, copy_modules
from syllabus import on_any_terminal

TIMEOUT_S = 600  # of the tests of one module

# ---------------------------------------------------------------- symptom pages

SNIPPET = re.compile(r"```python\n(?P<code>.*?)```\nprints\n```\n(?P<output>.*?)```", re.S)

def printed(tree, code):
    """What `code` prints with the modules of `tree`."""
    out = io.StringIO()
    with modules_from(tree):
        try:
            with contextlib.redirect_stdout(out):
                exec(code, {})
        except ValueError as error:  # what the right code may do in the place of a wrong number
            out.write(str(error))
    return out.getvalue()

def write_pages():
    """Put what each snippet prints with the bug into its page: after a change of the simulator."""
    import torch  # before the trees change: it cannot be imported twice

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        for number in BUGS:
            path = HERE / "symptoms" / f"{number:02}.md"
            text = path.read_text(encoding="utf-8")
            parts = SNIPPET.search(text)
            if parts is None:
                continue
            tree = Path(scratch) / str(number)
            give(number, tree)
            begin, end = parts.span("output")
            text = text[:begin] + printed(tree, parts["code"]) + text[end:]
            path.write_text(text, encoding="utf-8")

# ---------------------------------------------------------------- the proof

class NoTests(Exception):
    """pytest could not run any."""

def tests_of(bug):
    return bug.tests or f"tests/test_{bug.module}.py"

def failing(tree, tests, *options):
    """Run `tests` in `tree`.

    Returns the names of those that failed, as tests/test_value.py::test_name, no parameters.
    """
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    options = ["-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", *options]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests.split()],
        cwd=tree, env=environment, timeout=TIMEOUT_S, capture_output=True, encoding="utf-8",
    )  # fmt: skip
    # 0: all passed, 1: some failed; else pytest itself did not get so far.
    if done.returncode not in (0, 1):
        raise NoTests(f"pytest {tests}:\n{done.stdout}\n{done.stderr}")
    names = re.findall(r"^(?:FAILED|ERROR) ([^\s\[]+)", done.stdout, re.M)
    return list(dict.fromkeys(names))

def catch(numbers, say=print):
    """{number: the first test that fails with the bug and passes without it, or None}."""
    caught = {}
    already = {}  # tests -> what fails without any bug, and so proves nothing
    with tempfile.TemporaryDirectory() as scratch:
        clean = Path(scratch) / "clean"
        copy_modules(clean, PACKAGES + OURS)
        shutil.copytree(ROOT / "tests", clean / "tests", ignore=UNSEEN)
        for number in numbers:
            bug = BUGS[number]
            tests = tests_of(bug)
            if tests not in already:
                already[tests] = failing(clean, tests)
                for name in already[tests]:
                    say(f"  (left out: {name} fails without a bug, too)")
            tree = Path(scratch) / str(number)
            shutil.copytree(clean, tree)
            plant(bug, tree)
            left_out = [f"--deselect={name}" for name in already[tests]]
            failed = failing(tree, tests, "-x", *left_out)
            caught[number] = failed[0] if failed else None
            what = caught[number] or "NOT CAUGHT"
            say(f"{number:3}  {bug.module + '.py':<14}{bug.name:<58}{what}")
            shutil.rmtree(tree)
    return caught

def check(number, test):
    """A student's test, a file of pytest's: does it fail with the bug and pass without it?

    Returns None if so, else what is to be said.
    """
    failed = {}
    with tempfile.TemporaryDirectory() as scratch:
        for which in ("with", "without"):
            tree = Path(scratch) / which
            copy_modules(tree)
            if which == "with":
                plant(BUGS[number], tree)
            shutil.copy(test, tree / "test_handed_in.py")
            try:
                failed[which] = failing(tree, "test_handed_in.py", "--tb=short")
            except (NoTests, subprocess.TimeoutExpired) as error:
                return f"{test}: no verdict {which} the bug: {error}"
    names = [name.partition("::")[2] for name in failed["without"]]
    if names:
        return f"{test}: {', '.join(names)} fails without the bug, too"
    if not failed["with"]:
        return f"{test}: passes with the bug, expected it to fail"
    caught = ", ".join(name.partition("::")[2] for name in failed["with"])
    print(f"{test}: {caught} fails with bug {number} and passes without it")

TABLE = """\
# Which test catches which bug

Made by `python exercises/hunts/hunt.py`: the first test of the module that fails with the
bug in it. For teachers.

| | module | bug | caught by |
|---|---|---|---|
"""

def table(caught):
    """The table as Markdown."""
    text = TABLE
    for number, test in caught.items():
        bug = BUGS[number]
        text += f"| {number} | `{bug.module}.py` | {bug.name} | `{test}` |\n"
    return text

# ---------------------------------------------------------------- the command line

def parser():
    parser = argparse.ArgumentParser(prog="hunt.py", description="Silent-bug hunts.")
    parser.add_argument(
        "numbers", type=int, nargs="*", choices=[*BUGS, []], metavar="N",
        help=f"bugs, 1 to {max(BUGS)} (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--give", nargs=2, metavar=("N", "OUT"), help="write a tree with bug N to a new folder"
    )
    parser.add_argument(
        "--check", nargs=2, metavar=("N", "TEST"), help="a student's test of bug N, a file"
    )
    parser.add_argument(
        "--pages", action="store_true", help="write anew what the symptom pages print"
    )
    parser.add_argument(
        "--figures", action="store_true", help="draw the pictures of the symptom pages anew"
    )
    return parser

def run(args):
    """Returns the status, or what is to be said on stderr."""
    if args.give is not None:
        number, out = args.give
        return give(int(number), Path(out))
    if args.check is not None:
        number, test = args.check
        return check(int(number), test)
    if args.pages:
        return write_pages()
    if args.figures:
        from pictures import write_figures  # here: it needs matplotlib and torch

        return write_figures(args.numbers or list(BUGS))
    caught = catch(args.numbers or list(BUGS))
    if None in caught.values():
        return f"not caught: {[n for n, test in caught.items() if test is None]}"
    if not args.numbers:
        (HERE / "table.md").write_text(table(caught), encoding="utf-8")
    return 0

def main(argv=None):
    on_any_terminal()
    args = parser().parse_args(argv)
    for option in ("give", "check"):
        given = getattr(args, option)
        if given is not None and given[0] not in [str(number) for number in BUGS]:
            parser().error(f"--{option}: {given[0]}, expected a bug, 1 to {max(BUGS)}")
    try:
        return run(args)
    except OSError as error:  # a folder that is there already, a full disk
        print(f"hunt.py: error: {error}", file=sys.stderr)
        return 2

if __name__ == "__main__":
    sys.exit(main())

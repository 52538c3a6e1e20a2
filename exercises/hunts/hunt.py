"""Silent-bug hunts: hand one out, or prove that the tests catch them.

    python exercises/hunts/hunt.py --give 7 OUT     a tree with bug 7 in it, its symptom page as README.md, no tests
    python exercises/hunts/hunt.py 7 12             apply these to a copy each, run the module's tests to the first failure
    python exercises/hunts/hunt.py                  all of them (minutes), and write table.md
    python exercises/hunts/hunt.py --pages          write anew what the symptom pages print
    python exercises/hunts/hunt.py --figures 7 12   draw their pictures anew, from one small run each (all of them: minutes)
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

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from bugs import BUGS
from make_student_tree import ROOT, UNSEEN, copy_modules

TIMEOUT_S = 600      # of the tests of one module


def patched(bug, source):
    """The module's source with the bug in it.  ValueError where a text to replace is not there exactly once."""
    for old, new in bug.change:
        if source.count(old) != 1:
            raise ValueError(f"{bug.module}.py, {bug.name}: {source.count(old)} times, expected once:\n{old}")
        source = source.replace(old, new)
    return source


def plant(bug, tree):
    path = Path(tree) / f"{bug.module}.py"
    path.write_text(patched(bug, path.read_text(encoding="utf-8")), encoding="utf-8")


def give(number, out):
    """What a student gets: the library with the bug, and what is to be seen of it."""
    copy_modules(out)
    plant(BUGS[number], out)
    pages = (HERE / "symptoms" / f"{number:02}.md", HERE / "symptoms" / "task.md")
    (out / "README.md").write_text("".join(page.read_text(encoding="utf-8") for page in pages), encoding="utf-8")
    shutil.copy(HERE / "symptoms" / f"{number:02}.png", out)


# ---------------------------------------------------------------- symptom pages

SNIPPET = re.compile(r"```python\n(?P<code>.*?)```\nprints\n```\n(?P<output>.*?)```", re.S)


@contextlib.contextmanager
def modules_from(tree):
    """Imports are those of `tree` here: in this process, with modules of the same names put aside."""
    ours = {path.stem for path in Path(tree).glob("*.py")} | {"sim_tasks"}
    put_aside = lambda: {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in ours}
    kept = put_aside()
    sys.path.insert(0, str(tree))
    try:
        yield
    finally:
        sys.path.remove(str(tree))
        put_aside()
        sys.modules.update(kept)


def printed(tree, code):
    """What `code` prints with the modules of `tree`."""
    out = io.StringIO()
    with modules_from(tree):
        try:
            with contextlib.redirect_stdout(out):
                exec(code, {})
        except ValueError as error:      # what the right code may do in the place of a wrong number
            out.write(str(error))
    return out.getvalue()


def write_pages():
    """Put what each snippet prints with the bug into its page: after a change of the simulator, say."""
    import torch      # before the trees change: it cannot be imported twice

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        for number in BUGS:
            path, tree = HERE / "symptoms" / f"{number:02}.md", Path(scratch) / str(number)
            text = path.read_text(encoding="utf-8")
            if parts := SNIPPET.search(text):
                give(number, tree)
                begin, end = parts.span("output")
                path.write_text(text[:begin] + printed(tree, parts["code"]) + text[end:], encoding="utf-8")


# ---------------------------------------------------------------- the proof

def tests_of(bug):
    return bug.tests or f"tests/test_{bug.module}.py"


def failing(tree, tests, *options):
    """Run `tests` in `tree`.  -> names of those that failed, as tests/test_value.py::test_name, without parameters"""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", *options, *tests.split()],
                          cwd=tree, env=environment, timeout=TIMEOUT_S, capture_output=True, text=True)
    if done.returncode not in (0, 1):      # 0: all passed, 1: some failed; else pytest itself did not get so far
        raise RuntimeError(f"pytest {tests}:\n{done.stdout}\n{done.stderr}")
    return list(dict.fromkeys(re.findall(r"^(?:FAILED|ERROR) ([^\s\[]+)", done.stdout, re.M)))


def catch(numbers, say=print):
    """{number: the first test that fails with the bug and passes without it, or None}."""
    caught, already = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        clean = Path(scratch) / "clean"
        copy_modules(clean, without=())
        shutil.copytree(ROOT / "tests", clean / "tests", ignore=UNSEEN)
        for number in numbers:
            bug = BUGS[number]
            tests = tests_of(bug)
            if tests not in already:      # what fails without any bug proves nothing
                already[tests] = failing(clean, tests)
                for name in already[tests]:
                    say(f"  (left out: {name} fails without a bug, too)")
            tree = Path(scratch) / str(number)
            shutil.copytree(clean, tree)
            plant(bug, tree)
            failed = failing(tree, tests, "-x", *(f"--deselect={name}" for name in already[tests]))
            caught[number] = failed[0] if failed else None
            say(f"{number:3}  {bug.module + '.py':<14}{bug.name:<58}{caught[number] or 'NOT CAUGHT'}")
            shutil.rmtree(tree)
    return caught


def table(caught):
    """The table as Markdown."""
    rows = [f"| {number} | `{BUGS[number].module}.py` | {BUGS[number].name} | `{test}` |" for number, test in caught.items()]
    return "\n".join(["# Which test catches which bug", "", "Made by `python exercises/hunts/hunt.py`: the first test of the module that "
                      "fails with the bug in it. For teachers.", "", "| | module | bug | caught by |", "|---|---|---|---|", *rows, ""])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="hunt.py", description="Silent-bug hunts.")
    parser.add_argument("numbers", type=int, nargs="*", choices=[*BUGS, []], metavar="N", help=f"bugs, 1 to {max(BUGS)} (default: all)")
    parser.add_argument("--give", nargs=2, metavar=("N", "OUT"), help="write a tree with bug N to the new folder OUT")
    parser.add_argument("--pages", action="store_true", help="write anew what the symptom pages print")
    parser.add_argument("--figures", action="store_true", help="draw the pictures of the symptom pages anew")
    args = parser.parse_args()
    if args.give is not None:
        sys.exit(give(int(args.give[0]), Path(args.give[1])))
    if args.pages:
        sys.exit(write_pages())
    if args.figures:
        from pictures import write_figures      # here: it needs matplotlib and torch
        sys.exit(write_figures(args.numbers or list(BUGS)))
    caught = catch(args.numbers or list(BUGS))
    if None in caught.values():
        sys.exit(f"not caught: {[n for n, test in caught.items() if test is None]}")
    if not args.numbers:
        (HERE / "table.md").write_text(table(caught), encoding="utf-8")

"""Write the student tree: the library with the functions of syllabus.py blanked, and their tests.

    python exercises/make_student_tree.py OUT

The modules are the solution; nothing in them marks an exercise.  A function is found by its name
in the syntax tree.  What follows its docstring becomes one line,
raise NotImplementedError("Exercise 2.1, Eq. (5)").  All else stays as it is, comments too, and
imports that only the solution used.
"""
import ast
import shutil
import sys
from pathlib import Path

from syllabus import numbered, on_any_terminal

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("lab", "robots", "sim_tasks")  # what `python recap.py` and the hunts run
OURS = ("reproduce", "benchmarks")  # what makes our results; no exercise needs it
UNSEEN = shutil.ignore_patterns("__pycache__", "*.pyc", ".pytest_cache")

def functions(tree, prefix=""):
    """Yield (qualified name, node) of all functions of a module, methods as Class.method."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")

def blank(source, messages):
    """`source` with the body of some functions replaced by an error.

    messages: {qualified name: what the error says}.  KeyError for a name that is not there,
    ValueError for a function without a docstring (there would be no task).
    """
    known = dict(functions(ast.parse(source)))
    lines = source.splitlines(keepends=True)
    # From below, so that line numbers stay true.
    for name in sorted(messages, key=lambda name: -known[name].lineno):
        node = known[name]
        if ast.get_docstring(node) is None:
            raise ValueError(f"{name}: no docstring, expected one that says what to write")
        indent = " " * node.body[0].col_offset
        error = f'{indent}raise NotImplementedError("{messages[name]}")\n'
        # The whole text after the docstring, not only its statements: comments tell, too.
        lines[node.body[0].end_lineno : node.end_lineno] = [error]
    return "".join(lines)

def copy_modules(out, packages=PACKAGES):
    """The library in a new folder: modules, packages, what installs and configures them.

    FileExistsError if the folder is there.
    """
    out.mkdir(parents=True)
    for path in [*ROOT.glob("*.py"), ROOT / "requirements.txt", ROOT / "pytest.ini"]:
        shutil.copy(path, out)
    for package in packages:
        shutil.copytree(ROOT / package, out / package, ignore=UNSEEN)

def make(out):
    """The student tree in a new folder."""
    copy_modules(out)
    shutil.copytree(ROOT / "exercises" / "tests", out / "exercises" / "tests", ignore=UNSEEN)
    for name in ("syllabus.py", "grade.py"):
        shutil.copy(ROOT / "exercises" / name, out / "exercises")
    shutil.copy(ROOT / "exercises" / "STUDENT.md", out / "README.md")
    messages = {}  # module -> {qualified name: message}
    for number, part in numbered().items():
        module, name = part.function.split(".", 1)
        messages.setdefault(module, {})[name] = f"Exercise {number}, {part.paper}"
    for module, todo in messages.items():
        path = out / f"{module}.py"
        path.write_text(blank(path.read_text(encoding="utf-8"), todo), encoding="utf-8")

if __name__ == "__main__":
    on_any_terminal()
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        make(Path(sys.argv[1]))
    except OSError as error:  # a folder that is there already, a full disk
        print(f"make_student_tree.py: error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{sys.argv[1]}: {len(numbered())} functions to write, see its README.md")

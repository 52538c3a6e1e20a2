"""The house itself: which files there are, how long they are, who imports whom, how code looks.

The rules are in CONTRIBUTING.md.
"""
import ast
import io
import os
import tokenize
import unicodedata
from graphlib import CycleError, TopologicalSorter

import pytest

from helpers import ROOT

METHOD = ("recap", "labels", "value", "policy", "backbone")
ROOT_MODULES = (
    "recap", "labels", "collection", "value", "policy", "backbone", "baselines", "control",
    "hardware", "data", "settings", "training", "ranks",
)  # fmt: skip
ROOMS = ("sim_tasks", "lab", "robots", "reproduce", "benchmarks")
# Programs: under their __main__ guard they take from above, and hand down.
DOORS = ("recap", "lab.annotate")
ELSEWHERE = ("tests", "exercises", "notebooks", "docs", "examples")

def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()

def python_files(folder):
    """Paths of all .py files below a folder, relative to the root."""
    found = []
    for where, folders, names in os.walk(os.path.join(ROOT, folder)):
        folders[:] = [x for x in folders if not x.startswith((".", "__pycache__"))]
        here = os.path.relpath(where, ROOT)
        found += [os.path.normpath(os.path.join(here, x)) for x in names if x.endswith(".py")]
    return sorted(found)

def module_of(path):
    """lab/run.py -> lab.run, and lab/__init__.py -> lab."""
    return path.removesuffix(".py").replace(os.sep, ".").removesuffix(".__init__")

FILES = [f"{name}.py" for name in ROOT_MODULES]
for room in ROOMS:
    FILES += python_files(room)
MODULES = {module_of(path): path for path in FILES}

# ---------------------------------------------------------------- who imports whom

def is_main_guard(node):
    """if __name__ == "__main__": ..."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"

def imports_of(module, guarded=True):
    """Our modules that one of ours imports, wherever in its file.

    guarded: with what it imports under its __main__ guard.
    """
    tree = ast.parse(read(MODULES[module]))
    body = [node for node in tree.body if guarded or not is_main_guard(node)]
    found = set()
    for top in body:
        for node in ast.walk(top):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    package = module.split(".")
                    if not MODULES[module].endswith("__init__.py"):
                        package = package[:-1]
                    package = package[: len(package) - (node.level - 1)]
                    base = ".".join([*package, base]).strip(".")
                # `from lab import plots` imports lab.plots; `from lab.run import Run` lab.run.
                for alias in node.names:
                    whole = f"{base}.{alias.name}"
                    found.add(whole if whole in MODULES else base)
    ours = set()
    for name in found:
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        if name:
            ours.add(name)
    return ours - {module}

def rooms_of(modules):
    """Their rooms: root modules stand for themselves."""
    return {name.split(".")[0] for name in modules}

def modules_in(room):
    return [name for name in MODULES if name.split(".")[0] == room]

def test_imports_are_found_however_they_are_written():
    """The reader of imports itself: what everything below relies on."""
    assert imports_of("lab.pictures") == {
        "collection", "data", "lab.plots", "lab.files", "lab.report", "sim_tasks.render", "value",
    }  # fmt: skip
    assert "sim_tasks.arms" in imports_of("sim_tasks.questions")  # from .arms import ...
    assert "lab.cli" in imports_of("recap") and "lab.cli" not in imports_of("recap", guarded=False)

@pytest.mark.parametrize("module", ROOT_MODULES)
def test_root_modules_import_root_modules_and_sim_tasks_alone(module):
    found = rooms_of(imports_of(module, guarded=module not in DOORS))
    assert found <= {*ROOT_MODULES, "sim_tasks"}

def test_each_room_imports_only_what_lies_below_it():
    """sim_tasks < root < lab < robots, reproduce, benchmarks; and lab never imports recap.py.

    But where it is run as a program (DOORS): there what lies above is handed to it.
    """
    for module in modules_in("sim_tasks"):
        assert rooms_of(imports_of(module)) <= {"sim_tasks"}, module
    above = {"recap", "robots", "reproduce", "benchmarks"}
    for module in modules_in("lab"):
        assert not rooms_of(imports_of(module, guarded=module not in DOORS)) & above, module
    for room in ("robots", "reproduce", "benchmarks"):
        for module in modules_in(room):
            others = above - {"recap", room}
            # Speeds are measured from outside of everything.
            if room != "benchmarks":
                assert not rooms_of(imports_of(module)) & others, module

def test_hardware_knows_nothing_of_learning_and_networks_nothing_of_environments():
    assert imports_of("hardware") == set()
    for module in ("value", "policy"):
        reached = {module}
        todo = [module]
        while todo:
            new = imports_of(todo.pop()) - reached
            reached |= new
            todo += new
        direct = rooms_of(imports_of(module))
        assert not direct & {"sim_tasks", "collection", "control", "hardware"}, module
        # Nor by way of others: data.py alone asks the simulator, for pictures and questions.
        assert not reached & {"collection", "control", "hardware", "recap"}, module

def test_there_is_no_circle():
    graph = {module: imports_of(module, guarded=module not in DOORS) for module in MODULES}
    for module in graph:
        # Whoever imports a module of a package imports the package before.
        parents = set()
        for name in graph[module] | {module}:
            while "." in name:
                name = name.rpartition(".")[0]
                parents.add(name)
        package = module.split(".")[0]
        graph[module] |= {name for name in parents if name != package} & set(MODULES)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))

# ---------------------------------------------------------------- sizes

def test_exactly_these_modules_lie_at_the_root():
    here = {name for name in os.listdir(ROOT) if name.endswith(".py")}
    assert here == {f"{name}.py" for name in ROOT_MODULES}
    folders = set()
    for name in os.listdir(ROOT):
        if os.path.isdir(os.path.join(ROOT, name)) and not name.startswith((".", "__")):
            if python_files(name):
                folders.add(name)
    assert folders <= {*ROOMS, *ELSEWHERE, "runs"}

def n_lines(path):
    return len(read(path).splitlines())

def test_the_method_is_read_in_an_evening():
    """Five files of at most 1,100 lines together, and no module at the root above 420."""
    assert sum(n_lines(f"{name}.py") for name in METHOD) <= 1100
    long = {name: n_lines(f"{name}.py") for name in ROOT_MODULES}
    assert {name: n for name, n in long.items() if n > 420} == {}

def test_the_method_is_commented_but_not_hidden():
    """12 to 20 % of its lines have a comment; docstrings are not counted."""
    commented = 0
    total = 0
    for name in METHOD:
        text = read(f"{name}.py")
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        commented += len({token.start[0] for token in tokens if token.type == tokenize.COMMENT})
        total += n_lines(f"{name}.py")
    assert 0.12 <= commented / total <= 0.20

# ---------------------------------------------------------------- how code looks

WRITTEN = sorted({*FILES, *python_files("tests"), *python_files("exercises")})
WRITTEN += python_files("examples")
# With the example to begin from, and what of sim_tasks a task of one's own is made with.
PLAIN = [path for path in FILES if not path.startswith("sim_tasks")] + ["examples/own_task.py"]
PLAIN += [f"sim_tasks/{name}.py" for name in ("task", "scene", "gym_task", "toys")]

def test_no_line_is_longer_than_100_columns():
    found = []
    for path in WRITTEN:
        for i, line in enumerate(read(path).splitlines(), 1):
            # A hat above a letter (π̂) takes no column.
            if sum(not unicodedata.combining(letter) for letter in line) > 100:
                found.append(f"{path}:{i}")
    assert not found

class Clever(ast.NodeVisitor):
    """Where a reader would have to read twice."""

    def __init__(self):
        self.found = []

    def note(self, node, what):
        self.found.append(f"{node.lineno}: {what}")

    def visit_Assign(self, node):
        if isinstance(node.value, ast.Lambda):
            self.note(node, "a named lambda")
        pair = isinstance(node.value, ast.Tuple) and isinstance(node.targets[0], ast.Tuple)
        if pair or len(node.targets) > 1:
            self.note(node, "two assignments")
        self.generic_visit(node)

    def visit_IfExp(self, node):
        for child in ast.walk(node):
            if child is not node and isinstance(child, ast.IfExp):
                self.note(node, "a conditional in a conditional")
                break
        self.generic_visit(node)

    def visit_comprehension_of(self, node):
        if len(node.generators) > 1:
            self.note(node, "a comprehension with two `for`")
        self.generic_visit(node)

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_comprehension_of

    def visit_While(self, node):
        for child in node.body + node.orelse:
            self.visit(child)

    def visit_NamedExpr(self, node):
        self.note(node, "a walrus outside of a `while`")
        self.generic_visit(node)

def clever_lines(text):
    visitor = Clever()
    visitor.visit(ast.parse(text))
    return visitor.found

def test_clever_lines_are_found():
    for line in (
        "f = lambda x: x", "a, b = c, d", "a = b = 0", "x = 1 if a else 2 if b else 3",
        "[x for y in z for x in y]", "{x: 0 for y in z for x in y}", "print(n := 3)",
    ):  # fmt: skip
        assert len(clever_lines(line)) == 1, line
    for line in ("a, b = f()", "x = 1 if a else 2", "while x := f(): pass", "f(key=lambda x: x)"):
        assert clever_lines(line) == [], line

@pytest.mark.parametrize("path", [*FILES, "examples/own_task.py", "examples/aloha.py"])
def test_nothing_is_judged_by_an_assert(path):
    """`python -O` would switch it off."""
    assert [x.lineno for x in ast.walk(ast.parse(read(path))) if isinstance(x, ast.Assert)] == []

@pytest.mark.parametrize("path", PLAIN)
def test_code_is_plain(path):
    """No named lambda, nested conditional, two-`for` comprehension, stray walrus, a, b = c, d."""
    assert clever_lines(read(path)) == []

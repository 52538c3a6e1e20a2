"""A mutator: changes the code a little, one place at a time, and asks whether any test notices.

    python tests/mutate.py                         every mutant of every module of TESTS
    python tests/mutate.py --sample 60 --seed 1    60 of them
    python tests/mutate.py hardware.py labels.py   those of two modules

A mutant that no test notices is a survivor: a hole in the tests, or code that changes nothing
(EQUIVALENT, each with its reason).  Each mutant has a forked process of its own, in which the
module is imported with the change; no file is written.  Linux, as it stands.
"""
import argparse
import ast
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import resource
import signal
import sys
import time
from dataclasses import dataclass

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CPU_SECONDS = 120  # a mutant that takes longer is caught: it loops
SECONDS = 900  # ... or waits

# module -> the tests that concern it, the fastest first (tests/test_NAME.py)
TESTS = {
    "hardware": "hardware control recordings robots benchmarks",
    "control": "control collection recordings robots benchmarks",
    "data": "data labels lab_files collection backbone given recap",
    "labels": "labels lab_checks annotate recap",
    "collection": "collection control recap",
    "baselines": "baselines",
    "lab.checks": "lab_checks lab_run",
    "lab.evaluation": "lab_checks collection lab_run",
    "sim_tasks.arms": "sim_tasks cameras collection",
    "sim_tasks.toys": "lab_checks sim_tasks tasks",
    "value": "value recap",
    "backbone": "backbone policy",
    "policy": "policy baselines collection recap",
    "training": "recap",
    "recap": "recap baselines",
}  # fmt: skip

# Mutants that change nothing, by "module.function: old line -> new line", and why.
EQUIVALENT = {
    "control.drive: taken = np.zeros(1, bool) -> taken = np.zeros(2, bool)":
        "the second entry is never read: there is one robot",
    "data.generator: return torch.Generator().manual_seed(episode_seeds(seed, purpose, 1)[0]) -> "
    "return torch.Generator().manual_seed(episode_seeds(seed, purpose, 2)[0])":
        "the first of two seeds is that of one",
    "hardware.SafeRobot.__init__: arm = len(self.names) // 2 -> arm = ((len(self.names)) / (2))":
        "an odd number of names has its grippers elsewhere, and is refused for that",
    "labels.advantages: if n is not None and n < len(A): -> if n is not None and (n <= len(A)):":
        "for n = T both slices are empty",
    "recap.train_policy: omit = torch.rand(s.batch, generator=g) < dropout  # (B,) -> "
    "omit = (torch.rand(s.batch, generator=g) <= dropout)  # (B,)":
        "a random number is never exactly the dropout",
    "sim_tasks.arms.World.step: motion += self.noise[np.arange(self.n), np.minimum(self.t, "
    "self.spec.max_steps - 1)] -> motion -= self.noise[np.arange(self.n), np.minimum(self.t, "
    "self.spec.max_steps - 1)]":
        "the noise is as often positive as negative",
    "sim_tasks.toys.Toy.visible_quality: pause = still & np.append(still[1:], False) & "
    "np.append(False, still[:-1]) -> pause = still & np.append(still[1:], True) & "
    "np.append(False, still[:-1])":
        "the last step is not still in any case",
    "sim_tasks.toys.Toy.visible_quality: still = np.append(motion < 0.015, False)  # (T,); joint "
    "noise is 0.003 -> still = np.append((motion <= 0.015), False)  # (T,); joint noise is 0.003":
        "a noisy motion is never exactly the limit",
}  # fmt: skip

@dataclass(frozen=True)
class Mutant:
    """module: dotted.  function: qualified, in it.  old, new: the line.  source: of the module."""

    module: str
    function: str
    old: str
    new: str
    source: bytes

    @property
    def name(self):
        return f"{self.module}.{self.function}: {self.old} -> {self.new}"

# ---------------------------------------------------------------- what is changed

SWAPPED = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "/", ast.Mod: "*",
    ast.Pow: "*", ast.BitAnd: "|", ast.BitOr: "&", ast.And: "or", ast.Or: "and",
}  # fmt: skip
TWINS = (("min", "max"), ("any", "all"), ("minimum", "maximum"), ("argmin", "argmax"))
TWIN = {a: b for pair in TWINS for a, b in (pair, pair[::-1])}

def changes_of(node):
    """What may stand in the place of an expression or statement: texts."""
    text = ast.unparse
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        return [f"({text(node.left)} {SWAPPED[type(node.ops[0])]} {text(node.comparators[0])})"]
    if isinstance(node, ast.BinOp) and type(node.op) in SWAPPED:
        return [f"(({text(node.left)}) {SWAPPED[type(node.op)]} ({text(node.right)}))"]
    if isinstance(node, ast.BoolOp):
        values = [f"({text(value)})" for value in node.values]
        return [f"({f' {SWAPPED[type(node.op)]} '.join(values)})"]
    if isinstance(node, ast.UnaryOp):
        return [f"({text(node.operand)})"]
    if isinstance(node, ast.Constant):
        return changes_of_constant(node.value)
    if isinstance(node, ast.Name) and node.id in TWIN and isinstance(node.ctx, ast.Load):
        return [TWIN[node.id]]
    if isinstance(node, ast.Attribute) and node.attr in TWIN:
        return [f"{text(node.value)}.{TWIN[node.attr]}"]
    if isinstance(node, ast.AugAssign) and type(node.op) in SWAPPED:
        target = text(node.target)
        return [f"{target} {SWAPPED[type(node.op)]}= {text(node.value)}", "pass"]
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return ["pass"]
    if isinstance(node, ast.Assign) and not isinstance(node.targets[0], (ast.Name, ast.Tuple)):
        return ["pass"]
    return []

def changes_of_constant(value):
    if isinstance(value, bool):
        return [str(not value)]
    if isinstance(value, int):
        return [str(value + 1)]
    if isinstance(value, float):
        return [str(2 * value if value else 1.0)]
    return []

# Nothing below these is changed: messages, types, progress bars.
SKIPPED = (ast.Raise, ast.JoinedStr, ast.Assert, ast.arguments)
TALK = ("tqdm", "progress", "bar", "print")

def is_talk(node):
    """Does a statement only show how far it has come, or describe itself?"""
    if isinstance(node, (ast.Expr, ast.Assign)) and isinstance(node.value, ast.Call):
        function = ast.unparse(node.value.func)
        return function.split(".")[0] in TALK
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)

def sites(tree):
    """Yields (qualified function, node) of all that may be changed: the bodies of functions."""

    def below(node, function):
        if isinstance(node, SKIPPED) or is_talk(node):
            return
        if function:
            yield function, node
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list", "type_params"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from inside(child, function)

    def inside(node, function):
        if isinstance(node, ast.FunctionDef):
            # What is defined in a function is of that function.
            function = function or ".".join([*classes, node.name])
            for child in node.body:
                yield from below(child, function)
        elif isinstance(node, ast.ClassDef):
            classes.append(node.name)
            for child in node.body:
                yield from inside(child, None)
            classes.pop()
        elif function:
            yield from below(node, function)

    classes = []
    for node in tree.body:
        yield from inside(node, None)

def mutants_of(module):
    """All mutants of a module, in its order."""
    with open(path_of(module), "rb") as file:
        source = file.read()
    lines = source.split(b"\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    found = []
    for function, node in sites(ast.parse(source)):
        if not hasattr(node, "lineno"):
            continue
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        for change in changes_of(node):
            changed = source[:begin] + change.encode() + source[end:]
            old = lines[node.lineno - 1].strip().decode()
            new = changed.split(b"\n")[node.lineno - 1].strip().decode()
            found.append(Mutant(module, function, old, new, changed))
    return found

def path_of(module):
    return os.path.join(ROOT, module.replace(".", os.sep) + ".py")

def sample(mutants, n, seed):
    """n of them, by a number drawn for each from its own text: a change elsewhere moves none."""

    def drawn(mutant):
        return hashlib.sha256(f"{seed} {mutant.name}".encode()).hexdigest()

    return sorted(mutants, key=drawn)[:n]

# ---------------------------------------------------------------- does a test notice?

class Changed(importlib.machinery.SourceFileLoader, importlib.abc.MetaPathFinder):
    """Finds and loads one module from a changed source, and caches nothing."""

    def __init__(self, module, source):
        super().__init__(module, path_of(module))
        self.source = source

    def find_spec(self, name, path=None, target=None):
        if name == self.name:
            return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def path_stats(self, path):
        raise OSError("no cache")

    def get_data(self, path):
        return self.source

def begin(mutant, files):
    """Run the files of tests on a mutant (None: on the code as it is).  Returns the process's id.

    Its status: 0 if no test notices.
    """
    if mutant is not None and mutant.module in sys.modules:
        raise RuntimeError(f"{mutant.module}: imported already, so the change would be for nothing")
    child = os.fork()
    if child:
        return child
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        os.chdir(ROOT)
        if mutant is not None:
            sys.meta_path.insert(0, Changed(mutant.module, mutant.source))
        status = pytest.main(["-q", "-x", "-p", "no:cacheprovider", "--assert=plain", *files])
    except BaseException:
        status = 1
    os._exit(int(status))

def survivors(mutants, jobs=2):
    """Those whose tests all pass, and how long it took.  Runs `jobs` at a time."""
    warm_up()
    todo = list(reversed(mutants))
    running = {}  # id -> (mutant, when it began)
    alive = []
    while todo or running:
        while todo and len(running) < jobs:
            mutant = todo.pop()
            running[begin(mutant, files_for(mutant.module))] = (mutant, time.monotonic())
        child, status = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            for late, (_, begun) in running.items():
                if time.monotonic() - begun > SECONDS:
                    os.kill(late, signal.SIGKILL)
            time.sleep(0.05)
            continue
        mutant, _ = running.pop(child)
        caught = os.waitstatus_to_exitcode(status) != 0
        if not caught:
            alive.append(mutant)
        print("caught  " if caught else "SURVIVED", mutant.name, flush=True)
    return alive

def warm_up():
    """What takes seconds to import, and is not ours: once, before the processes are forked."""
    import gymnasium  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import torch._dynamo  # noqa: F401

def files_for(module):
    return [os.path.join(ROOT, "tests", f"test_{name}.py") for name in TESTS[module].split()]

def all_pass(modules):
    """Do the tests of these modules pass on the code as it is?"""
    files = {}  # in order, each once
    for module in modules:
        files |= dict.fromkeys(files_for(module))
    warm_up()
    _, status = os.waitpid(begin(None, files), 0)
    return status == 0

def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help="modules, like lab/checks.py")
    parser.add_argument("--sample", type=int, metavar="N", help="N of the mutants (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    args = parser.parse_args(arguments)
    modules = [name.removesuffix(".py").replace("/", ".") for name in args.files] or list(TESTS)
    unknown = [module for module in modules if module not in TESTS]
    if unknown:
        parser.error(f"{unknown[0]}: expected one of {', '.join(TESTS)}")
    # More processes than that are a mistake, and none would wait for ever.
    for name, most in (("sample", 10**6), ("jobs", 100)):
        number = getattr(args, name)
        if number is not None and not 1 <= number <= most:
            parser.error(f"--{name}: {number}, expected at least 1 and at most {most}")
    mutants = []
    for module in modules:
        mutants += mutants_of(module)
    mutants = [mutant for mutant in mutants if mutant.name not in EQUIVALENT]
    if args.sample is not None:
        mutants = sample(mutants, args.sample, args.seed)
    if not all_pass({mutant.module for mutant in mutants}):
        print("the tests do not pass on the code as it is", file=sys.stderr)
        return 2
    alive = survivors(mutants, args.jobs)
    print(f"\n{len(mutants) - len(alive)} of {len(mutants)} caught; survivors:")
    for mutant in alive:
        print(f"  {mutant.name}")
    return bool(alive)

if __name__ == "__main__":
    sys.exit(main())

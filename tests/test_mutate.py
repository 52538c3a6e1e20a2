"""mutate.py: what it changes, and (slow) that the tests notice a sample of it."""
import os
import subprocess
import sys

import pytest

import mutate
from mutate import EQUIVALENT, TESTS, mutants_of, path_of, sample, files_for

CODE = '''
"""A module."""
LIMIT = 3

def few(n: int = 5, names=("a",)):
    """Are there few?"""
    if n < LIMIT and not names:
        names.append(min(n, 1))
        raise ValueError(f"{n + 1} is too many")
    return n

class Box:
    size = 2

    def grow(self, by):
        self.size += by
        self.old = 0.5 if by == 2 else True

        def half(x):
            return x / 2

        return half(self.size)
'''

@pytest.fixture
def module(tmp_path, monkeypatch):
    path = tmp_path / "code.py"
    path.write_text(CODE, encoding="utf-8")
    monkeypatch.setattr(mutate, "path_of", lambda module: str(path))
    return "code"

def test_every_place_in_a_function_is_changed_once(module):
    found = [(m.function, m.new) for m in mutants_of(module)]
    assert found == [
        ("few", "if ((n < LIMIT) or (not names)):"),
        ("few", "if (n <= LIMIT) and not names:"),
        ("few", "if n < LIMIT and (names):"),
        ("few", "pass"),
        ("few", "names.append(max(n, 1))"),
        ("few", "names.append(min(n, 2))"),
        ("Box.grow", "self.size -= by"),
        ("Box.grow", "pass"),
        ("Box.grow", "pass"),
        ("Box.grow", "self.old = 0.5 if (by != 2) else True"),
        ("Box.grow", "self.old = 0.5 if by == 3 else True"),
        ("Box.grow", "self.old = 1.0 if by == 2 else True"),
        ("Box.grow", "self.old = 0.5 if by == 2 else False"),
        ("Box.grow", "return ((x) * (2))"),
        ("Box.grow", "return x / 3"),
    ]
    for mutant in mutants_of(module):
        compile(mutant.source, "code.py", "exec")
        # Nothing else is changed: not the lines before and after.
        assert len(mutant.source.decode().splitlines()) == len(CODE.splitlines())

def test_a_sample_is_of_its_seed_and_a_change_elsewhere_leaves_it(module, tmp_path):
    before = [m.name for m in sample(mutants_of(module), 5, seed=0)]
    assert before != [m.name for m in sample(mutants_of(module), 5, seed=1)]
    text = CODE.replace("def few", "def first(x):\n    return x\n\ndef few")
    (tmp_path / "code.py").write_text(text, encoding="utf-8")
    assert before == [m.name for m in sample(mutants_of(module), 5, seed=0)]

def test_there_are_the_modules_their_tests_and_the_equivalent_mutants():
    names = set()
    for module in TESTS:
        assert os.path.exists(path_of(module))
        assert all(os.path.exists(path) for path in files_for(module))
        names |= {mutant.name for mutant in mutants_of(module)}
    assert set(EQUIVALENT) <= names, "the code has changed: this line is not there any more"
    assert all(EQUIVALENT.values())

def test_a_module_that_is_imported_already_cannot_be_changed():
    import labels  # noqa: F401

    with pytest.raises(RuntimeError, match="labels: imported already"):
        mutate.begin(mutants_of("labels")[0], files_for("labels"))

@pytest.mark.parametrize(
    "option, number", [("--sample", 0), ("--sample", -1), ("--jobs", 0), ("--jobs", 101)]
)
def test_numbers_that_never_end_are_refused(option, number, monkeypatch, capsys):
    monkeypatch.setattr(mutate, "all_pass", None)
    monkeypatch.setattr(mutate, "survivors", None)
    with pytest.raises(SystemExit) as leave:
        mutate.main([f"{option}={number}", "labels.py"])
    assert leave.value.code == 2
    assert f"{option}: {number}, expected at least 1" in capsys.readouterr().err

@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks with torch loaded")
def test_the_tests_notice_at_least_95_percent_of_a_sample():
    """In a process of its own: this one has imported the modules as they are."""
    command = [sys.executable, mutate.__file__, "--sample", "60", "--seed", "0"]
    printed = subprocess.run(command, capture_output=True, text=True).stdout
    lines = printed.splitlines()
    alive = [line for line in lines if line.startswith("SURVIVED")]
    assert len(alive) + sum(line.startswith("caught") for line in lines) == 60, printed[-2000:]
    assert len(alive) <= 0.05 * 60, alive

"""exercises/: the solution passes, the student tree fails just where it should, no solution is left in it; the hunts."""
import ast
import os
import re
import shutil
import sys

import matplotlib.pyplot as plt
import pytest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), ".."))
sys.path[:0] = [os.path.join(ROOT, "exercises"), os.path.join(ROOT, "exercises", "hunts")]

import grade
import hunt
import make_student_tree
import pictures
import syllabus
from bugs import BUGS
from make_student_tree import functions

PUBLIC, HIDDEN = (os.path.join(ROOT, "exercises", *path) for path in (("tests", "parameters.py"), ("hidden", "parameters.py")))


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def constants(path):
    """{name: the node of its value} of the assignments of a module."""
    return {node.targets[0].id: ast.dump(node.value) for node in ast.parse(read(path)).body if isinstance(node, ast.Assign)}


def body(tree, function):
    """Statements of a function after its docstring, as text that knows neither comments nor line numbers."""
    module, name = function.split(".", 1)
    node = dict(functions(ast.parse(read(os.path.join(tree, f"{module}.py")))))[name]
    return [ast.dump(statement) for statement in node.body[1:]]


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    out = tmp_path_factory.mktemp("student") / "tree"
    make_student_tree.make(out)
    return out


# ---------------------------------------------------------------- the list

def test_every_test_has_points_and_every_point_its_test():
    folder, graded = os.path.join(ROOT, "exercises", "tests"), []
    for name in sorted(os.listdir(folder)):
        if number := re.match(r"test_([1-9]\d*)_\w+\.py$", name):
            defined = {name for name, _ in functions(ast.parse(read(os.path.join(folder, name)))) if name.startswith("test_")}
            listed = [test for part in syllabus.EXERCISES[int(number[1])][1] for test in part.points]
            assert len(listed) == len(defined) and set(listed) == defined
            graded.append(int(number[1]))
    assert sorted(graded) == sorted(syllabus.EXERCISES)
    assert sum(sum(part.points.values()) for part in syllabus.numbered().values()) == 100


def test_the_students_table_has_the_points_of_the_list():
    rows = re.findall(r"^\| (\d+) \| .* \| (\d+) \|$", read(os.path.join(ROOT, "exercises", "STUDENT.md")), re.M)
    assert {int(n): int(points) for n, points in rows} == {
        n: sum(sum(part.points.values()) for part in parts) for n, (_, parts) in syllabus.EXERCISES.items()}


def test_hidden_parameters_have_the_same_names_and_other_numbers():
    public, hidden = constants(PUBLIC), constants(HIDDEN)
    assert public.keys() == hidden.keys()
    assert all(public[name] != hidden[name] for name in public)


# ---------------------------------------------------------------- the student tree

def test_bodies_are_blanked_and_all_else_is_as_it_was(student):
    blanked = {part.function: f"Exercise {number}, {part.paper}" for number, part in syllabus.numbered().items()}
    for path in sorted(student.glob("*.py")):
        solved, given = (dict(functions(ast.parse(read(os.path.join(tree, path.name))))) for tree in (ROOT, student))
        assert solved.keys() == given.keys()
        for name, node in given.items():
            message = blanked.get(f"{path.stem}.{name}")
            if message is None:
                assert ast.dump(node) == ast.dump(solved[name])
            else:
                assert ast.dump(node.args) == ast.dump(solved[name].args)
                assert ast.get_docstring(node) == ast.get_docstring(solved[name])
                raised = ast.parse(f'raise NotImplementedError("{message}")').body
                assert [ast.dump(x) for x in node.body[1:]] == [ast.dump(x) for x in raised]


def test_no_solution_is_left_in_the_student_tree(student):
    """No statement of a solution, unless it is a small one, stands anywhere in the tree; nor do our tests and results."""
    texts = {path: ast.parse(read(path)) for path in student.rglob("*.py")}
    given = {ast.dump(node): path for path, tree in texts.items() for node in ast.walk(tree) if isinstance(node, (ast.stmt, ast.expr))}
    for part in syllabus.numbered().values():
        statements = [dump for dump in body(ROOT, part.function) if dump.count("(") >= 16]        # nodes, about
        assert not [given[dump] for dump in statements if dump in given], part.function
    assert {path.name for path in student.iterdir()} >= {"README.md", "requirements.txt", "pytest.ini", "sim_tasks", "exercises"}
    assert not {"tests", "notebooks", "results", "reproduce.py", "ablations.py", "experiments.py"} & {path.name for path in student.iterdir()}
    assert {path.name for path in (student / "exercises").iterdir()} == {"tests", "syllabus.py", "grade.py"}


def test_blanking_wants_names_that_exist_and_docstrings():
    blank = make_student_tree.blank
    source = 'class A:\n    def f(self):\n        """Doc."""\n        # a hint\n        return 1\n\n\ndef g():\n    return 2\n'
    assert blank(source, {"A.f": "1.1"}) == source.replace("        # a hint\n        return 1", '        raise NotImplementedError("1.1")')
    with pytest.raises(KeyError):
        blank(source, {"f": "1.1"})
    with pytest.raises(ValueError, match="g: no docstring"):
        blank(source, {"g": "1.1"})


@pytest.mark.slow
@pytest.mark.parametrize("parameters", [PUBLIC, HIDDEN], ids=["public", "hidden"])
def test_the_solution_has_all_points(parameters):
    marks = grade.grade(ROOT, parameters)
    assert [row for rows in marks.values() for row in rows if row[3] != row[4]] == []


@pytest.mark.slow
def test_the_student_tree_imports_and_fails_exactly_the_exercises(student):
    found = grade.outcomes(student)
    parts = {test: number for number, part in syllabus.numbered().items() for test in part.points}
    assert found.keys() - parts.keys() == {"test_every_module_can_be_imported"}
    for test, errors in found.items():
        for error in errors:          # ... and every test is stopped by the very function that it gives points for
            assert error is None if test not in parts else error.startswith(f"NotImplementedError: Exercise {parts[test]}, ")


@pytest.mark.slow
def test_what_a_student_does_to_his_tests_counts_for_nothing_and_one_broken_module_costs_its_own_exercises(student, tmp_path):
    tree = tmp_path / "tree"
    shutil.copytree(student, tree)
    (tree / "exercises" / "tests" / "test_1_value.py").write_text("def test_value_loss_is_the_cross_entropy(): pass\n")
    shutil.copy(os.path.join(ROOT, "baselines.py"), tree)
    with open(tree / "recap.py", "a") as file:
        file.write("\nthis is no Python\n")
    marks = grade.grade(tree)
    points = {n: sum(row[3] for row in rows) for n, rows in marks.items()}
    assert points == {1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 11, 7: 0}
    assert "Exercise 1.3" in grade.show(marks) and "test did not run" in grade.show(marks)


# ---------------------------------------------------------------- the hunts

def page(number):
    return read(hunt.HERE / "symptoms" / f"{number:02}.md")


@pytest.mark.parametrize("number", BUGS)
def test_a_bug_changes_code_and_its_page_does_not_name_it(number):
    bug = BUGS[number]
    source = read(os.path.join(ROOT, f"{bug.module}.py"))
    assert ast.dump(ast.parse(hunt.patched(bug, source))) != ast.dump(ast.parse(source))
    assert page(number).startswith(f"# Hunt {number}: ") and bug.name not in page(number)
    for _, new in bug.change:
        assert not new.strip() or new.strip() not in page(number)


def test_a_change_whose_place_is_gone_or_not_the_only_one_is_noticed():
    for source in ("x = 1\n", 2 * BUGS[8].change[0][0]):
        with pytest.raises(ValueError, match="times, expected once"):
            hunt.patched(BUGS[8], source)


def test_a_hunt_is_given_out_with_its_page_and_without_tests(tmp_path):
    hunt.give(8, tmp_path / "tree")
    assert read(tmp_path / "tree" / "README.md").startswith(page(8)) and "Your task" in read(tmp_path / "tree" / "README.md")
    assert BUGS[8].change[0][1] in read(tmp_path / "tree" / "recap.py")
    assert not {"tests", "exercises"} & set(os.listdir(tmp_path / "tree"))
    assert (tmp_path / "tree" / "08.png").read_bytes() == (hunt.HERE / "symptoms" / "08.png").read_bytes()


@pytest.mark.parametrize("number", BUGS)
def test_a_page_shows_its_picture_below_the_title(number):
    picture = hunt.HERE / "symptoms" / f"{number:02}.png"
    assert page(number).split("\n")[2] == f"![One run of this tree beside one without the bug]({picture.name})"
    assert "One small run proves nothing." in page(number)
    assert picture.stat().st_size <= pictures.BYTES
    assert plt.imread(picture).shape[:2] == (450, 1100)
    assert BUGS[number].since in ("", *pictures.FILES) and BUGS[number].shows in ("V", "labels", "eta")


def test_writing_a_look_anew_replaces_the_old_one():
    seen = {"stages": [], "V": [], "labels": {}, "eta": {}}
    for number in BUGS:
        assert pictures.LOOK.sub("", once := pictures.with_look(page(number), number, seen, seen)) == pictures.LOOK.sub("", page(number))
        assert pictures.with_look(once, number, seen, seen) == once and "Every number is equal" in once


@pytest.mark.slow
def test_files_that_a_picture_takes_over_are_the_same_with_the_bug(tmp_path, monkeypatch):
    """`Bug.since`: in a tiny run all files before it are those of a run without the bug, byte for byte."""
    steps = dict.fromkeys(("pretraining_steps", "sft_steps", "policy_steps", "value_pretraining_steps", "value_steps"), 3)
    monkeypatch.setattr(pictures, "SIZE", pictures.SIZE | steps | dict(demonstrations=30, autonomous=4, corrected=2, episodes=4))
    monkeypatch.setattr(pictures, "WARM", 3)
    make_student_tree.copy_modules(tmp_path / "clean")
    warm = pictures.warm_start(tmp_path, tmp_path / "clean")
    base, _ = pictures.observed(tmp_path, tmp_path / "clean", {}, "D_demo", warm)
    for number, bug in BUGS.items():
        before = pictures.FILES[:pictures.FILES.index(bug.since)] if bug.since else pictures.FILES
        if before:
            hunt.give(number, tree := tmp_path / str(number))
            settings = {name: x for name, x in bug.run.items() if name not in ("ppo", "supervised")}
            folder, _ = pictures.observed(tmp_path, tree, settings, "D_demo", warm)
            for name in before:
                assert (folder / f"{name}.npz").read_bytes() == (base / f"{name}.npz").read_bytes(), (number, name)


@pytest.mark.slow
def test_the_pages_show_what_the_bugs_do(tmp_path):
    """Each snippet prints with the bug what its page says, and without it something else."""
    make_student_tree.copy_modules(tmp_path / "clean")
    shown = 0
    for number in BUGS:
        if parts := hunt.SNIPPET.search(page(number)):
            hunt.give(number, tmp_path / str(number))
            assert hunt.printed(tmp_path / str(number), parts["code"]) == parts["output"], \
                f"{number}: if the snippet still makes its point, python exercises/hunts/hunt.py --pages writes it anew"
            assert hunt.printed(tmp_path / "clean", parts["code"]) != parts["output"], number
            shown += 1
    assert shown >= 15


@pytest.mark.slow
def test_every_bug_is_caught_and_the_table_is_current():
    caught = hunt.catch(list(BUGS))
    assert [number for number, test in caught.items() if test is None] == []
    assert hunt.table(caught) == read(hunt.HERE / "table.md"), "python exercises/hunts/hunt.py writes it anew"

"""exercises/: the solution passes, the student tree fails just where it should, the hunts."""
import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).resolve().parent.parent
EXERCISES = ROOT / "exercises"
sys.path[:0] = [str(EXERCISES), str(EXERCISES / "hunts")]

import grade  # noqa: E402  (of exercises/ and exercises/hunts/)
import hunt  # noqa: E402
import make_student_tree  # noqa: E402
import pictures  # noqa: E402
import syllabus  # noqa: E402
import trees  # noqa: E402
from bugs import BUGS  # noqa: E402
from make_student_tree import functions  # noqa: E402

PUBLIC = EXERCISES / "tests" / "parameters.py"
HIDDEN = EXERCISES / "hidden" / "parameters.py"

def read(path):
    return Path(path).read_text(encoding="utf-8")

def constants(path):
    """{name: the node of its value} of the assignments of a module."""
    found = {}
    for node in ast.parse(read(path)).body:
        if isinstance(node, ast.Assign):
            found[node.targets[0].id] = ast.dump(node.value)
    return found

def functions_of(path):
    """{qualified name: node} of a module."""
    return dict(functions(ast.parse(read(path))))

def body(function):
    """Statements of a function of ours after its docstring, as text without line numbers."""
    module, name = function.split(".", 1)
    node = functions_of(ROOT / f"{module}.py")[name]
    return [ast.dump(statement) for statement in node.body[1:]]

@pytest.fixture(scope="module")
def student(tmp_path_factory):
    out = tmp_path_factory.mktemp("student") / "tree"
    make_student_tree.make(out)
    return out

# ---------------------------------------------------------------- the list

def test_every_test_has_points_and_every_point_its_test():
    graded = []
    for path in sorted((EXERCISES / "tests").glob("test_*.py")):
        number = re.match(r"test_([1-9]\d*)_\w+$", path.stem)
        if number is None:
            continue
        defined = {name for name in functions_of(path) if name.startswith("test_")}
        listed = []
        for part in syllabus.EXERCISES[int(number[1])][1]:
            listed += part.points
        assert len(listed) == len(defined) and set(listed) == defined
        graded.append(int(number[1]))
    assert sorted(graded) == sorted(syllabus.EXERCISES)
    assert sum(sum(part.points.values()) for part in syllabus.numbered().values()) == 100

def test_the_students_page_has_the_points_of_the_list():
    page = read(EXERCISES / "STUDENT.md")
    rows = re.findall(r"^\| (\d+) \| .* \| (\d+) \|$", page, re.M)
    expected = {}
    for exercise, (_, parts) in syllabus.EXERCISES.items():
        expected[exercise] = sum(sum(part.points.values()) for part in parts)
    assert {int(exercise): int(points) for exercise, points in rows} == expected
    n = len(syllabus.numbered())
    assert f"{n} functions taken out" in page
    assert f"{n} bodies missing" in read(EXERCISES / "TEACHING.md")

def test_hidden_parameters_have_the_same_names_and_other_numbers():
    public = constants(PUBLIC)
    hidden = constants(HIDDEN)
    assert public.keys() == hidden.keys()
    assert all(public[name] != hidden[name] for name in public)

# ---------------------------------------------------------------- the student tree

def test_bodies_are_blanked_and_all_else_is_as_it_was(student):
    blanked = {}
    for number, part in syllabus.numbered().items():
        blanked[part.function] = f"Exercise {number}, {part.paper}"
    compared = 0
    for path in sorted(student.rglob("*.py")):
        place = path.relative_to(student)
        if place.parts[0] == "exercises":
            continue
        solved = functions_of(ROOT / place)
        given = functions_of(path)
        assert solved.keys() == given.keys()
        for name, node in given.items():
            message = blanked.get(f"{place.stem}.{name}") if len(place.parts) == 1 else None
            if message is None:
                assert ast.dump(node) == ast.dump(solved[name])
                continue
            assert ast.dump(node.args) == ast.dump(solved[name].args)
            assert ast.get_docstring(node) == ast.get_docstring(solved[name])
            (error,) = ast.parse(f'raise NotImplementedError("{message}")').body
            assert [ast.dump(x) for x in node.body[1:]] == [ast.dump(error)]
            compared += 1
    assert compared == len(blanked)

def test_no_solution_is_left_in_the_student_tree(student):
    """No statement of a solution, unless it is a small one; nor our tests and results."""
    given = {}
    for path in student.rglob("*.py"):
        for node in ast.walk(ast.parse(read(path))):
            if isinstance(node, (ast.stmt, ast.expr)):
                given[ast.dump(node)] = path
    for part in syllabus.numbered().values():
        # A "(" in a dump is about a node.
        statements = [dump for dump in body(part.function) if dump.count("(") >= 16]
        assert not [given[dump] for dump in statements if dump in given], part.function
    names = {path.name for path in student.iterdir()}
    assert names >= {"README.md", "requirements.txt", "pytest.ini", "sim_tasks", "exercises"}
    assert names >= {"recap.py", "lab", "robots"}
    assert not {"tests", "notebooks", "results", "docs", "reproduce", "benchmarks"} & names
    inside = {path.name for path in (student / "exercises").iterdir()}
    assert inside == {"tests", "syllabus.py", "grade.py"}

def test_blanking_wants_names_that_exist_and_docstrings():
    blank = make_student_tree.blank
    source = (
        'class A:\n    def f(self):\n        """Doc."""\n        # a hint\n        return 1\n\n\n'
        "def g():\n    return 2\n"
    )
    given = blank(source, {"A.f": "1.1"})
    old = "        # a hint\n        return 1"
    assert given == source.replace(old, '        raise NotImplementedError("1.1")')
    with pytest.raises(KeyError):
        blank(source, {"f": "1.1"})
    with pytest.raises(ValueError, match="g: no docstring"):
        blank(source, {"g": "1.1"})

@pytest.mark.slow
@pytest.mark.parametrize("parameters", [PUBLIC, HIDDEN], ids=["public", "hidden"])
def test_the_solution_has_all_points(parameters):
    marks = grade.grade(ROOT, parameters)
    for rows in marks.values():
        assert [row for row in rows if row[3] != row[4]] == []

@pytest.mark.slow
def test_the_student_tree_imports_and_fails_exactly_the_exercises(student):
    found = grade.outcomes(student)
    parts = {}
    for number, part in syllabus.numbered().items():
        parts |= dict.fromkeys(part.points, number)
    assert found.keys() - parts.keys() == {"test_every_module_can_be_imported"}
    for test, errors in found.items():
        for error in errors:
            if test not in parts:
                assert error is None
            else:  # ... stopped by the very function that the test gives points for
                assert error.startswith(f"NotImplementedError: Exercise {parts[test]}, ")

@pytest.mark.slow
def test_the_student_tree_has_a_command_line_that_runs_into_an_exercise(student):
    command = [sys.executable, "recap.py", "--quick"]
    done = subprocess.run(command, cwd=student, capture_output=True, text=True)
    assert done.returncode == 1
    assert "NotImplementedError: Exercise 7.3, Alg. 1" in done.stderr
    assert read(student / "runs" / "fold_collar-seed0-quick" / "settings.json")

@pytest.mark.slow
def test_own_tests_count_for_nothing_and_a_broken_module_costs_its_own_exercises(
    student, tmp_path
):
    tree = tmp_path / "tree"
    shutil.copytree(student, tree)
    own = tree / "exercises" / "tests" / "test_1_value.py"
    own.write_text("def test_value_loss_is_the_cross_entropy(): pass\n")
    shutil.copy(ROOT / "baselines.py", tree)
    with open(tree / "recap.py", "a") as file:
        file.write("\nthis is no Python\n")
    marks = grade.grade(tree)
    points = {exercise: sum(row[3] for row in rows) for exercise, rows in marks.items()}
    assert points == {1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 11, 7: 0}
    shown = grade.show(marks)
    assert "Exercise 1.3" in shown and "test did not run" in shown

# ---------------------------------------------------------------- the hunts

def page(number):
    return read(trees.HERE / "symptoms" / f"{number:02}.md")

@pytest.mark.parametrize("number", BUGS)
def test_a_bug_changes_code_and_its_page_does_not_name_it(number):
    bug = BUGS[number]
    source = read(ROOT / f"{bug.module}.py")
    assert ast.dump(ast.parse(trees.patched(bug, source))) != ast.dump(ast.parse(source))
    text = page(number)
    assert text.startswith(f"# Hunt {number}: ") and bug.name not in text
    for _, new in bug.change:
        assert not new.strip() or new.strip() not in text

def test_a_change_whose_place_is_gone_or_not_the_only_one_is_noticed():
    for source in ("x = 1\n", 2 * BUGS[8].change[0][0]):
        with pytest.raises(ValueError, match="times, expected once"):
            trees.patched(BUGS[8], source)

def test_a_hunt_is_given_out_with_its_page_and_without_tests(tmp_path):
    tree = tmp_path / "tree"
    trees.give(8, tree)
    text = read(tree / "README.md")
    assert text.startswith(page(8)) and "Your task" in text
    assert BUGS[8].change[0][1] in read(tree / "labels.py")
    assert not {"tests", "exercises"} & {path.name for path in tree.iterdir()}
    ours = trees.HERE / "symptoms" / "08.png"
    assert (tree / "08.png").read_bytes() == ours.read_bytes()

def test_a_hunt_that_is_not_there_leaves_nothing_behind(tmp_path, capsys):
    """Above all no tree without a bug in it."""
    for number in ("99", "x", "0"):
        with pytest.raises(SystemExit) as leave:
            hunt.main(["--give", number, str(tmp_path / "tree")])
        assert leave.value.code == 2
        assert f"--give: {number}, expected a bug, 1 to" in capsys.readouterr().err
    with pytest.raises(KeyError):
        trees.give(99, tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []
    assert hunt.main(["--give", "7", str(tmp_path)]) == 2
    assert "hunt.py: error: " in capsys.readouterr().err

@pytest.mark.parametrize("number", BUGS)
def test_a_page_shows_its_picture_below_the_title(number):
    picture = trees.HERE / "symptoms" / f"{number:02}.png"
    shown = f"![One run of this tree beside one without the bug]({picture.name})"
    assert page(number).split("\n")[2] == shown
    assert "One small run proves nothing." in " ".join(page(number).split())
    assert picture.stat().st_size <= pictures.BYTES
    assert plt.imread(picture).shape[:2] == (450, 1100)
    bug = BUGS[number]
    assert bug.since in ("", *pictures.FILES) and bug.shows in ("V", "labels", "eta")

def test_writing_a_look_anew_replaces_the_old_one():
    for number in BUGS:
        text = page(number)
        assert pictures.with_look(text, number, says_equal(text)) == text
        for same in (True, False):
            once = pictures.with_look(text, number, same)
            assert pictures.LOOK.sub("", once) == pictures.LOOK.sub("", text)
            assert pictures.with_look(once, number, same) == once
            assert says_equal(once) == same

def says_equal(text):
    return "Every number is equal" in " ".join(text.split())

@pytest.mark.slow
def test_files_that_a_picture_takes_over_are_the_same_with_the_bug(tmp_path, monkeypatch):
    """`Bug.since`: in a tiny run all files before it are those without the bug, byte for byte."""
    names = ("pretraining", "sft", "policy", "value_pretraining", "value")
    few = {f"{name}_steps": 3 for name in names}
    few |= dict(demonstrations=30, autonomous=4, corrected=2, evaluation_episodes=4)
    monkeypatch.setattr(pictures, "SIZE", pictures.SIZE | few)
    monkeypatch.setattr(pictures, "WARM", 3)
    clean = tmp_path / "clean"
    make_student_tree.copy_modules(clean)
    warm = pictures.warm_start(tmp_path, clean)
    base, _ = pictures.observed(tmp_path, clean, {}, "D_demo", warm)
    for number, bug in BUGS.items():
        before = pictures.FILES
        if bug.since:
            before = pictures.FILES[: pictures.FILES.index(bug.since)]
        if not before:
            continue
        tree = tmp_path / str(number)
        trees.give(number, tree)
        settings = {x: bug.run[x] for x in bug.run if x not in ("ppo", "supervised")}
        folder, _ = pictures.observed(tmp_path, tree, settings, "D_demo", warm)
        for name in before:
            made = (folder / f"{name}.npz").read_bytes()
            assert made == (base / f"{name}.npz").read_bytes(), (number, name)

@pytest.mark.slow
@pytest.mark.parametrize("number", [14, 24])
def test_a_picture_is_drawn_of_a_run_with_a_baseline(number, tmp_path, monkeypatch):
    few = dict.fromkeys(("pretraining_steps", "sft_steps", "policy_steps"), 3)
    few |= dict(value_pretraining_steps=3, value_steps=3, demonstrations=30, autonomous=4)
    few |= dict(corrected=2, evaluation_episodes=4)
    monkeypatch.setattr(pictures, "SIZE", pictures.SIZE | few)
    monkeypatch.setattr(pictures, "WARM", 3)
    tree = tmp_path / "tree"
    make_student_tree.copy_modules(tree)
    warm = pictures.warm_start(tmp_path, tree)
    bug = BUGS[number]
    _, seen = pictures.observed(tmp_path, tree, bug.run, "D_demo", warm)
    baseline = "PPO" if "ppo" in bug.run else "supervised_sft"
    assert [row["name"] for row in pictures.drawn_stages(seen)].count(baseline) == 1
    for shows in ("V", "labels", "eta"):
        pictures.write_png(pictures.draw(seen, seen, shows), tmp_path / "picture.png")
        assert plt.imread(tmp_path / "picture.png").shape[:2] == (450, 1100)

@pytest.mark.slow
def test_the_pages_show_what_the_bugs_do(tmp_path):
    """Each snippet prints with the bug what its page says, and without it something else."""
    clean = tmp_path / "clean"
    make_student_tree.copy_modules(clean)
    shown = 0
    for number in BUGS:
        parts = hunt.SNIPPET.search(page(number))
        if parts is None:
            continue
        tree = tmp_path / str(number)
        trees.give(number, tree)
        code = parts["code"]
        hint = "if the snippet still makes its point, python exercises/hunts/hunt.py --pages"
        assert hunt.printed(tree, code) == parts["output"], f"{number}: {hint} writes it anew"
        assert hunt.printed(clean, code) != parts["output"], number
        shown += 1
    assert shown >= 15

@pytest.mark.slow
def test_every_bug_is_caught_and_the_table_is_current():
    caught = hunt.catch(list(BUGS))
    assert [number for number, test in caught.items() if test is None] == []
    current = read(trees.HERE / "table.md")
    assert hunt.table(caught) == current, "python exercises/hunts/hunt.py writes it anew"

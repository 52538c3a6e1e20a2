"""exercises/: the solution passes, the student tree fails just where it should, the hunts."""
import ast
import csv
import json
import re
import shutil
import subprocess
import sys
from itertools import product
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
from helpers import TINY_RUN, options  # noqa: E402
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
    assert found.keys() == parts.keys()
    for test, errors in found.items():
        for error in errors:  # stopped by the very function that the test gives points for
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
    lines = read(tree / "recap.py").splitlines()
    assert "Exercise 1.3" in shown
    assert f'recap.py", line {len(lines)} this is no Python' in shown

# What a hand-in adds to the end of a solved module, how many points are left, what is said.
BREAKS = {
    "crashes": (
        "baselines", "def awr_weights(*given):\n    import ctypes\n    ctypes.string_at(0)",
        {6: 8}, "the process of the tests ended (",
    ),
    "leaves": (
        "recap", "import os\nos._exit(0)",
        {7: 0}, "while modules were imported: the process of the tests ended (status 0)",
    ),
    "loops": (
        "collection", "while True:\n    pass",
        {7: 0}, "still running after 20 s, an endless loop?",
    ),
    "fails": (
        "labels", "unheard_of",
        {2: 0, 3: 0, 7: 0}, "NameError: name 'unheard_of' is not defined",
    ),
    "skips": (
        "baselines", "def awr_weights(*given):\n    import pytest\n    pytest.skip('done')",
        {6: 8}, "skipped",
    ),
    "ends pytest": (
        "baselines", "def awr_weights(*given):\n    import pytest\n    pytest.exit('done')",
        {6: 8}, "the process of the tests ended (status 2)",
    ),
}  # fmt: skip

@pytest.mark.slow
def test_a_class_is_graded_whatever_is_handed_in(tmp_path, capsys):
    """Nobody stops the others, and each is told what is wrong."""
    trees = []
    for name, (module, added, _, _) in BREAKS.items():
        trees.append(tmp_path / "class" / name)
        make_student_tree.copy_modules(trees[-1])
        with open(trees[-1] / f"{module}.py", "a", encoding="utf-8") as file:
            file.write(f"\n{added}\n")
    inside = tmp_path / "class" / "mistyped" / "recap"
    make_student_tree.copy_modules(inside)
    trees += [inside.parent, tmp_path / "class" / "missing", inside]
    table = tmp_path / "new" / "marks.csv"
    feedback = tmp_path / "feedback"
    arguments = [*map(str, trees), "--csv", str(table), "--feedback", str(feedback)]
    assert grade.main(arguments) == 2
    shown = capsys.readouterr()
    with open(table, encoding="utf-8", newline="") as file:
        rows = {Path(row["tree"]).name: row for row in csv.DictReader(file)}
    whole = {}
    for exercise, (_, parts) in syllabus.EXERCISES.items():
        whole[exercise] = sum(sum(part.points.values()) for part in parts)
    for name, (_, _, points, said) in BREAKS.items():
        expected = whole | points
        assert {x: int(rows[name][str(x)]) for x in whole} == expected, name
        assert int(rows[name]["all"]) == sum(expected.values())
        text = read(feedback / f"{name}.txt")
        assert said in text and text in shown.out
    assert rows["recap"]["all"] == "100" and (feedback / "mistyped-recap.txt").exists()
    # What is no tree has no points, not 0.
    assert rows["mistyped"]["all"] == rows["missing"]["all"] == ""
    assert f"(is it {inside}?)" in rows["mistyped"]["not graded"]
    assert "missing: no student's tree, there is no such folder" in shown.err

@pytest.mark.slow
def test_the_judge_is_bound_before_the_students_code(student, tmp_path):
    tree = tmp_path / "tree"
    shutil.copytree(student, tree)
    with open(tree / "value.py", "a", encoding="utf-8") as file:
        file.write(
            "\nimport sys, types, checks, numpy, parameters\n"
            "def yes(*given, **more): return True\n"
            "fake = types.ModuleType('checks')\n"
            "for x in (fake, checks): x.check = x.close = x.refused = yes\n"
            "sys.modules['checks'] = fake\n"
            "numpy.allclose = yes\n"
            "parameters.N_BINS = parameters.LENGTHS = parameters.LOOKAHEADS = ()\n"
            "def support(n_bins=201): return torch.zeros(n_bins)\n"
            "def expected_value(logits): return torch.zeros(logits.shape[:-1])\n"
        )
    assert grade.points_of(grade.all_of(grade.grade(tree)))[0] == 0

def test_what_cannot_be_graded_is_an_error_before_anything_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(grade, "run_tests", None)
    lacking = tmp_path / "lacking"
    lacking.mkdir()
    for name in ("recap", "value", "policy", "labels", "collection"):
        (lacking / f"{name}.py").write_text("", encoding="utf-8")
    for arguments, said in (
        ([str(lacking)], "no student's tree, it lacks baselines.py"),
        ([str(ROOT), "--parameters", "none.py"], "--parameters: there is no file none.py"),
        ([str(ROOT), str(lacking), "--gradescope", "x.json"], "expected a single one"),
    ):
        assert grade.main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("grade.py: error: ") and said in line
    monkeypatch.setattr(grade.importlib.util, "find_spec", lambda name: None)
    assert grade.main([str(ROOT)]) == 2
    assert "has no pytest: pip install -r requirements.txt" in capsys.readouterr().err

def test_a_process_that_never_ends_costs_what_was_running(tmp_path, monkeypatch):
    """Three processes: the first crashes in b, the second hangs in c, the third does the rest."""
    told = [
        ({"began": "t::a[0]"}, {"ended": "t::a[0]", "error": None}, {"began": "t::b"}),
        ({"began": "t::c"},),
        ({"began": "t::d"}, {"ended": "t::d", "error": "wrong"}, {"done": True}),
    ]
    left_out = []

    def run(command, cwd, timeout, env, **rest):
        left_out.append([x.partition("=")[2] for x in command if str(x).startswith("--deselect")])
        entries = told.pop(0)
        Path(env["EXERCISES_DIARY"]).write_text("\n".join(map(json.dumps, entries)))
        if len(told) == 1:
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, -11)

    monkeypatch.setattr(grade.subprocess, "run", run)
    assert grade.outcomes(ROOT) == {
        "a": [None], "b": ["the process of the tests ended (SIGSEGV)"],
        "c": ["still running after 300 s: an endless loop?"], "d": ["wrong"],
    }  # fmt: skip
    assert left_out == [[], ["t::a[0]", "t::b"], ["t::a[0]", "t::b", "t::c"]]

def test_gradescope_reads_points_and_reasons(tmp_path, monkeypatch):
    row = ("1.1", "value.support", "test_bins", 0, 2, "AssertionError: -1, expected 0")
    monkeypatch.setattr(grade, "grade", lambda tree, parameters: {1: [row]})
    out = tmp_path / "results" / "results.json"
    assert grade.main([str(ROOT), "--gradescope", str(out)]) == 0
    name = "1.1 value.support: test_bins"
    entry = {"name": name, "score": 0, "max_score": 2, "output": row[-1]}
    assert json.loads(read(out)) == {"tests": [entry]}

def test_trees_of_one_name_have_feedback_of_their_own(tmp_path):
    trees = [tmp_path / "anna" / "recap", tmp_path / "bela" / "recap", tmp_path / "c"]
    assert grade.names_of(trees) == ["anna-recap", "bela-recap", "c"]
    assert grade.names_of(trees[:1]) == ["recap"]

def test_a_docstring_names_every_error_that_its_test_wants():
    for number, part in syllabus.numbered().items():
        (path,) = (EXERCISES / "tests").glob(f"test_{number[0]}_*.py")
        defined = functions_of(path)
        wanted = [test for test in part.points if "refused" in ast.dump(defined[test])]
        module, name = part.function.split(".", 1)
        says = ast.get_docstring(functions_of(ROOT / f"{module}.py")[name])
        assert not wanted or "ValueError" in says, part.function

@pytest.mark.slow
def test_a_fresh_student_tree_says_what_to_do(student):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=student, capture_output=True, encoding="utf-8")
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert "recap.py:" in done.stdout and "Exercise 7.3, Alg. 1" in done.stdout
    assert done.stdout.count("Exercise ") == len(syllabus.numbered())
    assert "README.md says how." in done.stdout and "FAILED" not in done.stdout
    assert len(done.stdout.splitlines()) < 60

MINIMAL = """
def recap(s, keep=call):
    D_demo = keep("D_demo", demonstrations, s)
    V = keep("V_pre", train_value, new_value(s), D_demo, s, s.value_pretraining_steps)
    V_pre = copy.deepcopy(V)
    labels = label(predict_values(V, D_demo), D_demo, s, 0)
    net = keep("pi_pre", train_policy, new_policy(s), D_demo, labels, s, s.pretraining_steps)
    pi_pre = copy.deepcopy(net)
    D = list(keep("D_0", task_demonstrations, s))
    for k in range(s.iterations + 1):
        if k > 0:
            D += keep(f"D_{k}", collect_iteration, s, pi, k)
        V = keep(f"V_{k}", train_value, copy.deepcopy(V_pre), list(D), s, s.value_steps)
        labels = all_positive(D) if k == 0 else label(predict_values(V, D), D, s, k)
        begin = copy.deepcopy(pi if s.restart == "last" and k > 0 else pi_pre)
        steps = s.policy_steps if k > 0 else s.sft_steps
        pi = keep(f"pi_{k}", train_policy, begin, list(D), labels, s, steps)
    return pi, V
"""

@pytest.mark.slow
def test_an_algorithm_1_with_all_points_runs_to_the_end(tmp_path):
    """What the tests ask for is what `python recap.py` relies on: no more."""
    tree = tmp_path / "tree"
    make_student_tree.copy_modules(tree)
    text = read(tree / "recap.py")
    begin = text.index("def recap(")
    end = text.index("def supervised(")
    (tree / "recap.py").write_text(text[:begin] + MINIMAL + text[end:], encoding="utf-8")
    rows = grade.grade(tree)[7]
    assert [row for row in rows if row[3] != row[4]] == []
    command = [sys.executable, "recap.py", *options(TINY_RUN)]
    done = subprocess.run(command, cwd=tree, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "datasets and checkpoints" in done.stdout
    # One that gives `keep` functions of its own could not be measured: it has fewer points.
    closure = 'keep(f"V_{k}", lambda: train_value(copy.deepcopy(V_pre), list(D), s, s.value_steps))'
    line = 'keep(f"V_{k}", train_value, copy.deepcopy(V_pre), list(D), s, s.value_steps)'
    assert line in MINIMAL
    other = MINIMAL.replace(line, closure)
    (tree / "recap.py").write_text(text[:begin] + other + text[end:], encoding="utf-8")
    errors = [row[-1] for row in grade.grade(tree)[7] if row[3] != row[4]]
    assert errors and all("behind it their arguments" in error for error in errors)

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
    # Its number would be that of a row in the public table.
    assert page(8).startswith("# Hunt 8: ") and "(08.png)" in page(8)
    shown = page(8).replace("Hunt 8:", "Hunt:").replace("08.png", "look.png")
    assert text.startswith(shown) and "Your task" in text
    assert BUGS[8].change[0][1] in read(tree / "labels.py")
    assert not {"tests", "exercises"} & {path.name for path in tree.iterdir()}
    ours = trees.HERE / "symptoms" / "08.png"
    assert (tree / "look.png").read_bytes() == ours.read_bytes()

def test_a_hunt_that_is_not_there_leaves_nothing_behind(tmp_path, capsys):
    """Above all no tree without a bug in it."""
    for option, number in product(("--give", "--check"), ("99", "x", "0")):
        with pytest.raises(SystemExit) as leave:
            hunt.main([option, number, str(tmp_path / "tree")])
        assert leave.value.code == 2
        assert f"{option}: {number}, expected a bug, 1 to" in capsys.readouterr().err
    with pytest.raises(KeyError):
        trees.give(99, tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []
    assert hunt.main(["--give", "7", str(tmp_path)]) == 2
    assert "hunt.py: error: " in capsys.readouterr().err

@pytest.mark.parametrize(
    "test, status, said",
    [
        ("assert threshold(range(5), 0.2) == 3", None, "test_it fails with"),
        ("assert False", 1, "test_it fails without the bug, too"),
        ("pass", 1, "passes with the bug, expected it to fail"),
        ("this is no Python", 1, "line 3"),
    ],
)
def test_a_students_test_is_checked_on_both_trees(test, status, said, tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(f"from labels import threshold\ndef test_it():\n    {test}\n")
    found = hunt.check(8, str(path))
    assert (found is None) == (status is None)
    assert said in (found or capsys.readouterr().out)

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

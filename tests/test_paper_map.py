"""PAPER_MAP.md, README.md and exercises/*.md: complete, and every name in them exists; what a reader asks is answered."""
import ast
import functools
import importlib
import inspect
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import claims
import recap
from ablations import ABLATIONS
from backbone import PROMPT_LENGTH, SUBTASK_LENGTH
from baselines import spo_loss
from experiments import Options
from policy import PolicyConfig, VLA, draw_noise, flow_matching_loss, guided, integrate, noised, predict_subtask, sample_actions
from recap import advantages, indicators, returns, rewards, threshold
from settings import Settings
from value import ValueConfig, discretize, support

ROOT = Path(__file__).resolve().parent.parent
MODULES = {path.stem for path in ROOT.glob("*.py")} | {"sim_tasks"}
PAGES = [ROOT / "README.md", ROOT / "PAPER_MAP.md", *sorted((ROOT / "exercises").rglob("*.md"))]
FOR_READERS = [page for page in PAGES if "symptoms" not in page.parts]      # test_exercises.py looks after those


def read(path):
    return path.read_text(encoding="utf-8")


def in_a_line(text):
    return " ".join(text.split())


def prose(page):
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", read(page), flags=re.M | re.S)


def rows(text):
    """Cells of every row of every table in Markdown, heads left out."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not re.fullmatch(r"[|\- ]+", line)]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def spans(text):
    """`What stands between backticks`, in a row."""
    return re.findall(r"`([^`\n]+)`", text)


def resolve(name):
    """The object that `module.name`, `module.Class.name` or `Settings.field` stands for; else an error."""
    first, *rest = name.split(".")
    if first == "Settings":
        return Settings.__dataclass_fields__[".".join(rest)]
    return functools.reduce(getattr, rest, importlib.import_module(first))


def is_dotted_name(span):
    return re.fullmatch(r"\w+(\.\w+)+", span) and span.split(".")[0] in MODULES | {"Settings"} and not span.endswith(".py")


@functools.cache
def functions(path):
    """{qualified name: docstring} of all functions and methods of a module."""
    found = {}

    def walk(node, prefix):
        for child in node.body:
            if isinstance(child, ast.FunctionDef):
                found[prefix + child.name] = ast.get_docstring(child) or ""
            elif isinstance(child, ast.ClassDef):
                walk(child, f"{prefix}{child.name}.")
    walk(ast.parse(read(path)), "")
    return found


def places(text):
    """What of the paper a text names: "Eq. (3) by way of Eq. 4", "Eqs. 6 to 9", "Secs. V-A, V-B", "Figs. 7 and 8", "App. F"."""
    found, part = {"Algorithm 1"} if "Algorithm 1" in text else set(), r"\(?(?:\d+|[IV]+(?:-[A-D])?|[A-F])\b\)?"
    for kind, run in re.findall(rf"\b(Eq|Sec|App|Fig)s?\.\s*({part}(?:\s*(?:,|/|and|or|to|–|-)\s*{part})*)", text):
        for low, high in re.findall(rf"({part})(?:\s*(?:to|–|-)\s*({part}))?", run):
            low, high = low.strip("()"), high.strip("()")
            between = range(int(low), int(high) + 1) if low.isdigit() and high.isdigit() else ()
            found |= {f"{kind}. {n}" for n in (low, high, *between) if n}
    return found


def test_places_are_read():
    assert places("Eq. (3) by way of Eq. 4: α = (1 - p) / p") == {"Eq. 3", "Eq. 4"}
    assert places("Eqs. 6 to 9, Figs. 1 and 3") == {"Eq. 6", "Eq. 7", "Eq. 8", "Eq. 9", "Fig. 1", "Fig. 3"}
    assert places("Eq. (2) / (12): (B, H, A)") == {"Eq. 2", "Eq. 12"}
    assert places("Secs. V-A, V-C of Algorithm 1, App. F: a") == {"Sec. V-A", "Sec. V-C", "Algorithm 1", "App. F"}


# ---------------------------------------------------------------- the map

KEY = r"(Algorithm|Eq\.|Sec\.|App\.|Fig\.) [\dA-Z-]+"
MAP = {row[0]: row for row in rows(read(ROOT / "PAPER_MAP.md")) if re.fullmatch(KEY, row[0])}
TESTS = {name for path in (ROOT / "tests").glob("test_*.py") for name in re.findall(r"^def (test_\w+)", read(path), re.M)}
EMPTY = {"Sec. VII", "App. A"}      # nothing to implement


def test_the_map_has_a_row_for_every_number_of_the_paper():
    sections = "III IV IV-A IV-B IV-C V V-A V-B V-C V-D VI-A VI-B VI-C VII"
    assert list(MAP) == (["Algorithm 1"] + [f"Eq. {n}" for n in range(1, 14)] + [f"Sec. {x}" for x in sections.split()]
                         + [f"App. {x}" for x in "ABCDEF"] + [f"Fig. {n}" for n in range(1, 14)])


@pytest.mark.parametrize("row", MAP.values(), ids=MAP.keys())
def test_what_a_row_names_exists(row):
    where, what, code, tests, notebook = row
    assert bool(code) == bool(tests) == (where not in EMPTY) and what
    for span in spans(code):
        command = re.fullmatch(r"python reproduce\.py (\w+)", span)
        if command:
            resolve(f"reproduce.{command[1] if command[1] != 'claims' else 'write_claims'}")
        elif "/" in span:
            assert (ROOT / span).is_file(), span
        elif span != "python recap.py --generalist":
            resolve(span)
    assert set(spans(tests)) <= TESTS, set(spans(tests)) - TESTS


def test_a_function_whose_docstring_names_an_equation_stands_in_its_row():
    missing = []
    for path in sorted(ROOT.glob("*.py")):
        for name, text in functions(path).items():
            missing += [(place, f"{path.stem}.{name}") for place in places(text) & MAP.keys()
                        if place.startswith("Eq.") and f"{path.stem}.{name}" not in spans(MAP[place][2])]
    assert not missing, missing


def test_every_notebook_is_named_in_the_map_and_in_the_readme():
    names = set(re.findall(r"notebooks/(\w+)\.ipynb", read(ROOT / "PAPER_MAP.md")))
    assert [name[:2] for name in sorted(names)] == [f"{n:02}" for n in range(1, 9)]
    assert names == set(re.findall(r"notebooks/(\w+)\.ipynb", read(ROOT / "README.md")))


@pytest.mark.parametrize("row", MAP.values(), ids=MAP.keys())
def test_the_notebook_of_a_row_names_its_place(row):
    for name in re.findall(r"notebooks/(\w+)\.ipynb", row[4]):
        assert row[0] in places(read(ROOT / "notebooks" / f"{name}.py")), name


# ---------------------------------------------------------------- names and links of all pages

FOLDERS = (ROOT, ROOT / "exercises", ROOT / "exercises" / "hunts")      # where a page may take a name from
LINKS = sorted({(page, target.split("#")[0]) for page in PAGES for target in re.findall(r"\]\(([^)\s]+)\)", prose(page))
                if not target.startswith(("http", "#"))})


@pytest.mark.parametrize("page, target", LINKS, ids=lambda x: x if isinstance(x, str) else x.stem)
def test_a_link_leads_somewhere(page, target):
    assert (page.parent / target).exists()


@pytest.mark.parametrize("page", FOR_READERS, ids=lambda p: p.stem)
def test_every_name_on_a_page_exists(page):
    text, made = read(page), {"my_hidden_parameters.py"}      # by a teacher
    for span in spans(prose(page)):
        if is_dotted_name(span):
            instance = span.replace("policy.", "policy.VLA.")      # in the exercises `policy` is one
            resolve(instance if "STUDENT" in page.stem and hasattr(VLA, span.split(".")[1]) else span)
        elif re.fullmatch(r"[\w/.-]+\.(py|md|txt|ipynb)", span) and span not in made:
            assert any((folder / span).exists() for folder in (page.parent, *FOLDERS)), span
        elif re.fullmatch(r"test_\w+", span):
            assert span in TESTS, span
    for script in re.findall(r"python (\S+\.py)\b", text):
        assert (ROOT / script).is_file(), script
    for target in re.findall(r"\bmake (demo|test\w*|slow|notebooks|clean)\b", text):
        assert re.search(rf"^{target}:", read(ROOT / "Makefile"), re.M), target
    parsers = " ".join(read(path) for folder in (ROOT, ROOT / "notebooks", *FOLDERS) for path in folder.glob("*.py"))
    for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text):
        setting = option[2:].replace("-", "_")
        assert setting in Settings.__dataclass_fields__ or f'"{option}"' in parsers or option == "--help", option


def test_the_readme_is_short_leads_to_the_map_and_names_every_ablation():
    readme = read(ROOT / "README.md")
    assert len(readme.splitlines()) <= 400 and "(PAPER_MAP.md)" in readme
    assert set(ABLATIONS) <= set(spans(readme))


def test_the_claims_in_the_readme_are_those_of_the_results(monkeypatch):
    """Verdicts, and every number of the README's table, in results/claims.md; and that file in results/*.json."""
    monkeypatch.chdir(ROOT)
    table = claims.table(Options((), 1, False).read)
    assert read(ROOT / "results" / "claims.md") == table + "\n"
    ours = {row[0]: row for row in rows(table)[1:]}
    shown = [row for row in rows(read(ROOT / "README.md")) if row[0] in ours]
    assert [row[0] for row in shown] == list(claims.CLAIMS)
    for number, _, here, verdict in shown:
        assert ours[number][5].strip("*") == verdict, number
        figures = set(re.findall(r"\d+\.\d+", ours[number][3]))
        assert set(re.findall(r"\d+\.\d+", here.replace("β = 1.5", ""))) <= figures, number


def test_every_symbol_stands_in_the_glossary():
    table = " ".join(row[0] for row in rows(read(ROOT / "README.md").split("## Symbols")[1].split("\n## ")[0])[1:])
    known = re.split(r"[\s\[\]=]+|,(?!ω)", table)
    for symbol in ("o_t q_t ℓ s ℓ̂ a_{t:t+H} a^ℓ H T r_t C_fail R_t R_t^B B v(b) p_φ V A N ε_ℓ I_t "
                   "π_θ π_ref π̂ π_pre V_pre β α η ω a^{η,ω} f_θ α_η w(η) D_demo D_ℓ K").split():
        assert symbol in known, symbol


def test_the_readmes_way_from_rollouts_to_evaluation_runs(tmp_path):
    """The code of "How do I collect rollouts and evaluate?", word for word, on new networks and three episodes."""
    code = re.search(r"```python\n(.*?)```", read(ROOT / "README.md"), re.S)[1]
    torch.manual_seed(0)
    s = Settings()
    few = recap.demonstrate(Settings(demonstrations=3), "fold_shirt", recap.GOOD, "sft")
    pi = VLA()
    recap.train_policy(pi, few, s, 1, recap.all_positive(few))
    for name in ("pi_0", "pi_pre"):
        recap.Run(s, str(tmp_path), recap.KINDS).net(name, lambda: (pi, {}))
    recap.Run(s, str(tmp_path), recap.KINDS).net("V_pre", lambda: (recap.new_value(s), {}))
    recap.Run(s, str(tmp_path), recap.KINDS).data("D_0", lambda: few)
    for old, new in (("runs/fold_shirt-0", str(tmp_path)), ("recap.Settings()", "recap.Settings(value_steps=2, policy_steps=2)"),
                     ('"mine", 100', '"mine", 3'), ('"evaluation", 300', '"evaluation", 2')):
        assert code.count(old) == 1
        code = code.replace(old, new)
    names = {}
    exec(code, names)
    assert len(names["D"]) == 6 and {e.iteration for e in names["new"]} == {1} and (tmp_path / "mine.npz").exists()


# ---------------------------------------------------------------- a cold reader

def text_at(place):
    """What a reader finds there: a page, a module's head, a function's docstring, a setting's help."""
    if (ROOT / place).is_file() and place.endswith(".md"):
        return read(ROOT / place)
    thing = resolve(place) if "." in place else importlib.import_module(place)
    return thing.metadata["help"] if place.startswith("Settings.") else thing.__doc__


def hops(place):
    """From the README: 0 itself, 1 a page, module or function that it names, 2 what the map or that module's head names."""
    if place == "README.md":
        return 0
    names = lambda page: set(spans(read(page))) | {target for p, target in LINKS if p == page}
    if {place, f"{place}.py"} & names(ROOT / "README.md"):
        return 1
    module, name = place.split(".")[0], place.split(".")[-1]
    if place.startswith("Settings.") or place in names(ROOT / "PAPER_MAP.md"):      # settings.py is named in the README
        return 2
    return 2 if re.search(rf"\b{name}\b", importlib.import_module(module).__doc__) else math.inf


HALF = torch.full((1, 8, 6), 0.5)
ZERO, ONE = torch.zeros(1), torch.ones(1)
S = Settings()


class Ran(SimpleNamespace):
    """What `recap.score` reads of an episode."""

    def __init__(self, seconds, success):
        super().__init__(steps=10 * seconds, success=success, max_length=10 * seconds, stages=(success,))

    def __len__(self):
        return self.steps


def tiny_policy_inputs():
    observation = {"state": torch.zeros(1, 6), "keypoints": torch.zeros(1, 4, 20)}
    return observation, torch.zeros(1, PROMPT_LENGTH, dtype=torch.long), torch.zeros(1, SUBTASK_LENGTH, dtype=torch.long)


def changes_with_the_indicator(beta):
    torch.manual_seed(0)
    policy, omega = VLA().eval(), torch.randn(1, 8, 6)
    yes, no = (sample_actions(policy, *tiny_policy_inputs(), indicator=x, beta=beta, omega=omega) for x in (True, False))
    return not torch.allclose(yes, no)


# (question, where the answer stands, words to be found there, check or None)
QUESTIONS = [
    ("Where is ε_ℓ set, and to what?", "recap.label", "ε_ℓ on the autonomous steps of that iteration",
     lambda: (S.positive_pretraining, S.positive, Settings(task="fold_collar").positive) == (0.3, 0.2, 0.4)),
    ("Is ε_ℓ a percentile of values or of advantages?", "recap", "a fraction of *advantages*",
     lambda: threshold(np.arange(10.0), 0.3) == 6),
    ("What if many advantages tie at ε_ℓ?", "recap.threshold", "fewer where values tie",
     lambda: not indicators(np.zeros(5), threshold(np.zeros(5), 0.4)).any()),
    ("What happens to the last N steps of an episode?", "recap.advantages", "nothing to bootstrap from",
     lambda: np.allclose(advantages(np.array([-.3, -.2, -.1, 0]), np.full(4, -.5), 2), [-.2, -.2, .4, .5])),
    ("Is running out of time a truncation?", "recap.advantages", "a time-out is a failure, not a truncation", None),
    ("How is the advantage computed in pre-training?", "recap.advantages", "None is N = T (pre-training), where A = R_t - V(o_t)",
     lambda: np.allclose(advantages(np.array([-.1, 0]), np.array([-.5, -.4])), [.4, .4])),
    ("What is N, and of what was it scaled down?", "Settings.lookahead", "paper: 50 at 50 Hz", lambda: S.lookahead == 10),
    ("What does β = 0 sample?", "policy.sample_actions", "0 the unconditional",
     lambda: not changes_with_the_indicator(0.0) and torch.equal(guided(HALF, 2 * HALF, 0), HALF)),
    ("And β = 1: is that guidance?", "README.md", "β = 1 is the conditional policy",
     lambda: changes_with_the_indicator(1.0) and torch.equal(guided(HALF, 2 * HALF, 1), 2 * HALF)),
    ("Which β is used?", "README.md", "β = 2 for FoldShirt, 1.5 else",
     lambda: (S.beta, Settings(task="box").beta) == (2.0, 1.5)),
    ("Does V's output weight the loss?", "README.md", "Is my mental model right? Does V's output weight the loss?** No.",
     lambda: indicators(np.array([0.3, -5.0]), 0.0).dtype == bool),
    ("Is V needed when the robot acts?", "README.md", "At run time V is not asked at all", None),
    ("Which sign is the flow target?", "policy", "f ≈ ω - a",
     lambda: torch.allclose(integrate(lambda a, eta: ONE[:, None, None] - HALF, ONE[:, None, None] + 0 * HALF, 7), HALF)),
    ("Is η = 0 noise or data?", "policy", "η = 0 is noise, η = 1 is data",
     lambda: torch.equal(noised(HALF, -HALF, ZERO), -HALF) and torch.equal(noised(HALF, -HALF, ONE), HALF)),
    ("How is η drawn?", "policy.draw_noise", "noise-heavy",
     lambda: (eta := draw_noise(torch.zeros(4000, 1, 1), torch.Generator().manual_seed(0))[1]).mean() < 0.45 and eta.max() < 1),
    ("What is α_η?", "policy.flow_matching_loss", "None is (1 - η)²",
     lambda: math.isclose(flow_matching_loss(HALF, 0 * HALF, 0 * HALF, torch.tensor([0.5])).item(), 0.25 * 0.25)),
    ("Where does w(η) = e^{-η/2} of App. C stand?", "policy.flow_matching_loss", "w(η) = e^{-η/2}",
     lambda: math.isclose(recap.FLOW_WEIGHTS["paper"](ONE).item(), math.exp(-0.5) / 2, rel_tol=1e-6)),
    ("What became of α in Eq. 3?", "recap.eq3_loss", "α = (1 - p) / p", lambda: S.dropout == 0.3),
    ("Does the dropout fall on negatives, too?", "README.md", "the dropout falls on positives *and* negatives", None),
    ("Where does the indicator stand in the sequence?", "policy", "subtask: w1 w2 | Advantage: positive | action:",
     lambda: (p := VLA()).at_subtask < p.at_indicator < p.at_action),
    ("Does the action expert see the action tokens?", "policy", "never the action tokens", None),
    ("Is knowledge insulation on?", "Settings.insulation", "no gradient from the expert into the backbone", lambda: S.insulation),
    ("How long is a chunk, how much of it is executed?", "README.md", "8 steps, of which 4 are executed",
     lambda: (PolicyConfig().horizon, S.execute) == (8, 4)),
    ("How often is ℓ̂ predicted?", "README.md", "every second chunk", lambda: S.subtask_every == 2),
    ("How large is C_fail?", "Settings.c_fail", "in time limits of the task",
     lambda: S.c_fail == 1 and rewards(3, False, 50).tolist() == [-1, -1, -50]),
    ("Can a failure have a higher return than a success?", "recap.returns", "no failed step outranks a successful one",
     lambda: returns(1, False, 50).max() <= returns(50, True, 50).min()),
    ("By what are returns normalised?", "recap.returns", "normalised per task", lambda: returns(10, True, 20)[0] * 40 == -9),
    ("Is there a discount?", "README.md", "there is no discount, as in the paper",
     lambda: np.allclose(np.diff(returns(9, True, 10)), 1 / 20)),
    ("How many bins, over which range?", "value", "B = 201 values from -1",
     lambda: ValueConfig().n_bins == 201 and (support()[0], support()[-1]) == (-1, 0)),
    ("What happens to a return outside the bins?", "value.discretize", "ValueError for a value outside the support",
     lambda: pytest.raises(ValueError, discretize, [-1.2])),
    ("What is an episode without a label taken for?", "recap.rewards", "ValueError where success is None",
     lambda: pytest.raises(ValueError, rewards, 5, None, 50)),
    ("Which label do corrections get?", "recap.indicators", "True where the operator corrected",
     lambda: indicators(np.array([-1.0, -1.0]), 0.0, [True, False]).tolist() == [True, False]),
    ("Which label do demonstrations get in fine-tuning?", "recap.label",
     "older data and demonstrations are judged by the same ε_ℓ", None),
    ("Which I_t does SFT have, and is it dropped there?", "recap", "SFT keeps the dropout",
     lambda: all(x.all() for x in recap.all_positive([np.zeros(4), np.zeros(2)]).positive)),
    ("What is V⁰ for?", "README.md", "is trained but not read by line 5", None),
    ("Where does π^k start?", "Settings.restart", "pretrained (Algorithm 1)", lambda: S.restart == "pretrained"),
    ("Does V learn from corrected episodes?", "Settings.value_on_corrections", "V learns from corrected episodes, too",
     lambda: S.value_on_corrections),
    ("Is old data ever dropped?", "data", "Nothing is ever dropped from D_ℓ", None),
    ("Which action is recorded: the one asked for or the one sent?", "data.Episode",
     "actions are those *sent to the robot*", None),
    ("What is π_ref, is there a network for it?", "README.md", "the mixture of all that acted in D", None),
    ("Does throughput count the time of failures?", "recap.score", "failures' time included",
     lambda: math.isclose(recap.score([Ran(60, True), Ran(60, False)])["throughput"], 30)),
    ("Has Eq. 11's penalty a square?", "baselines", "SPO [83] has the square, and so do we",
     lambda: math.isclose(spo_loss(torch.tensor([math.log(3.0)]), torch.tensor([1.0]), 1.0).item(), -(3 - 4 / 2), rel_tol=1e-6)),
    ("Do evaluation episodes overlap with collected ones?", "training.episode_seeds", "those of collected data",
     lambda: not set(recap.episode_seeds(0, "evaluation", 50)) & set(recap.episode_seeds(0, "mine", 50))),
    ("Is ℓ̂ guided?", "README.md", "Guidance acts on the actions alone, not on ℓ̂",
     lambda: "beta" not in inspect.signature(predict_subtask).parameters),
    ("How large are the networks?", "README.md", "225k weights for 4B + 860M",
     lambda: sum(p.numel() for p in VLA().parameters()) // 1000 == 225),
]


@pytest.mark.parametrize("question, place, words, check", QUESTIONS, ids=[q[0] for q in QUESTIONS])
def test_a_question_is_answered_within_two_hops_and_the_answer_is_true(question, place, words, check):
    assert hops(place) <= 2
    assert in_a_line(words) in in_a_line(text_at(place))
    assert check is None or check()

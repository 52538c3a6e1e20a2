"""README.md and docs/: short, true, and answering what a reader asks."""
import importlib
import inspect
import json
import math
import re
import tomllib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import ranks
import sim_tasks
from helpers import TOYS, toy_policy
from pages import (
    DOCS, MODULES, PACKAGES, PAGES, ROOT, TESTS, in_a_line, is_dotted_name, links, read, resolve,
    rows, spans, without_fences,
)  # fmt: skip

from baselines import spo_loss
from collection import demonstrate
from lab import cli
from data import episode_seeds
from lab.evaluation import score
from lab.files import load_dataset, save_dataset, save_network
from labels import advantages, all_positive, indicators, returns, rewards, threshold
from policy import (
    FLOW_WEIGHTS, VLA, PolicyConfig, draw_noise, flow_matching_loss, guided, integrate, noised,
    predict_subtask, sample_actions,
)  # fmt: skip
from recap import new_value
from settings import Settings
from sim_tasks import TASKS, find_task
from value import ValueConfig, discretize, support

README = read(ROOT / "README.md")

# ---------------------------------------------------------------- the README's limits

def outside_the_table(text):
    """The README without its table, pictures, and targets of links."""
    text = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    text = re.sub(r"<img[^>]*>", "", text)
    return re.sub(r"\]\([^)\s]+\)", "]", text)

def sentences(text):
    """Sentences of a page, without code blocks, tables, headings and pictures."""
    text = outside_the_table(without_fences(text))
    text = re.sub(r"^#.*$", "", text, flags=re.M)
    # A paragraph or an entry of a list ends a sentence, too.
    parts = re.split(r"\n\s*\n|^- |(?<=[.!?])\s+(?=\S)", text, flags=re.M)
    return [part.split() for part in parts if part.split()]

def test_sentences_are_counted():
    text = "# Head\n\nOne two. Three\nfour five!\n\n- Six: [seven](a/b.md)\n- Eight 3.10\n"
    expected = [["One", "two."], ["Three", "four", "five!"], ["Six:", "[seven]"]]
    assert sentences(text) == [*expected, ["Eight", "3.10"]]

def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150
    assert len(README.split()) <= 900
    lengths = [len(words) for words in sentences(README)]
    assert max(lengths) <= 30
    assert np.mean(lengths) <= 20

def test_the_readme_has_two_tables_and_few_numbers():
    tables = re.findall(r"(?:^\|.*\n)+", README, re.M)
    assert len(tables) == 2
    text = outside_the_table(README)
    numbers = re.findall(r"(?<![\w.])\d[\d.,]*", text)
    assert 100 * len(numbers) <= 3 * len(text.split())

def test_the_readmes_first_words_say_what_it_is():
    first = README.split("<img")[0].split("\n", 1)[1]
    assert len(first.split()) <= 65
    titles = re.findall(r"^## (.*)$", README, re.M)
    assert titles == [
        "Run it", "What you get", "How it works", "Files", "Learn", "Use it",
        "How far to trust it", "Documents",
    ]  # fmt: skip

def test_the_readmes_table_of_aloha_is_what_the_runs_found():
    kept = json.loads(read(ROOT / "results" / "aloha.json"))
    assert kept["seeds"] == [31, 32, 33, 34, 35]
    _, *table = rows(README.split("With real physics")[1].split("<img")[0])
    names = {"SFT": "offline_rl_sft β=1", "RECAP, β = 1": "recap_1 β=1",
             "RECAP, guided": "recap_1 β=1.5"}  # fmt: skip
    assert len(table) == 6
    for title, success, throughput in table:
        row = kept["rows"][names.get(title, title)]
        found = row["success"]
        assert success == f"{100 * found['mean']:.1f}±{100 * found['se']:.1f} %"
        found = row["throughput"]
        assert throughput == f"{found['mean']:.0f}±{found['se']:.0f}"

def test_the_readmes_table_is_what_the_runs_found():
    """Every number of it, from results/*.json: untuned seeds, mean ± standard error."""
    found = {}
    for name in ("fig7", "fig12"):
        kept = json.loads(read(ROOT / "results" / f"{name}.json"))
        assert kept["seeds"] == [31, 32, 33, 34, 35]
        for task, stages in kept["rows"].items():
            found.setdefault(task, stages)
    head, *table = rows(README.split("With real physics")[0])
    assert head == ["", "offline RL + SFT", "RECAP, β = 1", "RECAP, guided"]
    assert len(table) == len(TASKS)
    for title, *cells in table:
        task = re.sub(r"(?<!^)([A-Z])", r"_\1", title).lower()
        beta = Settings(task=task).beta
        stages = ("offline_rl_sft β=1", "recap_2 β=1", f"recap_2 β={beta:g}")
        for cell, stage in zip(cells, stages):
            # From the seeds themselves.
            success = 100 * np.array(found[task][stage]["success"]["values"])
            rate = np.array(found[task][stage]["throughput"]["values"])
            spread = [x.std(ddof=1) / math.sqrt(len(x)) for x in (success, rate)]
            assert cell == (
                f"{success.mean():.1f}±{spread[0]:.1f} %, {rate.mean():.0f}±{spread[1]:.0f}"
            ), (title, stage)

def test_the_headline_is_of_the_untuned_seeds():
    row = next(row for row in rows(README) if row[0] == "FoldShirt")
    before, after = (float(re.search(r", (\d+)±", row[i])[1]) for i in (1, 3))
    assert "guided RECAP folds twice as many" in README and 1.95 < after / before < 2.2

def test_every_file_of_the_root_stands_in_the_tree():
    tree = README.split("## Files")[1].split("## Learn")[0]
    for name in MODULES:
        assert re.search(rf"^{name}\.py\b", tree, re.M), name
    for name in PACKAGES | {"examples", "results", "notebooks", "exercises", "docs", "tests"}:
        assert f"{name}/" in tree, name

# ---------------------------------------------------------------- names, links, commands

LINKS = []
for page in PAGES:
    LINKS += [(page, target.split("#")[0]) for target in links(page)]

@pytest.mark.parametrize("page, target", sorted(set(LINKS)), ids=lambda x: getattr(x, "stem", x))
def test_a_link_leads_somewhere(page, target):
    assert (page.parent / target).exists()

FOR_READERS = [page for page in PAGES if "symptoms" not in page.parts]  # see test_exercises.py
FOLDERS = (ROOT, ROOT / "exercises", ROOT / "exercises" / "hunts")  # where a name may be from

@pytest.mark.parametrize("page", FOR_READERS, ids=lambda page: page.stem)
def test_every_name_on_a_page_exists(page):
    text = read(page)
    made = {"my_hidden_parameters.py", "results/NAME.json", "docs/images/NAME.png"}  # by a reader
    for span in spans(without_fences(text)):
        if is_dotted_name(span):
            # In the exercises `policy` is a policy.
            instance = span.replace("policy.", "policy.VLA.")
            is_method = "STUDENT" in page.stem and hasattr(VLA, span.split(".")[1])
            resolve(instance if is_method else span)
        elif re.fullmatch(r"[\w/.-]+\.(py|md|txt|ipynb|json|png)", span) and span not in made:
            if span != "metrics.json":  # of a run
                assert any((folder / span).exists() for folder in (page.parent, *FOLDERS)), span
        elif re.fullmatch(r"test_\w+", span):
            assert span in TESTS, span

# Options of torchrun, and of SLURM.
OF_TORCHRUN = """
    --standalone --nproc-per-node --nnodes --rdzv-backend --rdzv-id --rdzv-endpoint
    --nodes --ntasks-per-node --gpus-per-node --time
""".split()

@pytest.mark.parametrize("page", FOR_READERS, ids=lambda page: page.stem)
def test_every_command_on_a_page_exists(page):
    text = read(page)
    for script in re.findall(r"python (\S+\.py)\b", text):
        assert (ROOT / script).is_file(), script
    for module, word in re.findall(r"python -m ([\w.]*\w)(?: ([a-z]\w*))?", text):
        if module in ("pytest", "venv", "pip"):
            continue
        file = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        if "." in module:  # a module that is run
            assert file.is_file() and '__name__ == "__main__"' in read(file), module
        else:  # a package
            assert (ROOT / module / "__main__.py").is_file(), module
        if module == "reproduce" and word:
            assert word in commands_of_reproduce(), word
    makefile = read(ROOT / "Makefile")
    for target in re.findall(r"\bmake (demo|quick|test\w*|slow|notebooks|clean)\b", text):
        assert re.search(rf"^{target}:", makefile, re.M), target
    # Options: of `Settings`, or of a parser.
    code = [*ROOT.glob("*/*.py"), *ROOT.glob("*/*/*.py"), *ROOT.glob("*.py")]
    parsers = " ".join(read(path) for path in code)
    for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text):
        setting = option[2:].removeprefix("no-").replace("-", "_")
        known = setting in Settings.__dataclass_fields__ or f'"{option}"' in parsers
        assert known or option in ("--help", *OF_TORCHRUN), option

def commands_of_reproduce():
    """The names that `python -m reproduce NAME` takes."""
    main = importlib.import_module("reproduce.__main__")
    return {*main.FIGURES | main.MORE, *main.ALIASES, "ablation", "ablations", "all"}

def test_make_quick_is_the_first_look():
    assert re.search(r"^quick:.*\n\t\S+python recap\.py --quick$", read(ROOT / "Makefile"), re.M)

def test_every_ablation_is_named():
    knobs = set(importlib.import_module("reproduce.__main__").KNOBS)
    assert knobs and knobs <= set(spans(read(ROOT / "docs" / "FAQ.md")))

@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS], ids=str)
def test_foldshirt_has_one_name_in_prose(page):
    prose = re.sub(r"`[^`\n]*`|\]\([^)\s]+\)|<img[^>]*>", "", without_fences(read(page)))
    assert not re.search(r"fold[_ ]shirt", prose, re.I)
    assert not re.search(r"\b([Hh]e|[Hh]is|[Hh]im)\b", prose)

def test_prose_of_the_documents_is_narrow():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS):
        text = without_fences(read(page))
        for line in text.splitlines():
            # Links are not prose.
            shown = re.sub(r"\]\([^)\s]+\)", "]", line)
            assert line.startswith(("|", "<img")) or len(shown) <= 88, (page.name, line)

def test_licence_and_citation():
    assert read(ROOT / "LICENSE").startswith("MIT License")
    assert "the authors of this repository" in read(ROOT / "LICENSE")
    citation = read(ROOT / "CITATION.cff")
    for field in ("cff-version: 1.2.0", "title: RECAP, on a laptop", "license: MIT", "2511.14759"):
        assert field in citation, field
    assert "2511.14759" in README and "@software" in README

def test_the_linters_line_length_is_that_of_the_house_rules():
    rules = tomllib.loads(read(ROOT / "pyproject.toml"))
    assert rules["tool"]["ruff"]["line-length"] == 100
    assert "at most 100 columns" in read(ROOT / "CONTRIBUTING.md")

# ---------------------------------------------------------------- snippets

def test_every_snippet_is_tested():
    """Those of YOUR_VLA.md: test_your_vla.py; of TRY.md: test_try.py."""
    found = {page.name: read(page).count("```python") for page in FOR_READERS}
    found = {name: n for name, n in found.items() if n > 0}
    assert found == {"FAQ.md": 1, "OWN_TASK.md": 3, "TRY.md": 1, "YOUR_VLA.md": 3}

def test_data_of_your_own_are_as_the_page_makes_them(tmp_path, monkeypatch):
    """One arm of four numbers where the task says so, two of two where nobody does."""
    _, data, task = re.findall(r"```python\n(.*?)```", read(ROOT / "docs" / "OWN_TASK.md"), re.S)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sim_tasks, "ADDED", {})
    exec(data, {})
    (tmp_path / "reach.py").write_text(task, encoding="utf-8")
    for asked, arms, absolute in (({}, 2, (1, 3)), ({"task": "reach.py:REACH"}, 1, (3,))):
        s, found = cli.with_data(asked | {"data": "my.npz"}, None)
        assert (s.interface.n_arms, s.interface.absolute) == (arms, absolute)
        assert {name: len(D) for name, D in found.items()} == {
            "D_demo": 18, "D_0": 18, "held out V_pre": 2,
        }  # fmt: skip

@pytest.mark.slow
def test_the_check_of_a_task_of_your_own_says_what_the_page_expects(monkeypatch, capsys):
    """The code of "Check it before you train": the best nearly always, the mixed in 30 to 70 %."""
    code = re.search(r"```python\n(.*?)```", read(ROOT / "docs" / "OWN_TASK.md"), re.S)[1]
    monkeypatch.chdir(ROOT)
    shown = {}

    def noted(task, seeds, skill):
        shown[skill] = demonstrate(task, seeds, skill)
        return shown[skill]

    monkeypatch.setattr("collection.demonstrate", noted)
    assert code.count("range(100)") == 1
    exec(code.replace("range(100)", "range(50)"), {})
    # The example's expert is good at it, and its good operator leaves something to learn from.
    first = shown["best"][:20]
    assert all(e.success for e in first)
    assert np.mean([len(e) for e in first]) < first[0].max_length / 2
    assert np.mean([e.success for e in shown["good"]]) > 0.6
    found = re.findall(r"^(\w+) (\d+) of 50$", capsys.readouterr().out, re.M)
    succeeded = {skill: 2 * int(n) for skill, n in found}
    assert list(succeeded) == ["best", "good", "mixed"]
    assert succeeded["best"] >= 95 and 30 <= succeeded["mixed"] <= 70
    assert succeeded["mixed"] < succeeded["good"] < succeeded["best"]

def test_the_way_from_rollouts_to_evaluation_runs(tmp_path, capsys):
    """The code of "How do I collect rollouts and evaluate?", on new networks, a few episodes."""
    code = re.search(r"```python\n(.*?)```", read(ROOT / "docs" / "FAQ.md"), re.S)[1]
    torch.manual_seed(0)
    few = demonstrate(TASKS["fold_shirt"], episode_seeds(0, "few", 3), "good")
    pi = toy_policy()
    horizon = pi.config.horizon
    chunks = torch.as_tensor(np.stack([few[0].actions[:horizon], few[1].actions[:horizon]]))
    states = np.stack([few[0].observations["state"][0], few[1].observations["state"][0]])
    pi.fit_normalizer(chunks, torch.as_tensor(states))
    save_network(pi, str(tmp_path / "pi_0.npz"))
    save_network(pi, str(tmp_path / "pi_pre.npz"))
    save_network(new_value(Settings()), str(tmp_path / "V_pre.npz"))
    save_dataset(few, str(tmp_path / "D_0.npz"))
    for old, new in (
        ("runs/fold_shirt-seed0", str(tmp_path)),
        ("Settings()", "Settings(value_steps=2, policy_steps=2)"),
        ('"mine", 100', '"mine", 3'),
        ('"evaluation", 300', '"evaluation", 2'),
    ):
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    names = {}
    exec(code, names)
    assert len(names["D"]) == 6 and {e.iteration for e in names["new"]} == {1}
    assert len(load_dataset(str(tmp_path / "mine.npz"))) == 3
    assert "'throughput'" in capsys.readouterr().out

# ---------------------------------------------------------------- a cold reader

def text_at(place):
    """What a reader finds there: a page, a module's head, a function, a setting's help."""
    if place.endswith(".md"):
        return read(ROOT / place)
    if place in MODULES:
        return importlib.import_module(place).__doc__
    thing = resolve(place)
    if place.startswith("Settings."):
        return f"{thing.metadata['help']} (paper: {thing.metadata['paper']})"
    return re.sub(r"^\s*# ?", "", inspect.getsource(thing), flags=re.M)

def hops(place):
    """From the README: 0 itself, 1 what it names, 2 what a page or that module's head names."""
    if place == "README.md":
        return 0
    linked = [target.split("#")[0] for target in links(ROOT / "README.md")]
    if place in linked or f"{place}.py" in README:
        return 1
    module, _, name = place.partition(".")
    pages = [page for page in DOCS if f"docs/{page.name}" in linked]
    if place.startswith("Settings.") or any(place in spans(read(page)) for page in pages):
        return 2
    head = importlib.import_module(module).__doc__
    return 2 if re.search(rf"\b{name}\b", head) else math.inf

HALF = torch.full((1, 8, 6), 0.5)
ZERO = torch.zeros(1)
ONE = torch.ones(1)
S = Settings()
FAQ = "docs/FAQ.md"
PAPER_MAP = "docs/PAPER_MAP.md"
DEVIATIONS = "docs/DEVIATIONS.md"

class Ran(SimpleNamespace):
    """What `lab.evaluation.score` reads of an episode."""

    def __init__(self, seconds, success):
        steps = 10 * seconds
        super().__init__(
            steps=steps, success=success, max_length=steps, stages=(success,), hz=10
        )

    def __len__(self):
        return self.steps

def changes_with_the_indicator(beta):
    """Does a new policy, asked with the same noise, act differently when I_t is False?"""
    torch.manual_seed(0)
    policy = toy_policy().eval()
    omega = torch.randn(1, 8, 6)
    observation = {"state": torch.zeros(1, 6), "keypoints": torch.zeros(1, 4, 20)}
    prompt = torch.zeros(1, TOYS.prompt_length, dtype=torch.long)
    subtask = torch.zeros(1, TOYS.subtask_length, dtype=torch.long)
    chunks = [
        sample_actions(policy, observation, prompt, subtask, indicator, beta, omega=omega)
        for indicator in (True, False)
    ]
    return not torch.allclose(*chunks)

def eta_is_drawn_near_the_noise():
    eta = draw_noise(torch.zeros(4000, 1, 1), torch.Generator().manual_seed(0))[1]
    return eta.mean() < 0.45 and eta.max() < 1

def an_oracle_field_leads_to_the_data():
    omega = torch.ones(1, 8, 6)
    return torch.allclose(integrate(lambda a, eta: omega - HALF, omega, 7), HALF)

def noise_is_at_zero():
    at_0 = torch.equal(noised(HALF, -HALF, ZERO), -HALF)
    return at_0 and torch.equal(noised(HALF, -HALF, ONE), HALF)

def the_indicator_stands_between():
    policy = toy_policy()
    return policy.at_subtask < policy.at_indicator < policy.at_action

def the_square_is_in_the_penalty():
    loss = spo_loss(torch.tensor([math.log(3.0)]), torch.tensor([1.0]), 1.0).item()
    return math.isclose(loss, -(3 - 4 / 2), rel_tol=1e-6)

def the_last_steps_sum_to_the_end():
    A = advantages(np.array([-0.3, -0.2, -0.1, 0]), np.full(4, -0.5), 2)
    return np.allclose(A, [-0.2, -0.2, 0.4, 0.5])

# (question, where the answer stands, words to be found there, check or None)
QUESTIONS = [
    ("Where is ε_ℓ set, and to what?", DEVIATIONS, "population is the newest autonomous steps",
     lambda: (S.positive_pretraining, S.positive, Settings(task="fold_collar").positive)
     == (0.3, 0.2, 0.2)),
    ("Is ε_ℓ a percentile of values or of advantages?", DEVIATIONS, "a share of *advantages*",
     lambda: threshold(np.arange(10.0), 0.3) == 6),
    ("What if many advantages tie at ε_ℓ?", "labels.threshold", "so ties are negative",
     lambda: not indicators(np.zeros(5), threshold(np.zeros(5), 0.4)).any()),
    ("What happens to the last N steps of an episode?", "labels.advantages",
     "the last N steps of an episode: they have no o_{t+N}", the_last_steps_sum_to_the_end),
    ("Is running out of time a truncation?", DEVIATIONS, "a failure: it is paid −C_fail", None),
    ("How is the advantage computed in pre-training?", "labels.advantages",
     "None is N = T (pre-training)",
     lambda: np.allclose(advantages(np.array([-0.1, 0]), np.array([-0.5, -0.4])), [0.4, 0.4])),
    ("What is N, and of what was it scaled down?", "Settings.lookahead", "paper: 50 at 50 Hz",
     lambda: S.lookahead == 10),
    ("What does β = 0 sample?", "policy.sample_actions", "0 the unconditional",
     lambda: not changes_with_the_indicator(0.0)
     and torch.equal(guided(HALF, 2 * HALF, 0), HALF)),
    ("And β = 1: is that guidance?", FAQ, "β = 1 is the conditional policy",
     lambda: changes_with_the_indicator(1.0)
     and torch.equal(guided(HALF, 2 * HALF, 1), 2 * HALF)),
    ("Which β is used?", DEVIATIONS, "β = 2 is recommended on FoldShirt, 1.5 else",
     lambda: (S.beta, Settings(task="box").beta) == (2.0, 1.5)),
    ("Does V's output weight the loss?", FAQ,
     "Is my mental model right? Does V's output weight the loss? No.",
     lambda: indicators(np.array([0.3, -5.0]), 0.0).dtype == bool),
    ("Is V needed when the robot acts?", FAQ, "At run time V is not asked at all", None),
    ("Which sign is the flow target?", "policy", "f ≈ ω - a", an_oracle_field_leads_to_the_data),
    ("Is η = 0 noise or data?", "policy", "η = 0 is noise, η = 1 is data", noise_is_at_zero),
    ("How is η drawn?", "policy.draw_noise", "π₀'s law 0.999 (1 - Beta(1.5, 1))",
     eta_is_drawn_near_the_noise),
    ("What is α_η?", "policy.flow_matching_loss", "None is (1 - η)²",
     lambda: math.isclose(
         flow_matching_loss(HALF, 0 * HALF, 0 * HALF, torch.tensor([0.5])).item(), 0.25 * 0.25)),
    ("Where does w(η) = e^{-η/2} of App. C stand?", "policy.paper_weight", "w(η) = e^{-η/2}",
     lambda: math.isclose(FLOW_WEIGHTS["paper"](ONE).item(), math.exp(-0.5) / 2, rel_tol=1e-6)),
    ("What became of α in Eq. 3?", "recap.eq3_loss", "α = (1 - p) / p",
     lambda: S.dropout == 0.3),
    ("Does the dropout fall on negatives, too?", FAQ,
     "The dropout falls on positives *and* negatives", None),
    ("Where does the indicator stand in the sequence?", "policy",
     "subtask: w1 w2 | Advantage: positive | action:", the_indicator_stands_between),
    ("Does the action expert see the action tokens?", "policy",
     'the expert reads what stands before "action:"', None),
    ("Is knowledge insulation on?", "Settings.insulation",
     "no gradient from the expert to the backbone", lambda: S.insulation),
    ("How long is a chunk, how much of it is executed?", PAPER_MAP,
     "8 steps, of which 4 are executed",
     lambda: (PolicyConfig(TOYS).horizon, S.execute) == (8, 4)),
    ("How often is ℓ̂ predicted?", PAPER_MAP, "every second chunk", lambda: S.subtask_every == 2),
    ("How large is C_fail?", "Settings.c_fail", "in time limits of the task",
     lambda: S.c_fail == 1 and rewards(3, False, 50).tolist() == [-1, -1, -50]),
    ("Can a failure have a higher return than a success?", "labels.returns",
     "no failed step outranks a successful one",
     lambda: returns(1, False, 50).max() <= returns(50, True, 50).min()),
    ("By what are returns normalised?", "labels.returns", "normalised per task",
     lambda: returns(10, True, 20)[0] * 40 == -9),
    ("Is there a discount?", PAPER_MAP, "there is no discount, as in the paper",
     lambda: np.allclose(np.diff(returns(9, True, 10)), 1 / 20)),
    ("How many bins, over which range?", "value", "201 values from -1",
     lambda: ValueConfig(TOYS).n_bins == 201 and (support()[0], support()[-1]) == (-1, 0)),
    ("What happens to a return outside the bins?", "value.discretize", "ValueError for others",
     lambda: pytest.raises(ValueError, discretize, [-1.2])),
    ("What is an episode without a label taken for?", "labels.rewards",
     "None (not labelled yet) is a ValueError",
     lambda: pytest.raises(ValueError, rewards, 5, None, 50)),
    ("Which label do corrections get?", "labels.indicators", "True for human corrections",
     lambda: indicators(np.array([-1.0, -1.0]), 0.0, [True, False]).tolist() == [True, False]),
    ("Which label do demonstrations get in fine-tuning?", DEVIATIONS,
     "have no part in it, but are labelled by it", None),
    ("Which I_t does SFT have, and is it dropped there?", DEVIATIONS, "SFT keeps the dropout",
     lambda: all(x.all() for x in all_positive([np.zeros(4), np.zeros(2)]))),
    ("What is V⁰ for?", DEVIATIONS, "is trained, and line 5 does not read it", None),
    ("Where does π^k start?", "Settings.restart", "paper: pretrained",
     lambda: S.restart == "pretrained"),
    ("Does V learn from corrected episodes?", "Settings.value_on_corrections",
     "V learns from corrected episodes, too", lambda: S.value_on_corrections),
    ("Is old data ever dropped?", PAPER_MAP, "nothing is ever dropped from D_ℓ", None),
    ("Which action is recorded: the one asked for or the one sent?", "data.Episode",
     "as *sent to the robot*", None),
    ("What is π_ref, is there a network for it?", PAPER_MAP, "the mixture of all that acted in D",
     None),
    ("Does throughput count the time of failures?", "lab.evaluation.score",
     "the time of failures included",
     lambda: math.isclose(score([Ran(60, True), Ran(60, False)])["throughput"], 30)),
    ("Has Eq. 11's penalty a square?", DEVIATIONS, "is squared, as in SPO [83]",
     the_square_is_in_the_penalty),
    ("Do evaluation episodes overlap with collected ones?", "data.episode_seeds",
     'those of "evaluation" are never those of data',
     lambda: not set(episode_seeds(0, "evaluation", 50)) & set(episode_seeds(0, "mine", 50))),
    ("Is ℓ̂ guided?", FAQ, "Guidance acts on the actions alone, not on ℓ̂",
     lambda: "beta" not in inspect.signature(predict_subtask).parameters),
    ("How large are the networks?", DEVIATIONS, "225k weights in the place of 4B + 860M",
     lambda: sum(p.numel() for p in toy_policy().parameters()) // 1000 == 225),
    ("Do the demonstrations succeed?", DEVIATIONS, "Three quarters of D_demo do", None),
    ("What does V not see?", DEVIATIONS, "no clock, and no count of attempts", None),
    # On use.
    ("How do I train on a task of my own?", "README.md",
     "python recap.py --task my_file.py:MY_TASK", None),
    ("What do I have to write for it?", "docs/OWN_TASK.md",
     "one copy of your world. A class with these names",
     lambda: find_task(f"{ROOT}/examples/own_task.py:LID_AND_BALL").max_steps > 0),
    ("Can I train on my data alone, without a simulator?", FAQ,
     "trains V, labels and π on it, without any simulator", lambda: S.data == ""),
    ("Can it use a GPU?", FAQ, "`--device cuda` (or `mps`) trains on one",
     lambda: S.device == "cpu"),
    ("Can it use several machines?", FAQ, "`torchrun recap.py` shares a run out", None),
    ("How do I run it on a cluster?", "docs/SCALE.md", "With SLURM, on a folder that all nodes see",
     lambda: ranks.size() == 1),
    ("How do I open the notebooks?", FAQ, ".venv/bin/jupyter lab notebooks/00_recap",
     lambda: "jupyterlab" in read(ROOT / "requirements-notebooks.txt")),
    ("May I use it in a product?", "README.md", "MIT licence",
     lambda: read(ROOT / "LICENSE").startswith("MIT License")),
    ("How are the exercises graded?", "exercises/TEACHING.md",
     "runs these tests on a tree and counts points", None),
    ("How is an experiment graded?", "exercises/experiments/README.md",
     "by the rubric on each page, ten points", None),
    ("What do I change to try an idea?", "docs/TRY.md", "An idea, where it goes in the code", None),
]  # fmt: skip

@pytest.mark.parametrize("question, place, words, check", QUESTIONS, ids=[q[0] for q in QUESTIONS])
def test_a_question_is_answered_within_two_hops_and_the_answer_is_true(
    question, place, words, check
):
    assert hops(place) <= 2
    text = in_a_line(re.sub(r"^#+ |\*\*", "", text_at(place), flags=re.M))
    assert in_a_line(words) in text
    assert check is None or check()

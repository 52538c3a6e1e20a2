"""docs/TRY.md: its numbers are those of results/*.json, and its snippet is Eq. 3."""
import itertools
import json
import math
import re

import pytest
import torch
from helpers import toy_policy
from pages import ROOT, read, rows

from policy import draw_noise
from recap import eq3_loss
from reproduce.statistics import ratio

PAGE = read(ROOT / "docs" / "TRY.md")
SEEN = re.compile(r"(.+?)(?: \(α = [\d/]+\))? × ([\d.]+) \[([\d.]+), ([\d.]+)\]")

def numbers():
    """[(ablation, row, its cell's numbers)] of the table."""
    found = []
    for row in rows(PAGE)[1:]:
        for name, seen in re.findall(r"`(\w+)`: ([^`|]+)", row[-1]):
            for part in filter(str.strip, seen.split(";")):
                told = SEEN.match(part.strip())
                assert told, part
                found.append((name, told[1], tuple(told.groups()[1:])))
    return found

@pytest.mark.parametrize("name, row, told", numbers(), ids=str)
def test_a_number_of_the_table_is_what_the_runs_found(name, row, told):
    kept = json.loads(read(ROOT / "results" / f"ablation_{name}.json"))
    assert min(kept["seeds"]) >= 31  # those that were tuned on are smaller
    policies = kept["rows"]["policy"]
    stage = "recap_2 β=1" if name == "restart" else "recap_1 β=1"
    default = next(iter(policies)).split(" | ")[0]
    values = [policies[f"{x} | {stage}"]["throughput"]["values"] for x in (row, default)]
    x = ratio(*values)
    expected = tuple(f"{x[key]:.2f}" for key in ("ratio", "low", "high"))
    assert told == expected, f"{row} × {expected[0]} [{expected[1]}, {expected[2]}]"

def test_eq_3_with_alpha_is_what_the_dropout_is_in_expectation():
    """Over all 2³ ways to drop the indicator of three steps, each with its probability."""
    names = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.S)[1], names)
    torch.manual_seed(0)
    policy = toy_policy().double().eval()
    interface = policy.config.interface
    n_words = len(interface.vocabulary)
    B = 3
    omega, eta = draw_noise(torch.zeros(2 * B, 8, 6, dtype=torch.float64))
    batch = {
        "state": torch.randn(B, 6).double(),
        "keypoints": torch.randn(B, 4, 20).double(),
        "prompt": torch.randint(n_words, (B, interface.prompt_length)),
        "subtask": torch.randint(n_words, (B, interface.subtask_length)),
        "chunk": torch.randn(B, 8, 6).double(),
        "tokens": torch.randint(32, (B, policy.n_action_tokens)),
        "positive": torch.tensor([True, False, True]),
        "omit": torch.zeros(B, dtype=torch.bool),
    }
    draws = (omega.view(B, 2, 8, 6), eta.view(B, 2))
    for p in (0.1, 0.3, 0.6):
        mean = 0.0
        for omitted in itertools.product((True, False), repeat=B):
            chance = math.prod(p if x else 1 - p for x in omitted)
            some = batch | {"omit": torch.tensor(omitted)}
            mean += chance * eq3_loss(policy, some, *draws).item()
        whole = names["eq3_with_alpha"](policy, batch, *draws, alpha=(1 - p) / p).item()
        assert math.isclose(mean, p * whole, rel_tol=1e-9)

"""docs/YOUR_VLA.md: its code runs, its signs are ours, and the lines that it changes exist."""
import ast
import importlib.util
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT

import labels
from policy import guided, integrate, noised

with open(os.path.join(ROOT, "docs", "YOUR_VLA.md"), encoding="utf-8") as file:
    PAGE = file.read()
PYTHON = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
DIFFS = re.findall(r"^```diff\n(.*?)^```", PAGE, re.M | re.S)

def test_the_page_is_short():
    assert len(PAGE.splitlines()) <= 150

def test_the_prompts():
    names = {"torch": torch}
    exec(PYTHON[0], names)
    torch.manual_seed(0)
    indicator = np.arange(10) % 2 == 0
    index = torch.arange(10).repeat(400)
    prompts = names["with_advantage"](["fold"] * 4000, index, indicator)
    for i in range(2):
        word = ("positive", "negative")[i]
        own = [p for p, k in zip(prompts, index) if k % 2 == i]
        assert set(own) == {"fold", f"fold. Advantage: {word}"}
        assert np.mean([p == "fold" for p in own]) == pytest.approx(0.3, abs=0.03)

def test_from_values_to_labels():
    rng = np.random.default_rng(0)
    outcomes = [(80, True), (100, False), (60, True)]
    names = {name: getattr(labels, name) for name in dir(labels)} | {
        "np": np, "max_length": 100, "outcomes": outcomes,
        "values": [rng.uniform(-1, 0, T) for T, _ in outcomes],
        "intervention": [np.arange(T) < 5 for T, _ in outcomes],
    }  # fmt: skip
    exec(PYTHON[2], names)
    I = np.concatenate(names["I"])
    A = np.concatenate(names["A"])
    assert (A > names["epsilon"]).mean() == pytest.approx(0.4, abs=0.01)
    by_hand = np.concatenate(names["intervention"])
    assert np.array_equal(I, (A > names["epsilon"]) | by_hand)

def test_the_value_head_is_python():
    ast.parse(PYTHON[1])
    assert len(PYTHON) == 3

def test_their_time_and_sign_are_ours():
    """Their loop, edited as the page says, gives the chunk of ours."""
    g = torch.Generator().manual_seed(0)
    actions, omega = torch.randn(2, 3, 5, 2, generator=g)
    eta = torch.rand(3, generator=g)
    t = (1 - eta)[:, None, None]
    assert torch.allclose(noised(actions, omega, eta), t * omega + (1 - t) * actions)

    def field(a, time):
        """What stands for two trained branches: any function of a chunk and their time."""
        return torch.sin(a + time), torch.cos(a * 2 - time)

    steps = 7
    beta = 1.5
    noise = torch.cat([omega, torch.zeros_like(omega)])
    x_t = noise.chunk(2)[0].repeat(2, 1, 1)
    dt = -1.0 / steps
    for step in range(steps):
        time = 1.0 + step * dt
        v_t = torch.cat([f.chunk(2)[i] for i, f in enumerate(field(x_t, time))])
        v_u, v_c = v_t.chunk(2)
        v_t = (v_u + beta * (v_c - v_u)).repeat(2, 1, 1)
        x_t = x_t + dt * v_t
    theirs = x_t.chunk(2)
    assert torch.equal(*theirs)

    def ours(a, eta):
        return guided(*field(a, 1 - eta[:, None, None]), beta)

    assert torch.allclose(theirs[0], integrate(ours, omega, steps), atol=1e-5)

def test_labels_run_where_torch_and_matplotlib_are_not():
    code = """
import sys
for name in ("torch", "matplotlib", "gymnasium", "pyarrow"):
    sys.modules[name] = None  # an import of it is an ImportError
import numpy as np
import labels
A = labels.advantages(labels.returns(4, True, 10), np.full(4, -0.2), n=2)
print(labels.indicators(A, labels.threshold(A, 0.5)).tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # R = -0.15, -0.1, -0.05, 0; A = -0.1, -0.1 two steps ahead, then R - V = 0.15, 0.2.
    assert done.stdout.strip() == "[False, False, True, True]"

# ---------------------------------------------------------------- the real package

def functions_of(path):
    """{"Class.method" or "function": its source} of a file."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = ast.get_source_segment(text, node)
        for child in getattr(node, "body", []):
            if isinstance(node, ast.ClassDef) and isinstance(child, ast.FunctionDef):
                found[f"{node.name}.{child.name}"] = ast.get_source_segment(text, child)
    return found

@pytest.mark.slow
def test_what_the_page_changes_in_lerobot_is_there():
    spec = importlib.util.find_spec("lerobot")
    if spec is None:
        pytest.skip("lerobot is not installed: nothing here shows that the page's lines exist")
    home = os.path.dirname(os.path.dirname(spec.origin))
    seen = 0
    for diff in DIFFS:
        places = re.findall(r"^# (lerobot/\S+): (\S+)$", diff, re.M)
        for path, name in places:
            source = functions_of(os.path.join(home, path))[name].splitlines()
            for line in re.findall(r"^-(.*)$", diff, re.M):
                assert line in source, (path, name, line)
                seen += 1
    assert seen == 1 + 3 * 2
    # What the value head calls.
    for name, path in (("PI05Pytorch", "pi05"), ("PI0Pytorch", "pi0")):
        found = functions_of(os.path.join(home, f"lerobot/policies/{path}/modeling_{path}.py"))
        assert f"{name}._prepare_attention_masks_4d" in found and "make_att_2d_masks" in found
        assert "embed_prefix" in PYTHON[1] and f"{name}.embed_prefix" in found
        assert "u_t = noise - actions" in found[f"{name}.forward"]
        assert "x_t = time_expanded * noise + (1 - time_expanded) * actions" in (
            found[f"{name}.forward"]
        )

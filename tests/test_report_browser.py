"""report.html in a real browser: it opens, the player moves, nothing complains."""
import os
import shutil
import warnings
from pathlib import Path

import pytest

from browser import Browser, find
from lab.compare import compare

pytestmark = pytest.mark.slow

@pytest.fixture
def browser(tmp_path):
    path = find()
    if path is None:
        reason = "NO BROWSER: report.html was not tried (apt-get install chromium)"
        warnings.warn(reason, stacklevel=1)  # the summary has it, also without -rs
        pytest.skip(reason)
    made = Browser(path, tmp_path / "profile")
    yield made
    made.close()

STEP = "+document.querySelector('#step').value"
SCENE = "document.querySelector('canvas').toDataURL()"
OPENED = "!!document.querySelector('#tracks svg')"

def test_the_report_opens_and_its_player_moves(tiny, browser, tmp_path):
    path = Path(tiny[0], "report.html").resolve()
    assert os.path.getsize(path) < 3_000_000
    for name, width, dark in (("desktop", 1200, False), ("phone", 390, True)):
        browser.open(path.as_uri() + "#D_1:0", width, 900, dark)
        browser.wait_for(f"document.readyState === 'complete' && {OPENED}")
        # No part is wider than the window.
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        browser.photograph(tmp_path / f"{name}.png")
        assert browser.run("document.title") == "RECAP: fold_collar, seed 0"

        # Arrows: a step each way, ten with shift, not beyond the ends.
        begin = browser.run(SCENE)
        browser.press("ArrowLeft")
        assert browser.run(STEP) == 0
        for _ in range(3):
            browser.press("ArrowRight")
        assert browser.run(STEP) == 3 and browser.run(SCENE) != begin
        browser.press("ArrowLeft")
        assert browser.run(STEP) == 2
        # Another episode begins at its first step; space plays to its end and stays there.
        which = browser.run("document.querySelector('#which').value")
        browser.press("ArrowDown")
        assert browser.run("document.querySelector('#which').value") != which
        assert browser.run(STEP) == 0
        browser.run("document.querySelector('#speed').value = '4'")
        browser.press(" ")
        browser.wait_for("document.querySelector('#play').getAttribute('aria-pressed') === 'false'")
        assert browser.run(STEP) == browser.run("+document.querySelector('#step').max")

    # Every group and kind can be chosen, also where there is no such episode.
    groups = browser.run("[...document.querySelector('#group').options].map(o => o.value)")
    assert groups == ["D_0", "D_1", "before", "after"]
    for group in groups:
        for kind in ("all", "success", "failure", "corrected"):
            choose = "document.querySelector('#{0}').value = '{1}';"
            changed = "document.querySelector('#{0}').dispatchEvent(new Event('change'));"
            both = "".join(x.format("kind", kind) for x in (choose, changed))
            browser.run(both + "".join(x.format("group", group) for x in (choose, changed)))
            browser.wait_for("document.querySelector('#which').options.length > 0")
            # The button says so where V never drops, and the lines whose they are.
            words = browser.run("document.querySelector('#drop').textContent")
            disabled = browser.run("document.querySelector('#drop').disabled")
            assert disabled == (words == "no drop of V")
            shown = browser.run("document.querySelector('#tracks').textContent")
            assert not shown or ("right arm" in shown and "dashed: gripper" in shown)
    assert browser.problems == []

def test_several_runs_have_a_line_for_each_beta(tiny, browser, tmp_path):
    shutil.copytree(tiny[0], tmp_path / "a")
    path = compare([str(tmp_path / "a")])
    browser.open(Path(path).as_uri(), 1000, 900)
    browser.wait_for("document.readyState === 'complete' && !!document.querySelector('.key')")
    keys = browser.run("[...document.querySelectorAll('.key')].map(key => key.textContent)")
    assert keys == [f"seed 0, {x}" for x in ("not of RECAP", "β = 1", "β = 1.5")]
    # π_pre, π⁰ and π¹ are joined, the operators and the guided policy stand beside them.
    first = "document.querySelector('figure svg')"
    joined = browser.run(f"[...{first}.querySelectorAll('path[fill=none]')].length")
    assert joined == 1 and browser.problems == []

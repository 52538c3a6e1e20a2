"""benchmarks/: what the driver survives, and the command line."""
import types

import pytest

from benchmarks import driver
from benchmarks.__main__ import main
from benchmarks.driver import FAULTS, fuzz, soak

def test_fuzzed_commands_never_leave_the_limits():
    counts = fuzz(10_000)
    assert counts["violations"] == 0
    assert counts["rejected"] > 1_000
    assert counts["stopped"] > 25
    assert 0 < counts["clamped"] < counts["sent"]

@pytest.mark.slow
def test_fuzzed_commands_never_leave_the_limits_for_long():
    for seed, joints in enumerate((1, 2, 6)):
        assert fuzz(60_000, joints, seed)["violations"] == 0

def test_soak():
    counts = soak(10_000)
    assert counts["violations"] == 0
    assert counts["episodes"] > 15
    assert all(counts[fault] for fault in FAULTS)

@pytest.mark.slow
def test_soak_for_longer():
    for seed in (1, 2, 3):
        assert soak(60_000, seed=seed)["violations"] == 0

@pytest.mark.slow
def test_the_judge_judges_under_python_O_too():
    """There an `assert` is skipped; the soak still notices arms that were not held."""
    with open(driver.__file__, encoding="utf-8") as file:
        code = compile(file.read(), driver.__file__, "exec", optimize=1)
    optimised = types.ModuleType("driver under -O")
    exec(code, optimised.__dict__)
    optimised.WatchedArms.hold = lambda arms: setattr(arms, "held", False)
    with pytest.raises(AssertionError, match="not held at the end of an episode"):
        optimised.soak(300)

@pytest.mark.parametrize(
    "option, value",
    [("--loop", "nan"), ("--loop", "-1"), ("--loop", "inf"), ("--fuzz", "0"), ("--soak", "-3")],
)
def test_numbers_that_cannot_be(option, value, capsys):
    with pytest.raises(SystemExit) as leave:
        main([f"{option}={value}"])
    assert leave.value.code == 2
    assert f"argument {option}: {value}, expected" in capsys.readouterr().err

def test_violations_are_a_failure(monkeypatch):
    monkeypatch.setattr("benchmarks.__main__.fuzz", lambda n: {"violations": 1})
    assert main(["--fuzz", "5"]) == 1

def test_the_command_line_runs_what_it_is_asked_for(capsys):
    main(["--fuzz", "500"])
    assert "'commands': 500" in capsys.readouterr().out
    main(["--soak", "300"])
    assert "'violations': 0" in capsys.readouterr().out
    main(["--loop", "0.3"])
    printed = capsys.readouterr().out
    assert "rate" in printed and "drift" in printed

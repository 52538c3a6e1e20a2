"""lab/program.py, and what every program keeps to: one line for users, any terminal, utf-8."""
import ast
import errno
import io
import os
import shutil
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch

import recap
from data import UserError
from helpers import ROOT
from lab import annotate, cli
from lab.files import BadFile
from lab.program import run_program
from reproduce import __main__ as reproduce
from reproduce.options import UsageError
from sim_tasks.scene import SceneError
from sim_tasks.task import TaskError
from test_house import WRITTEN, read

def raising(error):
    def work(*given, **more):
        raise error

    return work

# ---------------------------------------------------------------- how a program ends

@pytest.mark.parametrize(
    "error, status, line",
    [
        (UserError("beta: -1, expected >= 0"), 2, "p: error: beta: -1, expected >= 0"),
        (OSError(errno.ENOSPC, "No space left", "x.npz"), 2, "'x.npz'; go on"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 2, "Broken pipe; go on"),
        (KeyboardInterrupt(), 130, "p: interrupted; go on"),
    ],
)
def test_what_is_not_our_fault_is_one_line(error, status, line, capsys):
    assert run_program("p", raising(error), lambda: "go on") == status
    (found,) = capsys.readouterr().err.strip().splitlines()
    assert found.endswith(line)

def test_too_little_memory_is_one_line(capsys):
    for far_too_many in (lambda: torch.empty(2**60), lambda: np.empty(2**48)):
        assert run_program("p", far_too_many, lambda: "go on") == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("p: error: out of memory, ") and line.endswith("; go on")

def test_a_fault_of_ours_keeps_its_traceback():
    """Also where it is a ValueError, as UnicodeEncodeError is."""
    encode = UnicodeEncodeError("ascii", "β", 0, 1, "ordinal not in range")
    for error in (ValueError("shapes"), encode, KeyError("V_1"), RuntimeError("torch")):
        with pytest.raises(type(error)):
            run_program("p", raising(error))
    assert run_program("p", lambda: None) == 0 and run_program("p", lambda: 3) == 3

def test_what_is_the_users_is_of_one_class():
    for kind in (BadFile, UsageError, TaskError, SceneError):
        assert issubclass(kind, UserError) and issubclass(kind, ValueError)

def test_every_main_shows_a_full_disk_in_one_line(tmp_path, monkeypatch, capsys):
    """... with the hint to go on, where there is something to go on with."""
    full = raising(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "D.npz"))
    out = str(tmp_path / "with space")
    assert cli.main(full, full, None, ["--out", out]) == 2
    line = f"recap.py: error: [Errno 28] {os.strerror(errno.ENOSPC)}: 'D.npz'; "
    assert capsys.readouterr().err == f"{line}python recap.py --resume '{out}' goes on\n"
    monkeypatch.setitem(reproduce.FIGURES, "counts", full)
    assert reproduce.main(["counts"]) == 2
    assert capsys.readouterr().err.endswith("'D.npz'; the same command goes on\n")
    monkeypatch.setattr(annotate, "read", full)
    assert annotate.main(None, None, None, ["D.npz", "--out", str(tmp_path / "new")]) == 2
    assert capsys.readouterr().err.startswith("lab.annotate: error: [Errno 28]")

def test_a_path_below_a_file_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("", encoding="utf-8")
    for arguments in (["--out", f"{tmp_path}/file/x"], ["--resume", f"{tmp_path}/file"]):
        assert cli.main(None, None, None, arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("recap.py: error: ") and f"{tmp_path}/file" in line

# ---------------------------------------------------------------- any terminal

def run(command, folder=ROOT, **environment):
    """A command of a shell.  Returns its process."""
    variables = os.environ | {"COLUMNS": "80", "PYTHON": sys.executable} | environment
    return subprocess.run(command, shell=True, cwd=folder, env=variables, capture_output=True)

@pytest.mark.slow
@pytest.mark.parametrize("program", ["recap.py", "reproduce"])
def test_help_is_shown_where_there_are_no_greek_letters(program, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    with pytest.raises(SystemExit) as leave:
        if program == "reproduce":
            reproduce.main(["--help"])
        else:
            cli.main(None, None, None, ["--help"])
    assert not leave.value.code and sys.stderr.buffer.getvalue() == b""
    assert b"?" in sys.stdout.buffer.getvalue()

PROGRAM = """
import argparse, sys
sys.path.insert(0, sys.argv[1])
from lab.program import run_program

def work():
    if sys.argv[2] == "--help":
        argparse.ArgumentParser(epilog="β " * 100000).parse_args(["--help"])
    for i in range(int(sys.argv[2])):
        print(f"β = {i}", flush=True)
    print("β", file=sys.stderr)

sys.exit(run_program("p", work, lambda: "go on"))
"""

@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")
def test_stdout_may_be_ascii_closed_full_or_cut_off(tmp_path):
    (tmp_path / "p.py").write_text(PROGRAM, encoding="utf-8")
    start = f'"$PYTHON" p.py "{ROOT}"'
    done = run(f"{start} 2", tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"? = 0\n? = 1\n", b"?\n")
    done = run(f"{start} 2 >&- 2>&-", tmp_path)
    assert done.returncode == 0
    done = run(f"({start} 100000; echo $? >&2) | head -1", tmp_path)
    assert done.stdout.decode() == "β = 0\n"
    assert done.stderr == b"p: error: [Errno 32] Broken pipe; go on\n2\n"
    if os.path.exists("/dev/full"):
        done = run(f"{start} 1 > /dev/full", tmp_path)
        assert done.returncode == 2 and done.stderr.count(b"\n") == 1

@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")
def test_help_that_is_cut_off_says_nothing_else(tmp_path):
    (tmp_path / "p.py").write_text(PROGRAM, encoding="utf-8")
    done = run(f'"$PYTHON" p.py "{ROOT}" --help | head -1', tmp_path)
    assert done.stderr == b"" and done.stdout == b"usage: p.py [-h]\n"

def test_pictures_go_to_files_whatever_the_environment_says():
    """Jupyter's backend is inherited by what is started in it."""
    matplotlib.rcParams["backend"] = "module://not_there"
    try:
        run_program("p", lambda: None)
        assert matplotlib.get_backend().lower() == "agg"
    finally:
        matplotlib.use("Agg")

# ---------------------------------------------------------------- files

def without_encoding(text):
    """Lines that open a file for text, or a process, and leave its encoding to the platform."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if "encoding" in given:
            continue
        if "text" in given and name in ("run", "Popen", "check_output"):
            found.append(node.lineno)
        if name == "open" and isinstance(node.func, ast.Name):
            mode = node.args[1:2] or [given.get("mode", ast.Constant("r"))]
            if not (isinstance(mode[0], ast.Constant) and "b" in mode[0].value):
                found.append(node.lineno)
        # lab.files.write_text, with two arguments, has the encoding itself.
        if name == "read_text" or (name == "write_text" and len(node.args) == 1):
            found.append(node.lineno)
    return found

def test_text_is_utf8_on_every_platform():
    assert without_encoding('open(x)\nopen(x, "rb")\np.read_text()\nrun(x, text=True)') == [1, 3, 4]
    ours = [path for path in WRITTEN if not path.startswith("tests")]
    ours += ["notebooks/build.py", "docs/link.py"]
    found = {path: without_encoding(read(path)) for path in ours}
    assert {path: lines for path, lines in found.items() if lines} == {}

# ---------------------------------------------------------------- make

def test_make_takes_a_python_whose_path_has_a_space(tmp_path):
    """A stand-in for python, which makes a stand-in for a virtual environment."""
    for name in ("Makefile", "requirements.txt"):
        (tmp_path / name).write_text(read(name), encoding="utf-8")
    fake = tmp_path / "my python" / "python3"
    fake.parent.mkdir()
    script = 'if [ "$2" = venv ]; then mkdir -p .venv/bin; cp "$0" .venv/bin/python; fi'
    fake.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    fake.chmod(0o755)
    done = run(f'make .venv/installed PYTHON="{fake}"', tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".venv/installed").exists()

# ---------------------------------------------------------------- the end of a run

def test_the_table_comes_before_the_pictures_and_without_them(
    tiny, tmp_path, monkeypatch, capsys
):
    shutil.copytree(tiny[0], tmp_path / "out")
    for name in cli.PICTURES:
        (tmp_path / "out" / name).unlink()

    def broken(run, metrics):
        assert "recap_1 at β = 1.5: throughput" in capsys.readouterr().out
        raise RuntimeError("no fonts")

    monkeypatch.setattr(cli, "draw_pictures", broken)
    arguments = ["--resume", str(tmp_path / "out")]
    assert cli.main(recap.recap, recap.supervised, None, arguments) == 0
    shown = capsys.readouterr()
    assert "warning: pictures are missing (RuntimeError: no fonts)" in shown.err
    assert f"{tmp_path / 'out'}: metrics.json, datasets and checkpoints" in shown.out

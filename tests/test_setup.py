"""Setting up: the search for Python, what counts as up to date, and what is said when pip fails."""

from __future__ import annotations

import importlib.util
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """`scripts/setup.py`, with its stamp in a temporary folder."""
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "scripts" / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "STAMP", tmp_path / "stamp.json")
    return module


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def find_python(search: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the search with only `search` and the system's basic tools on the path."""
    tools = search / "tools"
    tools.mkdir(parents=True, exist_ok=True)
    (tools / "cat").symlink_to("/bin/cat")
    return subprocess.run(
        ["/bin/sh", str(ROOT / "scripts" / "find_python.sh")],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.pathsep.join([str(search), str(tools)]), **environment},
    )


def test_a_shim_that_fails_is_passed_over(tmp_path: Path) -> None:
    """As pyenv's: the command exists, but calling it only prints advice."""
    executable(tmp_path / "python3.12", "echo 'pyenv: python3.12: command not found' >&2; exit 127\n")
    executable(tmp_path / "pyenv", f"echo {tmp_path}/pyenv-root\n")
    executable(
        tmp_path / "pyenv-root" / "versions" / "3.12.9" / "bin" / "python", f'exec {sys.executable} "$@"\n'
    )
    result = find_python(tmp_path)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).resolve() == Path(sys.executable).resolve()


def test_another_version_is_not_taken(tmp_path: Path) -> None:
    executable(tmp_path / "python3.12", "echo /a/python; exit 1\n")
    result = find_python(tmp_path, PYTHON=str(tmp_path / "nowhere"))
    assert result.returncode == 1
    assert result.stdout == ""
    assert "no working Python 3.12" in result.stderr
    assert f"{tmp_path}/nowhere" in result.stderr
    assert "uv python install 3.12" in result.stderr


def test_nothing_is_done_when_nothing_changed(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"lock": setup.digest(setup.LOCK.read_bytes()), "project": setup.project_digest()}
    called: list[object] = []
    monkeypatch.setattr(setup, "set_up", called.append)
    setup.STAMP.write_text(setup.json.dumps(wanted))
    setup.main()
    assert called == []
    setup.STAMP.write_text(setup.json.dumps({**wanted, "lock": "other"}))
    setup.main()
    assert called == [wanted]


def test_what_is_installed_already_is_not_installed_again(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(setup, "create_venv", lambda: None)
    monkeypatch.setattr(setup, "pip", lambda arguments, packages: commands.append(arguments))
    pins = setup.locked_pins(setup.LOCK.read_text())
    monkeypatch.setattr(setup, "installed", lambda: pins)
    setup.set_up({"lock": "a", "project": "b"})
    assert [command[-2] for command in commands] == ["--editable"]
    assert setup.stamped() == {"lock": "a", "project": "b"}

    monkeypatch.setattr(setup, "installed", lambda: {**pins, "numpy": "0.1"})
    setup.set_up({"lock": "c", "project": "b"})
    assert [command[-2] for command in commands] == ["--editable", "-r"]


def test_a_full_disk_is_refused_before_the_download(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup.sys, "platform", "linux")
    monkeypatch.setattr(setup.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    with pytest.raises(SystemExit):
        setup.check_machine()
    assert "1.0 GB free" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("Collecting x\nERROR: Could not find a version that satisfies x\n", "check the network"),
        (
            "  error: subprocess-exited-with-error\n  error: package directory 'datasets' does not exist\n",
            "'datasets'",
        ),
        ("ERROR: Could not install: [Errno 28] No space left on device\n", "free 9 GB of disk"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.\n", "was not installed"),
        ("", "pip said nothing"),
    ],
)
def test_failures_of_pip_are_told_in_one_line(setup: ModuleType, output: str, expected: str) -> None:
    reason = setup.reason(output)
    assert expected in reason
    assert "build/setup.log" in reason

"""`reflexarc doctor` finds what is really missing, and names the cure."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from reflexarc import doctor, gl_probe
from reflexarc.configs.errors import ConfigError
from reflexarc.wire.endpoints import NAMES, Endpoints


def test_report_is_whole_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "doctor.json"
    code = doctor.run_doctor(path)
    report = json.loads(path.read_text())
    assert [check["name"] for check in report["checks"]] == [
        "python",
        "gpu",
        "opengl",
        "cores",
        "clock",
        "priority",
        "memory",
        "disk",
        "ports",
    ]
    failed = [check["name"] for check in report["checks"] if check["status"] == "fail"]
    assert (code, report["ok"]) == ((1, False) if failed else (0, True))
    assert all(check["cure"] for check in report["checks"] if check["status"] != "ok")
    shown = capsys.readouterr().out
    assert all(check["name"] in shown for check in report["checks"])


def test_a_failed_check_is_a_failed_exit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = doctor.Check("disk", "fail", "0.1 GB free", "free at least 0.5 GB")
    monkeypatch.setattr(doctor, "CHECKS", (lambda: bad,))
    assert doctor.run_doctor(None) == 1
    assert "missing: disk" in capsys.readouterr().out


def test_figures_that_cannot_be_written_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "CHECKS", ())
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot write the figures to .*doctor\.json"):
        doctor.run_doctor(tmp_path / "file" / "doctor.json")


def test_loops_without_priority_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "prefer_this_process", lambda _: "none")
    check = doctor.check_priority()
    assert check.status == "warn"
    assert "rtprio" in check.cure


def test_importing_the_doctor_loads_neither_torch_nor_mujoco() -> None:
    code = "import reflexarc.doctor, sys; print([m for m in ('torch', 'mujoco') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_opengl_draws() -> None:
    check = doctor.check_opengl()
    assert check.status == "ok", check
    assert check.figures["frame_ms"] > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="shared libraries as on Linux")
def test_missing_egl_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("libEGL.so", *(f"libEGL.so.{version}" for version in range(10))):
        (tmp_path / name).touch()  # found first, and not a library
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    check = doctor.check_opengl()
    assert (check.status, check.cure) == ("fail", "apt-get install libegl1")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="drivers as on Linux")
def test_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setenv("__EGL_VENDOR_LIBRARY_FILENAMES", str(tmp_path / "none.json"))
    monkeypatch.setenv("LIBGL_DRIVERS_PATH", str(tmp_path))
    check = doctor.check_opengl()
    assert (check.status, check.cure) == ("fail", "apt-get install libgl1-mesa-dri")


def test_missing_osmesa_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gl_probe, "_loads", lambda name: False)
    assert gl_probe.cure("osmesa") == "apt-get install libosmesa6"


def test_unknown_backend_lists_the_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "vulkan")
    check = doctor.check_opengl()
    assert check.status == "fail"
    assert check.cure == "MUJOCO_GL is 'vulkan'; known: egl, glfw, osmesa"


def test_a_window_needs_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert gl_probe.cure("glfw") == "there is no display: set MUJOCO_GL=egl"


def test_a_driver_that_ends_the_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    crashed = subprocess.CompletedProcess([], -11, stdout="", stderr="")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *args, **kwargs: crashed)
    check = doctor.check_opengl()
    assert check.status == "fail"
    assert "ended the process (-11)" in check.found


def test_occupied_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        check = doctor.check_ports(Endpoints(state=f"tcp://127.0.0.1:{port}"))
    assert check.status == "fail"
    assert f"state {port}" in check.found


def test_every_endpoint_is_checked() -> None:
    addresses = doctor._addresses(Endpoints())
    assert list(addresses) == list(NAMES)
    assert {host for host, _ in addresses.values()} == {"127.0.0.1"}


@pytest.mark.parametrize(("free_gb", "status"), [(0.1, "fail"), (2.0, "warn"), (50.0, "ok")])
def test_disk(monkeypatch: pytest.MonkeyPatch, free_gb: float, status: str) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=free_gb * 1e9))
    check = doctor.check_disk()
    assert check.status == status
    assert f"{free_gb:.1f} GB" in check.found


def test_one_core_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(doctor, "_cgroup_cores", lambda: 1.5)
    check = doctor.check_cores()
    assert check.status == "warn"
    assert check.figures["cores"] == 1.5


def test_a_busy_machine_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_lateness_ns", lambda: [4_000_000] * 200)
    assert doctor.check_clock().status == "warn"


def test_a_gpu_that_torch_cannot_use_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor, "_output", lambda command: "Card, 80 GiB" if command[0] == "nvidia-smi" else "False None"
    )
    check = doctor.check_gpu()
    assert check.status == "warn"
    assert "Card, 80 GiB" in check.found


def test_missing_extras_are_named_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_installed", lambda module: module != "torch")
    check = doctor.check_python()
    assert check.status == "warn"
    console = Console(width=200)
    with console.capture() as captured:
        console.print(doctor.table([check]))
    assert "pip install 'reflexarc[policy]'" in captured.get()

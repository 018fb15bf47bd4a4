"""Does this machine have what a run needs? One row for each thing, with what to do where it falls short.

Every check makes the real thing (a rendering context, a bound port, a timed sleep) rather than looking for traces
of it. None of them changes anything. Imports neither torch nor mujoco into this process.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reflexarc.commands.options import write_json
from reflexarc.wire.clock import HOST_PRIORITY, may_keep_in_memory, prefer_this_process
from reflexarc.wire.endpoints import NAMES, Endpoints

Status = Literal["ok", "warn", "fail"]

TICK_S = 0.005
"""Period of the robot host, which the clock check sleeps by."""
_TICKS = 200
_PROBE_TIMEOUT_S = 90.0
_COLOURS: Mapping[Status, str] = {"ok": "green", "warn": "yellow", "fail": "red"}

_EXTRAS = {
    "sim": ("gymnasium",),
    "policy": ("torch", "transformers", "safetensors"),
    "view": ("rerun", "av"),
    "lerobot": ("lerobot",),
}


@dataclass(frozen=True)
class Check:
    """One finding. cure: what to do, empty where nothing is wrong. figures: what was measured, units in the names."""

    name: str
    status: Status
    found: str
    cure: str = ""
    figures: dict[str, float] = field(default_factory=dict)


def run_doctor(json_path: Path | None) -> int:
    """Run every check, print the table, write the figures; returns 1 if a check failed, else 0."""
    checks = [check() for check in CHECKS]
    console = Console()
    console.print(table(checks))
    failed = [check.name for check in checks if check.status == "fail"]
    console.print(f"missing: {', '.join(failed)}" if failed else "this machine can run reflexarc")
    write_json(json_path, {"ok": not failed, "checks": [asdict(check) for check in checks]})
    return 1 if failed else 0


def table(checks: list[Check]) -> Table:
    """The findings, one row each."""
    result = Table("check", "", "found", "what to do")
    for check in checks:
        colour = _COLOURS[check.status]
        status = f"[{colour}]{check.status}[/{colour}]"
        result.add_row(check.name, status, escape(check.found), escape(check.cure))
    return result


def check_python() -> Check:
    """CPython 3.12, and which extras are installed."""
    present = [name for name, modules in _EXTRAS.items() if all(map(_installed, modules))]
    found = f"{platform.python_implementation()} {platform.python_version()}, extras: {', '.join(present) or 'none'}"
    if sys.version_info[:2] != (3, 12):
        return Check("python", "fail", found, "use Python 3.12: make setup")
    absent = [name for name in _EXTRAS if name not in present]
    if absent:
        return Check(
            "python", "warn", found, f"for all commands: pip install 'reflexarc[{','.join(absent)}]'"
        )
    return Check("python", "ok", found)


def check_gpu() -> Check:
    """An NVIDIA GPU that torch can use; without one the small policy runs on the CPU."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    gpus = _output(query)
    if not gpus:
        return Check("gpu", "ok", "none: policies run on the CPU")
    names = "; ".join(gpus.splitlines())
    seen = _output(
        [sys.executable, "-c", "import torch; print(torch.cuda.is_available(), torch.version.cuda)"]
    )
    if seen.startswith("True"):
        return Check(
            "gpu", "ok", f"{names}; CUDA {seen.split()[-1]}", figures={"gpus": len(gpus.splitlines())}
        )
    return Check("gpu", "warn", f"{names}, which torch cannot use", "update the NVIDIA driver (nvidia-smi)")


def check_opengl() -> Check:
    """A real off-screen MuJoCo picture, in a process of its own; names the Debian package that is missing."""
    backend = os.environ.get("MUJOCO_GL") or "egl"
    command = [sys.executable, "-m", "reflexarc.gl_probe"]
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
            env={**os.environ, "MUJOCO_GL": backend},
        )
    except subprocess.TimeoutExpired:
        return Check(
            "opengl", "fail", f"{backend}: no picture in {_PROBE_TIMEOUT_S:.0f} s", "set MUJOCO_GL=osmesa"
        )
    try:
        report = json.loads(result.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return Check(
            "opengl",
            "fail",
            f"{backend}: the driver ended the process ({result.returncode})",
            "set MUJOCO_GL=osmesa",
        )
    if "error" in report:
        return Check("opengl", "fail", f"{backend}: {report['error']}", report["cure"])
    figures = {"frame_ms": float(report["frame_ms"])}
    if report["red_mean"] < 10.0:
        return Check(
            "opengl", "fail", f"{backend}: {report['renderer']} draws black pictures", "set MUJOCO_GL=osmesa"
        )
    return Check(
        "opengl",
        "ok",
        f"{backend}: {report['renderer']}, {report['frame_ms']:.2f} ms a frame",
        figures=figures,
    )


def check_cores() -> Check:
    """Processor cores that this process may use, container limits included."""
    cores = float(len(os.sched_getaffinity(0)))
    quota = _cgroup_cores()
    usable = min(cores, quota) if quota else cores
    found = f"{usable:g} cores, load {os.getloadavg()[0]:.1f}"
    figures = {"cores": usable, "load_1min": os.getloadavg()[0]}
    if usable < 2:
        return Check("cores", "warn", found, "real time needs 2 cores; use --clock virtual", figures)
    return Check("cores", "ok", found, figures=figures)


def check_clock() -> Check:
    """The monotonic clock's resolution, and how late a sleep until an absolute deadline wakes up."""
    resolution_ns = time.get_clock_info("monotonic").resolution * 1e9
    late = sorted(_lateness_ns())
    p50, p99, worst = (late[int(q * (len(late) - 1))] / 1e6 for q in (0.5, 0.99, 1.0))
    found = f"{resolution_ns:.0f} ns resolution; {TICK_S * 1e3:.0f} ms sleeps late by p50 {p50:.2f}, p99 {p99:.2f} ms"
    figures = {"resolution_ns": resolution_ns, "late_p50_ms": p50, "late_p99_ms": p99, "late_max_ms": worst}
    if resolution_ns > 1e6:
        return Check(
            "clock", "fail", found, "the monotonic clock is too coarse: use --clock virtual", figures
        )
    if p99 > TICK_S * 1e3 / 2:
        return Check(
            "clock", "warn", found, "other programs hold the cores; real-time ticks will be late", figures
        )
    return Check("clock", "ok", found, figures=figures)


def check_priority() -> Check:
    """Whether loops with deadlines may run before other programs; asked by a thread that ends at once."""
    granted: list[str] = []
    thread = threading.Thread(target=lambda: granted.append(prefer_this_process(HOST_PRIORITY)))
    thread.start()
    thread.join()
    if granted == ["fifo"]:
        return Check("priority", "ok", "loops run under SCHED_FIFO")
    found = (
        "loops get a raised share only" if granted == ["nice"] else "loops share the cores with every program"
    )
    return Check("priority", "warn", found, "allow `rtprio` 30 in /etc/security/limits.conf, or run as root")


def check_memory() -> Check:
    """Whether loops with deadlines may keep their pages in memory."""
    if may_keep_in_memory():
        return Check("memory", "ok", "loops keep their pages in memory")
    found = "the kernel may drop pages of loops, which then wait for the disk"
    return Check(
        "memory", "warn", found, "allow `memlock` unlimited in /etc/security/limits.conf, or run as root"
    )


def check_disk() -> Check:
    """Free space where `runs/` goes, and that it can be written."""
    place = Path.cwd()
    free_gb = shutil.disk_usage(place).free / 1e9
    found, figures = f"{free_gb:.1f} GB free at {place}", {"free_gb": free_gb}
    if not os.access(place, os.W_OK):
        return Check("disk", "fail", f"{place} cannot be written", "change to a folder of yours", figures)
    if free_gb < 0.5:
        return Check("disk", "fail", found, "free at least 0.5 GB", figures)
    if free_gb < 5:
        return Check("disk", "warn", found, "collecting and training need about 5 GB", figures)
    return Check("disk", "ok", found, figures=figures)


def check_ports(endpoints: Endpoints | None = None) -> Check:
    """The default loopback ports, by binding each."""
    addresses = _addresses(endpoints or Endpoints())
    taken = {name: port for name, (host, port) in addresses.items() if not _can_bind(host, port)}
    if taken:
        listed = ", ".join(f"{name} {port}" for name, port in taken.items())
        return Check(
            "ports", "fail", f"in use: {listed}", "end the other run, or give this one another base port"
        )
    ports = [port for _, port in addresses.values()]
    return Check("ports", "ok", f"{min(ports)}-{max(ports)} on loopback are free")


CHECKS: tuple[Callable[[], Check], ...] = (
    check_python,
    check_gpu,
    check_opengl,
    check_cores,
    check_clock,
    check_priority,
    check_memory,
    check_disk,
    check_ports,
)


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _output(command: list[str]) -> str:
    """Standard output of `command`, empty if it cannot be run, fails or takes too long."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip()


def _cgroup_cores() -> float | None:
    """Cores that the container's quota allows, None without one (cgroup v2: `max` or `<quota> <period>`)."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else float(quota) / float(period)


def _lateness_ns() -> list[int]:
    """How late each of `_TICKS` sleeps until an absolute deadline woke up, in nanoseconds."""
    period = round(TICK_S * 1e9)
    due = time.monotonic_ns() + period
    late = []
    for _ in range(_TICKS):
        time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
        now = time.monotonic_ns()
        late.append(max(0, now - due))
        due = max(due + period, now)
    return late


def _addresses(endpoints: Endpoints) -> dict[str, tuple[str, int]]:
    """`{socket: (host, port)}` of every socket on a TCP port that is known beforehand."""
    found = {}
    for name in NAMES:
        scheme, _, rest = getattr(endpoints, name).partition("://")
        host, _, port = rest.rpartition(":")
        if scheme == "tcp" and port.isdecimal():
            found[name] = (host, int(port))
    return found


def _can_bind(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True

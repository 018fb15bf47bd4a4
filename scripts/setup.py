"""Make `.venv` hold exactly what `requirements/lock.txt` pins, and this checkout as an editable install.

Run by `make` with any Python 3.12 (standard library only). When nothing has changed since the last run it does
nothing and returns within a tenth of a second. An interrupted run is taken up where it stopped. Output is a line
of progress; everything that pip says goes to `build/setup.log`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements" / "lock.txt"
LOG = ROOT / "build" / "setup.log"
STAMP = VENV / "reflexarc-setup.json"
NEEDED_BYTES = 9_000_000_000
"""Measured on Linux x86-64: 6.0 GB in `.venv`, and up to 3 GB of downloads on the way."""

ADVICE = {
    "No space left": f"free {NEEDED_BYTES / 1e9:.0f} GB of disk and run it again; ",
    "DO NOT MATCH THE HASHES": "a package differs from the one that was locked, and was not installed; ",
    "Could not find a version": "check the network or the package index and run it again; ",
    "No matching distribution": "check the network or the package index and run it again; ",
    "connection": "check the network and run it again; ",
}
"""By a sign in pip's output: what to do."""

# Prints `{name: version}` of everything installed in the interpreter that runs it.
_LIST_INSTALLED = """
import importlib.metadata, json, re
print(json.dumps({re.sub(r"[-_.]+", "-", d.name).lower(): d.version for d in importlib.metadata.distributions()}))
"""


def main() -> None:
    """Bring `.venv` up to date; exits 1 with one clear message if that cannot be done."""
    wanted = {"lock": digest(LOCK.read_bytes()), "project": project_digest()}
    if stamped() == wanted and PYTHON.exists():
        return
    LOG.parent.mkdir(exist_ok=True)
    with (LOG.parent / "setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamped() != wanted:
            set_up(wanted)


def set_up(wanted: Mapping[str, str]) -> None:
    """Create, install, stamp: each step only if it is needed."""
    done = stamped()
    create_venv()
    pins = locked_pins(LOCK.read_text())
    present = installed()
    if done.get("lock") != wanted["lock"] and any(present.get(n) != v for n, v in pins.items()):
        check_machine()
        install_lock(len(pins))
    if done.get("project") != wanted["project"]:
        install_project()
    STAMP.write_text(json.dumps(wanted))
    say("ready")


def create_venv() -> None:
    """Make `.venv` if there is none that runs Python 3.12; a broken one is rebuilt."""
    probe = [str(PYTHON), "-c", "import sys, pip; sys.exit(sys.version_info[:2] != (3, 12))"]
    if PYTHON.exists() and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return
    again = VENV.exists()
    say(f"{'rebuilding' if again else 'creating'} .venv with Python {platform.python_version()}")
    command = [sys.executable, "-m", "venv", *(["--clear"] if again else []), str(VENV)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        fail(f"cannot create .venv: {(result.stderr or result.stdout).strip().splitlines()[-1:]}")


def check_machine() -> None:
    """Refuse early what would fail after minutes of download."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        fail(
            f"the lock is for Linux on x86-64, this is {platform.system()} on {platform.machine()}; "
            "`scripts/lock.sh` makes one for this machine"
        )
    free = shutil.disk_usage(ROOT).free
    if free < NEEDED_BYTES:
        fail(f"{free / 1e9:.1f} GB free at {ROOT}; {NEEDED_BYTES / 1e9:.0f} GB are needed")


def install_lock(packages: int) -> None:
    """Install every pin, hashes checked, nothing else."""
    say(f"installing {packages} packages (about 3 GB to download, a few minutes the first time)")
    pip(["--no-deps", "--require-hashes", "-r", str(LOCK)], packages)


def install_project() -> None:
    """Install this checkout as an editable package, with the setuptools that the lock pins."""
    say("installing reflexarc from this folder")
    pip(["--no-deps", "--no-build-isolation", "--editable", str(ROOT)], 1)


def pip(arguments: list[str], packages: int) -> None:
    """Run `pip install` with its words in the log and a count of fetched packages on the screen."""
    command = [str(PYTHON), "-m", "pip", "install", "--no-input", "--progress-bar", "off", *arguments]
    environment = {**os.environ, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    with LOG.open("a") as log:
        log.write(f"\n$ pip install {' '.join(arguments)}\n")
        log.flush()
        start = log.tell()
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=ROOT)
        try:
            watch(process, start, packages)
        except KeyboardInterrupt:
            process.terminate()
            process.wait(timeout=30)
            fail("interrupted; run the same command again to go on")
    if process.returncode != 0:
        fail(reason(LOG.read_bytes()[start:].decode(errors="replace")))


def watch(process: subprocess.Popen[bytes], start: int, packages: int) -> None:
    """Report progress until pip ends: in place on a terminal, else a line every 20 s."""
    terminal = sys.stdout.isatty()
    began = shown = time.monotonic()
    while process.poll() is None:
        time.sleep(0.2)
        now = time.monotonic()
        if now - shown < (0.5 if terminal else 20):
            continue
        shown = now
        text = LOG.read_bytes()[start:].decode(errors="replace")
        fetched = len(re.findall(r"^(?:Collecting|Processing|Requirement already) ", text, re.MULTILINE))
        stage = "unpacking" if "Installing collected packages" in text else "fetching"
        line = f"{stage}: {min(fetched, packages)} of {packages} packages, {now - began:.0f} s"
        if terminal:
            print(f"\r\033[Ksetup: {line}", end="", flush=True)
        else:
            say(line)
    if terminal:
        print("\r\033[K", end="")


def reason(output: str) -> str:
    """The line of pip's output that tells what went wrong, and what usually cures it."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error: ") and " " in line[7:]]
    cause = (errors or lines or ["pip said nothing"])[0 if errors else -1][:300]
    advice = next((text for sign, text in ADVICE.items() if sign in output), "")
    return f"pip failed: {cause}\n{advice}all of its output: {LOG.relative_to(ROOT)}"


def locked_pins(text: str) -> dict[str, str]:
    """`{name: version}` of a lock file, names normalised."""
    found = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def installed() -> dict[str, str]:
    """`{name: version}` of what `.venv` holds, names normalised."""
    result = subprocess.run([str(PYTHON), "-c", _LIST_INSTALLED], capture_output=True, text=True, check=True)
    versions: dict[str, str] = json.loads(result.stdout)
    return versions


def project_digest() -> str:
    """Hash of what an editable install depends on: the package's metadata and where this checkout stands."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    relevant = [project["build-system"], project["project"], project["tool"]["setuptools"], str(ROOT)]
    return digest(json.dumps(relevant, sort_keys=True).encode())


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def stamped() -> dict[str, str]:
    """What the last complete run had installed; empty if there was none."""
    try:
        stamp: dict[str, str] = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return stamp


def say(text: str) -> None:
    """One line of progress."""
    print(f"setup: {text}", flush=True)


def fail(text: str) -> NoReturn:
    """End with a message on standard error."""
    print(f"setup: {text}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()

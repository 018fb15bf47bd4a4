"""The processes of a run do not outlive whoever started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

STARTER = """
import sys, time
from pathlib import Path
from reflexarc.processes import Processes

if __name__ == "__main__":
    with Processes(Path(sys.argv[1])) as processes:
        processes.start("sleeper", time.sleep, 600)
        print(processes.pid("sleeper"), flush=True)
        time.sleep(600)
"""


def is_running(pid: int) -> bool:
    """Whether it is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_starter_takes_its_processes_with_it(tmp_path: Path) -> None:
    script = tmp_path / "starter.py"
    script.write_text(STARTER)
    starter = subprocess.Popen([sys.executable, script, tmp_path / "logs"], stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    deadline = time.monotonic() + 60
    while not (tmp_path / "logs" / "sleeper.log").exists():  # it runs its own code from here on
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert is_running(pid)
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait(10)
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)

"""The processes of a run do not outlive whoever started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

STARTER = """
import os, sys, time
from pathlib import Path
from reflexarc.pool import run_jobs
from reflexarc.processes import Processes

def work(folder):
    (folder / f"worker-{os.getpid()}").touch()
    time.sleep(600)

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with Processes(folder) as processes:
        processes.start("sleeper", time.sleep, 600)
        (folder / f"worker-{processes.pid('sleeper')}").touch()
        list(run_jobs(work, [folder, folder], workers=2, title="sleeping"))
"""


def is_running(pid: int) -> bool:
    """Whether it is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_starter_takes_its_processes_and_workers_with_it(tmp_path: Path) -> None:
    script = tmp_path / "starter.py"
    script.write_text(STARTER)
    logs = tmp_path / "logs"
    starter = subprocess.Popen([sys.executable, script, logs])
    deadline = time.monotonic() + 60
    # The sleeper's log: it runs its own code from here on.
    while len(list(logs.glob("worker-*"))) < 3 or not (logs / "sleeper.log").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    pids = [int(path.name.partition("-")[2]) for path in logs.glob("worker-*")]
    assert all(is_running(pid) for pid in pids)
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait(10)
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)

"""Who may ask the robot host for what: a key for each role, kept where only the same user of the computer can read it.

    observer     anybody who reaches the console: look, hold, stop. To stop an arm must never need a key
    operator     let it move, let it move slower, switch it off
    supervisor   also unlatch a stop

A policy server, a controller, a teleoperator are given no key, and ask for nothing: limits and resets never come from
them.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from reflexarc.configs.errors import WireError
from reflexarc.wire.messages import HostAction

Role = Literal["observer", "operator", "supervisor"]
RANK: dict[Role, int] = {"observer": 0, "operator": 1, "supervisor": 2}
NEEDS: dict[HostAction, Role] = {
    "status": "observer",
    "hold": "observer",
    "e_stop": "observer",
    "enable": "operator",
    "disable": "operator",
    "reduce": "operator",
    "speed": "operator",
    "shutdown": "operator",
    "reset": "supervisor",
}


class Keys:
    """The keys of one robot host."""

    def __init__(self, by_role: dict[Role, str] | None = None) -> None:
        """New random ones, unless they are named."""
        self.by_role = by_role or {role: secrets.token_hex(16) for role in RANK if role != "observer"}

    def role(self, key: str) -> Role:
        """Whose key this is; `observer` for none or an unknown one."""
        for role, expected in self.by_role.items():
            if hmac.compare_digest(key.encode(), expected.encode()):
                return role
        return "observer"

    def refusal(self, action: HostAction, key: str) -> str:
        """Why the holder of `key` may not ask for `action`; empty if he may."""
        role, needs = self.role(key), NEEDS[action]
        if RANK[role] >= RANK[needs]:
            return ""
        return f"{action} refused: it takes the key of the {needs}, this request came from an {role}"


def key_file(console: str) -> Path:
    """Where the keys of the host with this console address are kept."""
    base = os.environ.get("XDG_RUNTIME_DIR") or Path.home() / ".cache"
    return Path(base) / "reflexarc" / "keys" / (re.sub(r"[^A-Za-z0-9.]+", "_", console) + ".json")


@contextlib.contextmanager
def kept(keys: Keys, console: str) -> Iterator[None]:
    """Keep the keys in their file, readable by this user only, for as long as the host runs."""
    path = key_file(console)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(keys.by_role, file)
    except OSError as error:
        raise WireError(f"cannot keep the console's keys in {path}: {error.strerror}") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def find_key(console: str, role: Role) -> str:
    """The key of `role` for the host at this console address; empty if its file is not there or not ours to read."""
    try:
        kept_keys = json.loads(key_file(console).read_text())
    except (OSError, ValueError):
        return ""
    key = kept_keys.get(role, "") if isinstance(kept_keys, dict) else ""
    return key if isinstance(key, str) else ""

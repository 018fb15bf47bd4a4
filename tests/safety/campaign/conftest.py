"""Options of the long campaign: pytest -m slow tests/safety/campaign --commands 10000000 --seed 0 --workers 2."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("campaign")
    group.addoption("--seed", type=int, default=0, help="of all that the senders draw")
    group.addoption("--commands", type=int, default=10_000_000, help="how many to filter")
    group.addoption("--workers", type=int, default=2, help="processes")
    group.addoption(
        "--campaign-record", default="", help="JSON lines of finished chunks; goes on where it ends"
    )
    group.addoption("--campaign-json", default="", help="where the summary goes")

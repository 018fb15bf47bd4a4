"""Roles on the console: anybody may stop, a key moves, another one unlatches; keys are readable by their user only."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import get_args

import pytest

from reflexarc.configs.errors import WireError
from reflexarc.wire.messages import HostAction
from reflexarc.wire.roles import NEEDS, Keys, find_key, kept, key_file

CONSOLE = "tcp://127.0.0.1:27102"
STOPS = {"status", "hold", "e_stop"}


def test_every_action_has_a_role() -> None:
    assert set(NEEDS) == set(get_args(HostAction))


@pytest.mark.parametrize("action", get_args(HostAction))
def test_without_a_key_one_may_only_look_and_stop(action: HostAction) -> None:
    keys = Keys()
    for key in ("", "guessed", keys.by_role["operator"][:-1]):
        assert (keys.refusal(action, key) == "") == (action in STOPS)


def test_only_the_supervisor_unlatches() -> None:
    keys = Keys()
    assert "takes the key of the supervisor" in keys.refusal("reset", keys.by_role["operator"])
    assert keys.refusal("enable", keys.by_role["operator"]) == ""
    assert keys.refusal("reset", keys.by_role["supervisor"]) == ""
    assert Keys().by_role != keys.by_role


def test_keys_are_found_while_the_host_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    keys = Keys()
    assert find_key(CONSOLE, "operator") == ""
    with kept(keys, CONSOLE):
        assert find_key(CONSOLE, "operator") == keys.by_role["operator"]
        assert find_key("tcp://127.0.0.1:1", "operator") == ""
        assert stat.S_IMODE(key_file(CONSOLE).stat().st_mode) == 0o600
        with kept(Keys(), CONSOLE):  # a host that died left its file
            assert find_key(CONSOLE, "operator") != keys.by_role["operator"]
    assert find_key(CONSOLE, "operator") == ""


def test_a_place_where_keys_cannot_be_kept_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    with pytest.raises(WireError, match="cannot keep the console's keys"), kept(Keys(), CONSOLE):
        pass

"""A session folder: the index says what the files say, and nothing depends on it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from contracts.episode_bench import METADATA, OUTCOME, every_message, motion, written
from reflexarc.configs.errors import LogError
from reflexarc.datasets.session import INDEX_FILE, Session
from reflexarc.datasets.writer import EpisodeWriter

HERE = np.array([0.45, 0.0, 0.25, 0.0, 1.0, 0.0, 0.0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    written(tmp_path / "a.mcap", every_message())
    written(tmp_path / "lift" / "b.mcap", motion(lambda _: HERE, 0.2), outcome={"success": False})
    writer = EpisodeWriter(tmp_path / "cut.mcap", METADATA)
    writer.abandon()
    (tmp_path / "rubbish.mcap").write_bytes(b"rubbish")
    return tmp_path


def test_every_log_is_listed_also_those_that_are_cut_or_unreadable(folder: Path) -> None:
    session = Session(folder)
    assert [entry.file for entry in session.episodes] == ["a.mcap", "cut.mcap", "lift/b.mcap", "rubbish.mcap"]
    a, cut, b, rubbish = session.episodes
    assert (a.success, a.time_s, a.task, a.seed, a.policy) == (True, OUTCOME["time_s"], "lift", 7, "expert")
    assert a.instruction == "lift the red cube"
    assert a.messages == len(every_message())
    assert (b.success, b.is_cut, b.error) == (False, False, "")
    assert (cut.success, cut.is_cut, cut.instruction) == (None, True, "lift it")
    assert "is not an episode log" in rubbish.error
    assert [reader.path.name for reader in session.readers()] == ["a.mcap", "cut.mcap", "b.mcap"]
    with pytest.raises(LogError, match="no such session folder"):
        Session(folder / "nowhere")


def test_the_index_can_be_deleted_damaged_or_stale(folder: Path) -> None:
    entries = Session(folder).episodes
    index = folder / INDEX_FILE
    text = index.read_text()
    for content in ("", "[]", '{"version": 99}', text[: len(text) // 2], text.replace('"seed"', '"sead"')):
        index.write_text(content)
        assert Session(folder).episodes == entries
    index.unlink()
    assert Session(folder).episodes == entries
    assert index.read_text() == text
    (folder / "lift" / "b.mcap").unlink()
    (folder / "a.mcap").unlink()
    written(folder / "a.mcap", every_message(), outcome={"success": False})
    changed = {entry.file: entry for entry in Session(folder).episodes}
    assert set(changed) == {"a.mcap", "cut.mcap", "rubbish.mcap"}
    assert changed["a.mcap"].success is False


def test_an_unchanged_folder_is_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = Session(folder).episodes
    before = (folder / INDEX_FILE).stat().st_mtime_ns
    monkeypatch.setattr("reflexarc.datasets.session.EpisodeReader", None)
    assert Session(folder).episodes == entries
    assert (folder / INDEX_FILE).stat().st_mtime_ns == before
    os.utime(folder / "a.mcap")
    with pytest.raises(TypeError):
        Session(folder)

"""A log that gets other labels never has a size again that it had: the training cache knows logs by name and size."""

from __future__ import annotations

from pathlib import Path

from contracts.episode_bench import METADATA, OUTCOME, every_message
from reflexarc.datasets.format import RELABELLED
from reflexarc.datasets.reader import EpisodeReader
from reflexarc.datasets.relabel import Labels, relabel
from reflexarc.datasets.writer import EpisodeWriter


def size_after_relabelling(log: Path, size_before: int) -> int:
    """Of a log in small chunks that had `size_before` bytes when it was relabelled earlier, and is once more."""
    log.unlink(missing_ok=True)
    earlier = {"at": "", "was": {"success": False}, "size": size_before}
    writer = EpisodeWriter(log, METADATA | {RELABELLED: [earlier]}, fsync=False)
    for seed in range(3):
        for topic, message in every_message(seed):
            writer.write(topic, message)
            writer.sync()
    writer.close(OUTCOME)
    live = log.stat().st_size
    relabel(log, Labels(success=False))
    assert log.stat().st_size < live  # in fewer chunks
    assert [change["size"] for change in EpisodeReader(log).metadata[RELABELLED]] == [size_before, live]
    return log.stat().st_size


def test_no_size_that_a_log_ever_had_comes_again(tmp_path: Path) -> None:
    log = tmp_path / "a.mcap"
    size = size_after_relabelling(log, 0)
    size = size_after_relabelling(log, size)  # as many digits as the next
    assert size_after_relabelling(log, size - 1) == size
    assert size_after_relabelling(log, size) != size
    assert len(list(EpisodeReader(log).messages())) == 3 * len(every_message())

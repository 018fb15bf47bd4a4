"""The lint's report as one HTML file: no script, no font, no picture from elsewhere; it opens without a network.

Beside it stand Rerun recordings of what is around each finding, to which the page links.
"""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Iterator
from html import escape
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from reflexarc.configs.errors import LogError, WireError
from reflexarc.datasets.format import CAMERA_PREFIX
from reflexarc.datasets.lint.findings import RULES, Finding, look_at
from reflexarc.datasets.lint.plots import plot_finding
from reflexarc.datasets.lint.run import Report
from reflexarc.datasets.lint.signals import EpisodeSignals, read_signals
from reflexarc.datasets.reader import Column, EpisodeReader
from reflexarc.datasets.video import write_aside
from reflexarc.wire.images import decode_image
from reflexarc.wire.messages import CameraFrame

_THUMB = 150
"""Height of a thumbnail, pixels."""

_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1100px; padding: 0 1em; color: #1c1e21; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .3em .6em; border-bottom: 1px solid #ddd; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
tr.none { color: #999; }
h2 { margin-top: 2em; border-top: 2px solid #1c1e21; padding-top: .4em; font-size: 1.1em; }
.finding { margin: 1em 0 1.6em; padding-left: .9em; border-left: 4px solid #e69f00; }
.finding.error { border-color: #d55e00; }
.badge { font-weight: 600; color: #9a6a00; } .error .badge, td.error { color: #b34a00; }
.show { display: flex; flex-wrap: wrap; gap: 12px; align-items: flex-start; margin-top: .5em; }
figure { margin: 0; } figcaption { font-size: 12px; color: #666; }
img { height: 150px; image-rendering: pixelated; border-radius: 4px; }
code { background: #f3f3f5; padding: .1em .35em; border-radius: 3px; user-select: all; }
"""


class Recordings:
    """Rerun recordings of what is around the findings, in a folder beside the page."""

    def __init__(self, page: Path) -> None:
        """Raises LogError if Rerun is not installed."""
        from reflexarc.datasets.rerun_view import start_of, write_rrd

        self._start_of, self._write = start_of, write_rrd
        self.folder = page.with_name(f"{page.stem}-rerun")
        self.made: dict[Path, None] = {}

    def link(self, reader: EpisodeReader, item: Finding) -> str:
        """Where the page finds the recording of a finding; it is written unless it was for another one."""
        begin, end = self._start_of(reader)
        at_s = min(item.time_s, (end - begin) * 1e-9)
        path = self.folder / Path(item.episode).with_suffix("") / f"at-{at_s:.2f}.rrd"
        if path not in self.made:
            self._write(reader, path, at_s)
            self.made[path] = None
        return quote(path.relative_to(self.folder.parent).as_posix())


def write_html(report: Report, path: Path, recordings: Recordings | None = None) -> None:
    """Write the report, whole or not at all; the logs that findings are about are read once more for their pictures.

    recordings: what each finding links to, written first. Raises LogError if a file cannot be written.
    """
    page = "\n".join(_page(report, recordings))
    write_aside(path, lambda target: target.write_text(page, encoding="utf-8"), (OSError,))


def _page(report: Report, recordings: Recordings | None) -> Iterator[str]:
    bad = len({item.episode for item in report.findings})
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield f"<title>Lint of {escape(str(report.folder))}</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>{escape(str(report.folder))}</h1>"
    yield (
        f"<p>{len(report.entries)} episodes, {bad} with findings: {report.errors} errors, "
        f"{report.warnings} warnings.</p>"
    )
    if recordings is not None and report.findings:
        yield (
            "<p>Each finding links to a Rerun recording of what is around it, the instant marked on its time line; "
            "<code>rerun FILE.rrd</code> opens one.</p>"
        )
    yield from _summary(report)
    by_episode: dict[str, list[Finding]] = defaultdict(list)
    for item in report.findings:
        by_episode[item.episode].append(item)
    for episode, findings in by_episode.items():
        yield from _episode(report.folder, episode, findings, recordings)
    yield "</body></html>"


def _summary(report: Report) -> Iterator[str]:
    """Every rule, also those that found nothing: what was looked for is part of the answer."""
    first: dict[str, str] = {}
    for item in report.findings:
        first.setdefault(item.rule, item.episode)
    yield "<table><tr><th>rule</th><th>severity</th><th>episodes</th><th>what</th><th>limit</th><th>because</th></tr>"
    for rule, count in report.counts().items():
        row = RULES[rule]
        name = f'<a href="#{_anchor(first[rule])}">{rule}</a>' if count else rule
        limit = f"{row.limit:g} {row.unit}".strip() if row.unit else ""
        yield (
            f'<tr class="{"" if count else "none"}"><td>{name}</td><td class="{row.severity}">{row.severity}</td>'
            f'<td class="n">{count}</td><td>{escape(row.what)}</td><td>{escape(limit)}</td>'
            f"<td>{escape(row.reason)}</td></tr>"
        )
    yield "</table>"
    if report.not_compared:
        tasks = ", ".join(task or "without a name" for task in report.not_compared)
        yield f"<p>Too few successes to tell what is unlike them (rule outlier not judged): {escape(tasks)}.</p>"


def _episode(
    folder: Path, episode: str, findings: list[Finding], recordings: Recordings | None
) -> Iterator[str]:
    yield f'<h2 id="{_anchor(episode)}">{escape(episode)}</h2>'
    signals: EpisodeSignals | None = None
    pictures: dict[str, Column] = {}
    if any(item.rule != "unreadable" for item in findings):
        try:
            reader = EpisodeReader(folder / episode)
            signals = read_signals(reader)
            pictures = reader.columns([CAMERA_PREFIX + name for name in reader.cameras])
        except LogError as error:
            yield f"<p>No picture and no plot: {escape(str(error))}</p>"
    for item in findings:
        yield f'<div class="finding {item.severity}"><span class="badge">{item.severity}: {item.rule}</span>'
        yield f"at {item.time_s:.2f} s. {escape(item.text)}.<br>{_measure(item)}"
        if signals is not None:
            if recordings is not None:
                yield _link(recordings, reader, item)
            yield f"<code>{escape(look_at(folder, item))}</code>"
            yield '<div class="show">'
            yield from (_thumbnail(column, signals, item.time_s) for column in pictures.values())
            yield plot_finding(item, signals)
            yield "</div>"
        yield "</div>"


def _link(recordings: Recordings, reader: EpisodeReader, item: Finding) -> str:
    try:
        place = recordings.link(reader, item)
    except LogError as error:
        return f"No recording: {escape(str(error))}. "
    return f'<a href="{place}" type="application/x-rerun">{item.time_s:.2f} s in Rerun</a>, or '


def _measure(item: Finding) -> str:
    if not item.unit:
        return ""
    return f"Value {item.value:.3g}, limit {item.limit:g} {escape(item.unit)}. "


def _thumbnail(column: Column, signals: EpisodeSignals, at_s: float) -> str:
    """The latest picture at or before a time, else the first, as a data URI."""
    at_ns = signals.start_ns + round(at_s * 1e9)
    index = max(0, int((column.times_ns <= at_ns + 1000).sum()) - 1)
    name = escape(column.topic.removeprefix(CAMERA_PREFIX))
    frame = column.message(index)
    try:
        if not isinstance(frame, CameraFrame):
            raise WireError(f"{column.topic} holds a {type(frame).__name__}")
        image = Image.fromarray(decode_image(frame))
    except WireError as error:
        return f"<figure><figcaption>{name}: {escape(str(error))}</figcaption></figure>"
    if image.height > _THUMB:
        image = image.resize((max(1, round(image.width * _THUMB / image.height)), _THUMB))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88, subsampling=0)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    seconds = (frame.t_capture_ns - signals.start_ns) * 1e-9
    return (
        f'<figure><img alt="{name}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{name}, {seconds:.2f} s, number {frame.seq}</figcaption></figure>"
    )


def _anchor(episode: str) -> str:
    return "e-" + "".join(char if char.isalnum() else "-" for char in episode)

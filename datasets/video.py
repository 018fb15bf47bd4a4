"""Episodes as things to look at: an H.264 .mp4, and a contact sheet, one row an episode, as PNG.

Needs the extra `view` for video (PyAV); the contact sheet needs Pillow alone. Files are written aside and renamed, so a
failure leaves none half-written. Knows nothing of logs: it is given frames.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from reflexarc.configs.errors import LogError

Frame = NDArray[np.uint8]
"""(height, width, 3) uint8 RGB."""

_CRF = "20"
"""x264's constant rate factor: 18 to 23 is held to be visually good (FFmpeg wiki, "Encode/H.264")."""

_BACKGROUND = (247, 247, 248)
_INK = (28, 30, 33)
_FAINT = (120, 124, 130)
_GOOD = (31, 145, 78)
_BAD = (200, 50, 47)
_OPEN = (140, 144, 150)
_MARGIN = 24
_GAP = 6
_TITLE_HEIGHT = 34
_ROW_GAP = 22
_BADGE = 18
_BAR = (24, 26, 29)
_SAFETY_INK = {
    "active": (102, 187, 106),
    "reduced": (212, 225, 87),
    "hold": (255, 238, 88),
    "protective_stop": (255, 167, 38),
    "e_stop": (239, 83, 80),
}
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One episode of a contact sheet.

    title: the instruction. frames: the whole episode, (height, width, 3) uint8; evenly spaced ones are shown.
    success: True, False, or None where nobody judged. note: a few words at the right end, such as the time.
    """

    title: str
    frames: Sequence[Frame]
    success: bool | None = None
    note: str = ""


def write_mp4(frames: Iterable[Frame], path: Path, fps: float) -> None:
    """Encode frames of one size as H.264 (yuv420p, plays everywhere); sides are made even by repeating an edge.

    Raises LogError if there is no frame, a frame has another size, fps is not above 0, or the disk is full.
    """
    try:
        import av
    except ImportError as error:
        raise LogError("writing a video needs PyAV: pip install 'reflexarc[view]'") from error
    if not fps > 0:
        raise LogError(f"{path}: fps is {fps}; must be above 0")

    def encode(target: Path) -> None:
        size: tuple[int, int] | None = None
        with av.open(str(target), mode="w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
            stream.pix_fmt = "yuv420p"
            stream.options = {"crf": _CRF, "preset": "veryfast"}
            for image in frames:
                even = _even(image)
                if size is None:
                    size = image.shape[0], image.shape[1]
                    stream.height, stream.width = even.shape[:2]
                elif size != image.shape[:2]:
                    raise LogError(f"{path}: a frame is {image.shape[:2]} after frames of {size}")
                container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
            if size is None:
                raise LogError(f"{path}: no frame to write a video of")
            container.mux(stream.encode())

    write_aside(path, encode, (OSError, av.FFmpegError))


def contact_sheet(
    rows: Sequence[SheetRow], path: Path, *, columns: int = 8, tile: int = 168, heading: str = ""
) -> None:
    """Draw one row an episode, `columns` frames from first to last, with a mark for success or failure.

    tile: width of a frame, pixels. Raises LogError if there is no row, or a row without frames.
    """
    if not rows:
        raise LogError(f"{path}: no episode to draw a contact sheet of")
    for row in rows:
        if not row.frames:
            raise LogError(f"{path}: the episode {row.title!r} has no frame to show")
    heights = [_tile_height(row, tile) for row in rows]
    top = _MARGIN + (46 if heading else 0)
    width = 2 * _MARGIN + columns * tile + (columns - 1) * _GAP
    height = top + sum(heights) + len(rows) * _TITLE_HEIGHT + (len(rows) - 1) * _ROW_GAP + _MARGIN
    sheet = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    if heading:
        draw.text((_MARGIN, _MARGIN + 10), heading, _INK, _font(26), anchor="lm")
    y = top
    for row, tile_height in zip(rows, heights, strict=True):
        _draw_title(draw, row, y, width)
        y += _TITLE_HEIGHT
        for column, image in enumerate(_spread(row.frames, columns)):
            _paste(sheet, image, (_MARGIN + column * (tile + _GAP), y), (tile, tile_height))
        y += tile_height + _ROW_GAP
    write_aside(path, lambda target: sheet.save(target, "PNG", optimize=True), (OSError,))


def caption(image: Frame, instruction: str, time_s: float, safety: str) -> Frame:
    """The frame with a bar below it: instruction, time, and the state of safety in the colour of its gravity."""
    height, width = image.shape[:2]
    size = max(10, width // 26)
    font, bar = _font(size), 4 * size
    sheet = Image.new("RGB", (width, height + bar), _BAR)
    sheet.paste(Image.fromarray(image), (0, 0))
    draw = ImageDraw.Draw(sheet)
    first, second = height + bar // 4, height + 3 * bar // 4
    draw.text((_GAP, first), _fitted(draw, instruction, font, width - 2 * _GAP), "white", font, anchor="lm")
    draw.text((_GAP, second), f"{time_s:.2f} s", "white", font, anchor="lm")
    draw.text((width - _GAP, second), safety, _SAFETY_INK.get(safety, "white"), font, anchor="rm")
    return np.asarray(sheet)


def write_aside(path: Path, write: Callable[[Path], object], failures: tuple[type[Exception], ...]) -> None:
    """Let `write` fill a file beside `path`, then rename it; on any error nothing is left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    try:
        write(aside)
        aside.replace(path)
    except failures as error:
        raise LogError(f"{path}: writing failed: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def _even(image: Frame) -> Frame:
    """The frame with even sides, as yuv420p needs them."""
    return np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge")


def _spread(frames: Sequence[Frame], count: int) -> list[Frame]:
    """Up to `count` frames, evenly spaced, the first and the last among them."""
    places = np.unique(np.linspace(0, len(frames) - 1, count).round().astype(int))
    return [frames[place] for place in places]


def _tile_height(row: SheetRow, tile: int) -> int:
    height, width = row.frames[0].shape[:2]
    return round(tile * height / width)


def _paste(sheet: Image.Image, image: Frame, corner: tuple[int, int], size: tuple[int, int]) -> None:
    """Paste a frame with softly rounded corners."""
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), radius=6, fill=255)
    sheet.paste(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS), corner, mask)


def _draw_title(draw: ImageDraw.ImageDraw, row: SheetRow, y: int, width: int) -> None:
    """The badge, the instruction, and the note at the right end; a long instruction is shortened to fit."""
    middle = y + _TITLE_HEIGHT // 2 - 3
    _draw_badge(draw, row.success, (_MARGIN, middle - _BADGE // 2))
    note_font, font = _font(15), _font(19)
    note_width = draw.textlength(row.note, note_font) if row.note else 0.0
    draw.text((width - _MARGIN, middle), row.note, _FAINT, note_font, anchor="rm")
    left = _MARGIN + _BADGE + 10
    room = width - _MARGIN - note_width - 16 - left
    draw.text((left, middle), _fitted(draw, row.title, font, room), _INK, font, anchor="lm")


def _fitted(draw: ImageDraw.ImageDraw, text: str, font: _Font, room: float) -> str:
    """The text, shortened until it fits into `room` pixels."""
    while text and draw.textlength(text, font) > room:
        text = f"{text.rstrip('…')[:-1].rstrip()}…" if len(text) > 2 else ""
    return text


def _draw_badge(draw: ImageDraw.ImageDraw, success: bool | None, corner: tuple[int, int]) -> None:
    """A disc with a tick, a cross, or a dash."""
    x, y = corner
    colour = {True: _GOOD, False: _BAD, None: _OPEN}[success]
    draw.ellipse((x, y, x + _BADGE, y + _BADGE), fill=colour)
    marks: dict[bool | None, list[list[tuple[float, float]]]] = {
        True: [[(0.26, 0.52), (0.44, 0.70), (0.75, 0.33)]],
        False: [[(0.31, 0.31), (0.69, 0.69)], [(0.69, 0.31), (0.31, 0.69)]],
        None: [[(0.28, 0.5), (0.72, 0.5)]],
    }
    for mark in marks[success]:
        draw.line([(x + u * _BADGE, y + v * _BADGE) for u, v in mark], fill="white", width=2)


def _font(size: int) -> _Font:
    """Pillow's own font: no font of the system is needed."""
    return ImageFont.load_default(size)

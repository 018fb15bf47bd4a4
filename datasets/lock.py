"""The lock of a log: flock(2), held by whoever writes it, and taken by whoever puts another one in its place."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from reflexarc.configs.errors import LogError


@contextlib.contextmanager
def held(path: Path) -> Iterator[BinaryIO]:
    """The log, opened to be read, while nobody else writes, repairs or relabels it.

    Raises LogError if somebody does. On a file system without locks nothing can be known, and nothing is refused.
    """
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LogError(f"{path} is being recorded or edited elsewhere; stop that first") from None
        except OSError:
            pass
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise LogError(f"{path} was edited just now; try again")
        yield file

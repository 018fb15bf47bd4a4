"""Compile a numeric kernel with numba, once for each version of its folder, and keep the result on disk.

numba's own cache looks only at the file of the function itself, not at the kernels that it calls from other files: a
change there would leave a stale kernel in use. So the cache's folder is named by the hash of all files with kernels
in the folder of the kernel and in `wire`, whose kernels the others call.
Where nothing can be written, kernels are compiled anew by each process.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numba


def compiled[F: Callable[..., Any]](kernel: F) -> F:
    """`kernel`, compiled on its first call for the types it is called with. No fast-math: same bits every time."""
    settings: Any = numba.config
    given = settings.CACHE_DIR
    settings.CACHE_DIR = str(_cache_folder(Path(kernel.__code__.co_filename).resolve().parent))
    try:
        return cast(F, numba.njit(cache=True)(kernel))
    except RuntimeError:  # numba found no folder that can be written
        return cast(F, numba.njit(kernel))
    finally:
        settings.CACHE_DIR = given


@functools.cache
def _cache_folder(sources: Path) -> Path:
    digest = hashlib.sha256()
    for source in sorted({*sources.glob("*.py"), *Path(__file__).resolve().parent.glob("*.py")}):
        text = source.read_bytes()
        if b"import compiled" in text:
            digest.update(text)
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "reflexarc" / f"kernels-{digest.hexdigest()[:16]}"

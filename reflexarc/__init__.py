"""Reflexarc: the stack between a vision-language-action model and a robot arm."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__version__ = "0.1.0"

# MuJoCo reads this once, when it is first imported; without it off-screen rendering asks for a display.
if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")

# In a source checkout the sub-packages are the folders beside this one. setuptools' editable finder maps those
# that have an `__init__.py`; `datasets/` must not have one (it would hide Hugging Face's package of that name
# from a Python started in the root), so the root itself is searched too. In a wheel there is nothing to add.
_root = Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and (_root / "wire" / "messages.py").is_file():
    __path__.append(str(_root))

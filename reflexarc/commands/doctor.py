"""`reflexarc doctor`: does this machine have what a run needs?"""

from __future__ import annotations

import sys

from reflexarc.commands.options import JsonPath


def doctor(json: JsonPath = None) -> None:
    """Check Python, GPU, OpenGL, cores, clock, disk and ports, and name what is missing.

    Example: reflexarc doctor --json doctor.json
    """
    from reflexarc.doctor import run_doctor

    code = run_doctor(json)
    if code:
        sys.exit(code)

"""`reflexarc doctor`: does this machine have what a run needs, and does a policy fit the robot it is to move?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from reflexarc.commands.options import JsonPath
from reflexarc.configs.errors import ConfigError, unknown


def doctor(
    what: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[policy CHECKPOINT]")] = (),
    episodes: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="DIR ...")] = (),
    instants: int = 96,
    json: JsonPath = None,
) -> None:
    """Check Python, GPU, OpenGL, cores, clock, disk and ports, and name what is missing.

    With `policy CHECKPOINT`: replay demonstrations through a policy and name what stands between the two: images upside
    down or in BGR, a wrong crop, gripper polarity, statistics, camera order, frames and units of actions.

    Example: reflexarc doctor --json doctor.json
    Example: reflexarc doctor policy checkpoints/openvla --episodes runs/collect-1

    Args:
        what: nothing for this machine, or `policy` and an embedded checkpoint, a folder or a settings file.
        episodes: logs of demonstrations, or folders of them.
        instants: how many moments of the demonstrations the policy is asked about.
    """
    if what and (what[0] != "policy" or len(what) != 2):
        raise ConfigError(f"doctor: {unknown('thing to look at', ' '.join(what), ['policy CHECKPOINT'])}")
    if what:
        from reflexarc.preflight import run_preflight

        code = run_preflight(what[1], episodes, instants=instants, json_path=json)
    else:
        from reflexarc.doctor import run_doctor

        code = run_doctor(json)
    if code:
        sys.exit(code)

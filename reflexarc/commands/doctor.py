"""`reflexarc doctor`: does this machine have what a run needs, and does a policy fit the robot it is to move?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from reflexarc.commands.options import AS_SET, JsonPath, Placed
from reflexarc.configs.errors import ConfigError, unknown


def doctor(
    what: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="[policy CHECKPOINT | tokenizer [FOLDER]]"),
    ] = (),
    episodes: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="DIR ...")] = (),
    instants: int = 96,
    horizon: int = 8,
    placement: Placed = AS_SET,
    json: JsonPath = None,
) -> None:
    """Check Python, GPU, OpenGL, cores, clock, disk and ports, and name what is missing.

    With `policy CHECKPOINT`: replay demonstrations through a policy and name what stands between the two: images upside
    down or in BGR, a wrong crop, gripper polarity, statistics, camera order, frames and units of actions.

    With `tokenizer`: what it costs to write the actions of episodes as tokens, for each DIR: how many tokens, how far
    from the truth they come back; with a FOLDER also for the published FAST tokenizer that lies there.

    Example: reflexarc doctor --json doctor.json
    Example: reflexarc doctor policy checkpoints/openvla --episodes runs/collect-1
    Example: reflexarc doctor tokenizer --episodes runs/collect-1/lift runs/collect-1/push

    Args:
        what: nothing for this machine; `policy` and an embedded checkpoint, a folder or a settings file; `tokenizer`.
        episodes: logs of demonstrations, or folders of them.
        instants: how many moments of the demonstrations the policy is asked about.
        horizon: actions in the chunks that tokenizers write.
        placement: where the policy's model runs and in what numbers.
    """
    known = ["policy CHECKPOINT", "tokenizer", "tokenizer FOLDER"]
    if what and (what[0], len(what)) not in (("policy", 2), ("tokenizer", 1), ("tokenizer", 2)):
        raise ConfigError(f"doctor: {unknown('thing to look at', ' '.join(what), known)}")
    if what and what[0] == "tokenizer":
        from reflexarc.tokenizer_report import run_report

        fast = Path(what[1]) if len(what) == 2 else None
        code = run_report(episodes, fast=fast, horizon=horizon, json_path=json)
    elif what:
        from reflexarc.preflight import run_preflight

        code = run_preflight(what[1], episodes, instants=instants, json_path=json, placement=placement)
    else:
        from reflexarc.doctor import run_doctor

        code = run_doctor(json)
    if code:
        sys.exit(code)

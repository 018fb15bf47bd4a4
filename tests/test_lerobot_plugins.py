"""The plug-ins for lerobot, installed and found as lerobot finds them: our policy drives our arm in lerobot's own
rollout.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ROLLOUT = """
import json, logging, sys
from lerobot.utils.import_utils import register_third_party_plugins
register_third_party_plugins()
from lerobot.envs.factory import make_env, make_env_config, make_env_pre_post_processors
from lerobot.policies.factory import make_policy, make_policy_config, make_pre_post_processors
from lerobot.scripts.lerobot_eval import rollout

env_config = make_env_config("reflexarc", task="reach")
policy_config = make_policy_config("reflexarc", device="cpu", push_to_hub=False)
policy = make_policy(policy_config, env_cfg=env_config)
before, after = make_pre_post_processors(policy_config)
env_before, env_after = make_env_pre_post_processors(env_config, policy_config)
env = make_env(env_config, n_envs=2)["reflexarc"][0]
result = rollout(env, policy, env_before, env_after, before, after, seeds=[3, 4])
env.close()
policy.save_pretrained(sys.argv[1])
again = type(policy).from_pretrained(sys.argv[1])
print(json.dumps({
    "success": result["success"].any(dim=1).tolist(),
    "action": list(result["action"].shape),
    "policy": type(policy).__module__,
    "saved": again.config.checkpoint,
    "features": sorted(policy_config.input_features),
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both packages, installed into a folder of their own."""
    target, copies = tmp_path_factory.mktemp("plugins"), tmp_path_factory.mktemp("sources")
    sources = []
    for name in ("lerobot_env_reflexarc", "lerobot_policy_reflexarc"):
        sources.append(str(shutil.copytree(ROOT / "plugins" / name, copies / name)))
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*command, "--target", str(target), *sources], check=True)
    return target


def test_lerobots_own_rollout_finds_both_and_succeeds(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ROLLOUT, str(tmp_path / "saved")],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["policy"] == "lerobot_policy_reflexarc.modeling_reflexarc"
    assert found["success"] == [True, True]
    assert found["action"][2] == 7
    assert found["saved"] == "reflexarc-tiny"
    assert found["features"] == ["observation.images.front", "observation.images.wrist", "observation.state"]

"""Loading another model while the present one goes on answering, and putting it in between two batches."""

from __future__ import annotations

import threading
from collections.abc import Callable

from reflexarc.configs.errors import ReflexarcError
from reflexarc.wire.contracts import Policy
from reflexarc.wire.messages import PolicyInfo

MUST_AGREE = ("action_spec", "cameras", "image_height", "image_width", "tokens")
"""What robots were told of the old model and go on relying on."""


def loading(name: str) -> str:
    """What a status ends with while policy `name` is loaded."""
    return f"loading {name}"


def swapped(name: str) -> str:
    """What a status ends with once policy `name` has been swapped in."""
    return f"swapped to {name}"


class Swap:
    """One load at a time, in a thread of its own. load: makes a policy from its name; None: no swaps."""

    def __init__(self, load: Callable[[str], Policy] | None) -> None:
        self._load = load
        self._thread: threading.Thread | None = None
        self._loaded: Policy | None = None
        self.state = "no swap was asked for"

    def begin(self, name: str, present: PolicyInfo) -> tuple[bool, str]:
        """Start loading `name`; whether that was possible, and a line about it."""
        if self._load is None:
            return False, "this server was not told how to load a policy"
        if self._thread is not None and self._thread.is_alive():
            return False, f"busy: {self.state}"
        self.state = loading(name)
        self._thread = threading.Thread(target=self._run, args=(name, self._load, present), daemon=True)
        self._thread.start()
        return True, f"{loading(name)}; {present.model_id} goes on answering meanwhile"

    def ready(self) -> Policy | None:
        """The loaded policy, once; None if there is none."""
        loaded, self._loaded = self._loaded, None
        return loaded

    def _run(self, name: str, load: Callable[[str], Policy], present: PolicyInfo) -> None:
        try:
            policy = load(name)
        except Exception as error:
            # Whatever is wrong with the new model, the old one goes on and the console says why.
            kind = "" if isinstance(error, ReflexarcError) else f"{type(error).__name__}: "
            self.state = f"swap to {name} failed: {kind}{' '.join(str(error).split())}"
            return
        differing = [field for field in MUST_AGREE if getattr(policy.info, field) != getattr(present, field)]
        if differing:
            self.state = (
                f"swap to {name} refused: its {', '.join(differing)} differ from {present.model_id}'s"
            )
            return
        self.state = swapped(name)
        self._loaded = policy

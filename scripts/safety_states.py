"""Write docs/safety-states.md: every pair of state and event of the safety machine, as the filter itself answers.

.venv/bin/python scripts/safety_states.py            # writes the page
.venv/bin/python scripts/safety_states.py --check    # says whether it is current, as a test does
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from reflexarc.configs.load import load_robot, load_safety  # noqa: E402
from reflexarc.safety.states import LATCHED, STATES  # noqa: E402
from reflexarc.wire.messages import SafetyState  # noqa: E402

events: Any = importlib.import_module("contracts.state_events")
PAGE = ROOT / "docs" / "safety-states.md"
HEAD = """# Every state and every event

Made by `python scripts/safety_states.py`, which drives the safety filter itself through all {pairs} pairs;
`tests/safety/test_safety_states.py` compares them with what is expected, and this page with what the script prints.
What the states mean stands in `safety/states.py`. *refused*: the console answers no, and nothing changes. A state in
**bold** is latched: from there only `reset`, then `enable`, then a setpoint made after it lead to motion. `hold` as a
state is one that a person asked for; one with a cause ends by itself with its cause.

| event | {states} |
| --- |{rules}
"""


def page(found: dict[tuple[str, SafetyState], Any]) -> str:
    """The whole page."""
    lines = []
    for event in events.EVENTS:
        cells = []
        for state in STATES:
            after = found[event, state].state
            shown = f"**{after}**" if after in LATCHED else after
            cells.append("*refused*" if not found[event, state].granted else "=" if after == state else shown)
        name = f"`{event}`" if event in events.REQUESTS else event
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    head = HEAD.format(pairs=len(found), states=" | ".join(STATES), rules=" --- |" * len(STATES))
    legend = "\n".join(f"- **{name}**: {text}." for name, text in events.HAPPENINGS.items())
    return head + "\n".join(lines) + "\n\n`=`: stays. The events that nobody asks for:\n\n" + legend + "\n"


def main() -> int:
    """Write or check."""
    text = page(events.table(load_robot("panda"), load_safety("panda")))
    if "--check" in sys.argv:
        current = PAGE.exists() and PAGE.read_text() == text
        print("current" if current else f"{PAGE} is not what the filter does; run {sys.argv[0]}")
        return 0 if current else 1
    PAGE.write_text(text)
    print(f"{PAGE}: {len(events.EVENTS) * len(STATES)} pairs")
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/bin/sh
# Set up .venv: with its own Python if it runs, else with the first Python 3.12 that does.
set -eu
cd "$(dirname "$0")/.."
if ! .venv/bin/python -c 'import pip, sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null; then
    python=$(sh scripts/find_python.sh)
    exec "$python" scripts/setup.py
fi
exec .venv/bin/python scripts/setup.py

#!/bin/sh
# Write requirements/lock.txt anew from the extras in pyproject.toml. Pins that still fit are kept; to move one,
# delete its lines first. Needs `uv`. The lock is for CPython 3.12 on Linux x86-64 and names no registry.
set -eu
cd "$(dirname "$0")/.."
uv=$(command -v uv || echo .venv/bin/uv)
command -v "$uv" >/dev/null || { echo "lock: 'uv' is needed (pip install uv)" >&2; exit 1; }
"$uv" pip compile pyproject.toml --extra all --python-version 3.12 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-header --quiet -o requirements/lock.txt
if grep -nE '(://|^-)' requirements/lock.txt >&2; then
    echo "lock: requirements/lock.txt names a registry or an option" >&2
    exit 1
fi
echo "requirements/lock.txt: $(grep -c '==' requirements/lock.txt) packages"

#!/bin/sh
# Write requirements/lock.txt anew from the extras in pyproject.toml, and requirements/ray.txt, the same with `[ray]`.
# Pins that still fit are kept; to move one, delete its lines first. Needs `uv`. The locks are for CPython 3.12 on Linux
# x86-64 and name no registry.
set -eu
cd "$(dirname "$0")/.."
uv=$(command -v uv || echo .venv/bin/uv)
command -v "$uv" >/dev/null || { echo "lock: 'uv' is needed (pip install uv)" >&2; exit 1; }
lock() {
    file=requirements/$1.txt
    shift
    "$uv" pip compile pyproject.toml --extra all "$@" --python-version 3.12 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-header --quiet -o "$file"
    if grep -nE '(://|^-)' "$file" >&2; then
        echo "lock: $file names a registry or an option" >&2
        exit 1
    fi
    echo "$file: $(grep -c '==' "$file") packages"
}
lock lock
lock ray --extra ray -c requirements/lock.txt

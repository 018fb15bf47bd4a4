#!/bin/sh
# Print the path of a CPython 3.12 that runs, or say what was tried and exit 1.
#
# Each candidate is run, not only looked up: a version manager's shim may be on the path and fail when called.
set -u

tried=""

# Prints the candidate's real path if it is a CPython 3.12 with `venv` and `ensurepip`.
try() {
    found=$("$@" -c '
import sys
assert sys.implementation.name == "cpython" and sys.version_info[:2] == (3, 12)
import ensurepip, venv
print(sys.executable)' 2>/dev/null) && [ -n "$found" ] && echo "$found" && exit 0
    tried="$tried
  $1"
}

[ -n "${PYTHON:-}" ] && try "$PYTHON"
try python3.12
if root=$(pyenv root 2>/dev/null); then
    for candidate in "$root"/versions/3.12*/bin/python; do
        try "$candidate"
    done
fi
try python3
if command -v uv >/dev/null 2>&1; then
    managed=$(uv python find 3.12 2>/dev/null) ||
        { uv python install --quiet 3.12 >&2 && managed=$(uv python find 3.12 2>/dev/null); } ||
        managed="uv python find 3.12"
    try "$managed"
fi

cat >&2 <<TEXT
setup: no working Python 3.12 (with venv and ensurepip) was found. Tried:$tried
Install one, for instance by one of
  apt-get install python3.12 python3.12-venv
  pyenv install 3.12
  uv python install 3.12
or name one: make PYTHON=/path/to/python3.12 setup
TEXT
exit 1

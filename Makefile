# `make demo` and `make test` need nothing before them: `setup` finds Python 3.12, makes .venv and installs the
# lock, and does nothing when it is up to date.

PY := .venv/bin/python
export MUJOCO_GL ?= egl
# The control loops, the simulator and torch share the cores: none may take them all.
export OMP_NUM_THREADS ?= 1
export PYTHONUNBUFFERED ?= 1
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.PHONY: setup opengl demo test lint format bench lock clean help

setup: ## make .venv from the lock (done by every other target that needs it)
	@sh scripts/setup.sh

# Nothing can be drawn or tested without off-screen OpenGL: asked once, then remembered beside the packages.
opengl: setup
	@test -e .venv/opengl-$(MUJOCO_GL) || { mkdir -p build && $(PY) -m reflexarc.gl_probe >build/opengl.log 2>&1 \
	    && touch .venv/opengl-$(MUJOCO_GL); } || { $(PY) -c "from reflexarc.doctor import run_doctor; run_doctor(None)"; exit 1; }

demo: opengl ## words and pixels move the simulated arm; makes a table, a picture, a video, a Rerun file
	@.venv/bin/reflexarc demo $(ARGS)

test: opengl ## the test suite; ARGS="tests/wire -k codec" to choose
	@$(PY) -m pytest $(ARGS)

lint: setup ## ruff check, ruff format --check, mypy --strict
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) scripts/typecheck.py

format: setup ## sort imports and format in place
	@$(PY) -m ruff check --fix --quiet . ; $(PY) -m ruff format .

bench: setup ## figures of docs/: loop timing, latency, throughput
	@for script in benchmarks/*.py; do echo "== $$script"; $(PY) "$$script" || exit 1; done

lock: ## write requirements/lock.txt anew from pyproject.toml (needs uv)
	@sh scripts/lock.sh

clean: ## remove what was built (not .venv, not runs/)
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

help: ## this list
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 10

# What a checkout can do; `make` alone lists it. Needs make and a Python with pip and venv, no more.
# make run PYTHON=python3.12 takes another Python, PORT=9001 another port;
# make test ARGS="tests/test_outbox.py -x" a part of the tests.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
python := "$(VENV)/bin/python"

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev run test check format sabotage bench chaos fresh wheel lock

help: ## list what can be done
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

setup: ## only set up .venv for running (the others begin with it; a second time it takes no time)
	@$(call needs_python) && "$(PYTHON)" tools/setup.py run --venv "$(VENV)"

setup-dev:
	@$(call needs_python) && "$(PYTHON)" tools/setup.py dev --venv "$(VENV)"

# Ends in one process: a shell between make and the shop would answer Ctrl-C before the shop does.
run: ## open the shop: everything embedded, no account, no server, no Docker
	@$(call needs_python) && exec "$(PYTHON)" tools/setup.py run --venv "$(VENV)" -- -m example $(ARGS)

test: setup-dev ## every promise, proved on this machine; starts the servers it needs
	@$(python) -m pytest $(ARGS)

check: setup-dev ## style, types, layers, migrations
	@$(python) -m ruff check --quiet --output-format concise .
	@$(python) -m ruff format --check --quiet --output-format concise . || { echo "Not formatted: make format"; exit 1; }
	@$(python) -m mypy --no-error-summary
	@said=$$($(python) -c "from importlinter.cli import lint_imports_command as run; run(['--no-cache'])") \
		|| { echo "$$said"; exit 1; }
	@$(python) manage.py makemigrations --check --dry-run --verbosity 0 \
		|| { echo "The models and the migrations differ."; exit 1; }

format: setup-dev ## format the code and mend what can be mended
	@$(python) -m ruff check --fix --quiet .
	@$(python) -m ruff format --quiet .

sabotage: setup-dev ## break the code in known places, on copies; every break must turn the tests red
	@$(python) -m tests.sabotage $(ARGS)

bench: setup-dev ## measure it beside its peers on this machine (ARGS="--quick": three minutes instead of twenty)
	@PYTHONPATH=src:. $(python) -m bench $(ARGS)

chaos: setup-dev ## kill eight workers two hundred times and look for a lost e-mail (ARGS="--database postgresql", or mariadb)
	@PYTHONPATH=src:. $(python) -m tests.chaos $(ARGS)

fresh: ## start over: forget the shop's database, mailbox and caches
	@rm -rf var && echo "postroom: var/ is gone; the next make run begins anew."

wheel: setup-dev ## build the package into dist/
	@$(python) -m build --wheel --no-isolation --outdir dist . >/dev/null && ls dist

lock: ## write the hashed requirement files anew from pyproject.toml (needs uv)
	@sh tools/lock.sh

needs_python = command -v "$(PYTHON)" >/dev/null \
	|| { echo "postroom needs Python 3.11 or newer, and there is no $(PYTHON). If you have one: make run PYTHON=python3.12" >&2; exit 1; }

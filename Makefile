# `make demo` and `make test` set themselves up: a virtual environment in .venv, everything else from packages.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

AZURITE := tests/azurite/node_modules/.package-lock.json
NODE_CLIENT := examples/node/node_modules/.package-lock.json

# Most tests wait for processes of their own; each file stays in one process, for the servers its tests share.
JOBS ?= 3
IN_PARALLEL := -n $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-full coverage lint type bench schemas clean

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing (once) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev,embedded]" -c constraints.txt
	@touch $(STAMP)

# The Azure Blob server of the storage suite; without npm that suite is skipped with the reason.
$(AZURITE): tests/azurite/package-lock.json
	@if command -v npm >/dev/null; then cd tests/azurite && npm ci --silent --no-audit --no-fund; fi

# The example that is written for Node.
$(NODE_CLIENT): examples/node/package-lock.json
	@if command -v npm >/dev/null; then cd examples/node && npm ci --silent --no-audit --no-fund; fi

demo: $(STAMP)
	@$(BIN)/comfybus demo

test: $(STAMP) $(AZURITE) $(NODE_CLIENT)
	@$(BIN)/python -m pytest -m "not full" $(IN_PARALLEL)

test-full: $(STAMP) $(AZURITE) $(NODE_CLIENT)
	@$(BIN)/python -m pytest

# Which lines of the product the default tests run, in the tests and in the processes they start.
coverage: $(STAMP) $(AZURITE) $(NODE_CLIENT)
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -m "not full" $(IN_PARALLEL)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --skip-covered --show-missing

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

type: $(STAMP)
	@$(BIN)/mypy

bench: $(STAMP)
	@$(BIN)/python -m bench

# Writes the checked-in documents anew after a change of the wire messages.
schemas: $(STAMP)
	@$(BIN)/comfybus schema asyncapi > docs/asyncapi.yaml
	@$(BIN)/comfybus schema json schemas/generated

clean:
	@rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .services

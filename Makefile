# Two commands matter: `make report` and `make test`. Both need only Python (3.11 or newer) with venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# JupyterLab refuses to start as root (in a container, say) unless told that this is meant.
ALLOW_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help report test lint format lab up clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

$(READY): pyproject.toml constraints.txt
	@echo "installing the pinned dependencies into $(VENV) (several minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --constraint constraints.txt torch
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --constraint constraints.txt --editable '.[test]'
	@touch $@

# FULL=1 measures longer; RATE=2 and WAIT_P95=30s are what the decision is made for. The shell reads them, make does not.
report: $(READY) ## run the notebooks and write reports/index.html (FULL=1, RATE=2, WAIT_P95=30s)
	$(BIN)/fuze-bench report $${FULL:+--full} $${RATE:+--rate "$$RATE"} $${WAIT_P95:+--wait-p95 "$$WAIT_P95"}

# What measures time can be disturbed by its neighbour: if anything fails, all of it must pass one after another. (Not
# `--last-failed`: that passes over tests that pytest-xdist has given a group.)
test: $(READY) lint ## lint, then run every test
	$(BIN)/python -m pytest -n 4 --dist loadgroup -m "not measures"
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m measures \
		|| $(BIN)/python -m pytest -m measures

lint: $(READY) ## ruff (lint and format) and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Notebooks run in their own folder: an absolute data folder keeps their runs where those of `make report` are.
lab: $(READY) ## open JupyterLab on the notebooks
	@data="$${FUZE_DATA_DIR:-.fuze}"; case "$$data" in /*) ;; *) data="$$PWD/$$data" ;; esac; set -x; \
	FUZE_DATA_DIR="$$data" $(BIN)/jupyter lab --notebook-dir=notebooks $(ALLOW_ROOT)

up: $(READY) ## start Redis, API, workers and origin to play with
	$(BIN)/fuze-bench up

clean: ## remove the virtual environment, runs and reports
	rm -rf $(VENV) .fuze reports

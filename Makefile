# `make demo` and `make test` need Python 3.11 or newer, make, and a package index that pip can reach.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -q

.DEFAULT_GOAL := help

.PHONY: help
help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "lora-router needs Python 3.11 or newer; none was found"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# An environment is stamped with what is installed in it; `dev` holds all that `demo` does.
$(VENV)/.demo: requirements/demo.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements/demo.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements/dev.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $(VENV)/.demo $@

.PHONY: demo
demo: $(VENV)/.demo ## real Envoy, simulated pods, every algorithm on the same load (ARGS="--duration 5")
	$(BIN)/lora-router demo $(ARGS)

.PHONY: test
test: $(VENV)/.dev ## the tests, with a real Envoy (ARGS="-k session")
	$(BIN)/python -m pytest --cov --cov-report=term $(ARGS)

.PHONY: lint
lint: $(VENV)/.dev ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: proto
proto: $(VENV)/.dev ## compile proto/ into src/lora_router/extproc/pb
	$(BIN)/python proto/compile.py

.PHONY: bench
bench: $(VENV)/.dev ## what a routed request costs, through a real Envoy (7 minutes; ARGS=--quick)
	PYTHONPATH=. $(BIN)/python -m bench $(ARGS)

.PHONY: performance
performance: $(VENV)/.dev ## the same, and docs/performance.md written of it
	PYTHONPATH=. $(BIN)/python -m bench --docs docs/performance.md $(ARGS)

.PHONY: bench-parts
bench-parts: $(VENV)/.dev ## what the parts of the request path cost (ARGS=--json)
	PYTHONPATH=. $(BIN)/python -m bench.parts $(ARGS)

.PHONY: bench-pods
bench-pods: $(VENV)/.dev ## from a pod's change in Kubernetes to the router's knowledge of it
	PYTHONPATH=. $(BIN)/python bench/pod_events.py $(ARGS)

.PHONY: bench-routing
bench-routing: $(VENV)/.dev ## the tables of docs/routing.md: every algorithm, scenario and load (10 minutes)
	mkdir -p build
	PYTHONPATH=. $(BIN)/python -m bench.routing_evidence $(ARGS) | tee build/routing.md
	$(BIN)/python docs/embed.py docs/routing.md bench-routing < build/routing.md

.PHONY: plots
plots: $(VENV)/.dev ## the plots of docs/routing.md, of the table's traces (some minutes)
	$(BIN)/lora-router simulate --plot docs/images --duration 300 \
		--seed 11 --seed 12 --seed 13 --seed 14 --seed 15 \
		bench/scenarios/b-zipf.yaml bench/scenarios/c-slot-bound.yaml bench/scenarios/flash-crowd.yaml

.PHONY: bench-routers
bench-routers: $(VENV)/.dev ## the table of docs/routing.md on several routers over one fleet (some minutes)
	mkdir -p build
	PYTHONPATH=. $(BIN)/python -m bench.routers_table | tee build/routers.md
	$(BIN)/python docs/embed.py docs/routing.md bench-routers < build/routers.md

.PHONY: bench-demo
bench-demo: $(VENV)/.dev ## the simulator against the demo's live fleet: the same order of algorithms?
	$(BIN)/python bench/demo_order.py $(ARGS)

.PHONY: readme
readme: $(VENV)/.dev ## write the README's table of settings anew
	$(BIN)/python docs/write_readme.py

.PHONY: schema
schema: $(VENV)/.dev ## write the settings into the chart's schema anew
	$(BIN)/python deploy/helm/write_schema.py

.PHONY: lock
lock: ## write requirements/*.txt anew from pyproject.toml (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--no-emit-package lora-router --extra dev pyproject.toml -o requirements/dev.txt
	printf 'hatchling\neditables\n' | uv pip compile -q --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-header -c requirements/dev.txt --extra demo pyproject.toml - -o requirements/demo.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		-c requirements/dev.txt pyproject.toml -o requirements/runtime.txt
	printf 'hatchling\n' | uv pip compile -q --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-header -c requirements/dev.txt - -o requirements/build.txt

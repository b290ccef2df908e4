# `make demo` and `make test` need Python 3.11 or newer, make, and a package index that pip can reach.
# PYTHON=/path/to/python chooses the interpreter; otherwise the newest supported one is used.

VENV ?= .venv
BIN := $(VENV)/bin
# Every tool runs as a module: the first line of an installed script cannot hold a path with a space.
PY := $(BIN)/python
export PYTHON
# Variables that change what Python imports or does: with PYTHONOPTIMIZE no assertion is checked.
unexport PYTHONHOME PYTHONPATH PYTHONSAFEPATH PYTHONSTARTUP PYTHONWARNINGS PYTHONOPTIMIZE \
	PYTHONDONTWRITEBYTECODE PYTHONDEVMODE VIRTUAL_ENV

# Workers of the tests. More than 4 disturb the tests that measure time.
PYTEST := $(PY) -m pytest -n auto --maxprocesses 4 --dist loadgroup

.DEFAULT_GOAL := help

.PHONY: help
help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

# An environment is stamped with what is installed in it; `dev` holds all that `demo` does. A stamp
# counts only where the environment was made: the editable install names the folder.
ifneq ($(shell test -x $(PY) && cat $(VENV)/.place 2>/dev/null),$(CURDIR))
.PHONY: $(VENV)/.demo $(VENV)/.dev
endif

$(VENV)/.demo: requirements/demo.txt pyproject.toml scripts/venv
	@scripts/venv demo $(VENV)

$(VENV)/.dev: requirements/dev.txt pyproject.toml scripts/venv
	@scripts/venv dev $(VENV)

.PHONY: demo
demo: $(VENV)/.demo ## real Envoy, simulated pods, every algorithm on the same load (ARGS="--duration 5")
	$(PY) -m lora_router demo $(ARGS)

.PHONY: test
test: $(VENV)/.dev ## all tests, with a real Envoy, and the coverage (ARGS="-k session": some, without it)
	$(PYTEST) $(if $(ARGS),$(ARGS),--cov --cov-report=term)
	$(if $(ARGS),,$(PY) -m tests.coverage_floors)

.PHONY: test-fast
test-fast: $(VENV)/.dev ## the unit tests, with fewer examples of each property (ARGS="-k session")
	HYPOTHESIS_PROFILE=fast $(PYTEST) -q -m "not slow and not envoy" tests/unit $(ARGS)

.PHONY: fuzz
fuzz: $(VENV)/.dev ## the properties and state machines, with 20 times the examples (some minutes)
	HYPOTHESIS_PROFILE=thorough $(PYTEST) -q -m hypothesis tests/unit $(ARGS)

.PHONY: lint
lint: $(VENV)/.dev ## ruff, mypy, import-linter
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -c 'from importlinter.cli import lint_imports_command as lint; lint()'

.PHONY: proto
proto: $(VENV)/.dev ## compile proto/ into src/lora_router/extproc/pb
	$(PY) proto/compile.py

.PHONY: bench
bench: $(VENV)/.dev ## what a routed request costs, through a real Envoy (7 minutes; ARGS=--quick)
	PYTHONPATH=. $(PY) -m bench $(ARGS)

.PHONY: performance
performance: $(VENV)/.dev ## the same, and docs/performance.md written of it
	PYTHONPATH=. $(PY) -m bench --docs docs/performance.md $(ARGS)

.PHONY: bench-parts
bench-parts: $(VENV)/.dev ## what the parts of the request path cost (ARGS=--json)
	PYTHONPATH=. $(PY) -m bench.parts $(ARGS)

.PHONY: bench-pods
bench-pods: $(VENV)/.dev ## from a pod's change in Kubernetes to the router's knowledge of it
	PYTHONPATH=. $(PY) -m bench.pod_events $(ARGS)

.PHONY: bench-routing
bench-routing: $(VENV)/.dev ## the tables of docs/routing.md: every algorithm, scenario and load (10 minutes)
	mkdir -p build
	PYTHONPATH=. $(PY) -m bench.routing_evidence $(ARGS) > build/routing.md
	@cat build/routing.md
	$(PY) docs/embed.py docs/routing.md bench-routing < build/routing.md

.PHONY: plots
plots: $(VENV)/.dev ## the plots of docs/routing.md, of the table's traces (some minutes)
	$(PY) -m lora_router simulate --plot docs/images --duration 300 \
		--seed 11 --seed 12 --seed 13 --seed 14 --seed 15 \
		b-zipf c-slot-bound flash-crowd

.PHONY: bench-routers
bench-routers: $(VENV)/.dev ## the table of docs/routing.md on several routers over one fleet (some minutes)
	mkdir -p build
	PYTHONPATH=. $(PY) -m bench.routers_table > build/routers.md
	@cat build/routers.md
	$(PY) docs/embed.py docs/routing.md bench-routers < build/routers.md

.PHONY: bench-demo
bench-demo: $(VENV)/.dev ## the simulator against the demo's live fleet: the same order of algorithms?
	$(PY) -m bench.demo_order $(ARGS)

.PHONY: readme
readme: $(VENV)/.dev ## write the README's table of settings anew
	$(PY) docs/write_readme.py

.PHONY: scenario-keys
scenario-keys: $(VENV)/.dev ## write the tables of docs/simulator.md anew
	$(BIN)/python docs/write_simulator.py

.PHONY: schema
schema: $(VENV)/.dev ## write the settings into the chart's schema anew
	$(PY) deploy/helm/write_schema.py

.PHONY: build
build: $(VENV)/.dev ## the wheel and the source archive, into dist/
	$(PY) -m hatchling build -d dist

# `--no-strip-extras`: an install with `--require-hashes` looks for `coverage[toml]` under that name.
COMPILE = uv pip compile -q --universal --python-version 3.11 --no-strip-extras --generate-hashes \
	--no-annotate --no-header $(ARGS)

.PHONY: lock
lock: ## resolve pyproject.toml into requirements/*.txt (needs uv; ARGS=--upgrade for newer releases)
	$(COMPILE) --no-emit-package lora-router --extra dev pyproject.toml -o requirements/dev.txt
	printf 'hatchling\neditables\n' | \
		$(COMPILE) -c requirements/dev.txt --extra demo pyproject.toml - -o requirements/demo.txt
	$(COMPILE) -c requirements/dev.txt pyproject.toml -o requirements/runtime.txt
	printf 'hatchling\n' | $(COMPILE) -c requirements/dev.txt - -o requirements/build.txt

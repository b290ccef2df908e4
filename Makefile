# `make demo` and `make test` need Python 3.11 or newer, make, and a package index that pip can reach.
# PYTHON=/path/to/python selects the interpreter. Default: the newest supported one on the PATH.

VENV ?= .venv
ifneq ($(words $(VENV)),1)
$(error VENV=$(VENV): must be a path without spaces, since make takes what is between them for several files)
endif
BIN := $(VENV)/bin
# Every tool runs as a module. The first line of an installed script cannot hold a path with a space.
PY := $(BIN)/python
export PYTHON
# Variables that change what Python imports or does. PYTHONOPTIMIZE, for example, removes assertions.
unexport PYTHONHOME PYTHONPATH PYTHONSAFEPATH PYTHONSTARTUP PYTHONWARNINGS PYTHONOPTIMIZE \
	PYTHONDONTWRITEBYTECODE PYTHONDEVMODE VIRTUAL_ENV

# tests/conftest.py says how many workers these are; tests/groups.py, what one worker runs as a whole.
PYTEST := $(PY) -m pytest -n auto

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

# A stamp states which lock is installed in the environment; `dev` includes `demo`. A stamp is valid
# only in the folder where the environment was made, because the editable install names that folder.
ifneq ($(shell test -x $(PY) && cat $(VENV)/.place 2>/dev/null),$(CURDIR))
.PHONY: $(VENV)/.demo $(VENV)/.dev
endif

$(VENV)/.demo: requirements/demo.txt pyproject.toml scripts/venv
	@scripts/venv demo $(VENV)

$(VENV)/.dev: requirements/dev.txt pyproject.toml scripts/venv
	@scripts/venv dev $(VENV)

# The clients need other versions of some packages than the tests, so they have an environment of their
# own. npm leaves a copy of the lock where it installed it.
CLIENTS := $(VENV)-clients
NODE_MODULES := tests/clients/javascript/node_modules

ifneq ($(shell test -x $(CLIENTS)/bin/python && cat $(CLIENTS)/.place 2>/dev/null),$(CURDIR))
.PHONY: $(CLIENTS)/.clients
endif

$(CLIENTS)/.clients: requirements/clients.txt pyproject.toml scripts/venv
	@scripts/venv clients $(CLIENTS)

$(NODE_MODULES)/.package-lock.json: tests/clients/javascript/package-lock.json
	@if command -v npm >/dev/null; then npm ci --silent --prefix tests/clients/javascript && touch $@; \
		else echo "There is no npm: the tests of the npm clients will be skipped."; fi

.PHONY: demo
demo: $(VENV)/.demo ## run Envoy, simulated pods, and the same load for each algorithm (ARGS="--duration 5")
	$(PY) -m lora_router demo $(ARGS)

.PHONY: test
test: $(VENV)/.dev ## run the tests (ALL=1: those that take long, too; ARGS="-k session": some; COVERAGE=1: with floors)
	$(PY) -m tests.parts $(if $(ALL),all,most) $(if $(COVERAGE),--cov --cov-report= --cov-fail-under=0) $(ARGS)
	$(if $(COVERAGE),$(PY) -m tests.coverage_floors)

.PHONY: test-fast
test-fast: $(VENV)/.dev ## run the unit tests that need no Envoy (ARGS="-k session")
	HYPOTHESIS_PROFILE=fast $(PY) -m tests.parts unit -q -m "not slow and not envoy" tests/unit $(ARGS)

.PHONY: test-clients
test-clients: $(CLIENTS)/.clients $(NODE_MODULES)/.package-lock.json ## run the clients of OpenAI, Anthropic, and others against the router (4 minutes with the installation)
	$(CLIENTS)/bin/python -m pytest tests/clients $(ARGS)

.PHONY: fuzz
fuzz: $(VENV)/.dev ## run the property tests with 40 times the examples (some minutes)
	HYPOTHESIS_PROFILE=thorough $(PYTEST) -q -m hypothesis tests/unit $(ARGS)

.PHONY: faults
faults: $(VENV)/.dev ## run the fault tests at length and write docs/reliability.md (20 minutes)
	mkdir -p build
	FAULTS_PLAN=long FAULTS_FIGURES=build/faults.md $(PY) -m pytest -n 0 tests/faults $(ARGS)
	@cat build/faults.md
	$(PY) docs/embed.py docs/reliability.md faults < build/faults.md

.PHONY: lint
lint: $(VENV)/.dev ## run ruff, mypy and import-linter
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -c 'from importlinter.cli import lint_imports_command as lint; lint()'

.PHONY: proto
proto: $(VENV)/.dev ## compile proto/ into the pb packages below src
	$(PY) proto/compile.py

.PHONY: bench
bench: $(VENV)/.dev ## measure the cost of a routed request through Envoy (7 minutes; ARGS=--quick)
	PYTHONPATH=. $(PY) -m bench $(ARGS)

.PHONY: performance
performance: $(VENV)/.dev ## run the bench and write its results to docs/performance.md
	PYTHONPATH=. $(PY) -m bench --docs docs/performance.md $(ARGS)

.PHONY: bench-parts
bench-parts: $(VENV)/.dev ## measure the parts of the request path (ARGS=--json)
	PYTHONPATH=. $(PY) -m bench.parts $(ARGS)

.PHONY: bench-adapters
bench-adapters: $(VENV)/.dev ## load 200 declared adapters on 8 simulated pods, and change all of it under load (1 minute; ARGS="--adapters 50")
	PYTHONPATH=. $(PY) -m bench.adapters $(ARGS)

.PHONY: bench-pods
bench-pods: $(VENV)/.dev ## measure the time from a change of a pod to the fleet
	PYTHONPATH=. $(PY) -m bench.pod_events $(ARGS)

ROUTING := PYTHONPATH=. $(PY) -m bench.routing_evidence
FIVE := --seeds 11,12,13 --policies lora-placement,hold,lora-affinity,shuffle-shard,weighted-scores
SLOT_BOUND := b-zipf e-hot-shift c-slot-bound
MOONCAKES := mooncake mooncake-1m mooncake-64
CHATS := bench/scenarios/chats-24.yaml bench/scenarios/chats-base.yaml

.PHONY: bench-routing
bench-routing: $(VENV)/.dev ## write the tables of docs/routing.md: policies near the capacity and above it (some minutes; resumable; ARGS="b-zipf --loads 0.85": print only these)
ifdef ARGS
	$(ROUTING) $(ARGS)
else
	mkdir -p build
	$(ROUTING) --loads 0.85 $(FIVE) --figures ttft,end-to-end,good,worst > build/routing.md
	$(PY) docs/embed.py docs/routing.md bench-routing-near < build/routing.md
	$(ROUTING) $(SLOT_BOUND) $(CHATS) --loads 1.2,1.8 $(FIVE) --figures ttft,end-to-end,good,refused > build/routing.md
	$(PY) docs/embed.py docs/routing.md bench-routing-over < build/routing.md
endif

.PHONY: bench-recorded
bench-recorded: $(VENV)/.dev ## write the table of recorded traffic in docs/routing.md (MOONCAKE=FILE AZURE=FILE; some ten minutes; resumable)
	@test -r "$(MOONCAKE)" -a -r "$(AZURE)" || { echo 'set MOONCAKE and AZURE to the files that docs/routing.md names' >&2; exit 2; }
	mkdir -p build
	$(ROUTING) $(foreach name,$(MOONCAKES),--trace bench/scenarios/$(name).yaml="$(MOONCAKE)") \
		--trace bench/scenarios/azure.yaml="$(AZURE)" --loads 0.85 $(FIVE) --figures ttft,end-to-end,good,hits > build/recorded.md
	$(PY) docs/embed.py docs/routing.md bench-recorded < build/recorded.md
	$(ROUTING) --trace bench/scenarios/mooncake-80-pods.yaml="$(MOONCAKE)" --loads 0.85 --seeds 11,12,13 \
		--policies lora-placement --figures ttft,good > build/recorded.md
	$(PY) docs/embed.py docs/routing.md bench-recorded-80 < build/recorded.md

.PHONY: bench-tuning
bench-tuning: $(VENV)/.dev ## write the tables of docs/tuning.md: what slots, host memory and thresholds are worth (some minutes; resumable)
	mkdir -p build
	PYTHONPATH=. $(PY) -m bench.tuning $(ARGS) > build/tuning.md
	@cat build/tuning.md
	$(if $(ARGS),,$(PY) docs/embed.py docs/tuning.md bench-tuning < build/tuning.md)

.PHONY: bench-adapter-loading
bench-adapter-loading: $(VENV)/.dev ## write the table of docs/adapters.md: what loading adapters where they belong is worth (some minutes)
	mkdir -p build
	PYTHONPATH=. $(PY) -m bench.adapter_loading $(ARGS) > build/adapter-loading.md
	@cat build/adapter-loading.md
	$(if $(ARGS),,$(PY) docs/embed.py docs/adapters.md bench-adapter-loading < build/adapter-loading.md)

.PHONY: plots
plots: $(VENV)/.dev ## write the plots of docs/routing.md (some minutes)
	$(PY) -m lora_router simulate --plot docs/images --duration 300 \
		--seed 11 --seed 12 --seed 13 --seed 14 --seed 15 \
		b-zipf c-slot-bound flash-crowd

.PHONY: bench-routers
bench-routers: $(VENV)/.dev ## write the tables of docs/routing.md on several routers (25 minutes; PARTS="wire partition": only these)
	PYTHONPATH=. $(PY) -m bench.routers_table $(PARTS) $(ARGS)
	set -e; for part in $(or $(PARTS),peers wire partition scrapes overload); do \
		$(PY) docs/embed.py docs/routing.md bench-routers-$$part < build/routers-$$part.md; \
	done

.PHONY: bench-peering
bench-peering: $(VENV)/.dev ## write the table of docs/scaling.md: what peering costs a router (5 minutes)
	mkdir -p build
	PYTHONPATH=. $(PY) -m bench.peering_cost > build/peering.md
	@cat build/peering.md
	$(PY) docs/embed.py docs/scaling.md bench-peering < build/peering.md

.PHONY: bench-fleet
bench-fleet: $(VENV)/.dev ## write the tables of docs/scaling.md on routers over a live fleet (40 minutes; ARGS="--seconds 10")
	mkdir -p build
	PYTHONPATH=. $(PY) -m bench.live_routers $(ARGS) > build/fleet.md
	@cat build/fleet.md
	$(PY) docs/embed.py docs/scaling.md bench-fleet < build/fleet.md

.PHONY: bench-workers
bench-workers: $(VENV)/.dev ## write the table of docs/scaling.md: one router with one and with two workers (3 minutes)
	mkdir -p build
	PYTHONPATH=. $(PY) -m bench.workers $(ARGS) > build/workers.md
	@cat build/workers.md
	$(PY) docs/embed.py docs/scaling.md bench-workers < build/workers.md

.PHONY: bench-demo
bench-demo: $(VENV)/.dev ## compare the order of the algorithms in the simulator and in the demo
	$(PY) -m bench.demo_order $(ARGS)

.PHONY: bench-calibration
bench-calibration: $(VENV)/.dev ## compare simulated pods with published measurements, and write the tables of docs/simulator.md
	mkdir -p build
	PYTHONPATH=. $(PY) -m bench.calibration > build/calibration.md
	@cat build/calibration.md
	$(PY) docs/embed.py docs/simulator.md calibration < build/calibration.md

.PHONY: readme
readme: $(VENV)/.dev ## update the README's table of settings
	$(PY) docs/write_readme.py

.PHONY: autoscaling-table
autoscaling-table: $(VENV)/.dev ## simulate the scenario of docs/autoscaling.md and write its table
	$(PY) docs/write_autoscaling.py | $(PY) docs/embed.py docs/autoscaling.md table

.PHONY: page-screenshots
page-screenshots: $(VENV)/.demo $(VENV)/.dev ## write the pictures of docs/page.md from a run of the demo (needs chromium; 1 minute)
	$(PY) docs/page_screenshots.py

.PHONY: scenario-keys
scenario-keys: $(VENV)/.dev ## update the tables of docs/simulator.md
	$(PY) docs/write_simulator.py

.PHONY: paths
paths: $(VENV)/.dev ## update the table of docs/paths.md
	$(PY) docs/write_paths.py

.PHONY: metrics
metrics: $(VENV)/.dev ## update the tables of docs/metrics.md
	$(PY) docs/write_metrics.py

.PHONY: debug-docs
debug-docs: $(VENV)/.dev ## update the schema in docs/debug.md
	$(PY) docs/write_debug.py

.PHONY: schema
schema: $(VENV)/.dev ## update the settings and the adapters in the chart's schema
	$(PY) deploy/helm/write_schema.py

.PHONY: chart-readme
chart-readme: $(VENV)/.dev ## update the values in the chart's README and its file of defaults
	$(PY) deploy/helm/write_values.py

.PHONY: dashboards
dashboards: $(VENV)/.dev ## update the JSON of Grafana's dashboards, and the chart's copies of them and of the alerts
	PYTHONPATH=. $(PY) -m deploy.grafana.write_dashboards

.PHONY: dashboard-pictures
dashboard-pictures: $(VENV)/.dev ## draw the dashboards from a run of the demo's fleet (2 minutes; needs Debian's prometheus)
	PYTHONPATH=. $(PY) -m deploy.grafana.draw_dashboards $(ARGS)

.PHONY: build
build: $(VENV)/.dev ## build the wheel and the source archive into dist/
	$(PY) -m hatchling build -d dist

# `--no-strip-extras`: an install with `--require-hashes` looks for `coverage[toml]` under that name.
COMPILE = uv pip compile -q --universal --python-version 3.11 --no-strip-extras --generate-hashes \
	--no-annotate --no-header $(ARGS)

.PHONY: lock
lock: ## resolve pyproject.toml into requirements/*.txt (needs uv and npm; ARGS=--upgrade for newer releases)
	$(COMPILE) --no-emit-package lora-router --extra dev pyproject.toml -o requirements/dev.txt
	printf 'hatchling\neditables\n' | \
		$(COMPILE) -c requirements/dev.txt --extra demo pyproject.toml - -o requirements/demo.txt
	$(COMPILE) -c requirements/dev.txt --extra redis --extra otel pyproject.toml -o requirements/runtime.txt
	printf 'hatchling\n' | $(COMPILE) -c requirements/dev.txt - -o requirements/build.txt
	$(COMPILE) --extra demo pyproject.toml requirements/clients.in -o requirements/clients.txt
	npm install --package-lock-only --prefix tests/clients/javascript

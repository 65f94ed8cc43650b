# labelguard. `make help` lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV ?= .venv
STUDIO ?= .venv-studio
# An installed Label Studio may be used instead: make test LABELGUARD_STUDIO_PYTHON=/opt/studio/bin/python
LABELGUARD_STUDIO_PYTHON ?= $(CURDIR)/$(STUDIO)/bin/python
BIN := $(VENV)/bin
TESTED = LABELGUARD_STUDIO_PYTHON="$(LABELGUARD_STUDIO_PYTHON)" $(BIN)/python -m pytest
# What has servers of its own would only wait for each other side by side.
ALONE := live or browser or crash
ONCE ?=
ARGS ?=
CASES ?= 1000000
SEED ?=

.PHONY: help
help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

.PHONY: demo
demo: dev studio ## Run labelguard on a Label Studio of its own with scripted annotators (ONCE=1: end when they are done).
	@$(BIN)/labelguard demo --python "$(LABELGUARD_STUDIO_PYTHON)" $(if $(ONCE),--once)

.PHONY: test
test: dev studio browser ## Run every test (ARGS="-k webhook": pytest's arguments).
ifdef ARGS
	$(TESTED) $(ARGS)
else
	$(TESTED) -n 2 --dist loadfile -m "not ($(ALONE))"
	$(TESTED) -m "$(ALONE)"
endif

.PHONY: test-fast
test-fast: dev ## Run the tests that need no Label Studio, no browser and no patience.
	$(BIN)/python -m pytest -n auto -m "not live and not browser and not slow" $(ARGS)

.PHONY: lint
lint: dev ## Check style, types, imports and generated files.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory generated
	git diff --exit-code -- manifest.json docs/rules.md docs/configuration.md docs/cli.md

.PHONY: generated
generated: dev ## Write the files that are made from the code.
	$(BIN)/labelguard manifest --write >/dev/null
	$(BIN)/labelguard rules --write-docs docs >/dev/null
	$(BIN)/labelguard config --write-docs docs >/dev/null

.PHONY: bench
bench: dev ## Run the benchmarks.
	@for file in $(filter-out benchmarks/soak.py benchmarks/measuring.py,$(wildcard benchmarks/*.py)); do $(BIN)/python "$$file" || exit; done

.PHONY: soak
soak: dev ## Half an hour at 100 deliveries a second: nothing may grow (ARGS="--minutes 3 --rate 50").
	$(BIN)/python benchmarks/soak.py $(ARGS)

.PHONY: fuzz
fuzz: dev ## Send a million hostile requests (CASES=, SEED=), then a tenth as many with PostgreSQL as the store.
	$(BIN)/python tests/fuzz/run.py --cases $(CASES) $(if $(SEED),--seed $(SEED))
	$(BIN)/python tests/fuzz/run.py --cases $$(( $(CASES) / 10 )) --postgresql --processes 1 $(if $(SEED),--seed $(SEED))

.PHONY: audit
audit: dev ## Check licences, and ask for known weaknesses of what is locked (ARGS=--strict: it must be possible to ask).
	$(BIN)/python scripts/audit.py $(ARGS)

.PHONY: sbom
sbom: dev ## Write build/sbom.cdx.json: what labelguard is made of at run time.
	$(BIN)/python scripts/sbom.py

.PHONY: lock
lock: dev ## Resolve requirements-dev.lock anew (ARGS=--upgrade: with the newest versions).
	$(BIN)/python scripts/lock.py $(ARGS)

.PHONY: clean
clean: ## Remove environments, caches, build results and the demo's data.
	rm -rf $(VENV) $(STUDIO) .demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: dev studio browser
dev:
	@scripts/setup.sh dev $(VENV)

studio:
	@test -x "$(LABELGUARD_STUDIO_PYTHON)" -a "$(LABELGUARD_STUDIO_PYTHON)" != "$(CURDIR)/$(STUDIO)/bin/python" || scripts/setup.sh studio $(STUDIO)

browser:
	@scripts/setup.sh browser

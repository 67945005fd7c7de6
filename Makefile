# The two commands a newcomer needs are `make run` and `make test`; each makes what it needs by itself.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
ARGS   ?=
# Two at a time: the tests start real servers and real workers, and two cores are what they are made for.
JOBS   ?= 2

# The attack corpus: another file of the same form runs through the same workers.
CORPUS ?= tests/sandboxes/attacks.json

.PHONY: help run test lint types pytest coverage attacks faults soak bench performance gate bench-record anchors session clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,fast,http,metrics,otel,test,lint]'
	@touch $@

run: $(READY) ## everything on this machine: server, node, nexlet, the samples (ARGS=--once stops after them)
	@exec $(BIN)/nexlet-functions dev samples $(ARGS)

test: lint types pytest ## lint, types and all tests

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/mypy
	$(BIN)/basedpyright

pytest: $(READY)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -q $(ARGS)

coverage: $(READY) ## the tests with branch coverage
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -q --cov --cov-report=term-missing:skip-covered $(ARGS)

attacks: $(READY) ## the attack corpus over all profiles (CORPUS=FILE for another one)
	@$(BIN)/python -m tests.support.corpus $(CORPUS) $(ARGS)

# One at a time, since many of them assert a figure; '' lifts the default run's "not faults".
faults: $(READY) ## the fault tests alone: the quick ones, and those with figures that `make test` leaves out
	$(BIN)/python -m pytest -q -m '' $(ARGS) tests/faults

SECONDS ?= 60
SEED    ?=

soak: $(READY) ## load with things breaking, and an account of every request (SECONDS=60 SEED=1 ARGS='--rate 0')
	@$(BIN)/python -m benchmarks.soak --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench: $(READY) ## figures beside a bare nats-py responder in the same run
	$(BIN)/python -m benchmarks $(ARGS)

performance: $(READY) ## measures all that docs/performance.md and the README tell, and writes them: 12 minutes, machine left alone
	@$(BIN)/python -m benchmarks.performance $(ARGS)

gate: $(READY) ## red where a message has come to cost clearly more than the record says; CI runs it
	@$(BIN)/python -m benchmarks.gate $(ARGS)

bench-record: $(READY) ## makes the record anew that the gate holds us to: on purpose, machine left alone
	@$(BIN)/python -m benchmarks.gate --record $(ARGS)

anchors: $(READY) ## ours beside functions-framework and FastStream, which it installs from a package registry
	@$(BIN)/python -m benchmarks.anchors $(ARGS)

session: $(READY) ## records docs/session.md anew
	@$(BIN)/python -m tests.support.session

clean: ## removes what the commands above made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*

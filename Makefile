# `make quickstart` runs the main job, `make test` passes the tests; both set everything up by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: quickstart serve test test-slow test-all proofs bench bench-service check lint types reference docs setup clean

quickstart: $(INSTALLED)
	$(BIN)/handful quickstart

# The model of the quickstart, on a store beside it. `make serve ARGS='--port 9000'` passes options on.
serve: $(INSTALLED)
	@test -e runs/quickstart/model || { echo "First the quickstart trains its model, which takes about four minutes."; \
		$(BIN)/handful quickstart; }
	exec $(BIN)/handful serve --model letters=runs/quickstart --data runs/store $(ARGS)

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

test: $(INSTALLED)
	$(PYTEST) -m "not slow"

test-slow: $(INSTALLED)
	$(PYTEST) -m slow

test-all: $(INSTALLED)
	$(PYTEST)

# What takes longer than a test may. `make proofs SEED=1` tries other files.
SEED ?= 0

proofs: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.readers.locales --cases 2000 --seed $(SEED)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.readers.random_bytes --cases 10000 --seed $(SEED)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.contracts.networks
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.serving.proofs --seed $(SEED)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.workflows.race_kills --data shops --kills 15 --minutes 2 --seed $(SEED)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.workflows.race_kills --data photos --kills 15 --minutes 2 --seed $(SEED)

# Peers of the engine live in an environment of their own. learn2learn's extensions do not build on Python 3.11 or newer;
# its MAML is pure Python and is unpacked. `make bench ARGS='--quick --only W1'` passes options on. The benchmark ends with
# `make`, its parent once `exec` has taken the shell's place, and so do its workers.
PEERS := .venv-bench

bench: $(PEERS)/installed
	exec $(PEERS)/bin/python -m benchmarks.child $$PPID benchmarks.engine $(ARGS)

# What the service holds, on a machine that does nothing else. `make bench-service ARGS=--quick` takes five minutes.
bench-service: $(INSTALLED)
	exec $(BIN)/python -m benchmarks.child $$PPID benchmarks.service $(ARGS)

$(PEERS)/installed: pyproject.toml constraints.txt benchmarks/engine/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable . setuptools
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement benchmarks/engine/requirements.txt
	-$(PEERS)/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--no-binary :all: --dest $(PEERS) learn2learn==0.2.0 && \
		tar -xzf $(PEERS)/learn2learn-0.2.0.tar.gz --strip-components=1 \
		-C "$$($(PEERS)/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')" \
		learn2learn-0.2.0/learn2learn
	@touch $@

check: lint types test

lint: $(INSTALLED)
	$(BIN)/ruff check src tests examples benchmarks
	$(BIN)/ruff format --check src tests examples benchmarks

types: $(INSTALLED)
	$(BIN)/mypy

# The pages of the docs that are made from the code.
reference: $(INSTALLED)
	$(BIN)/python -m handful.http docs/reference
	$(BIN)/python -m handful.cli docs/reference

# The site of the docs, build/site/index.html. A dead link or another warning is an error, as is what a page would load
# from another machine.
docs: $(VENV)/docs
	rm -rf build
	mkdir -p build/pages
	git ls-files -co --exclude-standard -- '*.md' docs examples LICENSE ':!benchmarks/models' | \
		tar -cf - -T - | tar -xf - -C build/pages
	$(BIN)/python -c 'from handful.cli.public_reference import python_markdown; print(python_markdown())' \
		> build/pages/docs/reference/python.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	! grep -rE '<(script|link|img)[^>]*(src|href)="?(https?:)?//' build/site --include='*.html'

$(VENV)/docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $@

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "handful needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) $(PEERS) build runs

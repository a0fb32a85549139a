# make demo | test | test-full | test-engines | test-all | lint | format | costs | pictures | docs | test-docs | dist | test-dist | test-release | release | bench | clean
# Another interpreter: make test PYTHON=/path/to/python3.12; fewer processes, or more: make test JOBS=4

PYTHON ?= python3
PYTHON_OLDEST ?= python3.11
PYTHON_NEWEST ?= python3.13
JOBS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)

BIN := .venv/bin
OLDEST := .venv-oldest
NEWEST := .venv-newest
PEERS := .venv-peers
TORCH := .venv-torch
TABLES := .venv-tables
DOCS := .venv-docs
ENGINES := .venv-engines
DIST := .venv-dist
RELEASE := .venv-release

# Compiled modules are kept, whatever the shell asks for.
export PYTHONDONTWRITEBYTECODE :=

comma := ,
.DEFAULT_GOAL := test
.DELETE_ON_ERROR:
.PHONY: demo test test-full test-all lint ruff mypy pyright format costs pictures docs test-docs dist test-dist bench clean
.PHONY: test-slow test-engines test-mutants test-oldest test-newest test-release release

# $(call venv,folder,interpreter,variable,minor): a virtual environment with Python 3.minor or newer, unless one is there.
define venv
@set -e; \
if $(1)/bin/python -m pip --version >/dev/null 2>&1; then exit 0; fi; \
if ! $(2) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, $(4)))' >/dev/null 2>&1; then \
    echo "error: '$(2)' is not a Python 3.$(4) or newer with the venv module. Install one, or name one: make $(3)=/path/to/python" >&2; exit 1; fi; \
echo "== creating $(1) with $$($(2) --version)"; \
rm -rf $(1); $(2) -m venv $(1)
endef

# $(call install,folder,what): stamps live in the environment and go with it. Modules are compiled when they are first imported,
# as most never are: that is a third of the time.
define install
@echo "== installing $(3)in $(1)"
@$(1)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check $(2)
@touch $@
endef

.venv/.stamp-examples: pyproject.toml constraints.txt
	$(call venv,.venv,$(PYTHON),PYTHON,11)
	$(call install,.venv,-e '.[examples]' -c constraints.txt,the checkout (examples) )

.venv/.stamp-test: pyproject.toml constraints.txt
	$(call venv,.venv,$(PYTHON),PYTHON,11)
	$(call install,.venv,-e '.[test]' -c constraints.txt,the checkout (test) )

$(DOCS)/.stamp: pyproject.toml constraints.txt
	$(call venv,$(DOCS),$(PYTHON),PYTHON,11)
	$(call install,$(DOCS),-e '.[docs]' -c constraints.txt,the checkout (docs) )

$(OLDEST)/.stamp: pyproject.toml
	$(call venv,$(OLDEST),$(PYTHON_OLDEST),PYTHON_OLDEST,11)
	$(call install,$(OLDEST),-e '.[test]' jax==0.7.2 jaxlib==0.7.2,the checkout (oldest jax) )

$(NEWEST)/.stamp: pyproject.toml
	$(call venv,$(NEWEST),$(PYTHON_NEWEST),PYTHON_NEWEST,13)
	$(call install,$(NEWEST),--upgrade --upgrade-strategy eager -e '.[test]' 'jax>=0.12',the checkout (newest jax) )

# bijx does not import under jax 0.11.
$(PEERS)/.stamp: pyproject.toml
	$(call venv,$(PEERS),$(PYTHON_OLDEST),PYTHON_OLDEST,11)
	$(call install,$(PEERS),flowjax numpyro packaging distrax bijx pzflow 'flowmc==0.6.0' 'jax<0.11',peers in JAX )

$(TORCH)/.stamp: pyproject.toml
	$(call venv,$(TORCH),$(PYTHON_OLDEST),PYTHON_OLDEST,11)
	$(call install,$(TORCH),torch zuko nflows normflows,peers in torch )

# Ray and Spark work with pandas 2 alone; Spark needs Java 17 or newer, of the system.
$(ENGINES)/.stamp: pyproject.toml
	$(call venv,$(ENGINES),$(PYTHON),PYTHON,11)
	$(call install,$(ENGINES),-e '.[dask$(comma)ray$(comma)spark]' 'pandas<3' pytest,the checkout (engines) )

# ctgan works with pandas 2 alone, arfpy with NumPy before 2.4, miceforest with LightGBM before 4.6.
$(TABLES)/.stamp: pyproject.toml
	$(call venv,$(TABLES),$(PYTHON_OLDEST),PYTHON_OLDEST,11)
	$(call install,$(TABLES),ctgan copulas sdmetrics miceforest arfpy ForestDiffusion 'pandas<3' 'numpy<2.4' 'lightgbm<4.6',synthesisers and imputers of tables )

demo: .venv/.stamp-examples
	$(BIN)/python examples/household_power.py

lint: ruff
	@$(MAKE) --no-print-directory --jobs 2 mypy pyright

ruff: .venv/.stamp-test
	@echo "== ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

# Each keeps one core busy.
mypy: .venv/.stamp-test
	@echo "== mypy"
	@$(BIN)/mypy

pyright: .venv/.stamp-test
	@echo "== pyright"
	@$(BIN)/basedpyright --pythonpath $(BIN)/python

format: .venv/.stamp-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Programs of tests run once, so that compiling them is most of the time: XLA makes them the short way, in one piece, and
# they are kept for the next run, for two weeks. Not with other versions of jax, whose XLA may not know these flags and stops.
# So are those of pages, which LLVM makes a shorter way too.
SHORT := --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1
test test-full test-slow test-mutants test-dist costs: export XLA_FLAGS := $(SHORT)
docs: export XLA_FLAGS := $(SHORT) --xla_backend_optimization_level=1
# Pages are dealt to forks of a process in which JAX runs (BlackJAX starts it when it is imported); nothing in them computes with JAX.
docs: export PYTHONWARNINGS := ignore:IProgress not found,ignore:os.fork() was called
test test-full test-slow test-mutants test-dist docs: export JAX_COMPILATION_CACHE_DIR := $(CURDIR)/.jax_cache
test test-full test-slow test-mutants test-dist docs costs: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS := 0
test test-full test-slow test-mutants test-dist docs costs: export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES := -1

# $(call shares,folder,tier,others): a process of pytest for each core, each with its share of the files of tests and of doctests;
# other targets come first, on the same cores.
define shares
@mkdir -p .jax_cache && find .jax_cache -type f -mtime +14 -delete
@$(MAKE) --no-print-directory --keep-going --jobs $(JOBS) TESTED=$(1) TIER=$(2) $(3) $(addprefix share-,$(shell seq $(JOBS)))
endef

# Not by `make share-1`: the recipes above say with what. pytest exits with 5 where a share has no test.
share-%:
	@$(TESTED)/bin/python -m pytest -q --doctest-modules --tier $(TIER) $$($(TESTED)/bin/python tests/shares.py $* $(JOBS) $(TIER)) || [ $$? -eq 5 ]

test: ruff
	@echo "== types and quick tests"
	$(call shares,.venv,quick,mypy pyright)

test-full: .venv/.stamp-test
	@echo "== all tests but slow ones"
	$(call shares,.venv,full)

test-slow: .venv/.stamp-test
	@echo "== all tests, slow ones too"
	$(call shares,.venv,all)

# What each test costs, and which are quick: tests/costs.json.
costs: .venv/.stamp-test
	@$(BIN)/python tests/costs.py --jobs $(JOBS)

# Tables of Ray and Spark, in an environment of their own; without Java, Spark's tests fail and say so.
test-engines: $(ENGINES)/.stamp
	@echo "== tables of Ray and Spark"
	@$(ENGINES)/bin/python -m pytest -q --tier all tests/large/test_ray_and_spark.py

# Mistakes made on purpose, one at a time, that the tests have to catch.
test-mutants: .venv/.stamp-test
	@echo "== seeded mistakes"
	@$(BIN)/python tests/mutants.py

test-oldest: $(OLDEST)/.stamp
	@echo "== tests on $$($(OLDEST)/bin/python -c 'import jax, platform; print("Python", platform.python_version(), "jax", jax.__version__)')"
	$(call shares,$(OLDEST),$(or $(TIER),full))

test-newest: $(NEWEST)/.stamp
	@echo "== tests on $$($(NEWEST)/bin/python -c 'import jax, platform; print("Python", platform.python_version(), "jax", jax.__version__)')"
	$(call shares,$(NEWEST),$(or $(TIER),full))

# One after another, whatever -j says.
test-all:
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory test-slow
	@$(MAKE) --no-print-directory test-engines
	@$(MAKE) --no-print-directory test-mutants
	@$(MAKE) --no-print-directory test-oldest
	@$(MAKE) --no-print-directory test-newest
	@$(MAKE) --no-print-directory test-docs
	@$(MAKE) --no-print-directory test-dist
	@$(MAKE) --no-print-directory test-release

# What examples draw and print, in docs/pictures/: of all that have changed since, or of one, make pictures ONLY=two_moons
pictures: .venv/.stamp-test
	@$(BIN)/python docs/pictures.py $(ONLY)

# The site, in site/html. All pages are read every time, as one that is not read again gives no warning either; their programs
# run again where something has changed that they read (docs/conf.py).
docs: $(DOCS)/.stamp
	@mkdir -p .jax_cache && find .jax_cache -type f -mtime +14 -delete
	@echo "== documentation"
	@$(DOCS)/bin/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env --jobs 2 -d site/doctrees docs site/html
	@echo "wrote site/html/index.html"

# Every page in Chromium, and mistakes made on purpose that have to be found there.
test-docs: docs
	@echo "== pages in a browser"
	@$(DOCS)/bin/python tests/docs/browse.py
	@echo "== seeded mistakes in pages"
	@$(DOCS)/bin/python tests/docs/mistakes.py

dist: .venv/.stamp-test
	@echo "== wheel and sdist"
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist

site/html/notebooks/tutorials.zip: $(wildcard docs/*.py docs/tutorials/*.md)
	@$(MAKE) --no-print-directory docs

# The wheel in an empty environment, and in a folder that has the programs, and no flows.
test-dist: dist site/html/notebooks/tutorials.zip
	@rm -rf $(DIST) build/wheel && mkdir -p build/wheel
	$(call venv,$(DIST),$(PYTHON),PYTHON,11)
	@echo "== installing the wheel in $(DIST)"
	@$(DIST)/bin/python -m pip install --quiet --disable-pip-version-check "$$(echo dist/*.whl)[examples,sklearn]" pytest -c constraints.txt
	@cp -r conftest.py pyproject.toml README.md CONTRIBUTING.md docs examples benchmarks tests build/wheel
	@echo "== the program of make demo, and the blocks of the README"
	@cd build/wheel && ../../$(DIST)/bin/python -c 'import flows; assert "site-packages" in flows.__file__, flows.__file__'
	@cd build/wheel && ../../$(DIST)/bin/python examples/household_power.py --quick
	@cd build/wheel && ../../$(DIST)/bin/pytest -q tests/pages/test_readme.py
	@echo "== the notebooks of the tutorials"
	@$(DIST)/bin/python -m pip install --quiet --disable-pip-version-check nbclient ipykernel 'blackjax>=1.2' -c constraints.txt
	@rm -rf build/notebooks && mkdir build/notebooks
	@cd build/notebooks && ../../$(DIST)/bin/python -m zipfile -e ../../site/html/notebooks/tutorials.zip .
	@cd build/notebooks && PATH="$(CURDIR)/$(DIST)/bin:$$PATH" jupyter execute --timeout=-1 ./*.ipynb

$(RELEASE)/.stamp: pyproject.toml
	$(call venv,$(RELEASE),$(PYTHON),PYTHON,11)
	@echo "== installing what checks a release in $(RELEASE)"
	@$(RELEASE)/bin/python -m pip install --quiet --disable-pip-version-check build check-jsonschema twine zizmor
	@touch $@

# Workflows and hosting files by their schemas, without network; what wheel and sdist contain.
test-release: dist $(RELEASE)/.stamp
	@echo "== workflows, hosting files, wheel and sdist"
	@$(RELEASE)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(RELEASE)/bin/check-jsonschema --builtin-schema vendor.readthedocs .readthedocs.yaml
	@$(RELEASE)/bin/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/*.yml
	@$(RELEASE)/bin/zizmor --offline --quiet --persona pedantic .github/workflows
	@$(RELEASE)/bin/twine check --strict dist/*
	@$(RELEASE)/bin/python tests/release.py --contents dist

# make release VERSION=0.2.0
release:
	@$(PYTHON) tests/release.py "$$VERSION"

# Figures, in out/: they are only worth something on a quiet machine.
bench: .venv/.stamp-test $(PEERS)/.stamp $(TORCH)/.stamp
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/kept.py
	$(BIN)/python benchmarks/power.py
	$(BIN)/python benchmarks/shapes.py
	$(BIN)/python benchmarks/kills.py
	$(BIN)/python benchmarks/inverse.py
	$(BIN)/python benchmarks/stability.py
	$(BIN)/python benchmarks/spheres.py
	$(BIN)/python benchmarks/continuous.py
	$(BIN)/python benchmarks/images.py

clean:
	rm -rf .venv $(OLDEST) $(NEWEST) $(PEERS) $(TORCH) $(TABLES) $(DOCS) $(ENGINES) $(DIST) $(RELEASE) build dist out site .jax_cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

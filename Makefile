# `make` alone lists the targets. Needs Python >= 3.10; another one: make lab PYTHON=python3.12
PYTHON ?= python3
PORT ?= 8888
NOTEBOOKS ?=

VENV := .venv
RUN := $(VENV)/bin/python -m
READY := $(VENV)/.installed
START := 00-start-here.ipynb

ROOT_FLAG := $(shell [ "$$(id -u)" -ne 0 ] || echo --allow-root)
BROWSER_FLAG := $(shell [ "$$(uname)" = Darwin ] || [ -n "$$BROWSER$$DISPLAY$$WAYLAND_DISPLAY" ] || echo --no-browser)
# Two processes, a file of tests in one of them; with more threads than cores, torch's would spin.
PARALLEL := --numprocesses 2 --dist loadscope --no-loadscope-reorder
NBVAL := --nbval --nbval-current-env --nbval-sanitize-with tests/nbval.cfg

# Without saved bytecode each process compiles torch anew, for longer than it then runs.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help lab test notebooks site student slides bench style lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

# JupyterLab's settings in binder/ keep its question about news from covering the page.
lab: $(READY) ## open the notebooks in JupyterLab on this machine; PORT=8888
	JUPYTER_CONFIG_PATH="$(CURDIR)/binder$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH}" \
	    $(RUN) jupyter lab --ip=127.0.0.1 --port=$(PORT) $(BROWSER_FLAG) $(ROOT_FLAG) \
	    --ServerApp.root_dir=notebooks --LabApp.default_url=/lab/tree/$(START)

test: style ## ruff, then unit tests, types, every notebook (nbval) and the browser tests
	OMP_NUM_THREADS=1 $(RUN) pytest $(PARALLEL) $(NBVAL) notebooks tests

style: $(READY)
	$(RUN) ruff check .
	$(RUN) ruff format --check .

lint: style ## ruff (lint, format) and mypy
	$(RUN) mypy

notebooks: $(READY) ## run and clean every notebook; NOTEBOOKS="notebooks/a.ipynb ..." for some
	$(VENV)/bin/python tests/refresh_notebooks.py $(NOTEBOOKS)

site: $(READY) ## build the site into site/: every notebook with its stored outputs, and the API
	rm -rf site build/site/source && mkdir -p build/site/source
	$(RUN) sphinx --quiet --fail-on-warning --jobs auto --conf-dir .github/site \
	    --doctree-dir build/site/doctrees build/site/source build/site/html
	mv build/site/html site

student: $(READY) ## notebooks without solutions and outputs, to hand out: student/ and student.zip
	$(VENV)/bin/python notebooks/teaching/hand_out.py student $(NOTEBOOKS)

slides: $(READY) ## slides of notebooks 01 to 03 with living explorers, into slides/
	$(VENV)/bin/python notebooks/teaching/slides.py slides $(NOTEBOOKS)

bench: site ## build the site, run the benchmarks, one after the other
	@status=0; for bench in tests/benchmarks/bench_*.py; do \
	    printf '\n== %s\n' "$$bench"; $(VENV)/bin/python "$$bench" || status=1; done; exit $$status

clean: ## remove caches and build leftovers; keeps .venv
	rm -rf build dist site slides student student.zip *.egg-info binder/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find lookbehind tests notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

# The stamp is written last: after an interrupted or failed install the next make starts it again.
# A .venv that cannot run pip (interrupted, moved, too old a Python) is made anew.
# --no-compile: most modules of torch and the like are never imported; Python compiles the others
# once, when they first are. The pip of an older Python is slow to choose among 200 packages.
$(READY): pyproject.toml
	@$(VENV)/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
	    || $(PYTHON) -m venv --clear $(VENV)
	$(RUN) pip install --disable-pip-version-check --quiet "pip>=25"
	$(RUN) pip install --disable-pip-version-check --no-compile -e ".[notebooks,cluster,test]"
	@touch $@

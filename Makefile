# Every target sets up .venv first, when it is missing or older than what defines it.
ifeq ($(origin PYTHON),undefined)
PYTHON := $(notdir $(firstword $(shell command -v python3.11 || command -v python3) python3.11))
endif
PRESET ?= quick
CORPUS ?=
TASK ?=
LANGUAGES ?=
SEEDS ?=
ABLATIONS ?= yes
PROFILE ?= local
JOBS ?=
LAB ?=

# What a user says is taken literally, neither expanded by make nor read by a shell as a program:
# recipes see it as variables of the environment.
SAID := PYTHON PRESET CORPUS TASK LANGUAGES SEEDS ABLATIONS PROFILE JOBS LAB
$(foreach name,$(SAID),$(eval override $(name) := $$(value $(name))))
export $(SAID)

SHELL := bash
VENV := .venv
RUN := $(VENV)/bin/python -m
SNAKEMAKE = $(RUN) snakemake --profile "profiles/$$PROFILE" $${JOBS:+"--jobs=$$JOBS"} \
    --config "preset=$$PRESET" "task=$$TASK" "corpus=$$CORPUS" "languages=$$LANGUAGES" "seeds=$$SEEDS" \
    "ablations=$$ABLATIONS"
INSTALLED := $(VENV)/.installed
TRAINING := notebooks/01_language_model.ipynb notebooks/03_translation.ipynb
NOTEBOOK_TEST := $(RUN) pytest -n 2 --dist loadfile --nbval-lax --nbval-current-env
SITE_VENV := .venv-site

.PHONY: help setup reproduce report test nightly lab site bench clean

help: ## this text
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "make reproduce takes PRESET (now $$PRESET), TASK (language-model or translation; default: both),"
	@echo "CORPUS, LANGUAGES and SEEDS (default: the preset's), ABLATIONS (no: three gates and no other"
	@echo "settings), PROFILE (now $$PROFILE; slurm and gpu are"
	@echo "for clusters, see docs/cluster.md) and JOBS (at once; default: the profile's), as in:"
	@echo "make reproduce PRESET=small TASK=translation CORPUS=wmt14 LANGUAGES=en-de SEEDS=\"1 2\""
	@echo "make lab takes LAB, further options of JupyterLab, such as LAB=\"--allow-root --no-browser\""

setup: $(INSTALLED) ## make .venv, which the other targets do too

reproduce: $(INSTALLED) ## run the experiment grid of a preset, as far as it is not done yet
	@$(SNAKEMAKE) || \
	    { echo "Not finished: see above, and logs/$$PRESET/ for the failed notebooks. What is done is kept." >&2; \
	    exit 1; }
	@results="$${G2LSTM_RESULTS:-results}/$$PRESET" && \
	    echo "Done: look at $$results/tables, $$results/figures and $$results/notebooks"

report: $(INSTALLED) ## put the figures that make reproduce made into one HTML file that needs no network
	@$(SNAKEMAKE) --report "$${G2LSTM_RESULTS:-results}/$$PRESET/report.html"

# The committed notebooks read copies of the committed run records, so results/ stays as it is, with
# the weights that `make reproduce` left, if it made the same runs: then they need no training.
test: $(INSTALLED) site ## lint, unit and property tests, and the committed notebooks against their outputs
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) pytest -n 2 --dist loadfile --no-loadscope-reorder
	@# Those that train replace records: apart, so that no report is read while they do.
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && \
	    $(VENV)/bin/python tests/published_runs.py "$$scratch/runs" && \
	    cp -r "$$scratch/runs" "$$scratch/trained" && \
	    export G2LSTM_RESULTS="$$scratch/results" && set -x && \
	    G2LSTM_RUNS="$$scratch/trained" $(NOTEBOOK_TEST) $(TRAINING) && \
	    G2LSTM_RUNS="$$scratch/runs" $(NOTEBOOK_TEST) notebooks $(TRAINING:%=--ignore=%)

nightly: $(INSTALLED) ## fuzz tests with some 35,000 random inputs, in about ten minutes
	$(RUN) pytest tests/test_fuzz.py --hypothesis-profile=nightly --hypothesis-show-statistics

lab: $(INSTALLED) ## open the notebooks in JupyterLab, on this machine only
	@set -f; G2LSTM_RUNS="$${G2LSTM_RUNS:-$$PWD/runs}" \
	    G2LSTM_RESULTS="$${G2LSTM_RESULTS:-$$PWD/results}" \
	    $(RUN) jupyterlab --ServerApp.ip=127.0.0.1 --ServerApp.root_dir="$$PWD" \
	    --FileContentsManager.preferred_dir=notebooks $$LAB

site: $(SITE_VENV)/.installed ## build the static site: notebooks, results, figures, reference
	@$(SITE_VENV)/bin/python docs/collect.py site/source
	@# Sphinx warns only of what it reads anew: after a failure, everything.
	@$(SITE_VENV)/bin/python -m sphinx -c docs -d site/doctrees -j 2 -W --keep-going --quiet \
	    site/source site/html || { rm -rf site/doctrees; exit 1; }
	@touch site/html/.built
	@echo "The site is in site/html: python -m http.server --bind 127.0.0.1 -d site/html, then open" \
	    "http://127.0.0.1:8000"

bench: $(INSTALLED) ## measure the layer's speed against torch.nn.LSTM
	@$(VENV)/bin/python benchmarks/layer.py

clean: ## remove .venv, the site, caches and logs; runs/ and results/ stay
	rm -rf $(VENV) $(SITE_VENV) site logs *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

define CHECK_PYTHON
@command -v "$$PYTHON" > /dev/null || { \
    echo "$$PYTHON is not there. Install Python 3.11 or newer, or name yours: make PYTHON=python3" >&2; \
    exit 1; }
@"$$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
    echo "$$PYTHON is older than Python 3.11. Name a newer one: make PYTHON=python3.12" >&2; \
    exit 1; }
endef

$(SITE_VENV)/.installed: docs/requirements.txt
	$(CHECK_PYTHON)
	@echo "Setting up $(SITE_VENV) (half a minute)"
	@"$$PYTHON" -m venv $(SITE_VENV)
	@$(SITE_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-compile -r docs/requirements.txt
	@touch $@

# Where there is an NVIDIA GPU the pin of torch is left out: pip then takes the newest CUDA build.
$(INSTALLED): pyproject.toml constraints.txt
	$(CHECK_PYTHON)
	@echo "Setting up $(VENV) (some minutes, about 2 GB)"
	@"$$PYTHON" -m venv $(VENV)
	@if nvidia-smi > /dev/null 2>&1; then grep -v '^torch==' constraints.txt; else cat constraints.txt; fi \
	    > $(VENV)/constraints.txt
	@$(RUN) pip install --quiet --disable-pip-version-check --constraint $(VENV)/constraints.txt \
	    --editable '.[all]'
	@touch $@

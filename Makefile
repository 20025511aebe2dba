# Two commands do everything: `make demo` and `make test`. Both work in a path with a space in it.
PYTHON ?= python3
# A build known to work; `make demo TORCH=torch` takes the newest one that the project's range admits.
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
DEMO := outputs/ddpm-digits
# A finished demo is trained anew; an interrupted one goes on where it stopped.
AGAIN = $(if $(wildcard $(DEMO)/model_index.json),--overwrite_output_dir,--resume_from_checkpoint latest)

.PHONY: demo test lint quick-test bench browser quality clean

demo: $(VENV)/.installed
	"$(BIN)/genzoo" train ddpm --preset small --dataset_name digits --output_dir $(DEMO) $(AGAIN)

test: $(VENV)/.installed-dev lint quick-test

lint: $(VENV)/.installed-dev
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/pyright" --pythonpath "$(BIN)/python"

# Two files at a time with one thread each: two processes of several threads would wait for each other's barriers.
quick-test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 "$(BIN)/python" -m pytest -n 2 --dist loadfile -m "not slow and not browser"

# Quality bars: real trainings, ten to thirty minutes on two cores.
quality: $(VENV)/.installed-dev
	"$(BIN)/python" -m pytest -m slow

# Demos driven in a real browser: needs chromium (Debian: apt-get install chromium).
browser: $(VENV)/.installed-dev
	"$(BIN)/python" -m pytest -m browser

bench: $(VENV)/.installed-dev
	"$(BIN)/python" -m benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "hf_genzoo needs Python 3.10 or newer")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check "$(TORCH)" -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

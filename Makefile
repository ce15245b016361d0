# `make demo` trains, compresses and reports; `make test` runs the test suite. Both first make a
# virtual environment in .venv with everything pinned in requirements.txt.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test lint clean

demo: $(VENV)/ready
	$(RUN) train.py --config configs/demo.py --workdir runs/demo
	$(RUN) eval.py --config configs/demo.py --workdir runs/demo

test: $(VENV)/ready
	$(RUN) -m pytest -n 2

lint: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(RUN)

$(VENV)/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --requirement requirements.txt
	$(RUN) -m pip install --quiet --no-deps --editable .
	touch $@

clean:
	rm -rf $(VENV) runs

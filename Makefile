# `make demo` compares the model that comes with the package with classical codecs, trains FCMs for
# it, and shows what they change; `make test` runs the test suite. Both first make a virtual environment in .venv: the demo with what
# running, training and evaluating need (requirements.txt), the tests with requirements-dev.txt.
# `make test-tfc` tests TensorFlow Compression's coder, and the oldest JAX, in .venv-tfc
# (requirements-tfc.txt). `make docs` builds the pages of docs/, `make wheel` what is installed
# elsewhere.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
VENV_TFC := .venv-tfc
RUN_TFC := $(VENV_TFC)/bin/python
# Installs in a tenth of pip's time; where it cannot be had, pip installs the same.
UV := uv==0.13.9
INTEROP := $(CURDIR)/runs/interop
PHOTOGRAPHS := --images photographs:validation --quality 0.3 --lpips alex

.PHONY: demo test test-long test-tfc lint docs wheel clean

demo: $(VENV)/ready
	@echo "1. Three photographs, by the shipped model and by classical codecs in as many bytes"
	$(RUN) eval.py --models lite $(PHOTOGRAPHS) --baselines jpeg,webp,avif --baseline_points -1 \
	    --same_size --out runs/demo/codecs
	@echo "2. Each of them as a picture and as a page with a divider"
	$(RUN) -m fa_hific_jax compare runs/demo/codecs/originals --quality 0.3 -o runs/demo/compared --force
	@echo "3. About a minute of training: new FCMs beside the shipped model, on other photographs"
	@echo "   (lpips and psnr: of the crops it trains on; bpp_rounded: their rate)"
	$(RUN) train.py --config configs/demo.py --workdir runs/demo
	@echo "4. The same files, decoded without (detail=0) and with (detail=1) what was just trained"
	$(RUN) eval.py --models runs/demo $(PHOTOGRAPHS) --detail 0,1 --baselines none \
	    --out runs/demo/evaluation

test: $(VENV)/ready-dev
	$(RUN) -m pytest -n 2

# Whole training runs: killed, resumed, in stages, on several processes. The report in a browser.
test-long: $(VENV)/ready-dev
	$(RUN) -m pytest -n 2 -m "long and not slow"

# Both environments write files to one folder, and each decodes those of the other. The second also
# has TensorFlow, which prepares the sets that tests/test_tfds.py reads.
test-tfc: $(VENV)/ready-dev $(VENV_TFC)/ready
	$(RUN_TFC) -m pytest -n 2 tests/test_bitstream.py tests/test_coders.py tests/test_coding.py \
	    tests/test_integer_synthesis.py tests/test_tfds.py
	rm -rf $(INTEROP) runs/tfc
	FA_HIFIC_INTEROP=$(INTEROP) $(RUN) -m pytest tests/test_interop.py -k written
	FA_HIFIC_INTEROP=$(INTEROP) $(RUN_TFC) -m pytest tests/test_interop.py
	FA_HIFIC_INTEROP=$(INTEROP) $(RUN) -m pytest tests/test_interop.py
	$(RUN_TFC) train.py --config configs/tiny.py --workdir runs/tfc --config.train.steps=10 \
	    --config.train.log_every=5
	$(RUN_TFC) eval.py --config configs/tiny.py --workdir runs/tfc \
	    --config.data.evaluation=photographs:validation

lint: $(VENV)/ready-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(RUN)

# The documentation as a site in site/; a broken link or reference ends it.
docs: $(VENV)/ready-dev
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

# dist/*.whl and dist/*.tar.gz, with the build backend of .venv.
wheel: $(VENV)/ready-dev
	rm -rf dist
	$(RUN) -m build --no-isolation

# $(call install,ENVIRONMENT,REQUIREMENTS)
define install
	test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet $(UV) || true
	$(1)/bin/python -m uv pip install --quiet --python $(1)/bin/python --requirement $(2) || \
	    $(1)/bin/python -m pip install --quiet --requirement $(2)
	$(1)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@
endef

$(VENV)/ready: requirements.txt pyproject.toml
	$(call install,$(VENV),requirements.txt)

$(VENV)/ready-dev: requirements-dev.txt pyproject.toml
	$(call install,$(VENV),requirements-dev.txt)

$(VENV_TFC)/ready: requirements-tfc.txt pyproject.toml
	$(call install,$(VENV_TFC),requirements-tfc.txt)

clean:
	rm -rf $(VENV) $(VENV_TFC) runs site dist

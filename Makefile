# Everything runs in an environment of the project's own, made on first use from constraints.txt.
#   make demo      the whole path on real data: train, quantize, generate C, emulate a Cortex-M4, compare
#   make denoiser  a noisy voice cleaned by a table of RNNoise's shape: float, fixed point, emulated Cortex-M4
#   make test      every test, and what was skipped for want of a tool
#   make sanitize  the test suite's numpy part under AddressSanitizer and UndefinedBehaviorSanitizer
#   make bench     host speed, side by side, to build/bench
#   make bench-mcu instructions, flash and stack per core, model and weight width, compared with benches/mcu.csv
#   make lint      ruff and clang-format

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KERNELS := $(wildcard rtcore/*.pyx rtcore/*.pxd rtcore/_build.py rtcore/csrc/* rtcore/host/*)
C_FILES := $(wildcard rtcore/csrc/*.c rtcore/csrc/*.h rtcore/csrc/*/*.c rtcore/csrc/*/*.h rtcore/host/*.c rtcore/host/*.h benches/*.c firmware_sim/board/*.c firmware_sim/board/*.h)

.PHONY: demo denoiser test sanitize bench bench-mcu lint format clean

$(VENV)/.installed: pyproject.toml setup.py constraints.txt $(KERNELS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/rtcore demo

denoiser: $(VENV)/.installed
	$(BIN)/python examples/denoiser_lineage/denoise.py

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 -rs

sanitize: $(VENV)/.installed
	$(BIN)/python tools/sanitize.py

bench: $(VENV)/.installed
	$(BIN)/python benches/host.py

bench-mcu: $(VENV)/.installed
	$(BIN)/python benches/mcu.py --check

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(C_FILES)

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_FILES)

clean:
	rm -rf build dist *.egg-info rtcore/*.so

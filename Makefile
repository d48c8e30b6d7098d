PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check

# Plain `torch` on Linux is the CUDA build, several GB, so the CPU build is looked for first: under its own version
# where pip is already set up to find it, then in PyTorch's index. Only where neither has it is the default taken
# (on macOS that is the CPU build). A torch that the environment already has stays. To use another build, install it
# into .venv before the first `make`.
TORCH := 2.13.0
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu

BUILD_INPUTS := pyproject.toml setup.py $(shell find csrc -type f)

.PHONY: demo test fuzz bench clean

demo: $(VENV)/installed
	$(BIN)/dexar-fast demo --out out

test: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy dexar_fast
	$(BIN)/pytest --cov --cov-report=term

# Looks for new cases for ten minutes, and then some.
fuzz: $(VENV)/installed-test
	DEXAR_FAST_FUZZ_SECONDS=200 $(BIN)/pytest -q tests/test_fuzz.py

bench: $(VENV)/installed-bench
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) build out dist *.egg-info dexar_fast/_C.*.so dexar_fast/_cuda.*.so .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks

$(VENV)/torch:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'torch: the CPU build of $(TORCH) where it is found'
	@$(BIN)/python -c 'import torch' 2>/dev/null \
	  || $(PIP) install --quiet 'torch==$(TORCH)+cpu' 2>/dev/null \
	  || $(PIP) install --quiet --retries 0 --timeout 15 --index-url $(TORCH_CPU_INDEX) 'torch==$(TORCH)' 2>/dev/null \
	  || $(PIP) install 'torch==$(TORCH)'
	touch $@

$(VENV)/installed: $(VENV)/torch $(BUILD_INPUTS)
	$(PIP) install --quiet --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/torch $(BUILD_INPUTS)
	$(PIP) install --quiet --editable '.[test]'
	touch $@ $(VENV)/installed

$(VENV)/installed-bench: $(VENV)/torch $(BUILD_INPUTS)
	$(PIP) install --quiet --editable '.[bench]'
	touch $@ $(VENV)/installed

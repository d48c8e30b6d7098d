PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check

# Everything is installed in the versions of PINS, the build requirements too: so pip makes no environment of its own
# to build in, which the pins would not reach.
PINS := constraints.txt
EXTRAS := test
INSTALL = $(PIP) install --quiet --no-build-isolation --constraint $(VENV)/pins
BUILD_REQUIRES := setuptools pybind11 ninja wheel
BUILD_INPUTS := pyproject.toml setup.py $(shell find csrc -type f)

# What `make pins` pins: the newest torch that all tests have run on as its CPU build, and the newest of all else.
TORCH := 2.13.0
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
RESOLVER := .venv-pins/bin/uv
RESOLVE = $(RESOLVER) --no-config pip compile --quiet --no-annotate --universal --python-version 3.11 --fork-strategy fewest \
  --custom-compile-command 'make pins' --upgrade pyproject.toml
OLDEST := $(addprefix --extra ,vision gpu methods data ray metrics bench test)
PINNED := $(OLDEST) $(addprefix --extra ,quantus serve captum torchcam grad-cam)

# The page of bad input, from the rows that the tests check.
bad-input: $(VENV)/installed-test
	PYTHONPATH=tests/bad $(BIN)/python tests/support/bad_input_table.py

# The page of model types, from explaining each of them: some minutes, in an environment that has their processors.
types:
	$(MAKE) types-page VENV=.venv-types EXTRAS=test,vision

types-page: $(VENV)/installed-$(EXTRAS)
	PYTHONPATH=tests/support $(BIN)/python tests/support/types_table.py

# The page of launches on a GPU, counted without one.
launches: $(VENV)/installed-test
	PYTHONPATH=tests/support $(BIN)/python tests/support/launches.py

.PHONY: demo bad-input types types-page launches test test-slow test-newest test-oldest test-adapters test-adapters-in \
  fuzz bench pins clean

demo: $(VENV)/installed
	$(BIN)/dexar-fast demo --out out

# A test that hangs fails, with the stacks of all threads, so that one does not cost the whole run.
test: $(VENV)/installed-$(EXTRAS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy dexar_fast
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/pytest -q --timeout 600 -n 2 -m 'not slow and not alone' --cov --cov-report= --cov-fail-under=0
	OMP_NUM_THREADS=1 $(BIN)/pytest -q --timeout 600 -m 'alone and not slow' --cov --cov-append --cov-report=term
	@echo 'Left to make test-slow: kernels with each mask and bound removed in turn, sanitizers, compiled and interpreted'
	@echo 'Triton, CUDA builds, wheels and source distributions.'

test-slow: $(VENV)/installed-$(EXTRAS)
	$(BIN)/pytest --timeout 1800 -m slow

# The same on the newest releases that pyproject.toml allows today, and on the oldest: in environments of their own.
test-newest: $(RESOLVER)
	$(RESOLVE) $(PINNED) --output-file .venv-pins/newest.txt
	$(MAKE) test test-slow VENV=.venv-newest PINS=.venv-pins/newest.txt EXTRAS=test,vision

test-oldest:
	$(MAKE) test test-slow VENV=.venv-oldest PINS=constraints-oldest.txt EXTRAS=test,vision

# The tools of dexar_fast/ADAPTERS.md, each by the real package, in two environments: some do not install beside others.
test-adapters:
	$(MAKE) test-adapters-in VENV=.venv-adapters PINS=constraints-adapters.txt EXTRAS=adapters,vision
	$(MAKE) test-adapters-in VENV=.venv-bridges PINS=constraints-bridges.txt EXTRAS=bridges

test-adapters-in: $(VENV)/installed-$(EXTRAS)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q tests/adapters tests/documents/test_adapters_page.py

# Looks for new cases for ten minutes, and then some.
fuzz: $(VENV)/installed-test
	DEXAR_FAST_FUZZ_SECONDS=200 $(BIN)/pytest -q tests/bad/test_fuzz.py

bench: $(VENV)/installed-bench
	$(BIN)/python -m bench

pins: $(RESOLVER)
	echo 'torch==$(TORCH)' | $(RESOLVE) $(PINNED) - --output-file constraints.txt
	$(RESOLVE) $(OLDEST) --resolution lowest-direct --output-file constraints-oldest.txt
	printf '%s\n' $(BUILD_REQUIRES) | $(RESOLVE) --extra adapters - --output-file constraints-adapters.txt
	printf '%s\n' torch==$(TORCH) $(BUILD_REQUIRES) | $(RESOLVE) --extra bridges - --output-file constraints-bridges.txt

clean:
	rm -rf .venv .venv-* build out dist *.egg-info dexar_fast/_C.*.so dexar_fast/_cuda.*.so .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks

$(RESOLVER):
	$(PYTHON) -m venv .venv-pins
	.venv-pins/bin/pip --disable-pip-version-check install --quiet uv

# Plain `torch` on Linux is the CUDA build, several GB, so the CPU build is looked for first: where pip is already set up
# to find it, then in PyTorch's index. Only where neither has it is the default taken (on macOS that is the CPU build).
# A torch that was there before stays, whichever it is, and the pins of what is built for one torch give way.
TORCHES = $(shell sed -nE 's/^(($(if $(findstring vision,$(EXTRAS)),torch|torchvision,torch))==[^ ;]+).*/\1/p' $(PINS))

$(VENV)/pins: $(PINS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	if test -e $(VENV)/own-torch || { test ! -e $@ && $(BIN)/python -c 'import torch' 2>/dev/null; }; then \
	  touch $(VENV)/own-torch; \
	  sed -E '/^(torch|torchvision|triton)==/d' $(PINS) > $@; \
	else \
	  echo 'torch: the CPU build of $(TORCHES) where it is found'; \
	  $(PIP) install --quiet $(TORCHES:=+cpu) 2>/dev/null \
	  || $(PIP) install --quiet --retries 0 --timeout 15 --index-url $(TORCH_CPU_INDEX) $(TORCHES) 2>/dev/null \
	  || $(PIP) install $(TORCHES) && cp $(PINS) $@; \
	fi

INSTALL_ALL = $(INSTALL) $(BUILD_REQUIRES) && $(INSTALL) --editable

$(VENV)/installed: $(VENV)/pins $(BUILD_INPUTS)
	$(INSTALL_ALL) .
	touch $@

$(VENV)/installed-%: $(VENV)/pins $(BUILD_INPUTS)
	$(INSTALL_ALL) '.[$*]'
	touch $@ $(VENV)/installed

# Each target sets up what it needs. PYTHON is the interpreter that makes the virtual environment.
PYTHON ?= python3
BIN := .venv/bin
# Tests that use Ray share one of the processes (--dist loadgroup), so that no two start Rays at once.
PYTEST_OPTIONS = --numprocesses auto --maxprocesses 4 --dist loadgroup
PYTEST = $(BIN)/python -m pytest $(PYTEST_OPTIONS)
OLDEST = torch==2.11.0 torchvision==0.26.0

# A folder with build.sh and run.sh, which runs CUDA code without a GPU; it is not part of this project.
SIMULATOR ?= ../shared/gpu/simulator
SIMULATED = SIM_PATCH=1 SIM_BUILD=build/cuda_simulator bash $(SIMULATOR)/run.sh --python $(BIN)/python

.PHONY: venv search test test-rest test-all test-oldest test-cuda-sim coverage faults lint docs reference pictures lock clean

venv: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: Python 3.11 or newer is needed; name one with: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -m venv .venv || \
	  { echo "make: $(PYTHON) cannot make a virtual environment; on Debian or Ubuntu: apt install python3-venv" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

search: venv
	$(BIN)/python run_search.py --space search_spaces/quickstart.yaml

# The unit tests, and one search with Ray for each thing that must never break.
test: venv
	$(PYTEST) -m "unit or smoke"

# What test leaves out: the other integration tests, documentation, packaging.
test-rest: venv
	$(PYTEST) -m "not (unit or smoke)"

test-all: venv
	$(PYTEST)

# The unit tests with the oldest PyTorch that the package allows, in an environment of its own.
test-oldest: .venv-oldest/installed
	.venv-oldest/bin/python -m pytest $(PYTEST_OPTIONS) -m unit tests/unit

.venv-oldest/installed: requirements.lock pyproject.toml Makefile
	@$(PYTHON) -m venv .venv-oldest
	@grep -vE '^(torch|torchvision|triton|nvidia-.*|cuda-.*)==' requirements.lock > .venv-oldest/requirements.txt
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check \
	  --requirement .venv-oldest/requirements.txt $(OLDEST)
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# What a simulated GPU shows: every option runs, no step waits, steps can be recorded, launches by step, the gpu tests.
test-cuda-sim: venv
	@test -f $(SIMULATOR)/run.sh || \
	  { echo "make: no simulator of CUDA in $(SIMULATOR); name its folder with: make SIMULATOR=FOLDER test-cuda-sim" >&2; exit 2; }
	bash $(SIMULATOR)/build.sh $(BIN)/python build/cuda_simulator
	$(SIMULATED) benchmarks/simulated_cuda.py options syncs capture launches
	$(SIMULATED) -m pytest -q -m gpu tests
	$(SIMULATED) benchmarks/gpu.py all --small --slack 10 --no-profiler --output build/gpu_simulated

# Lines and branches that the whole test suite runs, by room; processes are counted that tests start, not those that Ray kills.
coverage: venv
	rm -rf .coverage
	$(BIN)/coverage run --data-file=$(CURDIR)/.coverage/data -m pytest $(PYTEST_OPTIONS)
	$(BIN)/coverage combine --quiet --data-file=.coverage/data
	$(BIN)/coverage json --quiet --ignore-errors --data-file=.coverage/data -o .coverage/all.json
	$(BIN)/python tools/coverage_by_room.py .coverage/all.json

# Breaks searches in every way, five times each, and says what was lost. Linux; as root for the full disk; half an hour.
faults: venv
	$(BIN)/python benchmarks/faults.py --output benchmarks/results

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The pages of docs/ as a site in site/, which needs neither network nor server: open site/index.html.
docs: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Writes the tables of docs/search_space.md and search_spaces/schema.json from the models that read the YAML, and the
# tables of docs/methods.md and, of the arms of an experiment, docs/results.md.
reference: venv
	$(BIN)/python -m tools.reference
	$(BIN)/python -m tools.methods
	$(BIN)/python -m tools.overfitting_arms
	$(BIN)/python -m tune_cure schema --quiet --output search_spaces/schema.json

# Takes the pictures of README and docs: a search and its confirmation, a quarter of an hour the first time; needs chromium.
pictures: venv
	$(BIN)/python tools/pictures.py

# Resolves requirements.lock anew for Linux and macOS (needs uv); the markers that hold everywhere are left out.
lock:
	uv pip compile pyproject.toml --extra dev --extra docs --universal --python-version 3.11 --upgrade \
	  --no-header --no-annotate --no-emit-index-url --output-file requirements.lock
	sed -i.old -E -e "s/ and \(sys_platform == 'darwin' or sys_platform == 'linux'\)//" \
	  -e "s/python_full_version < '3.15' and //" -e "s/ ; python_full_version < '3.15'$$//" requirements.lock
	rm requirements.lock.old

clean:
	rm -rf .venv .venv-oldest build dist site .coverage .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

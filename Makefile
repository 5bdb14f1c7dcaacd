# On a fresh machine with Python 3.11+, pip and git:  make demo   make test
# The first of them makes .venv and installs into it; another interpreter:  make demo PYTHON=python3.12
# On a machine without a GPU:  make demo TORCH=cpu

PYTHON ?= python3
# which build of PyTorch: PyPI's, with CUDA, or one of those on its own index, such as cpu or cu126
TORCH ?=
VENV := .venv
JOBS ?= 2
TEST := $(VENV)/bin/python -m pytest
FAST := not slow and not cluster and not gpu
READY := $(VENV)/.installed
INDEX := https://download.pytorch.org/whl/$(TORCH)
# what `make bench` measures, in how many rounds, and where the packed data lie if not in data
BENCH := overhead startup tutorial_cifar10 mnist_example wikitext2_example image_input resnet18_64 evaluate \
	ddp_cpu elastic memory checkpoint time_to_accuracy
ROUNDS ?= 9
DATA ?=
PINNED = $(shell sed -nE 's/^(torch|torchvision)==([^ ]+).*/\1==\2+$(TORCH)/p' constraints.txt)

help:
	@echo "make demo      train, interrupt, resume, evaluate and diff on data that comes along (3 minutes)"
	@echo "               without a GPU: make demo TORCH=cpu, which downloads some 400 MB instead of GBs"
	@echo "make check     lint, types, and the tests without torch and processes (under a minute)"
	@echo "make test      the tests (4 minutes on two cores; JOBS=1: one after the other)"
	@echo "make test-all  also the slow ones and those that start a cluster"
	@echo "make test-gpu  those that need a GPU (2 minutes on 16 cores and one H100)"
	@echo "make storm     power cuts, kills, damage, fuzz and resumes by the thousand, and their figures (an hour)"
	@echo "make bench     speed beside what people run, written to docs/performance.md (half an hour, two idle cores)"
	@echo "               ROUNDS=3 DATA=FOLDER; BENCH=memory measures that again beside what was measured"
	@echo "make lint      style, format and types"
	@echo "make snapshots write the texts in tests/snapshots anew: look at the difference before you commit it"
	@echo "make install   only make $(VENV) and install into it"

demo: $(READY)
	@bash docs/demo.sh

check: lint
	$(TEST) -m "pure and $(FAST)"

test: $(READY)
	$(TEST) -n $(JOBS) --dist loadgroup

# a cluster wants the machine to itself
test-all: test
	$(TEST) -n $(JOBS) --dist loadgroup -m "slow and not cluster"
	$(TEST) -m cluster

test-gpu: $(READY)
	$(TEST) -n $(JOBS) -m gpu

# not a test that is run each time: the parts of it that take seconds are
storm: $(READY)
	$(VENV)/bin/python tests/storm.py --jobs $(JOBS)

# mypy finds the package by its name: a link that is no part of the repository
lint: $(READY)
	$(VENV)/bin/python -m ruff check
	$(VENV)/bin/python -m ruff format --check
	@mkdir -p $(VENV)/typed && ln -sfn "$(CURDIR)" $(VENV)/typed/relaunch
	$(VENV)/bin/python -m mypy

# the results of one program after the other; the page is made of each one's last run
bench: $(READY)
	@mkdir -p build
	@for program in $(BENCH); do $(VENV)/bin/python benchmarks/$$program.py --rounds $(ROUNDS) \
	$(if $(DATA),--data-root "$(DATA)") --json build/bench.jsonl || exit; done
	$(VENV)/bin/python benchmarks/table.py build/bench.jsonl docs/performance.md

snapshots: $(READY)
	$(TEST) tests/test_snapshots.py --snapshot-update

install: $(READY)

# written last, so that an installation that was interrupted is taken up again
$(READY): pyproject.toml constraints.txt
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(MAKE) --no-print-directory new-venv
	@echo "Installing into $(VENV): once, some minutes, and \
	$(if $(TORCH),PyTorch's $(TORCH) build.,several GB: PyTorch brings its CUDA libraries. Without a GPU: TORCH=cpu.)"
	$(VENV)/bin/python -m pip install --disable-pip-version-check -c constraints.txt \
	$(if $(TORCH),--extra-index-url $(INDEX) $(PINNED)) -e '.[test]' $(if $(TORCH),|| { \
	echo "relaunch: 69 pip did not get PyTorch's $(TORCH) build; see whether $(INDEX) can be reached" >&2; exit 1; })
	@touch $@

# some systems split off what `venv` needs for pip: there the interpreter's own pip puts one in
new-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "relaunch: 64 $(PYTHON) is Python %d.%d; \
	install 3.11 or newer, or: make PYTHON=python3.11 ..." % sys.version_info[:2])'
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { $(PYTHON) -m venv --clear --without-pip $(VENV) && \
	$(PYTHON) -m pip --python $(VENV)/bin/python install --quiet pip; }

.PHONY: help demo check lint test test-all storm bench snapshots install new-venv

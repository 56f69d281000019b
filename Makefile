# SPDX-License-Identifier: GPL-2.0-or-later
# make demo|test|test-long|test-kvm|test-vmx|bench|lint|lab|setup, as root or through sudo. ARGS are passed on:
# make demo ARGS="--vms 2".
# Everything else the project needs is in roots of its own, see qemu-lab/roots.toml.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?= python3
EXTRAS := .[lab,bench,debug,dev]
ARGS ?=
PYTEST_ARGS ?=
TWO_AT_A_TIME := -n 2 --dist loadfile --no-loadscope-reorder
EVERY_TIME := not long and not kvm and (vmx_short or not vmx)

SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)

# Whatever root leaves in the tree of the user behind sudo goes to that user, also when the command failed.
ifdef SUDO_UID
ifeq ($(shell stat -c %u .),$(SUDO_UID))
HAND_BACK = find . -xdev -uid 0 -exec chown -h $(SUDO_UID):$(SUDO_GID) {} +
endif
endif
HAND_BACK ?= true
run = $(1); code=$$?; $(HAND_BACK); exit $$code

.PHONY: all setup lab demo bench test test-long test-kvm test-vmx unit lint clean
all: setup

setup: $(STAMP)

# Installing again costs seconds, so only when what is installed from has changed.
$(STAMP): pyproject.toml setup.py $(wildcard csrc/arena/* csrc/kmod/uapi/*)
	$(SUDO) qemu-lab/host-packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "multiroot needs Python 3.11 or newer")'
	@$(call run,{ test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV); } && $(BIN)/pip install --quiet -e '$(EXTRAS)' && touch $@)

# Making the lab's trees needs root, running it does not.
lab: setup
	@$(call run,$(SUDO) $(BIN)/multiroot lab build)

demo: setup $(if $(SUDO),lab)
	@$(call run,$(BIN)/multiroot demo $(ARGS))

# Prints ratios and their change against the recorded ones; fails only if it cannot measure.
bench: lab
	@$(call run,$(BIN)/multiroot bench quick $(ARGS))

# Two files at a time, each with machines of its own: most of a lab test is one CPU's work. The order is that of
# the folders, and in tests/lab what takes longest comes first. A machine in a machine comes last and has both
# CPUs to itself; whoever chooses tests (PYTEST_ARGS) does without it.
test: lab
	@$(call run,$(SUDO) $(BIN)/multiroot lab build --vmx)
	@$(call run,$(BIN)/pytest $(TWO_AT_A_TIME) -m "$(EVERY_TIME)" tests/unit tests/model tests/lab $(PYTEST_ARGS) \
		$(if $(PYTEST_ARGS),,&& $(BIN)/pytest -v -m kvm_short tests/lab/kvm))

# What takes too long for every change.
test-long: lab
	@$(call run,$(BIN)/pytest -m long tests/lab $(PYTEST_ARGS))

# On an Intel machine that Bochs emulates. ARGS="-m vmx_short" runs the short form.
test-vmx: setup
	@$(call run,$(SUDO) $(BIN)/multiroot lab build --vmx-whole)
	@$(call run,$(BIN)/pytest -m vmx tests/lab/vmx $(ARGS) $(PYTEST_ARGS))

# Inside an emulated workstation, under its KVM. ARGS="-m kvm_short" runs the short form.
test-kvm: lab
	@$(call run,$(BIN)/pytest -v -m kvm tests/lab/kvm $(ARGS) $(PYTEST_ARGS))

unit: setup
	@$(call run,$(BIN)/pytest tests/unit $(PYTEST_ARGS))

lint: setup
	@$(call run,$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/mypy && $(BIN)/lint-imports)

clean:
	rm -rf $(VENV) build dist *.egg-info

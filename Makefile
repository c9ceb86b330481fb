# `make run` and `make test` need git, make and Python 3.11 or newer, and nothing else.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test check format lock clean

run: .venv/installed
	dvc repro
	@echo
	@cat dvclive/compare/comparison.md

test: check
	python -m pytest --numprocesses 2 --dist loadfile

check: .venv/installed
	ruff check .
	ruff format --check .
	mypy

format: .venv/installed
	ruff check --fix .
	ruff format .

# A torch build carries its variant in its version (2.13.0+cpu); the lock leaves that open.
lock: .venv/installed
	pip-compile --quiet --strip-extras --no-emit-find-links --no-emit-index-url \
		--output-file requirements.lock requirements.txt
	sed -i 's/^\(torch==[0-9.]*\)+[a-z0-9]*/\1/' requirements.lock

clean:
	rm -rf .venv

.venv/installed: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Expected Python 3.11 or \
	newer, found %d.%d: make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --requirement requirements.lock
	touch .venv/installed

# Tasks of people who change the code; "make" lists them. PYTHON=... takes another environment.
PYTHON ?= .venv/bin/python
TOOLS := .venv/tools
LOCK := deploy/requirements.lock

.DEFAULT_GOAL := help
.PHONY: help setup quick test lint docs bench lock sbom audit

help:  ## list the tasks
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

setup:  ## an environment with everything, and the hooks of git
	python3 -m venv .venv
	.venv/bin/python -m pip install --requirement requirements-dev.txt
	.venv/bin/pre-commit install

quick:  ## the tests under one second each
	$(PYTHON) -m pytest -m "not slow" -n auto --dist loadfile

test:  ## all tests
	$(PYTHON) -m pytest -n auto --dist loadfile

lint:  ## linter, formatter, type checker
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy .

docs:  ## renew the generated parts of the README and the notebook
	$(PYTHON) -m docs.update_readme
	$(PYTHON) -m docs.update_notebook

bench:  ## measure the compiled loop
	$(PYTHON) -m benchmarks.engine

# The tools of the three tasks below have an environment of their own: their packages come near no key.
$(TOOLS)/bin/python:
	python3 -m venv $(TOOLS)
	$@ -m pip install --quiet "cyclonedx-bom>=7,<8" "pip-audit>=2.10,<3" "uv>=0.9,<1"

lock: $(TOOLS)/bin/python  ## resolve what live trading installs, with hashes
	$(TOOLS)/bin/uv pip compile pyproject.toml --extra live --generate-hashes --upgrade \
	  --python-version 3.11 --python-platform linux --custom-compile-command "make lock" --no-annotate --no-emit-index-url \
	  --quiet --output-file $(LOCK)

sbom: $(TOOLS)/bin/python  ## bill of materials of live trading: deploy/sbom.json
	$(TOOLS)/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
	  --output-file deploy/sbom.json $(LOCK)

audit: $(TOOLS)/bin/python  ## known weaknesses of what live trading installs
	$(TOOLS)/bin/python -m pip_audit --strict --require-hashes --disable-pip --requirement $(LOCK)

# Targets for people and CI. Each target is a short script or command, so that people and CI run the same thing.

.DEFAULT_GOAL := help
.PHONY: help setup test test-large demo sbom fmt clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## install what is missing: Debian packages (no service is started), .venv, and the base image for demo and tests
	@scripts/setup

test: setup  ## lint, types, import contracts and all tests
	@scripts/check

test-large: setup  ## a layer of nine gigabytes through import, push, pull and tar: minutes, 40 GB of disk
	@.venv/bin/python -m pytest tests/large

demo: setup  ## the whole way of an image on real engines; Ctrl-C ends it; EXIT=1 ends by itself with a verdict
	@exec .venv/bin/python -m deploy.demo $(if $(filter-out 0,$(EXIT)),--exit)

sbom: setup  ## write sbom.json (CycloneDX): the Python and Debian packages that are installed here, with their licences
	@.venv/bin/python -m deploy.container.sbom sbom.json

fmt: setup  ## format the code, and fix what ruff can fix
	@.venv/bin/ruff check --fix . && .venv/bin/ruff format .

clean:  ## remove caches and the demo's folder (.venv stays)
	@rm -rf .demo .lab .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

-include deploy/stack/stack.mk

# What can be done here. Each target is a short script or command, so that people and CI run the same thing.

.DEFAULT_GOAL := help
.PHONY: help setup test demo fmt clean

help:  ## say what can be done here
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## install what is missing: Debian packages (no service is started), .venv, and the base image for demo and tests
	@scripts/setup

test: setup  ## lint, types, import contracts and all tests
	@scripts/check

demo: setup  ## the whole way of an image on real engines; Ctrl-C ends it; EXIT=1 ends by itself with a verdict
	@exec .venv/bin/python -m deploy.demo $(if $(filter-out 0,$(EXIT)),--exit)

fmt: setup  ## format the code, and fix what ruff can fix
	@.venv/bin/ruff check --fix . && .venv/bin/ruff format .

clean:  ## remove caches and the demo's folder (.venv stays)
	@rm -rf .demo .lab .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

-include deploy/stack/stack.mk

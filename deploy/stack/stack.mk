# The real stack; the Makefile includes this.

.PHONY: images up down test-stack

images: setup  ## build the stack's images; BASE=debootstrap where nothing can be pulled; SAVE=file for one bundle
	@.venv/bin/python -m deploy.stack.images $(if $(BASE),--base $(BASE)) $(if $(SAVE),--save $(SAVE))

up: setup  ## start the stack with Compose; DEMO=1 with two ranges
	@.venv/bin/python -m deploy.stack.up $(if $(filter-out 0,$(DEMO)),--demo)

down: setup  ## stop the stack; PURGE=1 removes its data too
	@.venv/bin/python -m deploy.stack.up --down $(if $(filter-out 0,$(PURGE)),--purge)

test-stack: setup  ## the stack on an engine and networks of its own: images, ranges, deployments, what a range may not
	@.venv/bin/python -m pytest tests/stack

# The real stack; the Makefile includes this.

.PHONY: images up down test-stack

images: setup  ## build the stack's images; BASE=pull or debootstrap (found out by default); SAVE=file for one bundle
	@.venv/bin/python -m deploy.stack.images $(if $(BASE),--base $(BASE)) $(if $(SAVE),--save $(SAVE))

up: setup  ## start the stack; DEMO=1 with two ranges and an image in both; JOIN=1 on CYROID's network; MOUNT=1 mounted layers; DOOR, BUNDLE: several hosts
	@.venv/bin/python -m deploy.stack.up $(if $(filter-out 0,$(DEMO)),--demo) \
		$(if $(MOUNT),$(if $(filter-out 0,$(MOUNT)),--mount,--no-mount)) \
		$(if $(DOOR),--door $(DOOR)) $(if $(BUNDLE),--bundle $(BUNDLE)) \
		$(if $(JOIN),$(if $(filter-out 0,$(JOIN)),--join,--no-join))

down: setup  ## stop the stack, all data stays; PURGE=1 takes ranges, secrets and data away too
	@.venv/bin/python -m deploy.stack.up --down $(if $(filter-out 0,$(PURGE)),--purge)

test-stack: setup  ## the stack on an engine and networks of its own: images, ranges, deployments, what a range may not
	@.venv/bin/python -m pytest tests/stack

"""Pure decisions of the services: no I/O, no clock, no random numbers."""

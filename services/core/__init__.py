"""Pure decisions. Nothing here reads a clock, a socket or a file."""

"""Attacks on a running stack: from inside a range as root with all that its agent has, and by a careless host user."""

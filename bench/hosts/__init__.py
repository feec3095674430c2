"""Many hosts: right content from the right host, and time with slots per host."""

"""Live events (server-sent): what changes is encoded once, and sent to every client that listens."""

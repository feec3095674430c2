"""Runtime of a process: runner, graceful shutdown, heartbeat, environment, logs and metrics."""

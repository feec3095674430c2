"""Commands: what people ask for (push, deploy, cancel, retry, forget), published on the bus for CLI and API alike."""

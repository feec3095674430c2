"""One worker program per library, all for the same tale (`bench.fault_peers`)."""

"""One worker program per library, all for the same workload (`bench.faults.peer_comparison`)."""

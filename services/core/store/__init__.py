"""The registry's store as values: which content is referenced (mark), and what it costs (figures). No I/O, no clock."""

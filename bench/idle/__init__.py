"""What idle agents cost Redis."""

"""Side-by-side measurements that a user can repeat: `python -m bench CASE --json`."""

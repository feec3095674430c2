"""Mounted layers as values: the folders that a range is shown, their records, and their EROFS images."""

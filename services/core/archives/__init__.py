"""Image archives and tar files as values: headers, tar-split, layouts, checks."""

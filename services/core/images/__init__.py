"""Images as values: references, manifests, chain IDs, encodings, and the read model of what is where."""

"""Content: reading what an image holds, wherever it is stored (configs, compressed archives)."""

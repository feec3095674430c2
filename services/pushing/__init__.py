"""How an image gets into the registry: look, mount, send what is missing, name it last."""

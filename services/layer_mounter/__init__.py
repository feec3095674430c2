"""Role `layer-mounter`: shows ranges the layers of their images as mounts of the registry's own blobs."""

from services.layer_mounter.role import LayerMounter

__all__ = ["LayerMounter"]

"""Role `collector`: deletes tags, collects unreferenced blobs, and reports what the registry's storage costs."""

from services.collector.role import Collector

__all__ = ["Collector"]

"""Role `tracker`: the read model of images and ranges, and the relay of their progress."""

from services.tracker.role import Tracker

__all__ = ["Tracker"]

"""Role `tar-server`: exports images as archives, each written once into a spool that all waiting ranges read."""

from services.tar_server.role import TarServer

__all__ = ["TarServer"]

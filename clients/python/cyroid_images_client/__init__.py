"""Client of the CYROID image distribution, over HTTP. See README.md beside it."""

from cyroid_images_client.client import ApiClient, ApiError
from cyroid_images_client.registry_service import RegistryService, get_registry_service
from cyroid_images_client.transfer import transfer_image_to_dind

__all__ = ["ApiClient", "ApiError", "RegistryService", "get_registry_service", "transfer_image_to_dind"]

"""One image of two layers that a range has, as the registry holds it."""

from __future__ import annotations

import json

from events.messages import Layer
from services.core.images.manifests import OCI_CONFIG, OCI_LAYER, Descriptor, Manifest, sha256
from services.core.mounts.layer_mounts import layer_mounts
from services.core.mounts.records import ShownLayers
from services.core.ranges.ranges import DesiredImage

ONE, TWO = (
    Layer(digest=f"sha256:{digit * 64}", diff_id=f"sha256:{digit * 64}", size_bytes=1024) for digit in ("a", "b")
)
CONFIG = json.dumps(
    {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [ONE.diff_id, TWO.diff_id]}}
).encode()
MANIFEST = Manifest.write(
    Descriptor(media_type=OCI_CONFIG, digest=sha256(CONFIG), size=len(CONFIG)),
    tuple(Descriptor(media_type=OCI_LAYER, digest=one.digest, size=one.size_bytes) for one in (ONE, TWO)),
)
WANTED = DesiredImage(
    reference="docker.io/library/web:1",
    image_id=sha256(CONFIG),
    diff_ids=(ONE.diff_id, TWO.diff_id),
    deployment_id="d-1",
    source=f"registry:5000/web@{MANIFEST.digest}",
)
SHOWN = ShownLayers(range_id="r-1").granted(layer_mounts([ONE, TWO]), "t-1", "e-1")

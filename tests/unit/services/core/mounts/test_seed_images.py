"""What a range's next engine starts with: of which images, and how it is written."""

from __future__ import annotations

import msgspec
import pytest

from events.messages import PresentImage
from services.core.images.manifests import OCI_LAYER_GZIP, Descriptor, Manifest, sha256
from services.core.mounts.layer_mounts import layer_mounts
from services.core.mounts.records import ShownLayers
from services.core.mounts.seed_images import seed_image, seed_of, seeded_by
from services.core.mounts.seeds import Seed
from services.errors import BadInput
from tests.unit.services.core.mounts.seeded import CONFIG, MANIFEST, ONE, SHOWN, TWO, WANTED


def test_an_image_is_written_with_all_that_an_engine_needs() -> None:
    """Names as an engine has them, chain IDs, manifest and config byte for byte, and the grants of its layers."""
    seed = seed_of([seed_image(WANTED, MANIFEST, CONFIG, SHOWN)], SHOWN)
    assert seed is not None
    (image,) = msgspec.json.decode(msgspec.json.encode(seed), type=Seed).images
    assert (image.reference, image.name, image.tag) == ("docker.io/library/web:1", "web", "1")
    assert (image.image_id, image.manifest, image.config) == (sha256(CONFIG), MANIFEST.content, CONFIG)
    assert (image.repository, image.manifest_digest) == ("registry:5000/web", MANIFEST.digest)
    base, top = image.layers
    assert (base.chain_id, base.parent, top.parent) == (ONE.diff_id, "", ONE.diff_id)
    assert seed.layers(image) == (ONE, TWO)
    names = [layer.diff_id.removeprefix("sha256:") for layer in (ONE, TWO)]
    assert (seed.store, seed.grants) == ("containerd", dict.fromkeys(names, "t-1"))
    assert seeded_by(seed, [WANTED])[0].layers == tuple(names)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"image_id": f"sha256:{'0' * 64}"}, "not the content"),
        ({"source": None}, "not the content"),
        ({"source": f"registry:5000/web@sha256:{'0' * 64}"}, "not the content"),
        ({"reference": f"docker.io/library/web@sha256:{'0' * 64}"}, "tag alone"),
    ],
)
def test_another_content_is_left_out(changed: dict[str, str | None], why: str) -> None:
    """It comes later, as to any range."""
    with pytest.raises(BadInput, match=why):
        seed_image(msgspec.structs.replace(WANTED, **changed), MANIFEST, CONFIG, SHOWN)


def test_an_image_of_which_a_layer_is_not_shown_is_left_out() -> None:
    """A layer of another size is another one, whatever its name."""
    name = TWO.diff_id.removeprefix("sha256:")
    without = msgspec.structs.replace(SHOWN, layers={k: v for k, v in SHOWN.layers.items() if k != name})
    other = msgspec.structs.replace(SHOWN.layers[name], layer=msgspec.structs.replace(TWO, size_bytes=1))
    for shown in (without, msgspec.structs.replace(SHOWN, layers={**SHOWN.layers, name: other})):
        with pytest.raises(BadInput, match="is not shown"):
            seed_image(WANTED, MANIFEST, CONFIG, shown)
    assert seed_of([], SHOWN) is None


def test_the_next_engine_keeps_what_it_started_with() -> None:
    """Only if it has it: what an engine without it was shown before goes, the seed with the last layer."""
    seed = seed_of([seed_image(WANTED, MANIFEST, CONFIG, SHOWN)], SHOWN)
    assert seed is not None
    shown = msgspec.structs.replace(SHOWN, seed="s", seeded=seeded_by(seed, [WANTED]))
    has = PresentImage(references=(WANTED.reference,), diff_ids=WANTED.diff_ids)
    kept = shown.of_engine("e-2", [has])
    assert (kept.engine_id, kept.layers, kept.seed) == ("e-2", SHOWN.layers, "s")
    for images in ([], [msgspec.structs.replace(has, references=("docker.io/library/other:1",))]):
        assert shown.of_engine("e-2", images).layers == {}
        assert shown.of_engine("e-2", images).seed == ""


def test_compressed_layers_are_in_it_as_the_registry_has_them() -> None:
    """Their folders, blobs and codec: an engine keeps what a pull would have brought."""
    packed = tuple(
        msgspec.structs.replace(one, digest=f"sha256:{digit * 64}", size_bytes=9, codec="gzip")
        for one, digit in ((ONE, "c"), (TWO, "d"))
    )
    manifest = Manifest.write(
        MANIFEST.body.config,
        tuple(Descriptor(media_type=OCI_LAYER_GZIP, digest=one.digest, size=one.size_bytes) for one in packed),
    )
    wanted = msgspec.structs.replace(WANTED, source=f"registry:5000/web@{manifest.digest}")
    shown = ShownLayers(range_id="r-1").granted(layer_mounts(packed), "t-1", "e-1")
    seed = seed_of([seed_image(wanted, manifest, CONFIG, shown)], shown)
    assert seed is not None
    assert seed.layers(msgspec.json.decode(msgspec.json.encode(seed), type=Seed).images[0]) == packed
    assert {one.name for one in seed.images[0].layers} == set(shown.layers)
    with pytest.raises(BadInput, match="is not shown"):
        seed_image(wanted, manifest, CONFIG, SHOWN)

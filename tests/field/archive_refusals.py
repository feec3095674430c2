"""Archives that cannot be imported, and the reason that has to be given. Sources as in `archive_writers`."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass

from services.core.images.manifests import OCI_INDEX, OCI_MANIFEST, sha256
from tests.field.archive_writers import (
    TarWriter,
    ToImage,
    docker_save_20,
    listing,
    oci_layout,
    oci_parts,
    skopeo_oci,
)


def kaniko_without_a_name(image: ToImage) -> bytes:
    """`--tarPath` with `--no-push` and no destination."""
    return TarWriter().file("manifest.json", b"null").bytes()


def empty_index(image: ToImage) -> bytes:
    """An OCI layout that was made and never filled."""
    return oci_layout({}, [])


def null_index(image: ToImage) -> bytes:
    """The same, as Go writes it."""
    return TarWriter().file("oci-layout", b"{}").file("index.json", b'{"schemaVersion":2,"manifests":null}').bytes()


def only_a_tag(image: ToImage) -> bytes:
    """An OCI layout says `1.0`, which is no name."""
    blobs, pointer = oci_parts(image)
    return oci_layout(blobs, [pointer | {"annotations": {"org.opencontainers.image.ref.name": "1.0"}}])


def no_repo_tags(image: ToImage) -> bytes:
    """`skopeo copy` to a docker-archive without a reference."""
    tar = TarWriter().file("c.json", image.config)
    paths = [f"{number}.tar" for number in range(len(image.layers))]
    for path, layer in zip(paths, image.layers, strict=True):
        tar.file(path, layer)
    return tar.file("manifest.json", listing("c.json", [], paths)).bytes()


def other_platforms(image: ToImage) -> bytes:
    """An index that names this machine's platform, and holds another's."""
    blobs, pointer = oci_parts(image)
    there = pointer | {"platform": {"architecture": "s390x", "os": "linux"}}
    missing: dict[str, object] = {"mediaType": OCI_MANIFEST, "digest": "sha256:" + "e" * 64, "size": 5}
    missing["platform"] = {"architecture": "amd64", "os": "linux"}
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [missing, there]}).encode()
    top = {"mediaType": OCI_INDEX, "size": len(index), "annotations": {"io.containerd.image.name": image.name}}
    blobs[f"blobs/sha256/{sha256(index).removeprefix('sha256:')}"] = index
    return oci_layout(blobs, [top | {"digest": sha256(index)}])


def without_its_layers(image: ToImage) -> bytes:
    """`docker save` on a containerd store that lost the blobs."""
    blobs, pointer = oci_parts(image)
    kept = {path: content for path, content in blobs.items() if content.startswith(b"{")}
    return oci_layout(kept, [pointer | {"annotations": {"io.containerd.image.name": image.name}}])


def layers_and_config_differ(image: ToImage) -> bytes:
    """Empty layers counted in one document and not in the other."""
    tar = TarWriter().file("c.json", image.config).file("0.tar", image.layers[0])
    return tar.file("manifest.json", listing("c.json", [image.name], ["0.tar"])).bytes()


def pack(image: ToImage) -> bytes:
    """Layers of the base image left out, which this engine does not have."""
    tar = TarWriter().file("/c.json", image.config).file("/x.tar", image.layers[-1])
    left_out = [""] * (len(image.layers) - 1)
    return tar.file("manifest.json", listing("/c.json", [image.name], [*left_out, "/x.tar"])).bytes()


def helm_chart(image: ToImage) -> bytes:
    """An artifact in an OCI layout."""
    blobs, pointer = oci_parts(image)
    (path,) = (path for path in blobs if path.endswith(str(pointer["digest"]).removeprefix("sha256:")))
    manifest = json.loads(blobs[path])
    manifest["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json"
    content = json.dumps(manifest).encode()
    blobs[f"blobs/sha256/{sha256(content).removeprefix('sha256:')}"] = content
    named = {"digest": sha256(content), "size": len(content), "annotations": {"io.containerd.image.name": image.name}}
    return oci_layout(blobs, [pointer | named])


def exported(image: ToImage) -> bytes:
    """`docker export` taken for `docker save`."""
    return TarWriter().folder("etc").file("etc/hostname", b"x").bytes()


def cut_off(image: ToImage) -> bytes:
    """A download that ended early."""
    return docker_save_20(image).rstrip(b"\0")[:-3000]


def packed_twice(image: ToImage) -> bytes:
    """A `.tar.gz` that a download tool packed once more."""
    return gzip.compress(gzip.compress(docker_save_20(image)))


def sparse(image: ToImage) -> bytes:
    """`tar --sparse` of a layout, in GNU's old format."""
    raw = io.BytesIO(skopeo_oci(image))
    with tarfile.open(fileobj=raw) as tar:
        header = tar.getmembers()[-1]
    header.type = b"S"
    return header.tobuf(tarfile.GNU_FORMAT) + skopeo_oci(image)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An archive, the reports that it was learnt from, and what the error has to say."""

    write: Callable[[ToImage], bytes]
    sources: tuple[str, ...]
    reason: str


REFUSALS = (
    Refusal(kaniko_without_a_name, ("GoogleContainerTools/kaniko#740",), "holds no image: its manifest.json is empty"),
    Refusal(empty_index, ("podman-container-tools/skopeo#1448",), "holds no image: its index.json names none"),
    Refusal(null_index, ("podman-container-tools/skopeo#1448",), "holds no image: its index.json names none"),
    Refusal(only_a_tag, ("OSInside/kiwi#2050",), "has no name; give it one with --as"),
    Refusal(no_repo_tags, ("podman-container-tools/skopeo#2568",), "has no name; give it one with --as"),
    Refusal(
        other_platforms,
        ("moby/moby#48589", "docker/cli#5476"),
        "holds no image for linux/amd64: it holds linux/s390x, and names one for linux/amd64",
    ),
    Refusal(without_its_layers, ("moby/moby#49473",), "is not whole: its layer blobs/sha256/.* is missing"),
    Refusal(layers_and_config_differ, ("bazelbuild/rules_docker#474",), "contradicts itself: .* has 3 layers"),
    Refusal(pack, ("buildpacks/imgutil#222",), "leaves out 2 of 3 layers, which (the host's|an) engine"),
    Refusal(helm_chart, ("podman-container-tools/skopeo#2858",), "no image but an artifact of type .*helm"),
    Refusal(exported, ("microsoft/codamosa#26",), "a file system: it begins with 'etc'"),
    Refusal(cut_off, ("microsoft/codamosa#26",), "is cut off after"),
    Refusal(packed_twice, ("google/go-containerregistry#1858",), "is packed twice, the second time by gzip"),
    Refusal(sparse, ("moby/moby#37581",), "pack it without --sparse"),
)

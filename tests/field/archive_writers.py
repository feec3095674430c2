"""Image archives as other tools write them. Each row names the public reports that its peculiarity was learnt from."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import zstandard

from services.core.images.manifests import DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST, sha256
from tests.images import config_of


@dataclass(frozen=True, slots=True)
class ToImage:
    """What an archive is made of: a name, the layers' tars, the config."""

    name: str
    layers: Sequence[bytes]

    @property
    def diff_ids(self) -> list[str]:
        return [sha256(layer) for layer in self.layers]

    @property
    def config(self) -> bytes:
        return config_of(self.diff_ids)


class TarWriter:
    """A tar under construction, in one dialect."""

    def __init__(self, dialect: int = tarfile.GNU_FORMAT, prefix: str = "") -> None:
        self._raw = io.BytesIO()
        self._prefix = prefix
        self._tar = tarfile.TarFile(fileobj=self._raw, mode="w", format=dialect)

    def file(self, name: str, content: bytes, **pax: str) -> TarWriter:
        info = tarfile.TarInfo(self._prefix + name)
        info.size, info.mode, info.pax_headers = len(content), 0o644, pax
        self._tar.addfile(info, io.BytesIO(content))
        return self

    def folder(self, name: str) -> TarWriter:
        info = tarfile.TarInfo(self._prefix + name)
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        self._tar.addfile(info)
        return self

    def link(self, name: str, target: str, *, kind: bytes = tarfile.SYMTYPE) -> TarWriter:
        info = tarfile.TarInfo(self._prefix + name)
        info.type, info.linkname, info.mode = kind, target, 0o777
        self._tar.addfile(info)
        return self

    def bytes(self) -> bytes:
        self._tar.close()
        return self._raw.getvalue()


def plain(digest: str) -> str:
    """The hex digits of a digest."""
    return digest.removeprefix("sha256:")


def listing(config: str, names: Sequence[str] | None, layers: Sequence[str]) -> bytes:
    """A `manifest.json` of one image."""
    return json.dumps([{"Config": config, "RepoTags": names, "Layers": layers}]).encode()


def docker_save_20(image: ToImage) -> bytes:
    """A folder for each layer; one that occurs twice is a symbolic link to the first."""
    first: dict[bytes, str] = {}
    tar, paths = TarWriter(tarfile.PAX_FORMAT), []
    for number, layer in enumerate(image.layers):
        folder = plain(sha256(f"{image.name} {number}".encode()))
        tar.folder(folder).file(f"{folder}/VERSION", b"1.0").file(f"{folder}/json", b'{"id":"x"}')
        if layer in first:
            tar.link(f"{folder}/layer.tar", f"../{first[layer]}/layer.tar")
        else:
            first[layer] = folder
            tar.file(f"{folder}/layer.tar", layer)
        paths.append(f"{folder}/layer.tar")
    config = plain(sha256(image.config)) + ".json"
    tar.file(config, image.config).file("manifest.json", listing(config, [image.name], paths))
    return tar.file("repositories", b"{}").bytes()


def jib(image: ToImage) -> bytes:
    """gzip layers called by their digest, each once, `config.json`."""
    tar, paths = TarWriter(), []
    for layer in image.layers:
        packed = gzip.compress(layer, mtime=0)
        path = f"{plain(sha256(packed))}.tar.gz"
        if path not in paths:
            tar.file(path, packed)
        paths.append(path)
    return (
        tar.file("config.json", image.config).file("manifest.json", listing("config.json", [image.name], paths)).bytes()
    )


def crane(image: ToImage) -> bytes:
    """The config called by its whole digest, with the colon."""
    tar, paths = TarWriter(), []
    tar.file(sha256(image.config), image.config)
    for layer in image.layers:
        packed = gzip.compress(layer, mtime=0)
        paths.append(f"{plain(sha256(packed))}.tar.gz")
        if paths.count(paths[-1]) == 1:
            tar.file(paths[-1], packed)
    return tar.file("manifest.json", listing(sha256(image.config), [image.name], paths)).bytes()


def kaniko(image: ToImage) -> bytes:
    """As crane's, with more in each row of `manifest.json`."""
    tar, paths = TarWriter(tarfile.PAX_FORMAT), []
    for layer in dict.fromkeys(image.layers):
        packed = gzip.compress(layer, 1, mtime=0)
        paths.append(f"{plain(sha256(packed))}.tar.gz")
        tar.file(paths[-1], packed)
    by_layer = dict(zip(dict.fromkeys(image.layers), paths, strict=True))
    row = {"Config": sha256(image.config), "RepoTags": [image.name], "LayerSources": None}
    row["Layers"] = [by_layer[layer] for layer in image.layers]
    return tar.file(sha256(image.config), image.config).file("manifest.json", json.dumps([row]).encode()).bytes()


def ko(image: ToImage) -> bytes:
    """`manifest.json` first, and layers in a folder of their own deep enough for a long path."""
    folder = "/".join(["layers" + "x" * 40] * 3)
    paths = [f"{folder}/{plain(diff_id)}.tar" for diff_id in image.diff_ids]
    tar = TarWriter(tarfile.PAX_FORMAT).file("manifest.json", listing("c.json", [image.name], paths))
    for path, layer in dict(zip(paths, image.layers, strict=True)).items():
        tar.file(path, layer)
    return tar.file("c.json", image.config).bytes()


def nix(image: ToImage) -> bytes:
    """Every name begins with `./`, the folder itself is an entry, and the whole is packed by gzip."""
    tar, paths = TarWriter(prefix="./"), []
    tar.folder("")
    for diff_id, layer in dict(zip(image.diff_ids, image.layers, strict=True)).items():
        tar.folder(plain(diff_id)).file(f"{plain(diff_id)}/layer.tar", layer)
    paths = [f"{plain(diff_id)}/layer.tar" for diff_id in image.diff_ids]
    config = plain(sha256(image.config)) + ".json"
    tar.file(config, image.config).file("manifest.json", listing(config, [image.name], paths))
    return gzip.compress(tar.bytes(), mtime=0)


def rules_docker(image: ToImage) -> bytes:
    """A layer that occurs twice lies in the archive twice, under two names, beside `repositories`."""
    tar, paths = TarWriter(), []
    for number, layer in enumerate(image.layers):
        paths.append(f"{number:064x}/layer.tar")
        tar.file(f"{number:064x}/VERSION", b"1.0").file(paths[-1], layer).file(f"{number:064x}/json", b"{}")
    config = plain(sha256(image.config)) + ".json"
    tar.file(config, image.config).file("repositories", b"{}")
    return tar.file("manifest.json", listing(config, [image.name], paths)).bytes()


def rules_oci(image: ToImage) -> bytes:
    """`manifest.json` with the paths of blobs, and no OCI index."""
    tar, paths = TarWriter(tarfile.PAX_FORMAT), []
    config = f"blobs/sha256/{plain(sha256(image.config))}"
    for layer in image.layers:
        packed = gzip.compress(layer, mtime=0)
        paths.append(f"blobs/sha256/{plain(sha256(packed))}.tar.gz")
        if paths.count(paths[-1]) == 1:
            tar.file(paths[-1], packed)
    return tar.file(config, image.config).file("manifest.json", listing(config, [image.name], paths)).bytes()


def oci_parts(image: ToImage, media_type: str = OCI_MANIFEST) -> tuple[dict[str, bytes], dict[str, object]]:
    """The blobs of an OCI layout by path, and the descriptor of the image's manifest."""
    blobs: dict[str, bytes] = {}

    def blob(content: bytes, kind: str) -> dict[str, object]:
        blobs[f"blobs/sha256/{plain(sha256(content))}"] = content
        return {"mediaType": kind, "digest": sha256(content), "size": len(content)}

    layers = [blob(gzip.compress(layer, mtime=0), OCI_LAYER_GZIP) for layer in image.layers]
    manifest = {"schemaVersion": 2, "mediaType": media_type, "config": blob(image.config, OCI_CONFIG), "layers": layers}
    return blobs, blob(json.dumps(manifest | {"annotations": None}).encode(), media_type)


def oci_layout(
    blobs: dict[str, bytes], pointers: Sequence[dict[str, object]], dialect: int = tarfile.PAX_FORMAT, prefix: str = ""
) -> bytes:
    """An OCI layout as a tar, `index.json` before the blobs."""
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(pointers), "annotations": None}
    tar = TarWriter(dialect, prefix).file("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
    tar.file("index.json", json.dumps(index).encode())
    for path, content in blobs.items():
        tar.file(path, content)
    return tar.bytes()


def skopeo_oci(image: ToImage) -> bytes:
    """The whole name in `ref.name`, nothing in containerd's annotation."""
    blobs, pointer = oci_parts(image)
    return oci_layout(blobs, [pointer | {"annotations": {"org.opencontainers.image.ref.name": image.name}}])


def tar_of_a_layout(image: ToImage) -> bytes:
    """`tar -c .` in a layout's folder, which gives names that begin with `./`."""
    blobs, pointer = oci_parts(image)
    named = pointer | {
        "annotations": {"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": "1"}
    }
    return oci_layout(blobs, [named], tarfile.GNU_FORMAT, "./")


def docker_save_25(image: ToImage) -> bytes:
    """Both layouts in one archive."""
    blobs, pointer = oci_parts(image)
    annotations = {
        "io.containerd.image.name": f"docker.io/library/{image.name}",
        "org.opencontainers.image.ref.name": "1",
    }
    manifest = json.loads(blobs[f"blobs/sha256/{plain(str(pointer['digest']))}"])
    paths = [f"blobs/sha256/{plain(layer['digest'])}" for layer in manifest["layers"]]
    blobs["manifest.json"] = listing(f"blobs/sha256/{plain(manifest['config']['digest'])}", [image.name], paths)
    return oci_layout(blobs, [pointer | {"annotations": annotations}])


def docker_save_25_0_0(image: ToImage) -> bytes:
    """Its OCI manifest has no layers, its `manifest.json` has them."""
    tar = TarWriter()
    config = {"mediaType": OCI_CONFIG, "digest": sha256(image.config), "size": len(image.config)}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": None}).encode()
    pointer = {"mediaType": OCI_MANIFEST, "digest": sha256(manifest), "size": len(manifest)}
    for diff_id, layer in dict(zip(image.diff_ids, image.layers, strict=True)).items():
        tar.file(f"blobs/sha256/{plain(diff_id)}", layer)
    tar.file(f"blobs/sha256/{plain(sha256(manifest))}", manifest)
    tar.file(f"blobs/sha256/{plain(sha256(image.config))}", image.config)
    annotations = {"io.containerd.image.name": f"docker.io/library/{image.name}"}
    index = {"schemaVersion": 2, "manifests": [pointer | {"annotations": annotations}]}
    tar.file("index.json", json.dumps(index).encode()).file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    paths = [f"blobs/sha256/{plain(diff_id)}" for diff_id in image.diff_ids]
    return tar.file(
        "manifest.json", listing(f"blobs/sha256/{plain(sha256(image.config))}", [image.name], paths)
    ).bytes()


def one_platform_of_many(image: ToImage) -> bytes:
    """An index of three platforms and an attestation, of which only one image is in the archive."""
    blobs, pointer = oci_parts(image)
    missing = {"mediaType": OCI_MANIFEST, "digest": "sha256:" + "e" * 64, "size": 500}
    manifests = [
        missing | {"platform": {"architecture": "arm64", "os": "linux", "variant": "v8"}},
        pointer | {"platform": {"architecture": "amd64", "os": "linux"}, "annotations": None},
        missing | {"digest": "sha256:" + "d" * 64, "platform": {"architecture": "s390x", "os": "linux"}},
        missing
        | {
            "digest": "sha256:" + "c" * 64,
            "platform": {"architecture": "unknown", "os": "unknown"},
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        },
    ]
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).encode()
    blobs[f"blobs/sha256/{plain(sha256(index))}"] = index
    named = {"annotations": {"io.containerd.image.name": image.name}}
    return oci_layout(blobs, [{"mediaType": OCI_INDEX, "digest": sha256(index), "size": len(index)} | named])


def docker_media_types(image: ToImage) -> bytes:
    """An OCI layout whose manifest is Docker's, without a type in the index."""
    blobs, pointer = oci_parts(image, DOCKER_MANIFEST)
    return oci_layout(blobs, [{**pointer, "annotations": {"org.opencontainers.image.ref.name": image.name}}])


def no_folders(image: ToImage) -> bytes:
    """Files below folders that are no entries themselves, and a comment in a global header as `git archive` has it."""
    comment = tarfile.TarInfo("").create_pax_global_header({"comment": "0" * 40})
    return comment + skopeo_oci(image)


def pzstd(image: ToImage) -> bytes:
    """Packed by zstd, each frame after a skippable one that says its length."""
    content, packed = docker_save_20(image), b""
    half = len(content) // 2
    for part in (content[:half], content[half:]):
        frame = zstandard.ZstdCompressor().compress(part)
        packed += bytes.fromhex("502a4d1804000000") + len(frame).to_bytes(4, "little") + frame
    return packed


def long_names(image: ToImage) -> bytes:
    """Paths of more than 100 characters, by GNU's long names."""
    folder = "d" * 90 + "/" + "e" * 60
    paths = [f"{folder}/{number}.tar" for number in range(len(image.layers))]
    tar = TarWriter(tarfile.GNU_FORMAT)
    for path, layer in zip(paths, image.layers, strict=True):
        tar.file(path, layer)
    return (
        tar.file(f"{folder}/c.json", image.config)
        .file("manifest.json", listing(f"{folder}/c.json", [image.name], paths))
        .bytes()
    )


def null_lists(image: ToImage) -> bytes:
    """BuildKit's `FROM scratch` with a label: every list of the image is null."""
    config = json.loads(config_of([]))
    config["rootfs"]["diff_ids"] = config["history"] = None
    content = json.dumps(config | {"config": {"Labels": {"of": image.name}}}).encode()
    row = [{"Config": "c.json", "RepoTags": [image.name], "Layers": None}]
    return TarWriter().file("c.json", content).file("manifest.json", json.dumps(row).encode()).bytes()


@dataclass(frozen=True, slots=True)
class Writer:
    """A tool, the reports its peculiarity was learnt from, and a function that writes as it does."""

    write: Callable[[ToImage], bytes]
    sources: tuple[str, ...]


WRITERS = (
    Writer(docker_save_20, ("GoogleContainerTools/jib#2829",)),
    Writer(jib, ("GoogleContainerTools/jib#1774", "GoogleContainerTools/jib#2829")),
    Writer(crane, ("google/go-containerregistry#1922", "google/go-containerregistry#621")),
    Writer(kaniko, ("GoogleContainerTools/kaniko#398", "GoogleContainerTools/kaniko#1863")),
    Writer(ko, ("mafintosh/tar-stream#75",)),
    Writer(nix, ("google/go-containerregistry#783", "freedomofpress/dangerzone#1086")),
    Writer(rules_docker, ("bazelbuild/rules_docker#1420",)),
    Writer(rules_oci, ("bazel-contrib/rules_oci#56", "socktainer/socktainer#218")),
    Writer(skopeo_oci, ("podman-container-tools/skopeo#1442", "bazel-contrib/rules_img#627")),
    Writer(tar_of_a_layout, ("orbstack/orbstack#2059", "freedomofpress/dangerzone#1086")),
    Writer(docker_save_25, ("moby/moby#44833",)),
    Writer(docker_save_25_0_0, ("moby/moby#47065", "reproducible-containers/diffoci#51")),
    Writer(one_platform_of_many, ("kubernetes-sigs/kind#3795", "reproducible-containers/diffoci#247")),
    Writer(docker_media_types, ("containerd/containerd#14190",)),
    Writer(no_folders, ("anchore/stereoscope#492", "moby/moby#41496")),
    Writer(pzstd, ("moby/moby#42862", "containerd/containerd#6177")),
    Writer(long_names, ("docker/cli#2525",)),
    Writer(null_lists, ("podman-container-tools/buildah#5031", "moby/moby#46284")),
)

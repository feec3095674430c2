"""The register of decoders: everything that reads bytes which somebody else wrote, and how it may refuse them.

`run` gets bytes and gives a value, or raises one of `errors`: the project's own, or ValueError where the caller's
contract is to name it. `covers` are the functions, as `path:name`, whose decoding it reaches;
`test_register.py` looks for one that nobody covers.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
import zstandard

from events.authority import ALLOWED
from events.bus import BusRefused, Record
from events.codec import Undecodable, Unencodable, decode, encode, message_types, parse_time
from events.dead_letters import read_letter
from events.gateway.link import GatewayAddress
from events.records import Key, UnreadableRecord
from events.redis.client import connect
from events.redis.replication import read_replication
from events.redis.urls import login_of
from events.tailing import tailed
from services.adapters import classic_layers, containerd_messages, engine_restart
from services.adapters.containerd import _Codec, _errors
from services.adapters.engine_errors import engine_error
from services.api.authentication import parse_tokens
from services.api.events.frames import Positions
from services.api.guards import _is_ours, _place
from services.collector.layout import linked_digest
from services.core.archives import tar_split
from services.core.archives.archive_check import ArchiveCheck
from services.core.archives.archive_documents import docker_images, index_of
from services.core.archives.dockerignore import Dockerignore
from services.core.archives.packings import packing_of, unpacker
from services.core.archives.tar_parser import TarParser
from services.core.archives.zip_stream import ZipParser
from services.core.builds import protobuf
from services.core.builds.base_images import base_images
from services.core.builds.dockerfile import needs_buildkit
from services.core.builds.trace import BuildTrace
from services.core.deployments.deployment import Deployment, parse_transfer_id
from services.core.deployments.idempotency import Claim
from services.core.deployments.offers import Offer
from services.core.deployments.plans import Plan
from services.core.deployments.pull_tokens import repository_of
from services.core.hosts.held_images import HeldImages
from services.core.hosts.hosts import HostRecord
from services.core.hosts.looks import LookAnswer
from services.core.images.blueprints import read_manifest
from services.core.images.bundles import BundleIndex, BundleList
from services.core.images.encodings import LayerEncoding
from services.core.images.indexes import Index
from services.core.images.ingests import IngestRecord
from services.core.images.manifests import ImageConfig, Manifest
from services.core.images.p256 import PublicKey
from services.core.images.prompts import Prompt, PromptAnswer
from services.core.images.pull_progress import PullProgress
from services.core.images.push_batches import PushBatch
from services.core.images.pushes import PushRecord
from services.core.images.read_model import ImageLayers, RangeInventory, RegistryEntry
from services.core.images.references import Reference
from services.core.images.registry_scan import HostImageEntry, ScanReport
from services.core.images.signatures import PAYLOAD_TYPE, SIGNATURE, is_signed, signature_layers
from services.core.images.transfers import Transfer
from services.core.mounts.erofs_root import SUPERBLOCK_BYTES, mended_mode, root_inode_offset
from services.core.ranges.abilities import major
from services.core.ranges.engine_networks import engine_refusal, networks_of
from services.core.ranges.heartbeat import AgentHeartbeat
from services.core.ranges.proxies import proxy_note
from services.core.ranges.range_claims import RangeClaim
from services.core.ranges.ranges import DesiredImages, EnginePlace, KnownRange
from services.core.ranges.unreferenced import UnreferencedSummary
from services.core.registry_place import RegistryPlace
from services.core.store.figures import StoreFigures
from services.core.store.mark import manifest_links
from services.doctor.machine import too_old
from services.errors import BadArchive, BadInput, BadReference, LayersNotMounted, NotAnImage, Unavailable
from services.queries.dead_letter_pages import LetterCursor
from services.queries.read_model.listing import Cursor
from services.runtime.environment import read_settings
from services.settings import Settings
from tests.unit.services.core.archives.tars import CONFIG, docker, oci, tar
from tests.unit.services.core.archives.test_zip_stream import zipped

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + "1" * 64
STREAMS = {
    "images": "cyroid:images",
    "deployments": "cyroid:deployments",
    "deployer": "cyroid:deployer",
    "progress": "cyroid:progress",
    "host_inbox": "cyroid:host:local:inbox",
    "inbox": "cyroid:range:r1:inbox",
    "outbox": "cyroid:range:r1:outbox",
    "range_progress": "cyroid:range:r1:progress",
}


@dataclass(frozen=True)
class Decoder:
    """One entry of the register."""

    name: str
    run: Callable[[bytes], object]
    seeds: Sequence[bytes]
    covers: Sequence[str]
    errors: tuple[type[Exception], ...] = ()


def text_of(payload: bytes) -> str:
    """As text arrives from a file or the environment: any byte, some as lone surrogates."""
    return payload.decode(errors="surrogateescape")


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


# ---- the bus --------------------------------------------------------------------------------------------------------


def _golden() -> dict[str, list[bytes]]:
    """Wire type → data of its golden messages."""
    found: dict[str, list[bytes]] = {wire: [b"{}"] for wire in message_types()}
    for line in (ROOT / "tests/unit/events/golden.jsonl").read_text().splitlines():
        entry = json.loads(line)
        found.setdefault(entry["type"], []).append(_json(entry["data"]))
    return found


def _entry(wire: str, data: bytes, **more: bytes) -> dict[bytes, bytes]:
    fields = {
        b"id": b"1",
        b"type": wire.encode(),
        b"source": b"s",
        b"subject": b"",
        b"time": b"2026-01-01T00:00:00Z",
        b"data": data,
    }
    return fields | {name.encode(): value for name, value in more.items()}


def _message(wire: str) -> Callable[[bytes], object]:
    """Decoded on each stream where it may stand; what was decoded can be published again, or that is refused."""
    streams = [STREAMS[kind] for kind, types in ALLOWED.items() if message_types()[wire] in types]

    def run(payload: bytes) -> object:
        refused: Exception | None = None
        for stream in streams:
            try:
                envelope = decode(_entry(wire, payload), stream=stream)
            except Undecodable as problem:
                refused = problem
                continue
            try:
                encode(envelope)
            except Unencodable as problem:
                refused = problem
        if refused is not None:
            raise refused
        return None

    return run


def _attribute(name: str) -> Callable[[bytes], object]:
    fields = _golden()["image.push_requested.v1"][-1]
    return lambda payload: encode(decode(_entry("image.push_requested.v1", fields, **{name: payload})))


def _bus() -> Iterator[Decoder]:
    for wire, seeds in _golden().items():
        if wire in message_types():
            yield Decoder(
                f"message {wire}",
                _message(wire),
                seeds,
                ("events/codec.py:decode_message",),
                (Undecodable, Unencodable),
            )
    for name in ("id", "type", "source", "subject", "time", "correlationid", "causationid", "traceparent", "actor"):
        yield Decoder(
            f"attribute {name}",
            _attribute(name),
            (
                b"a",
                b"image.push_requested.v1",
                b"2026-01-31T12:00:00.000001Z",
                b"0001-01-01T00:00:00+23:59",
                b"9999-12-31T23:59:59-23:59",
            ),
            ("events/codec.py:decode", "events/codec.py:parse_time"),
            (Undecodable, Unencodable),
        )
    yield Decoder(
        "INFO replication",
        lambda payload: read_replication(payload.decode(errors="replace")),
        (b"role:master\nslave0:ip=10.0.0.2,port=6379,state=online,offset=90,lag=1\nmaster_repl_offset:100\n",),
        ("events/redis/replication.py:read_replication", "events/redis/replication.py:_replica"),
        (),
    )
    yield Decoder(
        "time",
        lambda payload: parse_time(payload.decode(errors="replace")),
        (b"2026-01-31T12:00:00Z",),
        ("events/codec.py:parse_time",),
        (Undecodable,),
    )
    yield Decoder(
        "dead letter",
        _letter,
        (_LETTER, _PACKED_LETTER),
        ("events/dead_letters.py:read_letter", "events/dead_letters.py:DeadLetter.envelope"),
    )
    yield Decoder(
        "tailed entry",
        lambda payload: tailed("s", "1-1", dict(part.partition(b"=")[::2] for part in payload.split(b"|"))),
        (_LETTER, b"id=1|type=image.push_requested.v1|source=s|subject=|time=2026-01-01T00:00:00Z|data={}"),
        ("events/tailing.py:tailed",),
    )
    for kind in RECORDS:
        yield Decoder(
            f"record {kind.__name__}",
            lambda payload, kind=kind: Key("k", kind).read(Record(payload, 1)),  # type: ignore[misc]  # bound now
            (_json(_filled(kind)), *RECORD_SEEDS.get(kind, ())),
            ("events/records.py:Key.read",),
            (UnreadableRecord,),
        )


def _filled(kind: Any) -> Any:
    """The least value of a type, as JSON has it."""
    origin = get_origin(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return {field.encode_name: _filled(field.type) for field in msgspec.structs.fields(kind) if field.required}
    if origin is Annotated or origin is UnionType or origin is Union:
        return _filled(get_args(kind)[0])
    if origin is Literal:
        return get_args(kind)[0]
    known = {str: "a", int: 1, float: 1.0, bool: True, datetime: "2026-01-01T00:00:00Z", tuple: [], list: [], dict: {}}
    return known[origin or kind]


RECORDS: tuple[type[msgspec.Struct], ...] = (
    Deployment,
    Claim,
    Offer,
    Plan,
    LayerEncoding,
    Prompt,
    PromptAnswer,
    RegistryEntry,
    ImageLayers,
    HostImageEntry,
    ScanReport,
    PushRecord,
    IngestRecord,
    PushBatch,
    Transfer,
    RangeInventory,
    UnreferencedSummary,
    KnownRange,
    DesiredImages,
    EnginePlace,
    RangeClaim,
    HostRecord,
    HeldImages,
    StoreFigures,
)
RECORD_SEEDS: dict[type[Any], tuple[bytes, ...]] = {
    Deployment: (
        _json(
            {
                "deployment_id": "d1",
                "range_id": "r1",
                "state": "running",
                "asked": ["web:1"],
                "requested_at": "2026-01-01T00:00:00Z",
                "correlation_id": "c",
                "images": [
                    {"reference": "web:1", "state": "pulling", "since": "2026-01-01T00:00:00Z", "size_bytes": 1}
                ],
            }
        ),
    ),
    LayerEncoding: (_json({"codec": "zstd", "level": 3, "digest": DIGEST, "size_bytes": 1}),),
    Offer: (
        _json(
            {
                "transfer_id": "d1.0.1",
                "reference": "web:1",
                "image_id": DIGEST,
                "diff_ids": [DIGEST],
                "held": [DIGEST],
                "layout": "oci",
                "token_sha256": DIGEST,
                "expires_at": "2026-01-01T00:00:00Z",
            }
        ),
    ),
}

_LETTER = b"reason=a|message=b|stream=s|group=g|entry=1-1|failed=1|crashed=0|time=t|raw:id=1"
_PACKED_LETTER = _LETTER + b"|packed=" + msgspec.msgpack.encode({b"id": b"1"})


def _letter(payload: bytes) -> object:
    fields = dict(part.partition(b"=")[::2] for part in payload.split(b"|"))
    letter = read_letter("1-1", fields)
    return letter and (letter.envelope, letter.identity)


# ---- ranges ---------------------------------------------------------------------------------------------------------


def _ranges() -> Iterator[Decoder]:
    beat = _json({"engine_id": "e", "incarnation": "i", "engine_version": "28.5.2", "at": "2026-01-01T00:00:00Z"})
    yield Decoder("heartbeat", AgentHeartbeat.read, (beat,), ("services/core/ranges/heartbeat.py:AgentHeartbeat.read",))
    host = HostRecord(host="h1", machine="m", since=datetime(2026, 1, 1), seen_at=datetime(2026, 1, 1))
    yield Decoder(
        "host heartbeat", HostRecord.read, (host.encode(),), ("services/core/hosts/hosts.py:HostRecord.read",)
    )
    look = LookAnswer(away="the engine did not answer").encode()
    yield Decoder("host look", LookAnswer.read, (look,), ("services/core/hosts/looks.py:LookAnswer.read",))
    cursor = Cursor("name", "asc", "a", "a").encode().encode()
    yield Decoder(
        "cursor",
        lambda payload: Cursor.decode(text_of(payload)),
        (cursor,),
        ("services/queries/read_model/listing.py:Cursor.decode",),
        (BadInput,),
    )
    letter = LetterCursor("cyroid:dead", "1-0").encode().encode()
    yield Decoder(
        "cursor of dead letters",
        lambda payload: LetterCursor.decode(text_of(payload)),
        (letter,),
        ("services/queries/dead_letter_pages.py:LetterCursor.decode",),
        (BadInput,),
    )
    yield Decoder(
        "last event id",
        lambda payload: Positions.decode(text_of(payload), {"images": "", "dead": ""}),
        (b"dead=0-0;images=1-1",),
        ("services/api/events/frames.py:Positions.decode",),
    )
    yield Decoder(
        "transfer id",
        lambda payload: parse_transfer_id(text_of(payload)[:128]),
        (b"d1.0.1", b"a.b.0.17"),
        ("services/core/deployments/deployment.py:parse_transfer_id",),
    )
    yield Decoder(
        "engine version",
        lambda payload: (major(text_of(payload)), too_old(text_of(payload))),
        (b"20.10.24+dfsg1", b"v28"),
        ("services/core/ranges/abilities.py:major", "services/doctor/machine.py:too_old"),
    )
    yield Decoder(
        "proxy",
        lambda payload: proxy_note("10.0.0.1:5000", "http://p", text_of(payload)),
        (b"10.0.0.0/8,.example,*",),
        ("services/core/ranges/proxies.py:_matches", "services/core/ranges/proxies.py:_is_loopback"),
    )
    yield Decoder(
        "engine_url",
        lambda payload: engine_refusal(text_of(payload), "172.30.1.0/24"),
        (b"tcp://172.30.1.3:2375", b"tcp://[::ffff:172.30.1.3]:2375"),
        ("services/core/ranges/engine_networks.py:engine_refusal",),
    )


# ---- registries -----------------------------------------------------------------------------------------------------

MANIFEST = _json(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 7},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": DIGEST, "size": 9}],
    }
)
INDEX = _json(
    {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": DIGEST,
                "size": 5,
                "platform": {"os": "linux", "architecture": "amd64", "variant": "v8"},
                "annotations": {"a": "b"},
            }
        ],
    }
)


#: cosign's own example of a public key.
PUBLIC_KEY = b"""-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAELigCnlLNKgOglRTx1D7JhI7eRw99
QolE9Jo4QUxnbMy5nUuBL+UZF9qqfm/Dg1BNeHRThHzWh2ki9vAEgWEDOw==
-----END PUBLIC KEY-----
"""
BUNDLE = _json(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": DIGEST,
                "size": 5,
                "annotations": {"org.opencontainers.image.ref.name": "docker.io/library/web:1"},
            }
        ],
    }
)
SIGNATURES = _json(
    {"layers": [{"mediaType": PAYLOAD_TYPE, "digest": DIGEST, "size": 9, "annotations": {SIGNATURE: "MEUCIQ=="}}]}
)


class _Anyone(PublicKey):
    """Signed everything, so that what is signed is read."""

    def signed(self, signature: bytes, content: bytes) -> bool:
        return True


def _index(payload: bytes) -> object:
    index = Index.parse(payload)
    return index and (index.images, index.choose("linux/amd64"), index.choose(None))


def _registries() -> Iterator[Decoder]:
    go_json = "services/core/images/go_json.py:decode"
    yield Decoder(
        "manifest",
        Manifest.parse,
        (MANIFEST,),
        (go_json, "services/core/images/manifests.py:Manifest.parse"),
        (NotAnImage,),
    )
    yield Decoder(
        "image config",
        ImageConfig.parse,
        (CONFIG,),
        (go_json, "services/core/images/manifests.py:ImageConfig.parse"),
        (BadInput,),
    )
    yield Decoder(
        "index", _index, (INDEX,), ("services/core/images/indexes.py:Index.parse",), (NotAnImage, Unavailable)
    )
    yield Decoder(
        "stored manifest",
        manifest_links,
        (MANIFEST, INDEX),
        ("services/core/store/mark.py:manifest_links",),
    )
    yield Decoder("tag link", linked_digest, (DIGEST.encode(),), ("services/collector/layout.py:linked_digest",))
    yield Decoder(
        "reference",
        lambda payload: (str(Reference.parse(text_of(payload))), Reference.parse(text_of(payload)).repository),
        (b"nginx:1.27", b"host.example:5000/a/b@" + DIGEST.encode(), b"[::1]:5000/x:y"),
        ("services/core/images/references.py:Reference.parse",),
        (BadReference,),
    )
    yield Decoder(
        "repository",
        lambda payload: Reference.from_registry(text_of(payload), "1"),
        (b"host_5000/x", b"x--1x_5000__v6/a", b"host.example__5/a"),
        ("services/core/images/references.py:_decode_domain",),
    )
    yield Decoder(
        "bundle's index",
        lambda payload: [(one.digest, one.reference) for one in BundleIndex.parse(payload).manifests],
        (BUNDLE,),
        ("services/core/images/bundles.py:BundleIndex.parse",),
        (BadArchive,),
    )
    yield Decoder(
        "bundle's list",
        lambda payload: BundleList.parse(payload).with_blobs([DIGEST]),
        (_json({"blobs": [DIGEST]}),),
        ("services/core/images/bundles.py:BundleList.parse",),
        (BadArchive,),
    )
    yield Decoder(
        "public keys",
        lambda payload: PublicKey.all_of(text_of(payload)),
        (PUBLIC_KEY,),
        ("services/core/images/p256.py:PublicKey.all_of", "services/core/images/p256.py:PublicKey._of"),
        (ValueError,),
    )
    yield Decoder(
        "signature",
        lambda payload: PublicKey.all_of(PUBLIC_KEY.decode())[0].signed(payload, b"a"),
        (bytes.fromhex("3008020301000102010f"), b"\x30\x44\x02\x20" + b"\x11" * 32 + b"\x02\x20" + b"\x22" * 32),
        ("services/core/images/p256.py:PublicKey.signed", "services/core/images/p256.py:_loaded"),
    )
    yield Decoder(
        "signatures of a manifest",
        lambda payload: [one.signature for one in signature_layers(payload)],
        (SIGNATURES,),
        (
            "services/core/images/signatures.py:signature_layers",
            "services/core/images/signatures.py:SignatureLayer.signature",
        ),
    )
    yield Decoder(
        "signed payload",
        lambda payload: is_signed(payload, b"", DIGEST, [_Anyone(b"")]),
        (
            _json(
                {"critical": {"image": {"docker-manifest-digest": DIGEST}, "type": "cosign container image signature"}}
            ),
        ),
        ("services/core/images/signatures.py:is_signed",),
    )
    yield Decoder(
        "source",
        lambda payload: repository_of(text_of(payload)),
        (b"host:5000/team/web@" + DIGEST.encode(),),
        (),
    )


# ---- archives -------------------------------------------------------------------------------------------------------


def _pieces(payload: bytes) -> Iterator[bytes]:
    """As chunks of uneven sizes."""
    place, size = 0, 1
    while place < len(payload):
        yield payload[place : place + size]
        place, size = place + size, size * 3 % 700 + 1


def _archive(payload: bytes) -> object:
    check = ArchiveCheck("the archive")
    for piece in _pieces(payload):
        for _ in check.feed(piece):
            pass
    checked = check.finish("linux/amd64")
    return checked.documents({image.config_path: ("docker.io/library/web:1",) for image in checked.images})


def _tar(payload: bytes) -> object:
    parser = TarParser()
    return [part for piece in _pieces(payload) for part in parser.feed(piece)], parser.is_whole


def _unpack(payload: bytes) -> object:
    unpack = unpacker(packing_of(payload))
    for piece in _pieces(payload):
        for _ in unpack.feed(piece):
            pass
    unpack.finish()
    return unpack.trailing_garbage


def _split(payload: bytes) -> object:
    batches = list(tar_split.decode(_pieces(payload)))
    return tar_split.tar_size(batches), [tar_split.has_sparse_file(batch) for batch in batches]


def _pax_tar() -> bytes:
    import io
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("ä" * 150)
        info.pax_headers = {"GNU.sparse.realsize": "10", "comment": "x", "path": "p" * 120}
        archive.addfile(info)
        link = tarfile.TarInfo("l")
        link.type, link.linkname = tarfile.SYMTYPE, "z" * 200
        archive.addfile(link)
    return out.getvalue()


_SMALL = tar(docker(["web:1"]) | {"a/layer.tar": b"x" * 40})
_WHOLE = tar(docker(["web:1"]))
_PLAIN = b"layer " * 200
_TAR_SPLIT = b'{"type":2,"payload":"QUJD"}\n{"type":1,"name":"a","size":3,"payload":"AAAA"}\n'


def _zip(payload: bytes) -> object:
    parser = ZipParser()
    found = [event for event in parser.feed(payload) if isinstance(event, bytes)]
    parser.finish()
    return found


def _archives() -> Iterator[Decoder]:
    parser = ("services/core/archives/tar_headers.py:_number", "services/core/archives/tar_headers.py:_octal")
    documents = tuple(
        f"services/core/archives/archive_images.py:ArchiveContent.{name}"
        for name in ("_inner_index", "_is_complete", "_manifest")
    )
    yield Decoder("archive", _archive, (_SMALL, _WHOLE, tar(oci())), (*parser, *documents), (BadArchive,))
    yield Decoder(
        "tar", _tar, (_SMALL, _pax_tar()), (*parser, "services/core/archives/pax_records.py:_records"), (ValueError,)
    )
    yield Decoder(
        "packed stream",
        _unpack,
        (
            gzip.compress(_PLAIN) * 2,
            zstandard.ZstdCompressor().compress(_PLAIN),
            lzma.compress(_PLAIN),
            bz2.compress(_PLAIN),
        ),
        ("services/core/archives/packings.py:unpacker",),
        (ValueError,),
    )
    yield Decoder(
        "zip",
        _zip,
        (zipped({"a": b"1" * 300, "b": b""}), zipped({"images/a": b"1" * 300}, piped=True)),
        (
            "services/core/archives/zip_stream.py:_size",
            "services/core/archives/zip_stream.py:ZipParser._header",
        ),
        (ValueError,),
    )
    yield Decoder(
        "blueprint manifest",
        lambda payload: (read_manifest(payload, "x").files(), read_manifest(payload, "x").pulled()),
        (_json({"format": "cyroid-blueprint", "version": 1, "images": [{"file": "a"}, {"reference": "b:1"}]}),),
        ("services/core/images/blueprints.py:read_manifest",),
        (BadArchive,),
    )
    yield Decoder("tar-split", _split, (_TAR_SPLIT,), ("services/core/archives/tar_split.py:_checked",), (ValueError,))
    yield Decoder(
        "manifest.json",
        docker_images,
        (_json([{"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["l"]}]), b"null"),
        ("services/core/archives/archive_documents.py:docker_images",),
        (msgspec.DecodeError,),
    )
    yield Decoder(
        "index.json",
        lambda payload: [(one.name, one.path, one.is_attestation) for one in index_of(payload).manifests],
        (INDEX,),
        ("services/core/archives/archive_documents.py:index_of",),
        (msgspec.DecodeError,),
    )
    yield Decoder(
        "Dockerfile",
        lambda payload: (
            needs_buildkit(payload.decode(errors="replace"), {}),
            base_images(payload.decode(errors="replace"), {"X": "1"}),
        ),
        (
            b"# syntax=a\n# escape=`\nFROM a AS b\nRUN --mount=type=cache <<-EOF\n a\nEOF\nCOPY --link a b\nARG X",
            b"ARG X=a\nFROM ${X:-b}:$X AS c\nCOPY --from=d:1 a b\n",
        ),
        ("services/core/builds/dockerfile.py:needs_buildkit", "services/core/builds/base_images.py:base_images"),
    )
    yield Decoder(
        ".dockerignore",
        lambda payload: Dockerignore.parse(text_of(payload)).excludes("a/b/c.txt"),
        (b"# c\n*.log\n!a/**/b\n[a-z]?\\*\n/x/\n[[a-c]\n[^a-]\n[a&&b]\n",),
        ("services/core/archives/dockerignore.py:Dockerignore.parse",),
        (ValueError,),
    )
    superblock = bytearray(SUPERBLOCK_BYTES)
    superblock[:4], superblock[12] = (0xE0F5E1E2).to_bytes(4, "little"), 12
    yield Decoder(
        "EROFS index",
        lambda payload: (root_inode_offset(payload), mended_mode(payload, payload[-64:])),
        (bytes(superblock),),
        (
            "services/core/mounts/erofs_root.py:root_inode_offset",
            "services/core/mounts/erofs_root.py:mended_mode",
            "services/core/mounts/erofs_root.py:_fields",
        ),
        (ValueError,),
    )


# ---- engines --------------------------------------------------------------------------------------------------------

_VERTEX = protobuf.message((1, b"sha256:a"), (3, b"RUN make"), (5, protobuf.message((1, 5), (2, 7))), (4, 1))
_STATUS = protobuf.message(
    (1, _VERTEX), (3, protobuf.message((1, b"sha256:a"), (2, protobuf.message((1, 6))), (4, b"out\nput")))
)


def _trace(payload: bytes) -> object:
    trace = BuildTrace()
    return trace.lines(payload) + trace.rest()


def _containerd(kind: type[Any]) -> Callable[[bytes], object]:
    def run(payload: bytes) -> object:
        with _errors(Path("/s")):
            return _Codec().decode(payload, kind)

    return run


def _progress(payload: bytes) -> object:
    progress = PullProgress()
    for line in text_of(payload).split("\n"):
        status, _, layer = line.partition("|")
        progress.take(status, layer or None, len(line), len(status))
    return progress.queued


def _engines() -> Iterator[Decoder]:
    yield Decoder(
        "protobuf",
        lambda payload: list(protobuf.fields(payload)),
        (_STATUS,),
        ("services/core/builds/protobuf.py:fields",),
        (ValueError,),
    )
    traced = ("lines", "_begin", "_vertex", "_status", "_log", "_warning")
    yield Decoder(
        "build trace",
        _trace,
        (_STATUS, _VERTEX),
        (
            "services/core/builds/trace.py:_seconds",
            *(f"services/core/builds/trace.py:BuildTrace.{name}" for name in traced),
        ),
        (ValueError,),
    )
    yield Decoder(
        "pull progress",
        _progress,
        (b"Pulling fs layer|a\nDownloading|a\nWaiting|b\nPull complete|a",),
        ("services/core/images/pull_progress.py:PullProgress.take",),
    )
    yield Decoder(
        "engine error",
        lambda payload: engine_error(0, text_of(payload), "pull", "engine"),
        (_json({"message": "no space left on device"}), b"manifest unknown"),
        ("services/adapters/engine_errors.py:_message",),
    )
    yield Decoder(
        "answer of a range's init",
        engine_restart.answer_of,
        (_json({"placed": False, "busy": True, "why": "2 clients"}), _json({"placed": True})),
        ("services/adapters/engine_restart.py:answer_of",),
        (LayersNotMounted,),
    )
    yield Decoder(
        "origins of a layer",
        classic_layers.origins_of,
        (_json([{"Digest": "sha256:1", "SourceRepository": "r:5000/a", "HMAC": ""}]),),
        ("services/adapters/classic_layers.py:origins_of",),
    )
    answers = {
        containerd_messages.MountsAnswer: (bytes(containerd_messages.MountsAnswer([containerd_messages.Mount("a")])),),
        containerd_messages.StatAnswer: (bytes(containerd_messages.StatAnswer()), b"\x0a\x03\x0a\x01a"),
        containerd_messages.InfoAnswer: (b"\x0a\x05\x0a\x01a\x10\x05",),
        containerd_messages.WriteAnswer: (b"\x08\x02\x20\x05\x28\x07\x32\x01a",),
        containerd_messages.CreateLeaseAnswer: (b"\x0a\x03\x0a\x01a",),
        containerd_messages.ListLeasesAnswer: (b"\x0a\x03\x0a\x01a" * 2,),
        containerd_messages.Empty: (b"",),
    }
    for kind, seeds in answers.items():
        yield Decoder(
            f"containerd {kind.__name__}",
            _containerd(kind),
            seeds,
            ("services/adapters/containerd.py:_Codec.decode",),
            (LayersNotMounted,),
        )


# ---- settings and headers -------------------------------------------------------------------------------------------


def _setting(name: str) -> Callable[[bytes], object]:
    """The variable as it comes, and what is read out of it later on."""

    def run(payload: bytes) -> object:
        settings = read_settings({f"CYROID_{name.upper()}": text_of(payload).replace("\0", "")})
        match name:
            case "redis_url" if settings.redis_url.startswith("gateway"):
                GatewayAddress.parse(settings.redis_url)
            case "redis_url":
                connect(settings.redis_url, socket_timeout=1.0, name="fuzz", prefix="{cyroid}")
                login_of(settings.redis_url)
            case "engine_networks" | "operations_clients":
                networks_of(getattr(settings, name))
            case "tar_listen" | "upload_listen" | "gateway_listen" | "api_listen" | "operations_listen":
                assert int(getattr(settings, name).rpartition(":")[2] or 0) < 65536
        return repr(settings)

    return run


SETTING_SEEDS: dict[str, tuple[bytes, ...]] = {
    "api_frame_ancestors": (b"self,https://cyroid.example:8443",),
    "redis_url": (
        b"redis://u:p@h:6379/0",
        b"redis+sentinel://u:p@h:1,h:2/m/0",
        b"rediss+sentinel://u:p@h:1,[::1]/m/0?sentinel_username=s&sentinel_password=p&ssl_check_hostname=no",
        b"redis+cluster://h:1,h:2",
        b"unix:///a/b",
        b"gateway://r1:s@h:7071",
        b"redis://[::1]:6379",
    ),
    "registry_url": (b"http://u:p@h:5000", b"https://[::1]:5000"),
    "upload_listen": (b"[::1]:7072",),
    "engine_networks": (b"172.30.1.0/24, 10.0.0.1",),
    "api_cyroid_roles": (b"admin=admin,*=viewer",),
    "operations_listen": (b"127.0.0.1:9090",),
    "operations_clients": (b"172.30.0.0/24",),
    "host_engine_url": (b"unix:///var/run/docker.sock", b"tcp://h:2375"),
}


def _settings() -> Iterator[Decoder]:
    for field in msgspec.structs.fields(Settings):
        default = str(field.default)
        yield Decoder(
            f"setting {field.name}",
            _setting(field.name),
            (*SETTING_SEEDS.get(field.name, ()), default.encode() or b"x"),
            (
                "services/runtime/environment.py:_convert",
                "events/gateway/link.py:GatewayAddress.parse",
                "events/redis/client.py:_connected",
                "events/redis/urls.py:login_of",
                "events/redis/urls.py:addresses",
                "services/core/registry_place.py:RegistryPlace.of",
                "services/core/ranges/engine_networks.py:networks_of",
            ),
            (BadInput, BusRefused),
        )
    yield Decoder(
        "token file",
        lambda payload: parse_tokens(text_of(payload)),
        (b"# c\nana viewer " + b"a" * 64 + b"\n",),
        ("services/api/authentication.py:parse_tokens",),
        (BadInput,),
    )
    yield Decoder(
        "registry URL",
        lambda payload: RegistryPlace.of(text_of(payload)),
        SETTING_SEEDS["registry_url"],
        ("services/core/registry_place.py:RegistryPlace.of",),
        (BadInput,),
    )
    yield Decoder(
        "Host and Origin",
        lambda payload: (_is_ours(text_of(payload), ("a",)), _place(text_of(payload))),
        (b"127.0.0.1:8070", b"http://[::1]:80", b"localhost"),
        ("services/api/guards.py:_is_ours", "services/api/guards.py:_place"),
    )


DECODERS: tuple[Decoder, ...] = (
    *_bus(),
    *_ranges(),
    *_registries(),
    *_archives(),
    *_engines(),
    *_settings(),
)

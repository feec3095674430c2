"""Steps of the demonstration: five chapters, each a short function that does something and then checks the result.

1  everything starts                 `deploy.demo.start`
2  build, import, promote            `make_images`
3  into the registry, to the ranges  `first_deployment`
4  again, rebuilt, without registry  `again`, `rebuilt`, `without_registry`, `registry_returns`
5  what went where                   `summary`
"""

from __future__ import annotations

from deploy.demo import material
from deploy.demo.bars import transfers
from deploy.demo.material import LATE, NOTES, REPORT, TOOLS, WEB
from deploy.demo.show import short
from deploy.demo.stage import Stage
from deploy.machine.commands import MachineError
from events.messages import ImageBuilt, ImageImported, ImagePromoted
from services.cli.output import size

SMALL_BYTES = 200_000
"""More than configs, manifests and the site's layer; less than any layer that must not be sent again."""
KINDS = {ImageBuilt: "image.built", ImageImported: "image.imported", ImagePromoted: "image.promoted"}


def make_images(stage: Stage) -> None:
    """Build, import and promote one image each; every one is announced, as what the engine itself has."""
    stage.begin("2", "Build an image, import one, promote a container")
    host = stage.system.host
    host.docker("import", str(stage.system.lab.base_image_tar()), material.BASE)
    context = material.web_context(stage.folder / "web", "1.0")
    archive = material.archive(host, stage.folder)
    mark = stage.book.mark()
    container = "exercise-notes"
    with transfers(stage.show, stage.system):  # the pusher does not wait for the next step
        stage.run("images", "build", str(context), "-t", WEB, "--quiet")
        stage.run("images", "import", str(archive))
        host.docker("run", "--name", container, WEB, "sh", "-c", "echo 'Look at port 8080 first.' > /srv/site/notes")
        stage.run("images", "promote", container, NOTES)
    host.docker("rm", container)
    said = [envelope for envelope in stage.book.since(mark) if type(envelope.message) in KINDS]
    stage.show.table(
        ("IMAGE", "EVENT", "FROM", "LAYERS", "SIZE"),
        [
            (
                short(envelope.subject),
                KINDS[type(envelope.message)],
                envelope.message.origin.removeprefix(f"{stage.folder}/"),
                str(len(host.layers(envelope.subject))),
                size(envelope.message.size_bytes),
            )
            for envelope in said
            if isinstance(envelope.message, ImageBuilt | ImageImported | ImagePromoted)
        ],
        right=(3, 4),
    )
    wanted = {ImageBuilt: WEB, ImageImported: TOOLS, ImagePromoted: NOTES}
    announced = {type(envelope.message): short(envelope.subject) for envelope in said}
    stage.expect(announced == wanted and len(said) == 3, "each service published its event, once", announced)
    same = all(image_id(stage, e.subject) == getattr(e.message, "image_id", "") for e in said)
    stage.expect(same, "each event names the image id that the host's engine reports")


def first_deployment(stage: Stage) -> None:
    """The pusher has handled the events; both ranges pull what they need, each layer once."""
    stage.begin("3", "Into the registry, then to both ranges")
    names = (WEB, TOOLS, NOTES)
    stage.log_mark = 0  # the pusher began when the first event came
    with transfers(stage.show, stage.system):
        beginning = dict.fromkeys([stage.book.streams.images], "0-0")
        pushed = [stage.pushed(beginning, name, image_id=image_id(stage, name)) for name in names]
    stage.show.went(pushed)
    stage.log_mark = stage.system.registry.log.stat().st_size
    with transfers(stage.show, stage.system):
        ways = stage.deploy(*names)
    stage.show.went(ways)
    stage.show.say("(Images that come at the same time share layers: one is counted with the image that brought it.)")
    stage.same_content(*names)
    stage.expect(all(way.path == "pulled" for way in ways), "every image was pulled from the registry")
    blobs = {layer["digest"]: layer["size"] for name in names for layer in stage.manifest(name)["layers"]}
    once = len(stage.system.ranges) * sum(blobs.values())
    served = stage.served_bytes()
    stage.expect(
        once <= served <= once + SMALL_BYTES,
        f"the registry sent each of the {len(blobs)} layers once to each range: {size(served)}",
        f"that would be {size(once)}, it sent {size(served)}",
    )
    received = sum(way.sent_bytes for way in ways)
    stage.expect(abs(received - once) <= SMALL_BYTES, "the agents count the same", size(received))
    stage.reads(WEB, "/srv/site/version", "1.0")
    stage.reads(NOTES, "/srv/site/notes", "Look at port 8080 first.")


def again(stage: Stage) -> None:
    """The same deployment once more: nothing is sent."""
    stage.begin("4a", "The same again: nothing is sent")
    ways = stage.deploy(WEB, TOOLS, NOTES)
    stage.show.went(ways)
    stage.same_content(WEB, TOOLS, NOTES)
    stage.expect(all(way.path == "present" for way in ways), "every image was already present")
    served = stage.served_bytes() + sum(way.sent_bytes for way in ways)
    stage.expect(served == 0, "not one byte of a layer was sent", size(served))


def rebuilt(stage: Stage) -> None:
    """The same tag with a small change: one layer travels, and the ranges have the new content."""
    stage.begin("4b", "Rebuilt under the same tag: only the new layer is sent")
    before = stage.system.host.layers(WEB)
    mark = stage.book.mark()
    context = material.web_context(stage.folder / "web", "1.1")
    with transfers(stage.show, stage.system):  # the push may be over before the build command has ended
        stage.run("images", "build", str(context), "-t", WEB, "--quiet")
        pushed = stage.pushed(mark, WEB, image_id=image_id(stage, WEB))
        ways = stage.deploy(WEB)
    stage.show.went([pushed, *ways])
    stage.same_content(WEB)
    new = [diff_id for diff_id in stage.system.host.layers(WEB) if diff_id not in before]
    stage.expect(len(new) == 1, "the rebuilt image differs from the old one in one layer", len(new))
    stage.expect(
        0 < pushed.sent_bytes < SMALL_BYTES and pushed.layers_reused == pushed.layers_total - 1,
        f"one layer went into the registry: {size(pushed.sent_bytes)} of an image of {size(total(stage, WEB))}",
        pushed,
    )
    one_each = all(0 < way.sent_bytes < SMALL_BYTES and way.layers_reused == way.layers_total - 1 for way in ways)
    stage.expect(one_each and all(way.path == "pulled" for way in ways), "one layer went to each range", ways)
    stage.expect(
        stage.served_bytes() < len(ways) * SMALL_BYTES, f"the registry's log confirms it: {size(stage.served_bytes())}"
    )
    stage.reads(WEB, "/srv/site/version", "1.1")


def without_registry(stage: Stage) -> None:
    """The registry is stopped: a new image still arrives, as a tar with only what the ranges lack."""
    stage.begin("4c", "The registry is stopped: the new image goes as a tar stream")
    stage.system.registry.stop()
    stage.show.say(f"registry {stage.system.registry.address} stopped")
    context = material.one_more_layer(stage.folder / "report", WEB, "report", material.REPORT_BYTES)
    stage.run("images", "build", str(context), "-t", REPORT, "--quiet")
    with transfers(stage.show, stage.system):
        ways = stage.deploy(REPORT)
    stage.show.went(ways)
    stage.same_content(REPORT)
    stage.expect(all(way.path == "loaded" for way in ways), "the image was loaded from a tar stream", ways)
    stage.expect(
        all(material.REPORT_BYTES < way.sent_bytes < material.REPORT_BYTES + SMALL_BYTES for way in ways),
        f"the tar holds only the missing layer: {size(ways[0].sent_bytes)} of {size(total(stage, REPORT))}",
        ways,
    )
    stage.reads(REPORT, "/srv/site/version", "1.1")


def registry_returns(stage: Stage) -> None:
    """The registry is back: what waited for it is pushed by itself, and ranges pull again."""
    stage.begin("4d", "The registry is back: what waited is pushed by itself")
    mark = dict.fromkeys([stage.book.streams.images], "0-0")
    stage.system.registry.start()
    with transfers(stage.show, stage.system):
        waited = stage.pushed(mark, REPORT, image_id=image_id(stage, REPORT))
        stage.show.checked(f"{REPORT} went into the registry without anybody asking again")
        context = material.one_more_layer(stage.folder / "late", REPORT, "late", SMALL_BYTES)
        stage.run("images", "build", str(context), "-t", LATE, "--quiet")
        late = stage.pushed(mark, LATE, image_id=image_id(stage, LATE))
        ways = stage.deploy(LATE)
    stage.show.went([waited, late, *ways])
    stage.same_content(LATE)
    stage.show.say(
        "(An engine finds layers by the registry's names for them; one that came as tar has none, so it is pulled.)"
    )
    stage.expect(
        all(way.path == "pulled" for way in ways), "the image built since then is pulled from the registry again", ways
    )
    stage.reads(LATE, "/srv/site/version", "1.1")


def summary(stage: Stage) -> None:
    """Everything that went somewhere, and what a plain tar stream per range would have sent."""
    stage.begin("5", "What went where")
    rows = []
    for step in dict.fromkeys(step for step, _ in stage.ways):
        ways = [way for name, way in stage.ways if name == step]
        paths = ", ".join(dict.fromkeys(way.path for way in ways))
        to_ranges = [way for way in ways if way.where != "registry"]
        plain = sum(total(stage, way.image) for way in to_ranges)
        rows.append(
            (
                step.partition(":")[0],
                paths,
                size(sum(way.sent_bytes for way in ways if way.where == "registry")),
                size(sum(way.sent_bytes for way in to_ranges)),
                size(plain),
                f"{max(way.seconds for way in ways):.2f}",
            )
        )
    stage.show.table(
        ("STEP", "PATHS TAKEN", "TO REGISTRY", "TO RANGES", "AS FULL TARS", "LONGEST (S)"), rows, right=(2, 3, 4, 5)
    )
    stage.show.say("(AS FULL TARS: what `docker save | docker load` into each range would have sent.)")
    given_up = stage.book.count(stage.book.streams.dead)
    stage.expect(given_up == 0, "no message was given up on: the dead-letter stream is empty", given_up)


def image_id(stage: Stage, name: str) -> str:
    """The config digest, as the host's engine (classic store) has it."""
    return stage.system.host.docker("image", "inspect", "--format", "{{.Id}}", name).strip()


def total(stage: Stage, name: str) -> int:
    """Bytes of an image's layers, as `docker save` would send them."""
    try:
        return int(stage.system.host.docker("image", "inspect", "--format", "{{.Size}}", name))
    except (MachineError, ValueError):
        return 0


CHAPTERS = (make_images, first_deployment, again, rebuilt, without_registry, registry_returns, summary)

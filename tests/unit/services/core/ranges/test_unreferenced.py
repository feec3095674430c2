"""What a range has and nobody wants."""

from datetime import UTC, datetime

from events.messages import PresentImage
from services.core.images.read_model import RangeInventory, RegistryEntry
from services.core.ranges.ranges import DesiredImage, DesiredImages
from services.core.ranges.unreferenced import UnreferencedImage, unwanted, unwanted_in_registry

WEB, DB, TOY = (f"docker.io/library/{name}:1" for name in ("web", "db", "toy"))
ONE, TWO, THREE, FOUR, LAYER = (f"sha256:{digit * 64}" for digit in "1234a")


def _wanted(*references: str, image_id: str = ONE, diff_ids: tuple[str, ...] = (LAYER,)) -> DesiredImages:
    images = {
        name: DesiredImage(reference=name, image_id=image_id, diff_ids=diff_ids, deployment_id="d")
        for name in references
    }
    return DesiredImages(range_id="r1", images=images)


def _held(*images: PresentImage) -> RangeInventory:
    return RangeInventory.announced("r1", images)


def _image(*references: str, image_id: str | None, size_bytes: int = 0, **more: object) -> PresentImage:
    return PresentImage(
        references=references,
        diff_ids=(LAYER,),
        image_id=image_id,
        size_bytes=size_bytes,
        **more,  # type: ignore[arg-type]
    )


def test_what_was_deployed_is_wanted_and_what_comes_by_hand_is_not() -> None:
    """All names of one content are one image, with its size."""
    held = _held(_image(WEB, image_id=ONE, size_bytes=7), _image(TOY, DB, image_id=TWO, size_bytes=9))
    assert unwanted(held, _wanted(WEB), {}) == (UnreferencedImage(references=(DB, TOY), image_id=TWO, size_bytes=9),)
    assert unwanted(held, _wanted(WEB, DB, TOY), {}) == ()


def test_another_name_for_wanted_content_takes_no_room() -> None:
    """It is told, and that taking it away frees nothing."""
    held = _held(_image(WEB, TOY, image_id=ONE))
    assert unwanted(held, _wanted(WEB), {}) == (UnreferencedImage(references=(TOY,), image_id=ONE, shared=True),)


def test_what_is_under_way_is_wanted_by_name_and_by_content() -> None:
    """A pull that has just ended has no name yet; that is not something left behind."""
    held = _held(_image(DB, image_id=TWO), _image(image_id=THREE))
    assert unwanted(held, _wanted(), {DB: None, TOY: THREE}) == ()


def test_a_rebuilt_image_leaves_one_without_a_name() -> None:
    """With what the engine calls it, so that somebody can remove it."""
    held = _held(_image(WEB, image_id=ONE), _image(image_id=TWO, size_bytes=5))
    assert unwanted(held, _wanted(WEB), {}) == (UnreferencedImage(references=(), image_id=TWO, size_bytes=5),)


def test_a_containerd_store_is_compared_by_what_it_calls_its_images() -> None:
    """It tells no config digest: two names of one image are told by its own id, unnamed ones by their diff IDs."""
    left = PresentImage(references=(), diff_ids=(LAYER, LAYER), local_id=THREE)
    pulled = PresentImage(references=(), diff_ids=(LAYER,), local_id=TWO)
    held = _held(
        _image(WEB, "docker.io/library/alias:1", image_id=None, local_id=FOUR),
        _image(DB, TOY, image_id=None, local_id=TWO),
        left,
        pulled,
    )
    assert unwanted(held, _wanted(WEB), {}) == (
        UnreferencedImage(references=("docker.io/library/alias:1",), image_id=None, local_id=FOUR, shared=True),
        UnreferencedImage(references=(DB, TOY), image_id=None, local_id=TWO),
        UnreferencedImage(references=(), image_id=None, local_id=THREE),
    )


def test_names_of_which_nothing_is_known_are_an_image_each() -> None:
    """An agent of an earlier version says no id of its engine's."""
    held = RangeInventory(range_id="r1", images={DB: None, TOY: None})
    assert [one.references for one in unwanted(held, _wanted(WEB), {})] == [(DB,), (TOY,)]


def test_the_registry_holds_for_nobody_what_is_nowhere_and_not_meant_for_anybody() -> None:
    """By name and by content: under another name it is still what a range has."""

    def entry(reference: str, image_id: str) -> RegistryEntry:
        return RegistryEntry(
            reference=reference,
            repository="r",
            tag="1",
            manifest_digest=THREE,
            image_id=image_id,
            layers=1,
            size_bytes=1,
            pushed_at=datetime.now(UTC),
        )

    entries = [entry(WEB, ONE), entry(DB, TWO), entry(TOY, THREE)]
    assert [one.reference for one in unwanted_in_registry(entries, {WEB}, {TWO})] == [TOY]

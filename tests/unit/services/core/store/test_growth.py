"""Growth of the store over time."""

from datetime import UTC, datetime, timedelta

from services.core.store.figures import StoreFigures
from services.core.store.growth import StoreGrowth, grown

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def figures(at: datetime, stored_bytes: int = 0) -> StoreFigures:
    return StoreFigures(
        at=at,
        tags=0,
        repositories=0,
        blobs=0,
        stored_bytes=stored_bytes,
        referenced_bytes=0,
        collectable_bytes=0,
        quarantined_bytes=0,
        logical_bytes=0,
        saved_bytes=0,
        uploads_bytes=0,
        disk_bytes=0,
        free_bytes=0,
    )


def test_the_last_sample_of_an_hour_stays() -> None:
    """Two measurements within an hour are one sample."""
    growth = grown(grown(StoreGrowth(), figures(NOON, 1)), figures(NOON + timedelta(minutes=5), 2))
    assert [one.stored_bytes for one in growth.samples] == [2]


def test_samples_older_than_two_days_are_one_for_each_day() -> None:
    """What was hourly becomes daily as it grows old; the order is that of time."""
    growth = StoreGrowth()
    for hour in range(24 * 5):
        growth = grown(growth, figures(NOON + timedelta(hours=hour), hour))
    moments = [one.at for one in growth.samples]
    assert moments == sorted(moments)
    last = moments[-1]
    young = [one for one in moments if last - one < timedelta(days=2)]
    old = [one for one in moments if last - one >= timedelta(days=2)]
    assert len(young) == 48
    assert len({one.date() for one in old}) == len(old)
    assert growth.samples[-1].stored_bytes == 24 * 5 - 1


def test_growth_is_bounded() -> None:
    """After years it has no more samples than two years of days."""
    growth = StoreGrowth()
    for day in range(1000):
        growth = grown(growth, figures(NOON + timedelta(days=day)))
    assert len(growth.samples) <= 730 + 48

"""Every metric has the value that it must have after known traffic."""

from collections.abc import Callable

import pytest

from lora_router.telemetry.catalog import METRICS
from tests.unit.telemetry.scenes import SCENES, Scene, values_of

_SUFFIXES = ("_bucket", "_count", "_sum")


def name_of(sample: str) -> str:
    """Return the metric that a sample belongs to."""
    if sample in METRICS:
        return sample
    return next(sample.removesuffix(each) for each in _SUFFIXES if sample.endswith(each))


@pytest.mark.parametrize("make", SCENES, ids=lambda make: make.__name__)
def test_each_metric_has_its_value(make: Callable[[], Scene]) -> None:
    scene = make()

    found = values_of(scene.metrics())

    assert {series: found.get(series) for series in scene.values} == scene.values


def test_every_metric_is_in_a_scene() -> None:
    seen = {name_of(series[0]) for make in SCENES for series in make().values}

    assert METRICS.keys() - seen == set()


@pytest.mark.parametrize("make", SCENES, ids=lambda make: make.__name__)
def test_each_metric_is_as_it_is_described(make: Callable[[], Scene]) -> None:
    for metric in make().metrics():
        described = METRICS[metric.name + ("_total" if metric.type == "counter" else "")]
        assert (metric.type, metric.documentation) == (described.kind, described.meaning)
        for sample in metric.samples:
            assert {*sample.labels} - {"le"} == {*described.labels}, sample.name

"""The pixels of a plot of slots."""

from lora_router.simulator.slot_pixels import adapter_colours, pod_middles, slot_pixels
from lora_router.simulator.timeline import FleetSample, PodSample, Slot, Timeline

WHITE = (255, 255, 255)
BLUE = (0, 114, 178)
PALE_BLUE = (191, 220, 236)
RED = (213, 94, 0)

IN_USE, LOADED = Slot("sql", in_use=True), Slot("sql", in_use=False)


def timeline(*pods: tuple[PodSample, ...]) -> Timeline:
    samples = [FleetSample(float(time), at_once, 0, 0) for time, at_once in enumerate(pods)]
    return Timeline(float(len(pods)), len(pods[0]), 1.0, samples)


def test_a_slot_is_a_row_and_a_sample_is_a_column() -> None:
    picture = timeline(
        (PodSample((IN_USE, None), 0),),
        (PodSample((IN_USE, None), 3),),
        (PodSample((LOADED, None), 0),),
    )

    assert slot_pixels(picture, adapter_colours(["sql"])) == [
        [WHITE, RED, WHITE],  # waiting
        [BLUE, BLUE, PALE_BLUE],
        [WHITE, WHITE, WHITE],
        [WHITE, WHITE, WHITE],  # between pods
    ]


def test_each_pod_is_named_at_its_middle() -> None:
    two_slots, four_slots = PodSample((None,) * 2, 0), PodSample((None,) * 4, 0)
    assert pod_middles(timeline((two_slots, four_slots))) == [2.0, 7.0]


def test_popular_adapters_have_colours_and_the_others_greys() -> None:
    colours = list(adapter_colours([f"adapter-{number}" for number in range(12)]).values())

    assert len(set(colours[:5])) == 5
    assert all(red == green == blue for red, green, blue in map(_parts, colours[5:]))
    assert colours[5] != colours[6]


def _parts(colour: str) -> tuple[str, str, str]:
    return colour[1:3], colour[3:5], colour[5:7]

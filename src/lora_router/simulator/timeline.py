"""Which adapters are in which pods' slots over time: samples of a simulation, for a plot.

Nothing is sampled unless ``record_timeline`` is called. Sampling does not change the simulation.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from lora_router.simulator.fleet_simulation import FleetSimulation
from lora_router.simulator.pod_model import PodModel

_SAMPLES = 600
"""Samples of a run: about as many as a plot has pixels for them."""
_MOST_SLOTS = 160
"""Slots that a plot has room for. Further pods are left out, but never the first pod."""


class Slot(NamedTuple):
    """An adapter in a slot."""

    adapter: str
    in_use: bool
    """Whether a request of it runs. Otherwise it is only loaded."""


class PodSample(NamedTuple):
    """One pod at one moment."""

    slots: tuple[Slot | None, ...]
    """An adapter keeps its place while it is loaded. ``None``: empty."""
    deferred: int
    """Requests that wait on the pod for a slot."""


class FleetSample(NamedTuple):
    """The fleet at one moment."""

    time: float
    """Seconds from the start."""
    pods: tuple[PodSample, ...]
    """The first pods, as many as the plot has room for."""
    deferred: int
    """Requests that wait on any pod for a slot."""
    held: int
    """Requests that are held in a router."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """A fleet over time."""

    seconds: float
    pods: int
    """Pods of the fleet."""
    every: float
    """Seconds between samples."""
    samples: list[FleetSample]
    """From the start to ``seconds``, or to the end of the last request."""


def record_timeline(simulation: FleetSimulation, seconds: float) -> Timeline:
    """Return a timeline that a simulation fills when it runs.

    Args:
        simulation: It must not have run yet.
        seconds: How much of it to record, from the start.
    """
    engines = simulation.options.engines
    places: list[list[str | None]] = []
    room = _MOST_SLOTS
    for engine in engines:
        room -= engine.max_loras
        if places and room < 0:
            break
        places.append([None] * engine.max_loras)
    every = seconds / _SAMPLES
    samples: list[FleetSample] = []

    def look() -> None:
        pods = simulation.pods
        deferred = [pod.deferred for pod in pods]
        samples.append(
            FleetSample(
                simulation.time,
                tuple(
                    PodSample(_slots(pod, place), waits)
                    for pod, place, waits in zip(pods, places, deferred, strict=False)
                ),
                sum(deferred),
                simulation.held,
            )
        )
        if len(samples) < _SAMPLES:
            simulation.call_at(len(samples) * every, look)

    simulation.call_at(0.0, look)
    return Timeline(seconds, len(engines), every, samples)


def pods_that_run(adapter: str, samples: Iterable[FleetSample]) -> float:
    """Return on how many sampled pods an adapter runs at a time, on average while it runs."""
    in_use = Slot(adapter, in_use=True)
    counts = [sum(in_use in pod.slots for pod in sample.pods) for sample in samples]
    return sum(counts) / (sum(count > 0 for count in counts) or 1)


def _slots(pod: PodModel, place: list[str | None]) -> tuple[Slot | None, ...]:
    """Update the places from a pod's slots; return what is in each place."""
    slots = pod.slots.resident
    for number, adapter in enumerate(place):
        if adapter not in slots:
            place[number] = None
    for adapter in slots:
        if adapter not in place:
            place[place.index(None)] = adapter
    return tuple(
        None if adapter is None else Slot(adapter, slots[adapter] > 0) for adapter in place
    )

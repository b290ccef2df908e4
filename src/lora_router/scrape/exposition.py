"""From the bytes of a ``/metrics`` page to a snapshot.

A vLLM page is 50 to 60 KB, of which a handful of lines matter. They are found by their first bytes,
and only they go through the official Prometheus parser. ``lora_requests_info`` needs more care: its
series are never removed, each combination of adapters that ever occurred stays, and only the newest
says anything about now. That one is found by its value, also before anything is parsed.
"""

import math
from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from lora_router.cache.metrics import LoraActivity, PodMetrics
from lora_router.scrape.engines import ENGINES, EngineMetrics

CLOCK_TOLERANCE_SECONDS = 3600.0
"""A pod's clock may be that far ahead of ours. With several API server processes vLLM's page shows
sums of Unix times, which are decades ahead."""


class ExpositionError(ValueError):
    """The page is not one that can be read; the message says why, shortened."""


def read_page(page: bytes, *, engine: str | None, scraped_at: float, wall_now: float) -> PodMetrics:
    """Read a metrics page.

    Args:
        page: The body of ``/metrics``, in Prometheus text format 0.0.4.
        engine: A key of ``ENGINES``; ``None`` to tell it from the page.
        scraped_at: The snapshot's time on the router's monotonic clock.
        wall_now: Unix time now, against which the newest series is judged.

    Raises:
        ExpositionError: The page is of no known engine, or a line that matters is malformed.
    """
    page = b"\n" + page
    names = _engine(page, engine)
    wanted = [names.running, names.waiting, *names.kv_cache_usage]
    if names.deferred is not None:
        wanted.append(names.deferred.name)
    if names.lora_slots is not None:
        wanted.append(names.lora_slots)
    lines = [line for name in wanted for line in _lines(page, name)]
    if names.lora_info is not None:
        newest = _newest(page, names.lora_info, wall_now)
        if newest is not None:
            lines.append(newest)
    samples = _parse(lines)
    usage = [found for name in names.kv_cache_usage if (found := samples.get(name))]
    return PodMetrics(
        scraped_at=scraped_at,
        running=_sum(samples.get(names.running)),
        waiting=_sum(samples.get(names.waiting)),
        kv_cache_usage=_max(usage[0]) if usage else None,
        deferred=_deferred(samples, names),
        lora=_lora(samples, names, wall_now),
    )


def _engine(page: bytes, engine: str | None) -> EngineMetrics:
    if engine is not None:
        return ENGINES[engine]
    for names in ENGINES.values():
        if next(_lines(page, names.running), None) is not None:
            return names
    looked_for = ", ".join(names.running for names in ENGINES.values())
    raise ExpositionError(f"the page is of no known model server: it has none of {looked_for}")


def _lines(page: bytes, name: str) -> Iterator[bytes]:
    """Yield the sample lines of a metric. The page begins with a line end."""
    start = b"\n" + name.encode()
    length = len(start)
    at = page.find(start)
    while at >= 0:
        end = page.find(b"\n", at + length)
        if end < 0:
            end = len(page)
        # Another metric's name may go on where this one ends.
        if page[at + length : at + length + 1] in (b"{", b" ", b"\t"):
            yield page[at + 1 : end].rstrip(b"\r")
        at = page.find(start, end)


def _newest(page: bytes, name: str, wall_now: float) -> bytes | None:
    """Return the series with the newest believable time, wherever it stands on the page."""
    latest = wall_now + CLOCK_TOLERANCE_SECONDS
    best, best_time = None, 0.0
    for line in _lines(page, name):
        # Label values may hold braces and blanks, the value and its time stamp hold neither brace.
        _, _, tail = line.rpartition(b"}")
        try:
            time = float(tail.split()[0])
        except (ValueError, IndexError):
            raise _malformed(line) from None
        if best_time < time <= latest:
            best, best_time = line, time
    return best


def _parse(lines: list[bytes]) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {}
    try:
        text = b"\n".join(lines).decode() + "\n"
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append(sample)
    except Exception:
        # The parser has no error of its own: by the line, it raises ValueError, KeyError, …
        for line in lines:
            if not _is_parsable(line):
                raise _malformed(line) from None
        raise ExpositionError("the page has lines that do not go together") from None
    return samples


def _is_parsable(line: bytes) -> bool:
    try:
        list(text_string_to_metric_families(line.decode() + "\n"))
    except Exception:
        return False
    return True


def _malformed(line: bytes) -> ExpositionError:
    shown = line[:120].decode("ascii", "backslashreplace")
    return ExpositionError(f"the page has a malformed line: {shown!r}")


def _numbers(samples: list[Sample] | None) -> list[float]:
    # The parser makes an int of "3" and a float of "3.0".
    return [float(sample.value) for sample in samples or () if math.isfinite(sample.value)]


def _sum(samples: list[Sample] | None) -> float | None:
    """Add up engines (data parallel)."""
    numbers = _numbers(samples)
    return sum(numbers) if numbers else None


def _max(samples: list[Sample] | None) -> float | None:
    return max(_numbers(samples), default=None)


def _deferred(samples: dict[str, list[Sample]], names: EngineMetrics) -> float | None:
    metric = names.deferred
    if metric is None:
        return None
    found = samples.get(metric.name, ())
    return _sum([sample for sample in found if sample.labels.get(metric.label) == metric.value])


def _lora(
    samples: dict[str, list[Sample]], names: EngineMetrics, wall_now: float
) -> LoraActivity | None:
    if names.lora_info is not None and (found := samples.get(names.lora_info)):
        labels = found[0].labels
        return LoraActivity(
            max_lora=_slots(labels.get("max_lora", "")),
            running=_adapters(labels.get("running_lora_adapters", "")),
            waiting=_adapters(labels.get("waiting_lora_adapters", "")),
            updated_at=float(found[0].value),
        )
    if names.lora_slots is not None:
        slots = _max(samples.get(names.lora_slots))
        if slots is not None and slots >= 1:
            return LoraActivity(int(slots), frozenset(), frozenset(), wall_now)
    return None


def _slots(text: str) -> int | None:
    """Return the number of slots; ``None`` for anything that is none, 0 included: unknown."""
    try:
        return max(int(text), 0) or None
    except ValueError:
        return None


def _adapters(text: str) -> frozenset[str]:
    """Split a label. Servers join names by ``,`` or ``, ``; an empty label has no name in it."""
    return frozenset(name for part in text.split(",") if (name := part.strip()))

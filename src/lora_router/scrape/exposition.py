"""From the bytes of a ``/metrics`` page to a snapshot.

A vLLM page is 50 to 60 KB, of which a handful of lines matter. They are found by their first bytes,
and only they go through the official Prometheus parser. ``lora_requests_info`` needs more care: its
series are never removed, each combination of adapters that ever occurred stays, and only the newest
says anything about now. That one is found by its value, also before anything is parsed.
"""

import math
import sys
from collections.abc import Iterator
from functools import lru_cache

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from lora_router.cache.metrics import LoraActivity, LoraResidency, PodMetrics
from lora_router.scrape.engines import ENGINES, PROCESS_START, EngineMetrics, ResidencyMetrics

CLOCK_TOLERANCE_SECONDS = 3600.0
"""A pod's clock may be that far ahead of ours. With several API server processes vLLM's page shows
sums of Unix times, which are decades ahead."""

_LARGEST = sys.float_info.max


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
    lines = list(_wanted(page, names))
    if names.lora_info is not None:
        newest = _newest(page, names.lora_info, wall_now)
        if newest is not None:
            lines.append(newest)
    samples = _parse(lines)
    residency = names.residency
    started_at = _started_at(page)
    return PodMetrics(
        scraped_at=scraped_at,
        running=_sum(samples.get(names.running)),
        waiting=_sum(samples.get(names.waiting)),
        kv_cache_usage=_max(
            [sample for name in names.kv_cache_usage for sample in samples.get(name, ())]
        ),
        deferred=_deferred(samples, names),
        lora=_lora(samples, names, wall_now),
        residency=_residency(page, samples, residency) if residency is not None else None,
        adapter_load_seconds=(
            _mean(samples, residency.load_seconds) if residency is not None else None
        ),
        started_at=started_at,
        generated_tokens=_generated_tokens(page, names) if started_at is None else None,
    )


def _engine(page: bytes, engine: str | None) -> EngineMetrics:
    if engine is not None:
        return ENGINES[engine]
    for names in ENGINES.values():
        if next(_lines(page, names.running), None) is not None:
            return names
    looked_for = ", ".join(names.running for names in ENGINES.values())
    raise ExpositionError(f"the page is of no known model server: it has none of {looked_for}")


def _wanted(page: bytes, names: EngineMetrics) -> Iterator[bytes]:
    """Yield the lines that are few and all count. Each name costs a search through the page."""
    wanted = [names.running, names.waiting]
    if names.deferred is not None:
        wanted.append(names.deferred.name)
    if names.lora_slots is not None:
        wanted.append(names.lora_slots)
    if names.residency is not None:
        histogram = names.residency.load_seconds
        wanted += names.residency.gpu_loaded, names.residency.gpu_slots
        wanted += f"{histogram}_sum", f"{histogram}_count"
    for name in wanted:
        yield from _lines(page, name)
    for name in names.kv_cache_usage:
        if usage := list(_lines(page, name)):
            yield from usage
            return


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
        time = _value(line)
        if best_time < time <= latest:
            best, best_time = line, time
    return best


def _started_at(page: bytes) -> float | None:
    """Return when the server's process began. It has no labels, and stands near the page's top."""
    line = next(_lines(page, PROCESS_START), None)
    if line is None:
        return None
    time = _value(line)
    return time if 0 < time < math.inf else None


def _generated_tokens(page: bytes, names: EngineMetrics) -> float | None:
    if names.generated_tokens is None:
        return None
    counts = [_value(line) for line in _lines(page, names.generated_tokens)]
    total = sum(counts)
    return total if counts and 0 <= total < math.inf else None


def _value(line: bytes) -> float:
    """Return a sample's value, without the parser, which takes ten times as long."""
    # Label values may hold braces and blanks, the value and its time stamp hold neither brace.
    _, labels_end, tail = line.rpartition(b"}")
    try:
        return float(tail.split()[0 if labels_end else 1])
    except (ValueError, IndexError):
        raise _malformed(line) from None


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
    # The parser makes an int of "3", however long, and a float of "3.0". NaN is above nothing.
    return [float(sample.value) for sample in samples or () if abs(sample.value) <= _LARGEST]


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


def _residency(
    page: bytes, samples: dict[str, list[Sample]], names: ResidencyMetrics
) -> LoraResidency | None:
    """Unite what the engines of a server (data parallel) say.

    The server spreads requests over its engines itself, so a pod has an adapter if any of them has
    it: there a request can meet it, on other pods it cannot. ``lora_requests_info`` knows no
    engines either. The slots are one engine's, so of several engines free ones may be overlooked
    but are never invented.
    """
    at: dict[str, set[str]] = {names.gpu_level: set(), names.cpu_level: set()}
    said = names.gpu_loaded in samples or names.gpu_slots in samples
    for line in _lines(page, names.loaded):
        said = True
        adapter, level = _loaded(line, names)
        if adapter and level in at:
            at[level].add(adapter)
    if not said:
        return None
    slots = _max(samples.get(names.gpu_slots))
    return LoraResidency(
        gpu=frozenset(at[names.gpu_level]),
        cpu=frozenset(at[names.cpu_level] - at[names.gpu_level]),
        max_gpu=int(slots) if slots is not None and slots >= 1 else None,
    )


@lru_cache(maxsize=8192)
def _loaded(line: bytes, names: ResidencyMetrics) -> tuple[str, str]:
    """Return the adapter and the level that a series names; empty if it is none that counts.

    There are as many of these lines as adapters, and they are the same from scrape to scrape and
    from pod to pod, so each is parsed once and remembered.
    """
    for sample in _parse([line]).get(names.loaded, ()):
        # A page merged from several API servers shows sums, so above 0 is loaded.
        if sample.value > 0:
            labels = sample.labels
            return labels.get(names.adapter_label, ""), labels.get(names.level_label, "")
    return "", ""


def _mean(samples: dict[str, list[Sample]], histogram: str) -> float | None:
    """Divide a histogram's sum by its count, all its series together."""
    total = _sum(samples.get(f"{histogram}_sum"))
    count = _sum(samples.get(f"{histogram}_count"))
    if total is None or count is None or not 0 <= total < math.inf or count < 1:
        return None
    return total / count


def _slots(text: str) -> int | None:
    """Return the number of slots; ``None`` for anything that is none, 0 included: unknown."""
    try:
        return max(int(text), 0) or None
    except ValueError:
        return None


def _adapters(text: str) -> frozenset[str]:
    """Split a label. Servers join names by ``,`` or ``, ``; an empty label has no name in it."""
    return frozenset(name for part in text.split(",") if (name := part.strip()))

"""From the bytes of a ``/metrics`` page to a snapshot.

Which adapters are in use is read in ``adapter_activity``.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from lora_router.fleet.pod_metrics import (
    MAX_KV_CACHE_USAGE,
    MAX_REQUESTS,
    LoraActivity,
    LoraResidency,
    PodMetrics,
)
from lora_router.fleet.reading_bounds import MAX_NAME_LENGTH, MAX_SERIES
from lora_router.scrape.adapter_activity import ActivityLines, believed_slots
from lora_router.scrape.engines import (
    PAGES,
    PROCESS_START,
    CacheMetrics,
    EngineMetrics,
    Gauge,
    ResidencyMetrics,
)
from lora_router.scrape.series import (
    ExpositionError,
    Line,
    PageTooLargeError,
    Series,
    SeriesFinder,
    SeriesReader,
    parts,
    read_values,
)
from lora_router.steps import Steps, all_at_once

PAGE_PREFIX = b"\n"
"""A page is copied unless it starts with this."""
MAX_NUMBER = 1e12
"""A larger number cannot be true, and counts as unknown. Numbers of requests (``MAX_REQUESTS``), of
slots and ratios have bounds of their own. No arithmetic with numbers of this size overflows."""
MAX_LOAD_SECONDS = 3600.0
_USAGE_TOLERANCE = 0.05
"""By how much a usage may exceed its bound. A page that states more has another unit."""
_LONGEST_COUNT = 20
_MANY_SERIES = 1000

_Kind = tuple[EngineMetrics, SeriesFinder]
"""The names on a kind of page, and what finds them."""

_kinds: list[_Kind] = [(names, SeriesFinder(names.all)) for names in PAGES]
_kinds_by_metric = {name.encode(): kind for kind in _kinds for name in kind[0].identity}
_kinds_by_engine: Mapping[str | None, _Kind] = {kind[0].engine: kind for kind in reversed(_kinds)}
_identity_finder = SeriesFinder(
    tuple(dict.fromkeys(name for names in PAGES for name in names.identity))
)
_start_finder = SeriesFinder((PROCESS_START,))


class UnknownPageError(ExpositionError):
    """The page has no metric of a known model server."""


class _Page:
    """The lines of a page that are read, and the series that have been read."""

    __slots__ = ("_count", "_lines", "_series", "activity", "names")

    def __init__(self, names: EngineMetrics, wall_now: float) -> None:
        self.names = names
        self._lines: dict[bytes, list[Line]] = {}
        self._count = 0
        self._series: dict[str, Sequence[Series]] = {}
        self.activity = ActivityLines(wall_now)
        """The lines of adapter activity. Only one of them is read."""

    def __contains__(self, name: str) -> bool:
        return name.encode() in self._lines

    def add(self, lines: Iterable[Line]) -> None:
        """Add the lines of a part.

        Raises:
            ExpositionError: A time is not a number.
            PageTooLargeError: There are too many lines.
        """
        lora_info = self.names.lora_info
        activity_name = lora_info.encode() if lora_info is not None else b""
        activity = []
        for line in lines:
            if line[1] == activity_name:
                activity.append(line)
            else:
                self._lines.setdefault(line[1], []).append(line)
                self._count += 1
        if self._count > MAX_SERIES:
            raise PageTooLargeError(f"the page has more than {MAX_SERIES} series that matter")
        self.activity.add(activity)

    def read(self) -> Steps[None]:
        """Read the labels and values."""
        reader = SeriesReader()
        for name in self.names.labelled:
            lines = self._lines.get(name.encode())
            if lines is not None:
                self._series[name] = yield from reader.read(lines)
        if self.activity.line is not None and self.names.lora_info is not None:
            self._series[self.names.lora_info] = yield from reader.read((self.activity.line,))

    def lines(self, name: str) -> Sequence[Line]:
        return self._lines.get(name.encode(), ())

    def series(self, name: str) -> Sequence[Series]:
        """Return the series of a metric that has been read."""
        return self._series.get(name, ())

    def gauge(self, gauge: Gauge) -> Sequence[Series]:
        """Return the series of a gauge that have its label, without parts of other series."""
        series = self.series(gauge.name)
        if gauge.label:
            return [one for one in series if one[0].get(gauge.label) == gauge.value]
        if gauge.part:
            return [one for one in series if one[0].get(gauge.part) == ""] or series
        return series


def read_page(page: bytes, *, engine: str | None, scraped_at: float, wall_now: float) -> PodMetrics:
    """Read a metrics page.

    The page's own metrics show the engine. A label can be wrong: vLLM in Ray Serve has other names
    than vLLM.

    Args:
        page: The body of ``/metrics``, in Prometheus text format 0.0.4.
        engine: The engine of a page that has no such metrics, as those of a server that has had no
            request; ``None``: unknown.
        scraped_at: The snapshot's time on the router's monotonic clock.
        wall_now: The current Unix time, to which the times of series are compared.

    Raises:
        UnknownPageError: The engine is not known.
        ExpositionError: A line that is read is malformed.
        PageTooLargeError: Reading the page would take too long.
    """
    return all_at_once(page_in_steps(page, engine=engine, scraped_at=scraped_at, wall_now=wall_now))


def engine_of(page: bytes) -> str:
    """Return the engine whose metrics a page has.

    Raises:
        UnknownPageError: The engine is not known.
        PageTooLargeError: Reading the page would take too long.
    """
    return all_at_once(_kind_of(PAGE_PREFIX + page, None))[0].engine


def page_in_steps(
    page: bytes, *, engine: str | None, scraped_at: float, wall_now: float
) -> Steps[PodMetrics]:
    """Read a metrics page in steps. The arguments and the errors are those of ``read_page``.

    A page of vLLM is read in one step.
    """
    if not page.startswith(PAGE_PREFIX):
        page = PAGE_PREFIX + page
    names, finder = yield from _kind_of(page, engine)
    found = _Page(names, wall_now)
    yield from _find(page, finder, found)
    yield from found.read()
    started_at = yield from _started_at(page)
    running = _requests(found.gauge(names.running))
    waiting = _requests(found.gauge(names.waiting))
    if len(found.series(names.running.name)) + len(found.series(names.waiting.name)) > _MANY_SERIES:
        yield
    residency, load_seconds = None, None
    if names.residency is not None:
        residency = _residency(found, names.residency)
        load_seconds = _mean(found, names.residency.load_seconds)
        if len(found.series(names.residency.loaded)) > _MANY_SERIES:
            yield
    return PodMetrics(
        scraped_at=scraped_at,
        running=running,
        waiting=waiting,
        kv_cache_usage=_kv_cache_usage(found, names),
        cache_tokens=None if names.cache is None else _cache_tokens(found, names.cache),
        deferred=_deferred(found, names),
        lora=_lora(found, names, wall_now),
        residency=residency,
        adapter_load_seconds=load_seconds,
        started_at=started_at,
        generated_tokens=_generated_tokens(found, names),
    )


def _kind_of(page: bytes, engine: str | None) -> Steps[_Kind]:
    """Return the names that the page uses, and what finds them.

    One search for the metrics of all engines finds the kind, mostly near the start of the page.
    """
    kind, start = _kinds_by_engine.get(engine), 0
    for start, end in parts(page):
        line = _identity_finder.first(page, start, end)
        if line is not None:
            kind = _kinds_by_metric[line[1]]
            break
        if end < len(page):
            yield
    if start > 0:
        yield
    if kind is not None:
        return kind
    raise UnknownPageError(
        "not the page of a known model server: it has no metric of "
        + ", ".join(dict.fromkeys(names.engine for names in PAGES))
    )


def _find(page: bytes, finder: SeriesFinder, found: _Page) -> Steps[None]:
    for start, end in parts(page):
        found.add(finder.all(page, start, end))
        if end < len(page):
            yield


def _numbers(series: Iterable[Series]) -> list[float]:
    # The parser returns an int for "3", of any length, and a float for "3.0". NaN fails the test.
    return [float(value) for _, value in series if 0 <= value <= MAX_NUMBER]


def _sum(series: Iterable[Series]) -> float | None:
    """Return the sum over engines (data parallel)."""
    numbers = _numbers(series)
    return sum(numbers) if numbers else None


def _requests(series: Iterable[Series]) -> float | None:
    """Return the number of requests of all engines; ``None``: there is none that can be true."""
    counts = [count for count in _numbers(series) if count <= MAX_REQUESTS]
    return total if counts and (total := sum(counts)) <= MAX_REQUESTS else None


def _max(series: Iterable[Series]) -> float | None:
    return max(_numbers(series), default=None)


def _kv_cache_usage(found: _Page, names: EngineMetrics) -> float | None:
    for gauge in names.kv_cache_usage:
        if gauge.name in found:
            return _usage(found.gauge(gauge))
    return None


def _usage(series: Iterable[Series]) -> float | None:
    """Return the highest usage, or ``None`` if one of them is no ratio.

    If one engine's usage is in another unit, such as percent, so are the others.
    """
    most = max((value for _, value in series if value >= 0), default=None)
    if most is None or most > MAX_KV_CACHE_USAGE + _USAGE_TOLERANCE:
        return None
    return min(float(most), MAX_KV_CACHE_USAGE)


def _cache_tokens(found: _Page, names: CacheMetrics) -> float | None:
    """Return the size of the caches of all engines together, or 0 if they keep nothing."""
    series = found.series(names.name)
    if not names.tokens:
        return _sum(series)
    sizes = [_cache_size(labels, names) for labels, _ in series]
    known = [size for size in sizes if size is not None]
    return sum(known) if known else None


def _cache_size(labels: Mapping[str, str], names: CacheMetrics) -> float | None:
    if labels.get(names.is_on) == "False":
        return 0.0
    tokens = _count(labels.get(names.tokens, ""))
    if tokens is not None:
        return tokens
    blocks, each = _count(labels.get(names.blocks, "")), _count(labels.get(names.block_tokens, ""))
    return None if blocks is None or each is None else blocks * each


def _count(text: str) -> float | None:
    """Return a number above 0 in a label, or ``None`` for any other text."""
    if not text.isascii() or not text.isdigit() or len(text) > _LONGEST_COUNT:
        return None
    count = float(text)
    return count if 0 < count <= MAX_NUMBER else None


def _deferred(found: _Page, names: EngineMetrics) -> float | None:
    return None if names.deferred is None else _requests(found.gauge(names.deferred))


def _started_at(page: bytes) -> Steps[float | None]:
    """Return when the server's process started. The series has no labels."""
    for start, end in parts(page):
        line = _start_finder.first(page, start, end)
        if line is not None:
            (time,) = read_values((line,))
            return time if 0 < time < math.inf else None
        if end < len(page):
            yield
    return None


def _generated_tokens(found: _Page, names: EngineMetrics) -> float | None:
    if names.generated_tokens is None:
        return None
    counts = read_values(found.lines(names.generated_tokens))
    total = sum(counts)
    return total if counts and 0 <= total < math.inf else None


def _lora(found: _Page, names: EngineMetrics, wall_now: float) -> LoraActivity | None:
    for labels, _ in found.series(names.lora_info) if names.lora_info is not None else ():
        return found.activity.read(labels)
    if names.lora_slots is not None:
        slots = _max(found.series(names.lora_slots))
        if slots is not None and slots >= 1:
            return LoraActivity(believed_slots(slots), frozenset(), frozenset(), wall_now)
    return None


def _residency(found: _Page, names: ResidencyMetrics) -> LoraResidency | None:
    """Merge the reports of a server's engines (data parallel).

    The server distributes requests over its engines itself. A pod therefore has an adapter if any
    engine has it: on this pod a request may reach that engine, on other pods it cannot.
    ``lora_requests_info`` does not distinguish engines either. The number of slots is that of one
    engine, so that free slots of several engines may be missed but are never invented.
    """
    at: dict[str, set[str]] = {names.gpu_level: set(), names.cpu_level: set()}
    gpu_loaded, gpu_slots = found.series(names.gpu_loaded), found.series(names.gpu_slots)
    if not gpu_loaded and not gpu_slots and names.loaded not in found:
        return None
    for labels, value in found.series(names.loaded):
        adapter, level = labels.get(names.adapter_label), labels.get(names.level_label)
        # A page merged from several API servers shows sums: any value above 0 means loaded.
        if adapter and level in at and value > 0 and len(adapter) <= MAX_NAME_LENGTH:
            at[level].add(adapter)
    slots = _max(gpu_slots)
    return LoraResidency(
        gpu=frozenset(at[names.gpu_level]),
        cpu=frozenset(at[names.cpu_level] - at[names.gpu_level]),
        max_gpu=believed_slots(slots) if slots is not None else None,
    )


def _mean(found: _Page, histogram: str) -> float | None:
    """Return a histogram's mean over all its series."""
    total = _sum(found.series(f"{histogram}_sum"))
    count = _sum(found.series(f"{histogram}_count"))
    if total is None or count is None or count < 1:
        return None
    mean = total / count
    return mean if mean <= MAX_LOAD_SECONDS else None

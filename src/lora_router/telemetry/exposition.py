"""Pages of metrics, in the format that a scraper asks for.

=============  ==========================================================================
format         what it has
=============  ==========================================================================
text           classic histograms
OpenMetrics    classic histograms with exemplars
protobuf       classic and native histograms with exemplars (``protobuf_page``)
=============  ==========================================================================

A page may have tens of thousands of lines. It is made in slices, between which the event loop
serves requests.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_latest
from prometheus_client.registry import Collector

from lora_router.telemetry import protobuf_page
from lora_router.telemetry.histograms import Histograms

SLICE = 256
"""Samples, or thereabouts, that are written in one go. It takes about a millisecond."""
_HISTOGRAMS = 16
"""Histograms in a slice: each has so many samples."""
_CREATED = "_created"
_END = b"# EOF\n"


class Format(Enum):
    """A format, with its content type."""

    TEXT = CONTENT_TYPE_PLAIN_0_0_4
    OPENMETRICS = OPENMETRICS
    PROTOBUF = protobuf_page.CONTENT_TYPE


class Page(NamedTuple):
    """A page of metrics."""

    body: bytes
    content_type: str


def chosen(accept: str) -> Format:
    """Return the format that a scraper prefers, of those that there are.

    Args:
        accept: The header of that name, which may be empty.
    """
    best, most = Format.TEXT, 0.0
    for accepted in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in accepted.split(";"))
        values = dict(part.partition("=")[::2] for part in parameters)
        found = _format(kind, values)
        try:
            quality = float(values.get("q", "1"))
        except ValueError:
            continue
        if found is not None and quality > most:
            best, most = found, quality
    return best


def _format(kind: str, values: dict[str, str]) -> Format | None:
    if kind == "application/vnd.google.protobuf":
        is_ours = values.get("proto") == "io.prometheus.client.metricfamily"
        return Format.PROTOBUF if is_ours and values.get("encoding") == "delimited" else None
    if kind == "application/openmetrics-text":
        return Format.OPENMETRICS if values.get("version", "1.0.0") == "1.0.0" else None
    return Format.TEXT if kind in ("text/plain", "text/*", "*/*") else None


def slices(metrics: Iterable[Metric]) -> Iterator[Metric]:
    """Yield metrics in parts that are written in one go, without series that say when one began.

    Parts with the same name that follow each other are one family.
    """
    for metric in metrics:
        if isinstance(metric, Histograms):
            for begin in range(0, len(metric.rows) or 1, _HISTOGRAMS):
                yield metric.part(metric.rows[begin : begin + _HISTOGRAMS])
            continue
        # Some collectors add them. Prometheus would store a series for each.
        samples = [each for each in metric.samples if not each.name.endswith(_CREATED)]
        # The samples of one histogram must stay together.
        size = SLICE if metric.type in ("counter", "gauge") else len(samples)
        for begin in range(0, len(samples) or 1, size or 1):
            part = Metric(metric.name, metric.documentation, metric.type)
            part.samples = samples[begin : begin + size]
            yield part


async def resting(parts: Iterable[Metric]) -> AsyncIterator[Metric]:
    """Yield the slices of a page, and let the event loop serve requests between them."""
    written = 0
    for part in parts:
        yield part
        written += len(part.samples) + 1 if not isinstance(part, Histograms) else SLICE
        if written >= SLICE:
            written = 0
            await asyncio.sleep(0)


class PageWriter:
    """Writes one page, slice by slice."""

    def __init__(self, form: Format) -> None:
        self._form = form
        self._written: list[bytes] = []
        self._family: list[bytes] = []
        """The parts of a family that is not complete."""
        self._name = ""

    def write(self, part: Metric) -> None:
        """Write a slice.

        Raises:
            Exception: A value is no number. The page is as it was before the slice.
        """
        follows = part.name == self._name
        if self._form is Format.PROTOBUF:
            made = protobuf_page.family_bytes(part)
        elif self._form is Format.OPENMETRICS:
            text: bytes = openmetrics_latest(_Metrics([part]))  # type: ignore[no-untyped-call]
            made = text.removesuffix(_END)
        else:
            made = generate_latest(_Metrics([part]))
        if follows and self._form is not Format.PROTOBUF:
            made = made.split(b"\n", 2)[2]  # Without the lines HELP and TYPE.
        if not follows:
            self._end_family()
            self._name = part.name
        self._family.append(made)

    def page(self) -> bytes:
        """Return the page."""
        self._end_family()
        if self._form is Format.OPENMETRICS:
            self._written.append(_END)
        return b"".join(self._written)

    def _end_family(self) -> None:
        family = b"".join(self._family)
        self._family.clear()
        self._name = ""
        if family:
            is_binary = self._form is Format.PROTOBUF
            self._written.append(protobuf_page.delimited(family) if is_binary else family)


class _Metrics(Collector):
    """A collector of metrics that have been collected already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self._metrics

"""Histograms as a metric that has both kinds of buckets, classic and native.

The samples are those of classic buckets, which every format has. What writes native buckets reads
``rows``.
"""

from collections.abc import Iterator, Sequence

from prometheus_client.core import Exemplar as ShownExemplar
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from lora_router.telemetry.times import REQUEST_EDGES, Edges, Times

Row = tuple[dict[str, str], Times]
"""Labels, and the histogram of the series with these labels."""


class Histograms(Metric):
    """The histograms of one name. They are read when they are written to a page."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        edges: Edges = REQUEST_EDGES,
    ) -> None:
        self.rows: list[Row] = []
        self.edges = edges
        self._labels = tuple(labels)
        super().__init__(name, documentation, "histogram")

    def add(self, values: Sequence[str], times: Times) -> None:
        """Add the series with these values of the labels."""
        self.rows.append((dict(zip(self._labels, values, strict=True)), times))

    def part(self, rows: list[Row]) -> "Histograms":
        """Return a metric with the same name, and these series."""
        part = Histograms(self.name, self.documentation, self._labels, self.edges)
        part.rows = rows
        return part

    @property
    def samples(self) -> list[Sample]:
        """The samples of classic buckets."""
        return [sample for row in self.rows for sample in self._samples(*row)]

    @samples.setter
    def samples(self, _samples: list[Sample]) -> None:
        """Do nothing: the base class begins with none."""

    def _samples(self, labels: dict[str, str], times: Times) -> Iterator[Sample]:
        name, edges = self.name, self.edges
        counts = edges.cumulative(times.counts)
        for place, (bound, count) in enumerate(zip(edges.classic, counts, strict=True)):
            exemplar = times.exemplars.get(place)
            yield Sample(
                f"{name}_bucket",
                {**labels, "le": bound},
                count,
                None,
                None
                if exemplar is None
                else ShownExemplar({"trace_id": exemplar.trace_id}, exemplar.seconds, exemplar.at),
            )
        yield Sample(f"{name}_count", labels, counts[-1])
        yield Sample(f"{name}_sum", labels, times.seconds)

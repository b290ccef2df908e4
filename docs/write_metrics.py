"""Write the tables of docs/metrics.md from the code: ``make metrics``. A test checks it."""

from collections.abc import Iterable
from pathlib import Path

from lora_router.telemetry.catalog import GROUPS, METRICS
from lora_router.telemetry.described import Described, unit_of

PAGE = Path(__file__).parent / "metrics.md"
BEGIN, END = "<!-- metrics: begin (made by `make metrics`) -->\n", "<!-- metrics: end -->"
_HEAD = (
    "| metric | type | labels | unit | meaning | series, at most |",
    "| --- | --- | --- | --- | --- | --- |",
)


def with_tables(page: str) -> str:
    """Return the page with its tables up to date."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{begin}\n{_tables()}\n{end}{after}"


def _tables() -> str:
    parts = [
        "\n".join((f"### {group}", "", *_HEAD, *_rows(metrics.items()))) + "\n"
        for group, metrics in GROUPS.items()
    ]
    old = [(name, metric.renamed) for name, metric in METRICS.items() if metric.renamed]
    parts.append(
        "\n".join(
            (
                "### Deprecated",
                "",
                "The next release but one does not have these names.",
                "",
                "| old name | name now |",
                "| --- | --- |",
                *(f"| `{before}` | `{now}` |" for before, now in old),
            )
        )
        + "\n"
    )
    return "\n".join(parts)


def _rows(metrics: Iterable[tuple[str, Described]]) -> Iterable[str]:
    for name, metric in metrics:
        if not metric.renamed:
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            cells = (f"`{name}`", metric.kind, labels, unit_of(name), metric.meaning, metric.bound)
            yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))

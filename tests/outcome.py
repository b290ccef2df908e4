"""What became of the tests of one pytest process, or of several that ran beside each other."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import pytest

from lora_router.counted import counted

_KINDS = ("failed", "error", "passed", "skipped", "xfailed", "xpassed")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How tests ended."""

    counts: dict[str, int] = field(default_factory=dict)
    """By kind: ``passed``, ``failed``, and so on."""
    wrong: list[str] = field(default_factory=list)
    """A line for each test that failed or could not be set up."""
    not_run: dict[str, int] = field(default_factory=dict)
    """Skipped tests, by reason."""

    @classmethod
    def of(cls, reporter: pytest.TerminalReporter) -> Self:
        """Return the outcome of the tests that this process reports."""
        reports = {kind: reporter.getreports(kind) for kind in _KINDS}
        return cls(
            {kind: len(found) for kind, found in reports.items() if found},
            [
                f"{kind.upper()} {report.nodeid}"
                for kind in ("failed", "error")
                for report in reports[kind]
            ],
            dict(
                Counter(
                    report.longrepr[2].removeprefix("Skipped: ")
                    for report in reports["skipped"]
                    if isinstance(report.longrepr, tuple)
                )
            ),
        )

    @classmethod
    def of_all(cls, outcomes: Iterable[Self]) -> Self:
        """Return the sum of several outcomes."""
        counts, wrong, not_run = Counter[str](), list[str](), Counter[str]()
        for outcome in outcomes:
            counts.update(outcome.counts)
            wrong += outcome.wrong
            not_run.update(outcome.not_run)
        return cls(dict(counts), wrong, dict(not_run))

    @classmethod
    def read(cls, file: Path) -> Self:
        """Return what ``write`` wrote."""
        return cls(**json.loads(file.read_text()))

    def write(self, file: Path) -> None:
        """Write it for the process that prints the sum."""
        file.write_text(json.dumps(asdict(self)))

    def lines_of_not_run(self) -> Iterator[str]:
        """Yield a line for each reason why tests did not run."""
        for reason, count in sorted(self.not_run.items()):
            yield f"NOT RUN: {counted(count, 'test')}: {reason}"

    def lines(self) -> Iterator[str]:
        """Yield what failed, what did not run, and the counts."""
        yield from self.wrong
        yield from self.lines_of_not_run()
        yield ", ".join(f"{self.counts[kind]} {kind}" for kind in _KINDS if self.counts.get(kind))

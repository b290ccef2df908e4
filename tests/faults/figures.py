"""The figures that ``make faults`` prints and writes into docs/reliability.md."""

import os
import platform
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.verdict import Verdict


@dataclass
class Figures:
    """What was measured, in the order of the tests."""

    verdicts: dict[str, list[tuple[str, str, Verdict]]] = field(default_factory=dict)
    bounds: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, group: str, fault: str, found: Verdict, algorithm: str = "all") -> None:
        """Remember what became of a load."""
        self.verdicts.setdefault(group, []).append((fault, algorithm, found))

    def bound(self, what: str, limit: str, found: str) -> None:
        """Remember a figure that has a limit."""
        self.bounds.append((what, limit, found))

    def write(self, file: Path) -> None:
        """Write all figures as Markdown, if there are any."""
        if self.verdicts or self.bounds:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self.markdown())

    def markdown(self) -> str:
        """Return the tables."""
        lines = [f"Measured on {os.cpu_count()} cores ({platform.machine()}), {_python()}."]
        for group, rows in self.verdicts.items():
            lines += [
                f"\n### {group}\n",
                "| fault | algorithm | requests | lost in the first second | lost later "
                "| waited over 3 s | running answers cut | what clients saw |",
                "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
            ]
            lines += [_row(fault, algorithm, found) for fault, algorithm, found in rows]
        if self.bounds:
            lines += ["\n### Bounds\n", "| what | limit | measured |", "| --- | ---: | ---: |"]
            lines += [f"| {what} | {limit} | {found} |" for what, limit, found in self.bounds]
        return "\n".join(lines) + "\n"


def _row(fault: str, algorithm: str, found: Verdict) -> str:
    saw = ", ".join(f"{count} x {what}" for what, count in found.saw.most_common()) or "answers"
    return (
        f"| {fault} | {algorithm} | {found.sent:,} | {found.lost_at_once} | {found.lost_later} "
        f"| {found.waited} | {found.cut} | {saw} |"
    )


def _python() -> str:
    return f"{platform.python_implementation()} {platform.python_version()}"

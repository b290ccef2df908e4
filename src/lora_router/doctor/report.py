"""How the findings are printed."""

from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from lora_router.counted import counted
from lora_router.doctor.facts import Facts
from lora_router.doctor.findings import ORDER, Finding, Severity
from lora_router.visible_text import visible

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.HINT: "bold"}


def render(findings: Sequence[Finding], facts: Facts) -> RenderableType:
    """Return a paragraph for each finding, and what was looked at."""
    parts: list[RenderableType] = []
    for finding in findings:
        title = Text(overflow="fold")
        title.append(finding.severity, style=_STYLES[finding.severity])
        title.append(f" {finding.check}: ")
        title.append(visible(finding.what))
        body = Text(visible(f"{finding.why}\nFix: {finding.fix}", lines=True), overflow="fold")
        parts += [title, Padding(body, (0, 0, 0, 4)), ""]
    parts.append(Text(_summary(findings, facts), overflow="fold"))
    return Group(*parts)


def document(findings: Sequence[Finding], facts: Facts) -> dict[str, object]:
    """Return the same for programs."""
    return {
        "router": facts.router.name,
        "version": facts.router.version,
        "routers": len(facts.routers),
        "pods": len(facts.pods),
        "adapters": len(facts.adapters),
        "adapters_not_seen": facts.adapters_more,
        **{f"{severity}s": _number(findings, severity) for severity in ORDER},
        "findings": [asdict(finding) for finding in findings],
    }


def _summary(findings: Sequence[Finding], facts: Facts) -> str:
    seen = f"{counted(len(facts.routers), 'router')}, {counted(len(facts.pods), 'pod')}"
    if facts.adapters_more:
        number = len(facts.adapters)
        seen += f", and the busiest {number:,} of {number + facts.adapters_more:,} adapters"
    if not findings:
        return f"Nothing is wrong. Looked at {seen}."
    numbers = ", ".join(
        counted(_number(findings, severity), severity.value)
        for severity in ORDER
        if _number(findings, severity)
    )
    return f"{numbers}. Looked at {seen}."


def _number(findings: Sequence[Finding], severity: Severity) -> int:
    return sum(finding.severity is severity for finding in findings)

"""How findings are printed, on terminals of any width and for programs."""

from dataclasses import replace

import pytest
from rich.console import Console

from lora_router.doctor.examination import examine
from lora_router.doctor.report import document, render
from tests.unit.doctor.fleets import HEALTHY, with_pod

SICK = replace(
    with_pod(health="ejected", why="5 failures in a row", slots=8, fingerprint="b", listed=9),
    unreachable=["router-c"],
)


def printed(width: int) -> list[str]:
    console = Console(width=width, force_terminal=False)
    with console.capture() as captured:
        console.print(render(examine(SICK), SICK))
    return captured.get().splitlines()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_report_fits_every_width_and_loses_no_word(width: int) -> None:
    lines = printed(width)
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for finding in examine(SICK):
        for part in (
            f"{finding.severity} {finding.check}: {finding.what}",
            finding.why,
            finding.fix,
        ):
            assert part in text


def test_the_worst_is_first_and_the_last_line_counts() -> None:
    lines = printed(200)
    assert lines[0].startswith("error ejected-pods: Excluded because they failed: 1 of 2 pods")
    assert lines[1].startswith("    The others have their load.")
    assert lines[-1] == "1 error, 2 warnings, 1 hint. Looked at 2 routers, 2 pods."


def test_a_healthy_fleet_gets_one_line() -> None:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(render([], HEALTHY))
    assert captured.get() == "Nothing is wrong. Looked at 2 routers, 2 pods.\n"


def test_adapters_that_were_not_looked_at_are_counted() -> None:
    facts = replace(HEALTHY, adapters_more=4_000)
    console = Console(width=100)

    with console.capture() as captured:
        console.print(render([], facts))

    number = len(HEALTHY.adapters)
    shown = f"and the busiest {number} of {number + 4_000:,} adapters."
    assert shown in captured.get()
    assert document([], facts)["adapters_not_seen"] == 4_000


def test_the_document_has_all_findings_and_their_numbers() -> None:
    found = document(examine(SICK), SICK)
    assert (found["errors"], found["warnings"], found["hints"]) == (1, 2, 1)
    assert found["router"] == "router-a"
    findings = found["findings"]
    assert isinstance(findings, list)
    assert {frozenset(each) for each in findings} == {
        frozenset({"check", "severity", "what", "why", "fix"})
    }

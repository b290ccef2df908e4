"""Tables on terminals of any width and in files: nothing is cut, and no name is broken."""

import io

import pytest
from rich.console import Console, RenderableType

from lora_router import terminal
from lora_router.terminal import (
    output_console,
    print_report,
    split_table,
    table_or_paragraphs,
)
from lora_router.visible_text import visible

NAMES = ("least-request", "lora-placement")
HEADINGS = ("algorithm", "p50", "p95", "p99", "good", "waits", "held", "loads", "evicted")
FIGURES = [(name, *(f"{number}.00" for number in range(10, 18))) for name in NAMES]
PODS = [("http://10.0.0.7:8000/metrics", "3", "sql-lora, chat-lora, summary-lora")]


def lines_of(what: RenderableType, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as capture:
        console.print(what)
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_a_split_table_shows_each_column_once_with_the_names_of_the_rows(width: int) -> None:
    lines = lines_of(split_table(HEADINGS, FIGURES, width), width)

    assert all(len(line) <= width for line in lines)
    shown = " ".join(lines).split()
    for heading in HEADINGS[1:]:
        assert shown.count(heading) == 1
    parts = shown.count("algorithm")
    for name, *figures in FIGURES:
        assert sum(line.startswith(name) for line in lines) == parts
        assert [word for line in lines if line.startswith(name) for word in line.split()[1:]] == (
            figures
        )


def test_a_split_table_is_one_table_where_it_fits() -> None:
    lines = lines_of(split_table(HEADINGS, FIGURES, 80), 80)

    assert len(lines) == 1 + len(FIGURES)


def test_texts_are_a_table_where_it_fits_and_paragraphs_where_not() -> None:
    headings = ("source", "running", "active")

    assert lines_of(table_or_paragraphs(headings, PODS, 80), 80) == [
        "source                        running  active",
        "http://10.0.0.7:8000/metrics  3        sql-lora, chat-lora, summary-lora",
    ]
    assert lines_of(table_or_paragraphs(headings, PODS, 60), 60) == [
        "http://10.0.0.7:8000/metrics",
        "    running: 3",
        "    active: sql-lora, chat-lora, summary-lora",
    ]


@pytest.mark.parametrize("variable", ["COLUMNS", "FORCE_COLOR"])
def test_a_file_gets_whole_lines_without_blanks_at_their_ends(
    variable: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "40")
    console = output_console()

    print_report(console, split_table(HEADINGS, FIGURES, console.width), "x" * 300)

    heading, *rows, last = capsys.readouterr().out.splitlines()
    assert heading.split() == list(HEADINGS)
    assert [row.split()[0] for row in rows] == list(NAMES)
    assert last == "x" * 300
    assert heading == heading.rstrip()


def test_a_terminal_keeps_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "is_terminal", lambda _console: True)
    monkeypatch.setenv("COLUMNS", "61")

    assert output_console().width == 61


def test_text_that_a_terminal_would_obey_is_visible() -> None:
    assert visible("sql-lora [red]ä漢🔥") == "sql-lora [red]ä漢🔥"
    assert visible("\x1b]0;title\x07\t\u202e\ud800") == "\\x1b]0;title\\x07\\t\\u202e\\ud800"
    assert visible("one\ntwo\r") == "one\\ntwo\\r"
    assert visible("one\ntwo\r", lines=True) == "one\ntwo\\r"


@pytest.mark.parametrize("width", [40, 200])
def test_cells_of_reports_are_visible(width: int) -> None:
    rows = [["http://pod\x1b[2J", "1", "\x1b[31msql\n"]]
    headings = ["source", "running", "adapters"]

    for table in (split_table(headings, rows, width), table_or_paragraphs(headings, rows, width)):
        lines = lines_of(table, width)
        assert all(line.isprintable() for line in lines)
        assert "\\x1b[31msql\\n" in "".join("".join(lines).split())

"""How every command prints: on a terminal of any width, into a pipe, or into a file."""

import io
import sys
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lora_router.visible_text import visible

_UNLIMITED_WIDTH = 100_000
"""Columns of a console that is not a terminal. Rich's own default, 80, cuts tables in pipes."""

_GAP = 2
"""Blanks between two columns."""


def output_console(*, stderr: bool = False) -> Console:
    """Return a console for standard output, or for standard error.

    Unless it writes to a terminal, its lines are as long as their content and ``COLUMNS`` has no
    effect: the reader is a file or a program, and a cut name is of no use to either.
    """
    console = Console(stderr=stderr, highlight=False)
    if not is_terminal(console):
        console.width = _UNLIMITED_WIDTH
    return console


def is_terminal(console: Console) -> bool:
    """Return whether a console writes to a terminal."""
    # Not `console.is_terminal`: that is also true for a file where FORCE_COLOR is set, as in CI.
    return console.file.isatty()


def print_report(console: Console, *parts: RenderableType) -> None:
    """Print tables and text.

    Rich pads the rows of a table with blanks to its full width. In a file these are noise, so they
    are removed unless the console is a terminal.
    """
    if is_terminal(console):
        console.print(*parts, sep="\n")
        return
    plain = Console(file=io.StringIO(), width=console.width, highlight=False, color_system=None)
    with plain.capture() as captured:
        plain.print(*parts, sep="\n")
    stream = sys.stderr if console.stderr else sys.stdout
    stream.writelines(f"{line.rstrip()}\n" for line in captured.get().splitlines())
    stream.flush()


def visible_rows(rows: Iterable[Sequence[str]]) -> list[list[str]]:
    """Return the rows of a table with all text visible."""
    return [[visible(cell) for cell in row] for row in rows]


def split_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> RenderableType:
    """Return a table of figures; columns beyond the width follow in further tables below it.

    Each part begins with the first column, which names the rows.
    """
    rows = visible_rows(rows)
    parts: list[RenderableType] = []
    for columns in _split(_widths(headings, rows), width):
        table = Table(box=None, pad_edge=False)
        for column in columns:
            table.add_column(headings[column], justify="right" if column else "left", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(row[column]) for column in columns))
        parts += [table, ""]
    return Group(*parts[:-1])


def table_or_paragraphs(
    headings: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> RenderableType:
    """Return a table of texts, or a paragraph for each row where the width is too small for it."""
    rows = visible_rows(rows)
    widths = _widths(headings, rows)
    if sum(widths) + _GAP * (len(widths) - 1) > width:
        return Group(*_paragraphs(headings, rows))
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _paragraphs(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[RenderableType]:
    for row in rows:
        yield Text(row[0], style="bold", overflow="fold")
        for heading, cell in zip(headings[1:], row[1:], strict=True):
            yield Padding(Text(f"{heading}: {cell}", overflow="fold"), (0, 0, 0, 4))


def _widths(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(cell_len, column)) for column in zip(headings, *rows, strict=True)]


def _split(widths: Sequence[int], width: int) -> Iterator[list[int]]:
    """Yield the columns of each part, the first column in all of them."""
    part, used = [0], widths[0]
    for column in range(1, len(widths)):
        needed = _GAP + widths[column]
        if used + needed > width and len(part) > 1:
            yield part
            part, used = [0], widths[0]
        part.append(column)
        used += needed
    yield part

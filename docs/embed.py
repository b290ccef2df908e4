"""Embed the output of a command in a page: ``some command | python docs/embed.py PAGE NAME``.

The page has the lines ``<!-- NAME: begin … -->`` and ``<!-- NAME: end -->``. Standard input
replaces the text between them.
"""

import re
import sys
from pathlib import Path


def embedded(page: str, name: str, text: str) -> str:
    """Return the page with the text between its marks.

    Raises:
        ValueError: The page does not have exactly one pair of these marks.
    """
    begin, end = rf"<!-- {re.escape(name)}: begin[^>]*-->\n", rf"<!-- {re.escape(name)}: end"
    marks = re.compile(rf"({begin}).*?({end})", re.DOTALL)
    made, count = marks.subn(lambda found: f"{found[1]}\n{text.strip()}\n\n{found[2]}", page)
    if count != 1:
        raise ValueError(f"marks of {name!r}: expected one pair, found {count}")
    return made


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(embedded(path.read_text(), sys.argv[2], sys.stdin.read()))

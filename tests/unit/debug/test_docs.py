"""docs/debug.md has the schema of the pages."""

from pathlib import Path

from tests.scripts import load_script

ROOT = Path(__file__).parents[3]


def test_the_page_has_the_schema_that_the_structs_have() -> None:
    page = (ROOT / "docs/debug.md").read_text()

    assert load_script(ROOT / "docs/write_debug.py").with_schema(page) == page, (
        "run `make debug-docs`"
    )

"""Writes the table of settings in README.md (``make readme``). A test fails if it is outdated."""

from pathlib import Path

from lora_router.config.report import settings_markdown

README = Path(__file__).parents[1] / "README.md"
BEGIN = "<!-- settings: begin (made by `make readme`) -->\n"
END = "<!-- settings: end -->"


def with_settings(text: str) -> str:
    """Return the README with an up-to-date table."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{settings_markdown()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(with_settings(README.read_text()))

"""Write the README's table of settings anew: ``make readme``. A test says when that is due."""

from pathlib import Path

from lora_router.config.report import settings_markdown

README = Path(__file__).parents[1] / "README.md"
BEGIN = "<!-- settings: begin (made by `make readme`) -->\n"
END = "<!-- settings: end -->"


def with_settings(text: str) -> str:
    """Return the README with the table as it should be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{settings_markdown()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(with_settings(README.read_text()))

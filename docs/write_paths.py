"""Write the table of docs/paths.md: ``make paths``. A test checks it."""

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from lora_router.extproc.path_rules import ModelIn, PathRule, Treatment
from lora_router.extproc.path_table import RULES

PAGE = Path(__file__).parent / "paths.md"
_SEVERAL = {rule.path for rule in RULES if rule.methods}
BEGIN, END = "<!-- paths: begin (made by `make paths`) -->\n", "<!-- paths: end -->"


def with_table(page: str) -> str:
    """Return the page with its table up to date."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{begin}\n{_table()}\n{end}{after}"


def _table() -> str:
    lines = [
        "| paths | methods | treatment | the model is in | IDs |",
        "| --- | --- | --- | --- | --- |",
    ]
    for shown, rules in groupby(RULES, _shown):
        paths = ", ".join(f"`{rule.path}`" for rule in rules)
        lines.append("| " + " | ".join((paths, *shown)) + " |")
    return "\n".join(lines) + "\n"


def _shown(rule: PathRule) -> tuple[str, ...]:
    """Return what the table says beside the path."""
    return (
        ", ".join(sorted(rule.methods)) or ("others" if rule.path in _SEVERAL else "all"),
        _treatment(rule),
        "" if rule.model_in is ModelIn.NOWHERE else f"the {rule.model_in.value}",
        ", ".join(_ids(rule)),
    )


def _treatment(rule: PathRule) -> str:
    name = rule.treatment.value
    if rule.is_mounted:
        return f"{name}, with all that begins so"
    if rule.treatment is Treatment.REFUSED:
        return f"{name}, below any prefix" if rule.changes_pod else name
    return f"{name}, {rule.api.value}'s errors" if rule.api.value != "OpenAI" else name


def _ids(rule: PathRule) -> Iterable[str]:
    if rule.ids_in:
        yield " and ".join(f"`{field}`" for field, _ in rule.ids_in)
    if rule.makes_ids:
        yield "of the answer"
    if rule.treatment is Treatment.STICKY and not rule.ids_in:
        yield "of the path"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))

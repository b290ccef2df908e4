"""Write the tables of docs/debug.md from the structs: ``make debug-docs``. A test checks them."""

from pathlib import Path
from typing import get_type_hints

import msgspec
from msgspec import inspect

from lora_router.debug import fact_rows, pages, rows
from lora_router.debug.arguments import LIMITS, OUTCOMES, PARAMETERS

PAGE = Path(__file__).parent / "debug.md"
BEGIN, END = "<!-- schema: begin (made by `make debug-docs`) -->\n", "<!-- schema: end -->"
SHOWN: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("GET /debug/routers", pages.RoutersPage),
    ("GET /debug/pods", pages.PodsPage),
    ("GET /debug/adapters", pages.AdaptersPage),
    ("GET /debug/held", pages.HeldPage),
    ("GET /debug/decisions", pages.DecisionsPage),
    ("GET /debug/decision", pages.DecisionPage),
    ("GET /debug/explain", pages.ExplainPage),
    ("GET /debug/facts", pages.FactsPage),
    ("GET /debug/steps", pages.StepsPage),
    ("POST /debug/order", pages.OrderPage),
)
ROWS: tuple[type[msgspec.Struct], ...] = (
    rows.RouterRow,
    rows.PodRow,
    rows.AdapterOnPod,
    rows.AdapterRow,
    rows.FailingLoad,
    rows.LoaderStep,
    rows.HeldRow,
    rows.ClosingSlot,
    rows.DecisionRow,
    rows.CandidateRow,
    rows.Explanation,
    fact_rows.RouterFacts,
    fact_rows.PodFacts,
)
_MEANINGS = {
    "limit": "The most rows.",
    "since": "Only requests that arrived then or later, in seconds since 1970.",
    "model": "The model or adapter.",
    "pod": "The pod that was picked, or that served the request.",
    "outcome": f"One of {', '.join(f'`{each}`' for each in OUTCOMES)}.",
    "abnormal": "`true` or `false`.",
    "slow": "`true` or `false`.",
    "id": "The `x-request-id`. Short: `GET /debug/decisions/ID`, for an ID that a path can have.",
    "router": "The router that decided, if several did about requests with this ID.",
    "strategy": "The algorithm, as the header `routing-strategy` names it.",
    "filter": "A label selector, as in the header `external-filter`.",
    "size": "Bytes of the body.",
    "action": "`load`, `unload` or `sync` (try again now what failed).",
    "name": "The adapter.",
    "source": "From where pods load it. `adapter_sources` must allow it.",
    "base_model": "Its base model. Default: the only one of the fleet.",
    "copies": "On how many pods. Default: as its requests need.",
}
_NAMES = {
    inspect.StrType: "text",
    inspect.IntType: "whole number",
    inspect.FloatType: "number",
    inspect.BoolType: "true or false",
    inspect.NoneType: "null",
}


def with_schema(page: str) -> str:
    """Return the page with its tables up to date."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{begin}\n{_schema()}\n{end}{after}"


def _schema() -> str:
    parts = []
    for title, page in SHOWN:
        parts.append(f"### `{title}`\n\n{_doc(page)}\n")
        parts.append(_parameters(title.rpartition("/debug/")[2]))
        inherited = next((row for row in page.__mro__[1:] if row in ROWS), None)
        if inherited is not None:
            parts.append(f"The fields of [`{_name(inherited)}`](#{_name(inherited)}), and:\n")
        parts.append(_table(page, inherited))
    parts += [f"### {_name(row)}\n\n{_doc(row)}\n\n{_table(row, None)}" for row in ROWS]
    return "\n".join(part for part in parts if part)


def _parameters(path: str) -> str:
    names = PARAMETERS[path]  # type: ignore[index]
    if not names:
        return ""
    lines = ["| parameter | meaning |", "| --- | --- |"]
    for name in names:
        meaning = _MEANINGS[name]
        if name == "limit":
            default, most = LIMITS[path]  # type: ignore[index]
            meaning += f" Default {default}, at most {most}."
        lines.append(f"| `{name}` | {meaning} |")
    return "\n".join(lines) + "\n"


def _table(struct: type[msgspec.Struct], inherited: type[msgspec.Struct] | None) -> str:
    known = () if inherited is None else inherited.__struct_fields__
    lines = ["| field | type | meaning |", "| --- | --- | --- |"]
    for name, kind in get_type_hints(struct, include_extras=True).items():
        if name not in known:
            shown = _shown(inspect.type_info(kind))
            lines.append(f"| `{name}` | {shown} | {kind.__metadata__[0].description} |")
    return "\n".join(lines) + "\n"


def _shown(kind: inspect.Type) -> str:
    match kind:
        case inspect.Metadata():
            return _shown(kind.type)
        case inspect.StructType():
            name = _name(kind.cls)
            return f"[{name}](#{name})"
        case inspect.ListType():
            return f"list of {_shown(kind.item_type)}"
        case inspect.DictType():
            return f"map of {_shown(kind.value_type)}"
        case inspect.UnionType():
            return " or ".join(map(_shown, kind.types))
    return _NAMES[type(kind)]


def _name(struct: type) -> str:
    name = struct.__name__.removesuffix("Row")
    return "".join(f"-{each.lower()}" if each.isupper() else each for each in name)[1:]


def _doc(struct: type) -> str:
    return (struct.__doc__ or "").strip().partition("\n\n")[0]


if __name__ == "__main__":
    PAGE.write_text(with_schema(PAGE.read_text()))

"""Prints the settings: as a table, as JSON, for the README, and for the chart's schema."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import SecretStr
from pydantic_core import PydanticUndefined
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lora_router.config.settings import AIBRIX_NAMES, ENV_PREFIX, Settings, allowed
from lora_router.config.sources import LoadedSettings

_TABLE_WIDTH = 120
"""Width of a terminal below which the four columns of the table are too narrow to read."""


def render_config(loaded: LoadedSettings, width: int) -> RenderableType:
    """Return all settings in force as a table, or as paragraphs if the width is too small."""
    if width < _TABLE_WIDTH:
        return _paragraphs(loaded)
    table = Table(box=None, pad_edge=False)
    table.add_column("setting", no_wrap=True)
    for heading in ("value", "from", "meaning"):
        table.add_column(heading, overflow="fold")
    for name, field in Settings.model_fields.items():
        cells = (name, _text(_value(loaded, name)), loaded.origins[name], field.description or "")
        table.add_row(*map(Text, cells))
    return table


def _paragraphs(loaded: LoadedSettings) -> RenderableType:
    parts: list[RenderableType] = []
    for name, field in Settings.model_fields.items():
        value = _text(_value(loaded, name))
        text = Text.assemble(
            (name, "bold"),
            f" = {value}" if value else "",
            (f"   [{loaded.origins[name]}]", "dim"),
            overflow="fold",
        )
        parts += [text, Padding(Text(field.description or ""), (0, 0, 0, 4))]
    return Group(*parts)


def config_json(loaded: LoadedSettings) -> dict[str, dict[str, object]]:
    """Return all settings in force, each with its value and where it came from."""
    return {
        name: {"value": _value(loaded, name), "from": loaded.origins[name]}
        for name in Settings.model_fields
    }


def settings_markdown() -> str:
    """Return the README's table of settings."""
    lines = ["| setting | default | meaning | allowed |", "| --- | --- | --- | --- |"]
    theirs = {name: variable for variable, name in AIBRIX_NAMES.items()}
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        assert default is not PydanticUndefined  # noqa: S101 -- all settings have one
        shown = _text(default)
        also = f"<br>`{theirs[name]}`" if name in theirs else ""
        lines.append(
            f"| `{name}`{also} | {f'`{shown}`' if shown else ''} | {field.description} "
            f"| {allowed(name)} |"
        )
    lines += [
        "",
        f"Environment variable: `{ENV_PREFIX}` and the name in capitals, or AIBrix's name.",
    ]
    return "\n".join(lines) + "\n"


_BOUNDS: Mapping[str, tuple[str, Callable[[float, float], float]]] = {
    "ge": ("minimum", max),
    "le": ("maximum", min),
}
"""What Pydantic calls bounds in the schemas of some optional numbers, and which of two counts."""


def settings_schema() -> dict[str, dict[str, object]]:
    """Return a JSON schema for each setting, as it is written in YAML."""
    properties = Settings.model_json_schema()["properties"]
    return {name: _constraints(schema) for name, schema in properties.items()}


def _constraints(schema: dict[str, Any]) -> dict[str, object]:
    # A setting that may be null may also be left out, so the schema need not state it.
    [kind] = [each for each in schema.get("anyOf", [schema]) if each["type"] != "null"]
    kept = {"description": schema["description"], **kind}
    for key in ("title", "default", "format", "writeOnly"):
        kept.pop(key, None)
    for key, (name, stricter) in _BOUNDS.items():
        if key in kept:
            bound = kept.pop(key)
            kept[name] = stricter(bound, kept.get(name, bound))
    return kept


def _value(loaded: LoadedSettings, name: str) -> object:
    value = getattr(loaded.settings, name)
    if isinstance(value, SecretStr):
        return "(not shown)"
    if isinstance(value, str | int | float | list | dict | None):
        return value
    return str(value)


def _text(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case None:
            return ""
        case list():
            return ",".join(map(str, value))
        case dict():
            return ",".join(f"{key}={text}" for key, text in value.items())
    return str(value)

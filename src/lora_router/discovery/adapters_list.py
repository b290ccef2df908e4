"""Parses a list of adapters, and of templates of adapters, in YAML."""

import difflib
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lora_router.adapters.declared import (
    BY_DEMAND,
    MAX_DECLARED,
    NAME_RULE,
    DeclaredAdapter,
    WantedPods,
    is_name,
)
from lora_router.adapters.sources import OPERATORS_FILE, AllowedSources, SourceError
from lora_router.adapters.templates import (
    MAX_PATTERNS,
    MAX_TEMPLATES,
    PATTERN_RULE,
    Template,
    check_template_source,
    is_pattern,
)
from lora_router.routing.selector import SelectorError, parse_selector
from lora_router.yaml_document import YamlDocumentError, is_whole_number, parse_yaml

MAX_COPIES = 10_000
"""Copies of one adapter. A fleet has no more pods."""
MAX_ALIASES = 16
"""Aliases of one adapter."""
MAX_SHARE = 100
"""Percent."""
MAX_MODEL_LENGTH = 512
"""Characters of a base model's name."""
ADAPTER_KEYS = ("name", "base_model", "source", "pods", "pinned", "version", "share", "aliases")
TEMPLATE_KEYS = ("base_model", "names", "source", "pods")
POD_KEYS = ("selector", "copies")

_SECTIONS = ("adapters", "templates")
_SHOWN_CHARACTERS = 60
_NO_SOURCES = AllowedSources()

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = _SHOWN_CHARACTERS
_shown = _short.repr
"""Returns a value for an error message, shortened."""


class AdaptersFileError(ValueError):
    """The file is not a list of adapters.

    The message names the entry, the key, the value and what is allowed.
    """


@dataclass(frozen=True, slots=True)
class AdaptersList:
    """What a file declares."""

    adapters: tuple[DeclaredAdapter, ...] = ()
    templates: tuple[Template, ...] = ()


def parse_adapters(content: bytes | str, allowed: AllowedSources = _NO_SOURCES) -> AdaptersList:
    """Return what a file declares.

    Args:
        content: The file's content.
        allowed: The sources from which pods may load.

    Raises:
        AdaptersFileError: The content is not a list of adapters.
    """
    try:
        document = parse_yaml(content)
    except YamlDocumentError as error:
        raise AdaptersFileError(str(error)) from None
    if not isinstance(document, dict) or not document:
        raise AdaptersFileError("must be a mapping with the keys 'adapters' and 'templates'")
    _know_keys("the file", document, _SECTIONS)
    entries = _entries(document, "adapters", MAX_DECLARED)
    adapters = tuple(_adapter(number, each, allowed) for number, each in enumerate(entries, 1))
    entries = _entries(document, "templates", MAX_TEMPLATES)
    templates = tuple(_template(number, each, allowed) for number, each in enumerate(entries, 1))
    _refuse_doubles(adapters)
    _refuse_base_models(adapters)
    return AdaptersList(adapters, templates)


def _entries(document: Mapping[object, object], section: str, most: int) -> Sequence[object]:
    entries = document.get(section, [])
    if not isinstance(entries, list) or len(entries) > most:
        raise AdaptersFileError(
            f"'{section}' must be a list of at most {most} entries (an empty one is '[]')"
        )
    return entries


def _adapter(number: int, entry: object, allowed: AllowedSources) -> DeclaredAdapter:
    where = f"adapter {number}"
    values = _mapping(where, entry, ADAPTER_KEYS)
    name = values.get("name")
    if not is_name(name) or not isinstance(name, str):
        raise AdaptersFileError(f"{where}: name={_shown(name)}: must be {NAME_RULE}")
    where = f"adapter {_shown(name)}"
    source = values.get("source")
    try:
        allowed.check(source, OPERATORS_FILE)
    except SourceError as error:
        raise AdaptersFileError(f"{where}: source={_shown(source)}: {error}") from None
    pinned = values.get("pinned", False)
    if not isinstance(pinned, bool):
        raise AdaptersFileError(f"{where}: pinned={_shown(pinned)}: must be true or false")
    share = values.get("share", MAX_SHARE)
    if not is_whole_number(share) or not 0 <= share <= MAX_SHARE:
        raise AdaptersFileError(
            f"{where}: share={_shown(share)}: must be a whole number from 0 to {MAX_SHARE}"
        )
    return DeclaredAdapter(
        name,
        _base_model(where, values.get("base_model")),
        str(source),
        _pods(where, values.get("pods")),
        pinned,
        _version(where, values.get("version", "")),
        int(share),
        _aliases(where, values.get("aliases", []), name),
    )


def _template(number: int, entry: object, allowed: AllowedSources) -> Template:
    where = f"template {number}"
    values = _mapping(where, entry, TEMPLATE_KEYS)
    names = values.get("names")
    patterns = [names] if isinstance(names, str) else names
    if (
        not isinstance(patterns, list)
        or not 0 < len(patterns) <= MAX_PATTERNS
        or not all(map(is_pattern, patterns))
    ):
        raise AdaptersFileError(
            f"{where}: names={_shown(names)}: must be a pattern, or a list of 1 to {MAX_PATTERNS} "
            f"patterns: {PATTERN_RULE}"
        )
    source = values.get("source")
    if not isinstance(source, str):
        raise AdaptersFileError(f"{where}: source={_shown(source)}: must be a string with {{name}}")
    try:
        check_template_source(source, allowed)
    except SourceError as error:
        raise AdaptersFileError(f"{where}: source={_shown(source)}: {error}") from None
    return Template(
        _base_model(where, values.get("base_model")),
        tuple(patterns),
        source,
        _pods(where, values.get("pods")),
    )


def _mapping(where: str, entry: object, keys: Sequence[str]) -> Mapping[object, object]:
    if not isinstance(entry, dict):
        raise AdaptersFileError(f"{where}: must be a mapping with the keys {', '.join(keys)}")
    _know_keys(where, entry, keys)
    return entry


def _know_keys(where: str, entry: Mapping[object, object], keys: Sequence[str]) -> None:
    for key in entry:
        if key not in keys:
            close = difflib.get_close_matches(str(key)[:_SHOWN_CHARACTERS], keys, 1)
            hint = f"; did you mean '{close[0]}'?" if close else f"; known are {', '.join(keys)}"
            raise AdaptersFileError(f"{where}: unknown key {_shown(key)}{hint}")


def _base_model(where: str, value: object) -> str:
    if isinstance(value, str) and 0 < len(value) <= MAX_MODEL_LENGTH and value.isprintable():
        return value
    raise AdaptersFileError(
        f"{where}: base_model={_shown(value)}: must be the name of a model that pods serve, of at "
        f"most {MAX_MODEL_LENGTH} characters"
    )


def _pods(where: str, value: object) -> WantedPods:
    if value is None:
        return BY_DEMAND
    if isinstance(value, dict):
        _know_keys(f"{where}: pods", value, POD_KEYS)
        copies = value.get("copies")
        wanted = BY_DEMAND if copies is None else _copies(copies)
        selector = value.get("selector")
        if wanted is not None and selector is None:
            return wanted
        if wanted is not None and isinstance(selector, str):
            try:
                return WantedPods(wanted.everywhere, wanted.copies, parse_selector(selector))
            except SelectorError as error:
                raise AdaptersFileError(
                    f"{where}: pods: selector={_shown(selector)}: must be a Kubernetes label "
                    f"selector: {error}"
                ) from None
    else:
        wanted = _copies(value)
        if wanted is not None:
            return wanted
    raise AdaptersFileError(
        f"{where}: pods={_shown(value)}: must be 'all', a whole number from 1 to {MAX_COPIES}, or "
        "a mapping of 'selector' to a Kubernetes label selector and 'copies' to such a number or "
        "'all'"
    )


def _copies(value: object) -> WantedPods | None:
    if value == "all":
        return WantedPods(everywhere=True)
    if is_whole_number(value) and 0 < value <= MAX_COPIES:
        return WantedPods(copies=int(value))
    return None


def _version(where: str, value: object) -> str:
    # YAML reads `version: 2` as a number, and 010 as 8: the version is what was written. It reads
    # 1.10 as 1.1, so that must be quoted.
    version = str(value) if is_whole_number(value) else value
    if version == "" or (is_name(version) and isinstance(version, str)):
        return str(version)
    raise AdaptersFileError(
        f"{where}: version={_shown(value)}: must be {NAME_RULE} (quote what looks like a number "
        "with a fraction or a date)"
    )


def _aliases(where: str, value: object, name: str) -> tuple[str, ...]:
    if (
        isinstance(value, list)
        and len(value) <= MAX_ALIASES
        and all(map(is_name, value))
        and len({name, *value}) == len(value) + 1
    ):
        return tuple(value)
    raise AdaptersFileError(
        f"{where}: aliases={_shown(value)}: must be a list of up to {MAX_ALIASES} different names "
        f"other than its own, each {NAME_RULE}"
    )


def _refuse_doubles(adapters: Iterable[DeclaredAdapter]) -> None:
    seen: dict[str, str] = {}
    for adapter in adapters:
        for name in (adapter.name, *adapter.aliases):
            if name in seen and name == adapter.name == seen[name]:
                raise AdaptersFileError(f"adapter {_shown(name)}: is declared twice")
            if name in seen:
                raise AdaptersFileError(
                    f"adapter {_shown(adapter.name)}: the name {_shown(name)} is that of the "
                    f"adapter {_shown(seen[name])} too"
                )
            seen[name] = adapter.name


def _refuse_base_models(adapters: Sequence[DeclaredAdapter]) -> None:
    """Refuse names by which clients ask for a base model: they would get the adapter."""
    bases = {adapter.base_model for adapter in adapters}
    for adapter in adapters:
        for key, name in (("name", adapter.name), *(("aliases", each) for each in adapter.aliases)):
            if name in bases:
                raise AdaptersFileError(
                    f"adapter {_shown(adapter.name)}: {key}: {_shown(name)} is a base model; "
                    "must be another name, or requests for the base model would get the adapter"
                )

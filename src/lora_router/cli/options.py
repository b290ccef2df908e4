"""Options that several commands have, and how commands read settings and report errors."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar
from urllib.parse import urlsplit

import typer

if TYPE_CHECKING:  # Reading settings takes half a second to import, and --help needs none.
    from lora_router.config.sources import LoadedSettings

_Number = TypeVar("_Number", int, float)


def complete_algorithm(incomplete: str) -> Iterator[str]:
    """Yield the names of installed algorithms that begin with ``incomplete``, for completion."""
    from lora_router.routing.registry import installed

    yield from (name for name in sorted(installed()) if name.startswith(incomplete))


def complete_assignment(incomplete: str) -> Iterator[str]:
    """Yield ``NAME=`` for each setting that begins with ``incomplete``, for completion."""
    from lora_router.config.settings import Settings

    yield from (f"{name}=" for name in Settings.model_fields if name.startswith(incomplete))


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="YAML file with settings.", show_default=False
    ),
]
Endpoints = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="YAML file that lists the pods.", show_default=False),
]
Algorithm = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Algorithm that picks the pods.",
        show_default=False,
        autocompletion=complete_algorithm,
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Set any setting by its name. Can be repeated. Overrides file and environment.",
        show_default=False,
        autocompletion=complete_assignment,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def whole(least: int | None = None, most: int | None = None) -> Callable[[object], int]:
    """Return the parser of an option: a whole number.

    Args:
        least: The smallest one.
        most: The largest one.
    """
    return _parser(int, "a whole number", least, most)


def number(least: float | None = None, most: float | None = None) -> Callable[[object], float]:
    """Return the parser of an option: a number.

    Args:
        least: The smallest one.
        most: The largest one.
    """
    return _parser(float, "a number", least, most)


def _parser(
    read: Callable[[str], _Number], kind: str, least: float | None, most: float | None
) -> Callable[[object], _Number]:
    def parse(value: object) -> _Number:
        try:
            found: _Number | None = read(str(value))
        except ValueError:
            found = None
        if found is None or not _is_within(found, least, most):
            raise typer.BadParameter(f"must be {kind}{_bounds(least, most)}, not {value!r}")
        return found

    return parse


def _is_within(found: float, least: float | None, most: float | None) -> bool:
    return (least is None or found >= least) and (most is None or found <= most)


def _bounds(least: float | None, most: float | None) -> str:
    if least is None:
        return ""
    return f" from {least:,} to {most:,}" if most is not None else f" of {least:,} or more"


def check_utf8(arguments: Mapping[str, str]) -> None:
    """Exit with status 2 if an argument cannot be sent: it has bytes that are not UTF-8.

    Args:
        arguments: What was given, by the name of the argument or the option without dashes.
    """
    for name, text in arguments.items():
        try:
            text.encode()
        except UnicodeEncodeError:
            asked = name.upper() if name == "name" else f"--{name.replace('_', '-')}"
            fail(f"{asked}: must be UTF-8, not {text!r}", status=2)


def is_url(text: str) -> bool:
    """Return whether a text is the URL of a server: ``http://HOST:PORT``, or ``https``."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:  # A port above 65535, or half of an IPv6 address.
        return False
    has_host = bool(url.hostname) and not any(map(str.isspace, text)) and text.isprintable()
    return url.scheme in {"http", "https"} and has_host and port != 0


def load(
    config: Path | None,
    assignments: list[str] | None = None,
    flags: Mapping[str, object] | None = None,
    spelled: Mapping[str, str] | None = None,
) -> "LoadedSettings":
    """Return the settings, and print warnings.

    If the settings are invalid, print each problem and exit with status 2.

    Args:
        config: The file of ``--config``.
        assignments: The values of ``--set``.
        flags: Values of settings that have a flag of their own. ``None``: the flag is absent.
        spelled: By setting, the flag that was used if its name differs: ``--verbose``.
    """
    from lora_router.config.sources import SettingsError

    read = source(config, assignments, flags, spelled)
    try:
        loaded = read()
    except SettingsError as error:
        fail(str(error), status=2)
    for warning in loaded.warnings:
        typer.echo(f"lora-router: warning: {warning}", err=True)
    return loaded


def source(
    config: Path | None,
    assignments: list[str] | None = None,
    flags: Mapping[str, object] | None = None,
    spelled: Mapping[str, str] | None = None,
) -> "Callable[[], LoadedSettings]":
    """Return a function that reads the settings, and raises ``SettingsError``.

    Args:
        config: The file of ``--config``.
        assignments: The values of ``--set``. An invalid one ends the process with status 2.
        flags: Values of settings that have a flag of their own. ``None``: the flag is absent.
        spelled: By setting, the flag that was used if its name differs: ``--verbose``.
    """
    from lora_router.config.sources import load_settings

    given = {name: value for name, value in (flags or {}).items() if value is not None}
    written = dict(spelled or {})
    for assignment in assignments or []:
        name, equals, value = assignment.partition("=")
        if not equals:
            fail(f"--set {assignment}: must be NAME=VALUE", status=2)
        name = name.strip()
        given[name] = value
        written[name] = f"--set {name}="
    return partial(load_settings, file=config, environ=os.environ, flags=given, spelled=written)


def fail(message: str, *, status: int) -> NoReturn:
    """Print an error, with the program's name before each line, and exit."""
    from lora_router.cli.standard_streams import last_words
    from lora_router.visible_text import visible

    last_words("".join(f"lora-router: {visible(line)}\n" for line in message.splitlines()))
    sys.exit(status)

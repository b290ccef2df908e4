"""Reads settings from a file, the environment and flags, and reports what is wrong with them.

From the weakest source to the strongest: the defaults of ``Settings``, a YAML file, the environment
(``LORA_ROUTER_`` and the name, in any case; for four settings AIBrix's name too), flags.
"""

import difflib
import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr, ValidationError

from lora_router.config.kinds import FromFilesFolder
from lora_router.config.settings import AIBRIX_NAMES, ENV_PREFIX, Settings, allowed
from lora_router.config.settings_file import SettingsFileError, read_settings_file
from lora_router.routing.registry import installed

# Variables that Kubernetes sets in every pod for a Service named `lora-router`.
_SERVICE_LINK = re.compile(r"LORA_ROUTER_(SERVICE_(HOST|PORT)(_.+)?|PORT(_\d+_\w+)?)")

_SHOWN_CHARACTERS = 200
"""Maximum length of an invalid value in an error."""

_REPR = reprlib.Repr()
_REPR.maxlist = _REPR.maxdict = 10
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = _SHOWN_CHARACTERS


class SettingsError(ValueError):
    """The settings are invalid. One line per problem: source, name, value, allowed values."""


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The settings in force, and where each came from."""

    settings: Settings
    origins: Mapping[str, str]
    """By setting: ``default``, ``file FILE``, ``env NAME`` or ``flag --NAME``."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Given:
    """A value from one of the sources."""

    value: object
    origin: str
    spelled: str
    """The text before the value, as the user wrote it."""


def load_settings(
    *,
    file: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, object],
    spelled: Mapping[str, str] | None = None,
) -> LoadedSettings:
    """Combine the sources. Nothing but the arguments is read.

    Args:
        file: The YAML file of settings, or ``None``.
        environ: The process's environment.
        flags: Values by setting.
        spelled: By setting, the text before the value on the command line, for example
            ``--set grpc_port=``. Default: the setting's name as an option.

    Raises:
        SettingsError: A source is invalid. The message lists all problems.
    """
    given = _from_file(file) if file is not None else {}
    given |= _from_environment(environ)
    given |= _from_flags(flags, spelled or {})
    unknown = [_unknown(item.spelled, name) for name, item in given.items() if not _is_known(name)]
    if unknown:
        raise SettingsError("\n".join(unknown))
    try:
        settings = Settings.model_validate({name: item.value for name, item in given.items()})
    except ValidationError as error:
        raise SettingsError("\n".join(_problems(error, given))) from None
    _check_algorithm(settings.algorithm, given)
    origins = {
        name: given[name].origin if name in given else "default" for name in Settings.model_fields
    }
    return LoadedSettings(settings, origins, _suspicious(environ))


def _from_file(file: Path) -> dict[str, _Given]:
    try:
        entries = read_settings_file(file)
    except SettingsFileError as error:
        raise SettingsError(str(error)) from None
    given = {}
    for entry in entries:
        value = entry.value
        if isinstance(value, str) and value and _is_relative_to_the_file(entry.name):
            # The process can run in any working directory.
            value = str(file.parent / value)
        given[entry.name] = _Given(value, f"file {file}", f"{entry.place}: {entry.name}: ")
    return given


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    given = {
        name: _Given(environ[variable], f"env {variable}", f"{variable}=")
        for variable, name in AIBRIX_NAMES.items()
        if environ.get(variable)
    }
    # An empty variable counts as absent, because a template often cannot leave a variable out.
    spelled: dict[str, str] = {}
    for variable, value in environ.items():
        name = _setting_of(variable)
        if not value or not _is_known(name):
            continue
        other = spelled.setdefault(name, variable)
        if environ[other] != value:
            raise SettingsError(
                f"{other} and {variable}: two spellings of one variable, with different values: "
                "set one of them"
            )
        given[name] = _Given(value, f"env {variable}", f"{variable}=")
    return given


def _setting_of(variable: str) -> str:
    """Return what a variable of ours sets, known or not; empty: it is not ours.

    Variables are read in any case.
    """
    name = variable.upper()
    return name.removeprefix(ENV_PREFIX).lower() if name.startswith(ENV_PREFIX) else ""


def _from_flags(flags: Mapping[str, object], spelled: Mapping[str, str]) -> dict[str, _Given]:
    given = {}
    for name, value in flags.items():
        flag = spelled.get(name, f"--{name.replace('_', '-')} ")
        given[name] = _Given(value, f"flag {flag.rstrip(' =')}", flag)
    return given


def _is_known(name: str) -> bool:
    return name in Settings.model_fields


def _is_relative_to_the_file(name: str) -> bool:
    return _is_known(name) and any(
        isinstance(each, FromFilesFolder) for each in Settings.model_fields[name].metadata
    )


def _is_secret(name: str) -> bool:
    return SecretStr in (getattr(Settings.model_fields[name].annotation, "__args__", ()))


def _closest(name: str) -> str:
    close = difflib.get_close_matches(name, Settings.model_fields, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _unknown(spelled: str, name: str) -> str:
    return f"{spelled.strip(' :=')}: unknown setting{_closest(name)}"


def _problems(error: ValidationError, given: Mapping[str, _Given]) -> list[str]:
    problems: dict[str, str] = {}
    for detail in error.errors(include_url=False, include_input=False):
        if not detail["loc"]:
            # The settings contradict each other.
            for each in detail["ctx"]["error"].found:
                problems[each.message] = each.message + _written(each.names, given)
            continue
        name = str(detail["loc"][0])
        problems[name] = f"{_assignment(name, given[name])}: must be {allowed(name)}"
    return list(problems.values())


def _written(names: Iterable[str], given: Mapping[str, _Given]) -> str:
    """Return where the settings of a contradiction were set, and to what."""
    places = [_assignment(name, given[name]) for name in names if name in given]
    return f" ({'; '.join(places)})" if places else ""


def _assignment(name: str, item: _Given) -> str:
    return f"{item.spelled}{'(not shown)' if _is_secret(name) else _shown(item.value)}"


def _shown(value: object) -> str:
    """Return a value as one line of bounded length."""
    text = _REPR.repr(value) if isinstance(value, list | dict) else str(value)
    if not text.isprintable():
        text = repr(text)
    if len(text) > _SHOWN_CHARACTERS:
        text = f"{text[:_SHOWN_CHARACTERS]}… ({len(text)} characters)"
    return text


def _check_algorithm(name: str, given: Mapping[str, _Given]) -> None:
    known = installed()
    if name not in known:
        before = given["algorithm"].spelled if "algorithm" in given else "algorithm="
        raise SettingsError(f"{before}{_shown(name)}: must be one of {', '.join(sorted(known))}")


def _suspicious(environ: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(
        f"{_unknown(variable, name)}; the variable is ignored"
        for variable in sorted(environ)
        if (name := _setting_of(variable))
        and not _is_known(name)
        and _SERVICE_LINK.fullmatch(variable) is None
    )

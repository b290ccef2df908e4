"""Reading settings from a file, the environment and flags, and saying what is wrong with them."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource
from pydantic_settings.sources.utils import parse_env_vars

from lora_router.config.settings import AIBRIX_NAMES, ENV_PREFIX, Settings
from lora_router.routing.registry import installed

# What Kubernetes puts into every pod's environment for a service called `lora-router`.
_SERVICE_LINK = re.compile(r"LORA_ROUTER_(SERVICE_(HOST|PORT)(_.+)?|PORT(_\d+_\w+)?)")

_PATHS = (
    "endpoints",
    "kubernetes_kubeconfig",
    "grpc_tls_cert_file",
    "grpc_tls_key_file",
    "grpc_tls_client_ca_file",
)


class SettingsError(ValueError):
    """The settings are wrong. One line for each problem: where it stands, the value, what may."""


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The settings in force, and where each came from."""

    settings: Settings
    origins: Mapping[str, str]
    """By setting: ``default``, ``file FILE``, ``env NAME`` or ``flag --NAME``."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Given:
    """A value that somebody set."""

    value: object
    origin: str
    spelled: str
    """The name by which they know it."""


def load_settings(
    *,
    file: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, object],
    spelled: Mapping[str, str] | None = None,
) -> LoadedSettings:
    """Put the layers together.

    Args:
        file: A YAML file, if there is one.
        environ: The process's environment.
        flags: Settings by name.
        spelled: How a flag was written, up to its value, where it is not ``--NAME VALUE``:
            ``--set NAME=``.

    Raises:
        SettingsError: Something is wrong with any of them; says all of it.
    """
    given = _from_file(file) if file is not None else {}
    given |= _from_environment(environ)
    written = {name: f"--{name.replace('_', '-')} " for name in flags} | dict(spelled or {})
    given |= {
        name: _Given(value, f"flag {written[name].rstrip(' =')}", written[name])
        for name, value in flags.items()
    }
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


def allowed(name: str) -> str:
    """Say what a setting may be."""
    extra = Settings.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)  # noqa: S101 -- every setting says so
    return str(extra["allowed"])


def _from_file(file: Path) -> dict[str, _Given]:
    try:
        document = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    if document is None:
        return {}
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise SettingsError(f"{file}: must be a mapping of settings to values")
    given = {
        key: _Given(value, f"file {file}", f"{file}: {key}: ") for key, value in document.items()
    }
    for key in _PATHS:
        path = document.get(key)
        if isinstance(path, str):
            # A path in a file is meant from where the file is, wherever the process was started.
            given[key] = _Given(str(file.parent / path), f"file {file}", f"{file}: {key}: ")
    return given


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    spelled = {name: f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
    values = dict(environ)
    for theirs, name in AIBRIX_NAMES.items():
        if environ.get(theirs) and not environ.get(spelled[name]):
            values[spelled[name]] = environ[theirs]
            spelled[name] = theirs
    source = EnvSettingsSource(Settings)
    source.env_vars = parse_env_vars(values, case_sensitive=False, ignore_empty=True)
    return {
        name: _Given(value, f"env {spelled[name]}", f"{spelled[name]}=")
        for name, value in source().items()
    }


def _is_known(name: str) -> bool:
    return name in Settings.model_fields


def _closest(name: str) -> str:
    close = difflib.get_close_matches(name, Settings.model_fields, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _unknown(spelled: str, name: str) -> str:
    return f"{spelled.strip(' :=')}: there is no such setting{_closest(name)}"


def _problems(error: ValidationError, given: Mapping[str, _Given]) -> list[str]:
    problems: dict[str, str] = {}
    for detail in error.errors(include_url=False, include_context=False):
        if not detail["loc"]:
            # The settings do not fit together; the message names them.
            message = detail["msg"].removeprefix("Value error, ")
            problems[message] = message
            continue
        name = str(detail["loc"][0])
        item = given[name]
        value = "(not shown)" if name == "pod_api_key" else item.value
        problems[name] = f"{item.spelled}{value}: must be {allowed(name)}"
    return list(problems.values())


def _check_algorithm(name: str, given: Mapping[str, _Given]) -> None:
    known = installed()
    if name not in known:
        spelled = given["algorithm"].spelled if "algorithm" in given else "algorithm="
        raise SettingsError(f"{spelled}{name}: must be one of {', '.join(sorted(known))}")


def _suspicious(environ: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(
        f"{_unknown(name, name.removeprefix(ENV_PREFIX).lower())}; the variable is ignored"
        for name in sorted(environ)
        if name.startswith(ENV_PREFIX)
        and not _is_known(name.removeprefix(ENV_PREFIX).lower())
        and _SERVICE_LINK.fullmatch(name) is None
    )

"""Types of settings: how text is converted to each, and which values each allows."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic.fields import FieldInfo

from lora_router.adapters.sources import MAX_PREFIXES, PREFIX_RULE, check_prefix
from lora_router.config import name_rules
from lora_router.config.cores import cores
from lora_router.discovery.page_urls import PATH_RULE, is_page_path
from lora_router.extproc.body import BodyError, checked_model
from lora_router.peering.redis_address import ALLOWED as REDIS_ALLOWED
from lora_router.peering.redis_address import AddressError, parse_address
from lora_router.routing.selector import SelectorError, parse_selector

MAX_WORKERS = 32
"""As many as there may be peers: workers are peers of each other."""

_NO_WEIGHT = re.compile(r"[+-][0-9.]+|[0-9]*\.[0-9]+")
"""Numbers that are no weights. They are not taken for the end of a model's name."""
_TOKEN = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")

MESH = "mesh"
"""The carrier of peering that needs no server."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """States in an annotation which values a setting accepts, for errors and for the README."""

    text: str


@dataclass(frozen=True, slots=True)
class FromFilesFolder:
    """Marks a path that is relative to the folder of the settings file that names it."""


def allowed_by(field: FieldInfo) -> str:
    """Return which values a setting accepts, as a phrase that completes "must be …"."""
    for each in field.metadata:
        if isinstance(each, Allowed):
            return each.text
    if field.annotation is bool:
        return "true or false"
    if get_origin(field.annotation) is Literal:
        return f"one of {', '.join(map(str, get_args(field.annotation)))}"
    bounds = {
        bound: getattr(each, bound)
        for each in field.metadata
        for bound in ("ge", "le")
        if hasattr(each, bound)
    }
    return f"a whole number from {bounds['ge']} to {bounds['le']}"


def _current_transport(value: object) -> object:
    """Replace the former name of the built-in transport, which is still accepted."""
    return "builtin" if value == "lean" else value


def _switched(value: object) -> object:
    """Replace what YAML reads ``on`` and ``off`` as."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def _workers(value: object) -> object:
    """Replace ``auto`` by the number of cores."""
    return min(cores(), MAX_WORKERS) if value == "auto" else _number(value)


def _listed(value: object) -> object:
    """Split ``a,b``. A value from the environment or from a flag is always text."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    return value


def _joined(value: object) -> object:
    """Join a list from YAML to ``a,b``: it may be written as the lists of other settings."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    return value


def _mapped(value: object) -> object:
    """Split ``a=1,b=2``. Convert numbers from YAML to text."""
    if isinstance(value, str):
        pairs = [item.partition("=") for item in value.split(",") if item.strip()]
        if not all(equals for _, equals, _ in pairs):
            raise ValueError("must be name=value,name=value")
        named = {key.strip(): text.strip() for key, _, text in pairs}
        if len(named) < len(pairs):
            raise ValueError("must have each name once")
        return named
    if isinstance(value, dict):
        return {key: _digits(item) for key, item in value.items()}
    return value


def _digits(value: object) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


def _number(value: object) -> object:
    # YAML reads `yes` and `on` as booleans, which Python treats as the numbers 0 and 1.
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _path(value: Path) -> Path:
    if not value.name or not str(value).isprintable():
        raise ValueError("must be the path of a file")
    return value


def _url_path(value: str) -> str:
    if not value.startswith("/") or "?" in value or not value.isprintable():
        raise ValueError("must begin with a slash and have no query")
    return value


def _page_path(value: str) -> str:
    if not is_page_path(value):
        raise ValueError(f"must be {PATH_RULE}")
    return value


def _header(value: object) -> object:
    if not isinstance(value, str) or _TOKEN.fullmatch(value.lower()) is None:
        raise ValueError("must be a header's name")
    return value.lower()


def _selector(value: str) -> str:
    try:
        parse_selector(value)
    except SelectorError as error:
        raise ValueError(str(error)) from None
    return value


def _peering(value: SecretStr | None) -> SecretStr | None:
    text = MESH if value is None else value.get_secret_value()
    if text != MESH:
        try:
            parse_address(text)
        except AddressError as error:
            raise ValueError(str(error)) from None
    return value


def _source_prefix(value: str) -> str:
    try:
        return check_prefix(value)
    except ValueError as error:
        raise ValueError(f"must be {error}") from None


def _rewrites(value: object) -> object:
    """Read ``name=target:weight|target:weight,…``. A target without a weight has weight 1."""
    if isinstance(value, str):
        value = _mapped(value)
    if not isinstance(value, dict):
        return value
    return {
        name: _targets(targets) if isinstance(targets, str) else targets
        for name, targets in value.items()
    }


def _targets(text: str) -> dict[str, str]:
    """Read ``target:weight|target:weight``. Names may contain colons, too."""
    found: dict[str, str] = {}
    for each in text.split("|"):
        name, _, weight = each.strip().rpartition(":")
        if name and _NO_WEIGHT.fullmatch(weight):
            raise ValueError("must have whole weights")
        weighted = bool(name) and weight.isascii() and weight.isdigit()
        target = name if weighted else each.strip()
        if target in found:
            raise ValueError("must have each target once")
        found[target] = weight if weighted else "1"
    return found


def _model(value: str) -> str:
    try:
        return checked_model(value)
    except BodyError as error:
        raise ValueError(error.message) from None


def _pattern(value: str) -> str:
    if "*" in value[:-1]:
        raise ValueError("must have at most one asterisk, at its end")
    return _model(value)


def _some_weight(value: dict[str, int]) -> dict[str, int]:
    if not any(value.values()):
        raise ValueError("must have a weight above 0")
    return value


Whole = Annotated[int, BeforeValidator(_number)]
"""A whole number. The setting gives its bounds, from which ``allowed_by`` makes its phrase."""

Port = Annotated[
    int, Field(ge=1, le=65535), BeforeValidator(_number), Allowed("a port, from 1 to 65535")
]
PortOrAny = Annotated[
    int, Field(ge=0, le=65535), BeforeValidator(_number), Allowed("a port, from 0 (any) to 65535")
]
EnvoysPort = Annotated[
    int, Field(ge=0, le=65535), BeforeValidator(_number), Allowed("a port, from 0 to 65535")
]
Fraction = Annotated[
    float,
    Field(ge=0, le=1, allow_inf_nan=False),
    BeforeValidator(_number),
    Allowed("a number between 0 and 1"),
]
Seconds = Annotated[
    float,
    Field(ge=0, le=86400, allow_inf_nan=False),
    BeforeValidator(_number),
    Allowed("seconds, from 0 to 86400"),
]
Interval = Annotated[
    float,
    Field(gt=0, le=86400, allow_inf_nan=False),
    BeforeValidator(_number),
    Allowed("seconds, above 0 and up to 86400"),
]

_ModelName = Annotated[str, Field(min_length=1), AfterValidator(_model)]
_ModelPattern = Annotated[str, Field(min_length=1), AfterValidator(_pattern)]
_Weight = Annotated[int, Field(ge=0, le=1_000_000), BeforeValidator(_number)]
_Targets = Annotated[
    dict[_ModelName, _Weight], Field(min_length=1, max_length=64), AfterValidator(_some_weight)
]

_File = Annotated[Path, AfterValidator(_path)]
OwnFile = Annotated[_File | None, FromFilesFolder(), Allowed("the path of a file")]
OwnKubeconfig = Annotated[_File | None, FromFilesFolder(), Allowed("the path of a kubeconfig file")]
OwnSecret = Annotated[_File | None, FromFilesFolder(), Allowed("the path of a file")]
OwnPem = Annotated[_File | None, FromFilesFolder(), Allowed("the path of a PEM file")]
EnvoysPem = Annotated[_File | None, Allowed("the path of a PEM file where Envoy runs")]
"""Not ``FromFilesFolder``: Envoy may run on another host."""

Factor = Annotated[
    float,
    Field(ge=1, le=1000, allow_inf_nan=False),
    BeforeValidator(_number),
    Allowed("a number from 1 to 1000"),
]

Address = Annotated[
    str,
    Field(min_length=1),
    AfterValidator(name_rules.host_name),
    Allowed("an address of this host: an IP address without brackets, or a host's name"),
]
IpAddress = Annotated[
    str,
    Field(min_length=1),
    AfterValidator(name_rules.ip_address),
    Allowed("an IP address without brackets"),
]
HostsAndPorts = Annotated[
    Annotated[str, BeforeValidator(_joined), AfterValidator(name_rules.hosts_and_ports)] | None,
    Allowed("host:port, or several joined by commas"),
]
Peering = Annotated[
    SecretStr | None, AfterValidator(_peering), Allowed(f"{MESH}, or {REDIS_ALLOWED}")
]
KeyPrefix = Annotated[
    str,
    Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:/-]+$"),
    Allowed("1 to 128 letters, digits and the characters ._:/-"),
]
ServiceName = Annotated[
    Annotated[str, AfterValidator(name_rules.service_name)] | None,
    Allowed("the name of a Service, NAME or NAMESPACE/NAME"),
]
HeaderName = Annotated[str, BeforeValidator(_header), Allowed("a header's name")]
OptionalHeaderName = Annotated[
    Annotated[str, BeforeValidator(_header)] | None, Allowed("a header's name")
]
Selector = Annotated[str, AfterValidator(_selector), Allowed("a Kubernetes label selector")]
Namespaces = Annotated[
    list[Annotated[str, AfterValidator(name_rules.namespace)]],
    BeforeValidator(_listed),
    Allowed("names of namespaces, joined by commas"),
]
Namespace = Annotated[
    Annotated[str, AfterValidator(name_rules.namespace)] | None, Allowed("the name of a namespace")
]
UrlPaths = Annotated[
    list[Annotated[str, AfterValidator(_url_path)]],
    BeforeValidator(_listed),
    Allowed("paths, each beginning with a slash, joined by commas"),
]
PortName = Annotated[
    str,
    Field(min_length=1, max_length=15),
    AfterValidator(name_rules.port_name),
    Allowed("a container port's name: 1 to 15 lower-case letters, digits and hyphens"),
]
ContextName = Annotated[
    Annotated[str, Field(min_length=1), AfterValidator(name_rules.one_line)] | None,
    Allowed("a context's name"),
]
ModelName = Annotated[_ModelName | None, Allowed("a model's name")]
BaseModelName = Annotated[_ModelName | None, Allowed("a base model's name")]
ApiKey = Annotated[
    SecretStr | None,
    AfterValidator(name_rules.api_key),
    Allowed("the key that vLLM was started with, of ASCII characters without spaces"),
]
DnsName = Annotated[
    Annotated[str, AfterValidator(name_rules.dns_name)] | None, Allowed("a DNS name")
]
PagePath = Annotated[str, AfterValidator(_page_path), Allowed(PATH_RULE)]
OptionalPagePath = Annotated[Annotated[str, AfterValidator(_page_path)] | None, Allowed(PATH_RULE)]
PathTreatments = Annotated[
    dict[Annotated[str, AfterValidator(_url_path)], Literal["routed", "passed", "refused"]],
    BeforeValidator(_mapped),
    Allowed("/path=routed, /path=passed or /path=refused, joined by commas"),
]
ModelRewrites = Annotated[
    dict[_ModelPattern, _Targets],
    Field(max_length=4096),
    BeforeValidator(_rewrites),
    Allowed(
        "name=target:weight|target:weight, joined by commas, with whole weights from 0 to 1000000, "
        "one of them above 0"
    ),
]
SourcePrefixes = Annotated[
    list[Annotated[str, AfterValidator(_source_prefix)]],
    Field(max_length=MAX_PREFIXES),
    BeforeValidator(_listed),
    Allowed(f"beginnings of sources, joined by commas, each {PREFIX_RULE}"),
]
Options = Annotated[dict[str, str], BeforeValidator(_mapped), Allowed("name=value,name=value")]

Workers = Annotated[
    int,
    Field(ge=1, le=MAX_WORKERS),
    BeforeValidator(_workers),
    Allowed(f"a whole number from 1 to {MAX_WORKERS}, or auto"),
]

Switch = Annotated[Literal["off", "on"], BeforeValidator(_switched)]
Tokens = Annotated[Literal["off", "on", "all"], BeforeValidator(_switched)]
Transport = Annotated[Literal["builtin", "grpcio"], BeforeValidator(_current_transport)]

"""Types of settings: how text is converted to each, and which values each allows."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic.fields import FieldInfo

from lora_router.adapters.sources import MAX_PREFIXES, PREFIX_RULE, check_prefix
from lora_router.config import conversions, name_rules
from lora_router.config.cores import cores
from lora_router.discovery.page_urls import PATH_RULE, is_page_path
from lora_router.extproc.body import BodyError, checked_model
from lora_router.peering.redis_address import ALLOWED as REDIS_ALLOWED
from lora_router.peering.redis_address import AddressError, parse_address
from lora_router.routing.selector import SelectorError, parse_selector

MAX_WORKERS = 32
"""As many as there may be peers: workers are peers of each other."""

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


def _workers(value: object) -> object:
    """Replace ``auto`` by the number of cores."""
    return min(cores(), MAX_WORKERS) if value == "auto" else conversions.number(value)


def _path(value: Path) -> Path:
    if not value.name.strip() or not str(value).isprintable():
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
    if value and not value.strip():
        raise ValueError("must not be spaces alone, which would select all pods")
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


_NUMBER = BeforeValidator(conversions.number)
_LISTED = BeforeValidator(conversions.listed)
_MAPPED = BeforeValidator(conversions.mapped)


def _schema(pattern: str) -> FieldInfo:
    """Return a pattern for the chart's schema, which has no other check.

    It may allow more than the router does.
    """
    # Pydantic's types say that Field returns any type.
    field: FieldInfo = Field(json_schema_extra={"pattern": f"^(?:{pattern})$"})
    return field


Whole = Annotated[int, _NUMBER]
"""A whole number. The setting gives its bounds, from which ``allowed_by`` makes its phrase."""

Port = Annotated[
    int,
    Field(ge=1, le=65535),
    _NUMBER,
    Allowed("a port, from 1 to 65535"),
]
PortOrAny = Annotated[
    int,
    Field(ge=0, le=65535),
    _NUMBER,
    Allowed("a port, from 0 (any) to 65535"),
]
Fraction = Annotated[
    float,
    Field(ge=0, le=1, allow_inf_nan=False),
    _NUMBER,
    Allowed("a number between 0 and 1"),
]
Seconds = Annotated[
    float,
    Field(ge=0, le=86400, allow_inf_nan=False),
    _NUMBER,
    Allowed("seconds, from 0 to 86400"),
]
Interval = Annotated[
    float,
    Field(gt=0, le=86400, allow_inf_nan=False),
    _NUMBER,
    Allowed("seconds, above 0 and up to 86400"),
]
LONGEST_MESSAGE_SECONDS = 3600
"""The longest time for which Envoy's ext_proc filter may be told to wait for a message."""
MESSAGE_MARGIN_SECONDS = 5
"""By how much Envoy waits longer for the router than the longest hold: the router asks for a little
more time than it holds a request."""
_LONGEST_HOLD_SECONDS = LONGEST_MESSAGE_SECONDS - MESSAGE_MARGIN_SECONDS

Hold = Annotated[
    float,
    Field(ge=0, le=_LONGEST_HOLD_SECONDS, allow_inf_nan=False),
    _NUMBER,
    Allowed(f"seconds, from 0 to {_LONGEST_HOLD_SECONDS}"),
]
MessageTimeout = Annotated[
    float,
    Field(ge=0.001, le=LONGEST_MESSAGE_SECONDS, allow_inf_nan=False),
    _NUMBER,
    Allowed(f"seconds, from 0.001 to {LONGEST_MESSAGE_SECONDS}"),
]
EnvoysInterval = Annotated[
    float,
    Field(ge=0.001, le=86400, allow_inf_nan=False),
    _NUMBER,
    Allowed("seconds, from 0.001 to 86400"),
]
"""For Envoy, 0 means no limit, and so does a time that is rounded to it."""

_ModelName = Annotated[str, Field(min_length=1), AfterValidator(_model)]
_ModelPattern = Annotated[str, Field(min_length=1), AfterValidator(_pattern)]
_Weight = Annotated[int, Field(ge=0, le=1_000_000), _NUMBER]
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
    _NUMBER,
    Allowed("a number from 1 to 1000"),
]

Address = Annotated[
    str,
    Field(min_length=1),
    AfterValidator(name_rules.host_name),
    _schema("[-A-Za-z0-9_.:%]+"),
    Allowed("an address of this host: an IP address without brackets, or a host's name"),
]
IpAddress = Annotated[
    str,
    Field(min_length=1),
    AfterValidator(name_rules.ip_address),
    _schema("[0-9A-Fa-f.:]+(?:%.+)?"),
    Allowed("an IP address without brackets"),
]
_HOST_AND_PORT = r"\s*[^\s,]+:[0-9]{1,5}\s*"
HostsAndPorts = Annotated[
    Annotated[
        str,
        BeforeValidator(conversions.joined),
        AfterValidator(name_rules.hosts_and_ports),
        _schema(f"{_HOST_AND_PORT}(?:,{_HOST_AND_PORT})*"),
    ]
    | None,
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
_Header = Annotated[str, BeforeValidator(_header), _schema(_TOKEN.pattern.replace("a-z", "A-Za-z"))]
HeaderName = Annotated[_Header, Allowed("a header's name")]
OptionalHeaderName = Annotated[_Header | None, Allowed("a header's name")]
Selector = Annotated[str, AfterValidator(_selector), Allowed("a Kubernetes label selector")]
Namespaces = Annotated[
    list[Annotated[str, AfterValidator(name_rules.namespace), _schema(name_rules.LABEL)]],
    _LISTED,
    Allowed("names of namespaces, joined by commas"),
]
Namespace = Annotated[
    Annotated[str, AfterValidator(name_rules.namespace)] | None, Allowed("the name of a namespace")
]
UrlPaths = Annotated[
    list[Annotated[str, AfterValidator(_url_path), _schema("/[^?]*")]],
    _LISTED,
    Allowed("paths, each beginning with a slash, joined by commas"),
]
PortName = Annotated[
    str,
    Field(min_length=1, max_length=15),
    AfterValidator(name_rules.port_name),
    _schema("[a-z0-9]([-a-z0-9]*[a-z0-9])?"),
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
_DNS_LABEL = name_rules.LABEL.replace("a-z", "A-Za-z")
_DNS_NAME = rf"{_DNS_LABEL}(?:\.{_DNS_LABEL})*"
DnsName = Annotated[
    Annotated[
        str,
        AfterValidator(name_rules.dns_name),
        _schema(_DNS_NAME),
    ]
    | None,
    Allowed("a DNS name"),
]
_PagePath = Annotated[str, AfterValidator(_page_path), _schema(r"/[!-\[\]-~]*")]
PagePath = Annotated[_PagePath, Allowed(PATH_RULE)]
OptionalPagePath = Annotated[_PagePath | None, Allowed(PATH_RULE)]
PathTreatments = Annotated[
    dict[Annotated[str, AfterValidator(_url_path)], Literal["routed", "passed", "refused"]],
    _MAPPED,
    Allowed("/path=routed, /path=passed or /path=refused, joined by commas"),
]
ModelRewrites = Annotated[
    dict[_ModelPattern, _Targets],
    Field(max_length=4096),
    BeforeValidator(conversions.rewrites),
    Allowed(
        "name=target:weight|target:weight, joined by commas, with whole weights from 0 to 1000000, "
        "one of them above 0"
    ),
]
SourcePrefixes = Annotated[
    list[Annotated[str, AfterValidator(_source_prefix)]],
    Field(max_length=MAX_PREFIXES),
    _LISTED,
    Allowed(f"beginnings of sources, joined by commas, each {PREFIX_RULE}"),
]
Options = Annotated[dict[str, str], _MAPPED, Allowed("name=value,name=value")]

Workers = Annotated[
    int,
    Field(ge=1, le=MAX_WORKERS),
    BeforeValidator(_workers),
    Allowed(f"a whole number from 1 to {MAX_WORKERS}, or auto"),
]

Switch = Annotated[Literal["off", "on"], BeforeValidator(conversions.switched)]
Tokens = Annotated[Literal["off", "on", "all"], BeforeValidator(conversions.switched)]
Transport = Annotated[Literal["builtin", "grpcio"], BeforeValidator(_current_transport)]

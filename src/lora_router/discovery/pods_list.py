"""Parses a list of pods in YAML."""

import difflib
import ipaddress
import reprlib
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from lora_router.discovery.host_memory_size import SIZE_RULE, read_size
from lora_router.discovery.page_urls import PATH_RULE, SCHEMES, PageRules, is_page_path
from lora_router.discovery.pod_object import MAX_CPU_LORAS_LABEL, MODEL_LABEL
from lora_router.fleet.engine_names import ENGINES, LOADS_WHEN_LISTED
from lora_router.fleet.lora_spec import LABEL, PODS_FILE, LoraSpec
from lora_router.fleet.pod import Pod, rank_name
from lora_router.whole_numbers import is_port
from lora_router.yaml_document import YamlDocumentError, is_whole_number, parse_yaml

_KEYS = (
    "name",
    "address",
    "ports",
    "scheme",
    "metrics",
    "models",
    "models_path",
    "labels",
    "ready",
    "engine",
    "max_cpu_loras",
)
_MAX_PORTS = 32
"""Ports of one pod. Each is a pod of the fleet, with series of metrics of its own."""
_LONGEST_URL = 2048
_SHOWN_CHARACTERS = 60
_USUAL_PAGES = PageRules()

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = _SHOWN_CHARACTERS
_shown = _short.repr
"""Returns a value for an error message, shortened."""


class PodsFileError(ValueError):
    """The file is not a list of pods. The message names the entry, the key and what is allowed."""


def parse_pods(content: bytes | str, pages: PageRules = _USUAL_PAGES) -> tuple[Pod, ...]:
    """Return the pods that a file lists.

    Args:
        content: The file's content.
        pages: Where the pages of pods are that do not say it.

    Raises:
        PodsFileError: The content is not a list of pods.
    """
    try:
        document = parse_yaml(content)
    except YamlDocumentError as error:
        raise PodsFileError(str(error)) from None
    if not isinstance(document, dict) or list(document) != ["pods"]:
        raise PodsFileError("must be a mapping with the one key 'pods'")
    entries = document["pods"]
    if not isinstance(entries, list):
        raise PodsFileError("'pods' must be a list (an empty one is '[]')")
    pods: list[Pod] = []
    # Each entry is freed as soon as it has been read. Freeing 20,000 of them at once would stop all
    # threads for tens of milliseconds.
    entries.reverse()
    number = 0
    while entries:
        number += 1
        pods += _pods(number, entries.pop(), pages)
    _refuse_doubles("name", [pod.name for pod in pods])
    _refuse_doubles("address", [pod.address for pod in pods])
    return tuple(pods)


def _pods(number: int, entry: object, pages: PageRules) -> tuple[Pod, ...]:
    """Return the pod of an entry, or of an entry with ``ports`` one for each port."""
    where = f"pod {number}"
    if not isinstance(entry, dict):
        raise PodsFileError(f"{where}: must be a mapping with the keys {', '.join(_KEYS)}")
    for key in entry:
        if key not in _KEYS:
            close = difflib.get_close_matches(str(key)[:_SHOWN_CHARACTERS], _KEYS, 1)
            hint = f"; did you mean '{close[0]}'?" if close else f"; known are {', '.join(_KEYS)}"
            raise PodsFileError(f"{where}: unknown key {_shown(key)}{hint}")
    name = entry.get("name")
    if not isinstance(name, str) or not name or not name.isprintable():
        raise PodsFileError(f"{where}: name={_shown(name)}: must be non-empty, printable text")
    where = f"pod {_shown(name)}"
    ready = entry.get("ready", True)
    if not isinstance(ready, bool):
        raise PodsFileError(f"{where}: ready={_shown(ready)}: must be true or false")
    engine = entry.get("engine")
    if engine is not None and engine not in ENGINES:
        raise PodsFileError(
            f"{where}: engine={_shown(engine)}: must be one of {', '.join(ENGINES)}"
        )
    scheme = entry.get("scheme", pages.scheme)
    if scheme not in SCHEMES:
        raise PodsFileError(f"{where}: scheme={_shown(scheme)}: must be http or https")
    models_path = entry.get("models_path", pages.models_path)
    if not is_page_path(models_path):
        raise PodsFileError(f"{where}: models_path={_shown(models_path)}: must be {PATH_RULE}")
    metrics_path = pages.metrics_path_of(engine)
    models = _models(where, entry.get("models"))
    labels = _labels(where, entry.get("labels", {}))
    lora = _lora(where, entry.get("max_cpu_loras"), labels, engine)
    return tuple(
        Pod(
            name=name if rank is None else rank_name(name, rank),
            address=address,
            metrics_url=metrics_url,
            models_url=f"{scheme}://{address}{models_path}",
            scheme=scheme,
            ready=ready,
            models=models,
            base_model=labels.get(MODEL_LABEL) or None,
            engine=engine,
            labels=labels,
            lora=lora,
        )
        for rank, address, metrics_url in _servers(where, entry, scheme, metrics_path)
    )


def _lora(where: str, size: object, labels: Mapping[str, str], engine: str | None) -> LoraSpec:
    """Return what the key ``max_cpu_loras`` says, or else the label."""
    loads = engine in LOADS_WHEN_LISTED
    label = labels.get(MAX_CPU_LORAS_LABEL)
    if size is None and label is None:
        return LoraSpec(loads_when_listed=loads)
    known = read_size(label if size is None else size)
    if known is None:
        what = f"label {MAX_CPU_LORAS_LABEL}" if size is None else "max_cpu_loras"
        shown = _shown(label if size is None else size)
        raise PodsFileError(f"{where}: {what}={shown}: must be {SIZE_RULE}")
    return LoraSpec(
        host_memory=known,
        source=LABEL if size is None else PODS_FILE,
        loads_when_listed=loads,
    )


def _servers(
    where: str, entry: Mapping[str, object], scheme: str, metrics_path: str
) -> list[tuple[int | None, str, str]]:
    """Return the rank, the address and the metrics URL of each server of a pod."""
    if "ports" not in entry:
        address = parse_address(where, entry.get("address"))
        metrics = entry.get("metrics", metrics_path)
        return [(None, address, _url(where, metrics, f"{scheme}://{address}"))]
    host = _host(where, entry.get("address"))
    addresses = [f"{host}:{port}" for port in _ports(where, entry["ports"])]
    of_metrics = entry.get("metrics", metrics_path)
    if isinstance(of_metrics, str) and of_metrics.startswith("/"):
        of_metrics = [of_metrics] * len(addresses)
    if not isinstance(of_metrics, list) or len(of_metrics) != len(addresses):
        raise PodsFileError(
            f"{where}: metrics={_shown(of_metrics)}: must be a path, or a list with a path or URL "
            f"for each of the {len(addresses)} ports"
        )
    several = len(addresses) > 1
    return [
        (rank if several else None, address, _url(where, metrics, f"{scheme}://{address}"))
        for rank, (address, metrics) in enumerate(zip(addresses, of_metrics, strict=True))
    ]


def _host(where: str, value: object) -> str:
    """Return an IP address as part of an endpoint."""
    if isinstance(value, str):
        try:
            ip = ipaddress.ip_address(value.removeprefix("[").removesuffix("]"))
            return f"[{ip}]" if ip.version == 6 else str(ip)
        except ValueError:
            pass
    raise PodsFileError(
        f"{where}: address={_shown(value)}: with 'ports', must be an IP address without a port"
    )


def _ports(where: str, value: object) -> list[int]:
    if (
        isinstance(value, list)
        and 0 < len(value) <= _MAX_PORTS
        and all(is_whole_number(port) and 0 < port < 65536 for port in value)
        and len(set(value)) == len(value)
    ):
        return [int(port) for port in value]
    raise PodsFileError(
        f"{where}: ports={_shown(value)}: must be a list of up to {_MAX_PORTS} different ports, "
        "from 1 to 65535"
    )


def parse_address(where: str, value: object) -> str:
    """Return an endpoint in canonical form, ``ip:port`` or ``[ip]:port``.

    Raises:
        PodsFileError: The value is not an endpoint. A host name is refused too: the header must
            contain an IP address, since Envoy's ORIGINAL_DST cluster does not resolve names.
    """
    error = PodsFileError(
        f"{where}: address={_shown(value)}: must be ip:port, or [ip]:port for IPv6 (a host name is "
        "not allowed, since Envoy does not resolve it)"
    )
    if not isinstance(value, str):
        raise error
    host, _, port = value.rpartition(":")
    try:
        if host.startswith("[") and host.endswith("]"):
            ip = f"[{ipaddress.IPv6Address(host[1:-1])}]"
        else:
            ip = str(ipaddress.IPv4Address(host))
    except ValueError:
        raise error from None
    if not is_port(port):
        raise error
    return f"{ip}:{int(port)}"


def _url(where: str, value: object, server: str) -> str:
    """Return the URL of a page: ``value`` is the URL, or a path on the pod's own server."""
    if is_page_path(value):
        return f"{server}{value}"
    if isinstance(value, str) and len(value) <= _LONGEST_URL:
        try:
            parts = urlsplit(value)
            if parts.scheme in SCHEMES and parts.hostname and parts.port != 0:
                return value
        except ValueError:
            pass
    raise PodsFileError(
        f"{where}: metrics={_shown(value)}: must be an http or https URL of at most {_LONGEST_URL} "
        "characters, or a path"
    )


def _models(where: str, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if (
        isinstance(value, list)
        and value
        and all(isinstance(name, str) and name for name in value)
        and len(set(value)) == len(value)
    ):
        return tuple(value)
    raise PodsFileError(
        f"{where}: models={_shown(value)}: must be a list of different names, with the base "
        "model first"
    )


def _labels(where: str, value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise PodsFileError(
            f"{where}: labels={_shown(value)}: must be a mapping of strings to strings"
        )
    labels = {}
    for key, label in value.items():
        # YAML reads `gpus: 8` as a number. The text is what was written, such as 010.
        if not isinstance(key, str) or not (isinstance(label, str) or is_whole_number(label)):
            raise PodsFileError(
                f"{where}: labels: {_shown(key)}: {_shown(label)}: key and value must be strings"
                " (quote true, false, and what looks like a date or a number with a fraction)"
            )
        labels[key] = str(label)
    return labels


def _refuse_doubles(what: str, values: Sequence[str]) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise PodsFileError(f"two pods have the {what} {_shown(value)}")
        seen.add(value)

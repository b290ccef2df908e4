"""Translates Kubernetes Pod objects to pods of the fleet.

A pod with several ports runs a server on each, its data-parallel ranks. Each of them is a pod of
the fleet, named ``NAMESPACE/NAME-rank-0`` for the first port, and so on. They are ready when the
pod is.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from lora_router.discovery.host_memory_size import SIZE_RULE, read_size
from lora_router.discovery.page_urls import PATH_RULE, SCHEMES, PageRules, Scheme, is_page_path
from lora_router.discovery.pod_object import (
    ENGINE_LABEL,
    MAX_CPU_LORAS_LABEL,
    METRICS_PATH_ANNOTATION,
    MODEL_LABEL,
    MODELS_PATH_ANNOTATION,
    SCHEME_ANNOTATION,
    Annotations,
    PodObject,
    PodStatus,
)
from lora_router.discovery.pod_ports import PortRules, ServerPorts, pod_ports
from lora_router.discovery.server_command import spec_of
from lora_router.fleet.engine_names import ENGINES
from lora_router.fleet.lora_spec import LABEL, LoraSpec
from lora_router.fleet.pod import Pod, rank_name

_SHOWN_CHARACTERS = 60
_NO_ANNOTATIONS = Annotations()
_USUAL_PAGES = PageRules()
_OVER = frozenset(("Succeeded", "Failed"))

Family = Literal["any", "ipv4", "ipv6"]
"""Which of a pod's addresses is used. ``any``: the first, which is of the cluster's main family."""


def to_pods(
    found: PodObject,
    rules: PortRules,
    family: Family = "any",
    pages: PageRules = _USUAL_PAGES,
) -> tuple[tuple[Pod, ...], tuple[str, ...]]:
    """Translate a pod.

    Returns:
        A pod of the fleet for each port; none while the pod has no address or after its containers
        have ended. And one line for each problem of its labels and annotations, which names what
        is used instead.
    """
    if found.status.phase in _OVER:
        return (), ()
    try:
        host = _host(found.status, family)
    except ValueError as error:
        return (), (str(error),)
    if host is None:
        return (), ()
    problems: list[str] = []
    ports = pod_ports(found, rules, problems)
    labels = found.metadata.labels or {}
    engine = labels.get(ENGINE_LABEL)
    if engine is not None and engine not in ENGINES:
        problems.append(
            f"label {ENGINE_LABEL}={engine!r} must be one of {', '.join(ENGINES)}; "
            "the engine is detected from its metrics page"
        )
        engine = None
    lora = _lora(found, ports, engine, problems)
    pages = _pages(found, pages, problems)
    metrics_path = pages.metrics_path_of(engine)
    ready = _is_routable(found)
    pods = tuple(
        Pod(
            name=found.full_name if each.rank is None else rank_name(found.full_name, each.rank),
            address=f"{host}:{each.port}",
            metrics_url=f"{pages.scheme}://{host}:{each.metrics_port}{metrics_path}",
            models_url=f"{pages.scheme}://{host}:{each.port}{pages.models_path}",
            scheme=pages.scheme,
            ready=ready,
            base_model=labels.get(MODEL_LABEL) or None,
            engine=engine,
            uid=found.metadata.uid,
            labels=labels,
            lora=lora,
        )
        for each in ports
    )
    return pods, tuple(problems)


def _lora(
    found: PodObject, ports: Sequence[ServerPorts], engine: str | None, problems: list[str]
) -> LoraSpec:
    """Return what is known of the servers' adapters. The label takes precedence."""
    spec = spec_of(found, ports[0].port if ports else 0, engine, problems)
    text = (found.metadata.labels or {}).get(MAX_CPU_LORAS_LABEL)
    if text is None:
        return spec
    size = read_size(text)
    if size is None:
        problems.append(
            f"label {MAX_CPU_LORAS_LABEL}={_shown(text)} must be {SIZE_RULE}; it is ignored"
        )
        return spec
    return replace(spec, host_memory=size, source=LABEL)


def _pages(found: PodObject, rules: PageRules, problems: list[str]) -> PageRules:
    """Return where a pod's pages are: as its annotations say, else as the rules do."""
    annotations = found.metadata.annotations or _NO_ANNOTATIONS
    scheme: Scheme = rules.scheme
    for each in SCHEMES:
        if annotations.scheme == each:
            scheme = each
    if annotations.scheme not in {None, *SCHEMES}:
        problems.append(
            f"annotation {SCHEME_ANNOTATION}={_shown(annotations.scheme)} must be http or https; "
            f"{scheme} is used"
        )
    return PageRules(
        scheme,
        _path(annotations.metrics_path, METRICS_PATH_ANNOTATION, problems) or rules.metrics_path,
        _path(annotations.models_path, MODELS_PATH_ANNOTATION, problems) or rules.models_path,
    )


def _path(value: str | None, annotation: str, problems: list[str]) -> str | None:
    if value is None or is_page_path(value):
        return value
    problems.append(f"annotation {annotation}={_shown(value)} must be {PATH_RULE}; it is ignored")
    return None


def _shown(value: str | None) -> str:
    return repr((value or "")[:_SHOWN_CHARACTERS])


def _is_routable(found: PodObject) -> bool:
    if found.metadata.deletion_timestamp is not None:
        return False
    conditions = found.status.conditions or ()
    return any(item.type == "Ready" and item.status == "True" for item in conditions)


def _host(status: PodStatus, family: Family) -> str | None:
    """Return the pod's address as part of an endpoint; ``None``: it has none yet.

    Raises:
        ValueError: It has none that can be used. The message says why.
    """
    texts = [each.ip for each in status.pod_ips or () if each.ip]
    if status.pod_ip and status.pod_ip not in texts:
        texts.insert(0, status.pod_ip)
    for text in texts:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            message = f"status.podIP={text!r} is not an IP address; the pod is ignored"
            raise ValueError(message) from None
        if family in {"any", f"ipv{address.version}"}:
            return f"[{address}]" if address.version == 6 else str(address)
    if texts:
        raise ValueError(
            f"status.podIPs has no {family} address, which kubernetes_ip_family asks for; the pod "
            "is ignored"
        )
    return None

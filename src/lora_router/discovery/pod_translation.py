"""Translates Kubernetes Pod objects to pods of the fleet.

A pod with several ports runs a server on each, its data-parallel ranks. Each of them is a pod of
the fleet, named ``NAMESPACE/NAME-rank-0`` for the first port, and so on. They are ready when the
pod is.
"""

import ipaddress
from typing import Literal

from lora_router.discovery.pod_object import (
    ENGINE_LABEL,
    MODEL_LABEL,
    PodObject,
    PodStatus,
)
from lora_router.discovery.pod_ports import PortRules, pod_ports
from lora_router.fleet.engine_names import ENGINES
from lora_router.fleet.pod import Pod, rank_name

_OVER = frozenset(("Succeeded", "Failed"))

Family = Literal["any", "ipv4", "ipv6"]
"""Which of a pod's addresses is used. ``any``: the first, which is of the cluster's main family."""


def to_pods(
    found: PodObject, rules: PortRules, family: Family = "any"
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
    ready = _is_routable(found)
    pods = tuple(
        Pod(
            name=found.full_name if each.rank is None else rank_name(found.full_name, each.rank),
            address=f"{host}:{each.port}",
            metrics_url=f"http://{host}:{each.metrics_port}/metrics",
            models_url=f"http://{host}:{each.port}/v1/models",
            ready=ready,
            base_model=labels.get(MODEL_LABEL) or None,
            engine=engine,
            uid=found.metadata.uid,
            labels=labels,
        )
        for each in ports
    )
    return pods, tuple(problems)


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

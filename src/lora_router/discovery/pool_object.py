"""Decodes InferencePool objects of the Gateway API Inference Extension.

Sources: ``inference.networking.k8s.io/v1``, and ``inference.networking.x-k8s.io/v1alpha2``, which
has a plain selector and one port.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from lora_router.discovery.endpoint_slices import NAMESPACE_FILE
from lora_router.discovery.pod_ports import MAX_PORTS
from lora_router.discovery.resource_list import ResourceQuery
from lora_router.routing.selector import SelectorError, parse_selector

V1: Final = "inference.networking.k8s.io"
V1ALPHA2: Final = "inference.networking.x-k8s.io"
PoolGroup = Literal["inference.networking.k8s.io", "inference.networking.x-k8s.io"]
_VERSIONS = {V1: "v1", V1ALPHA2: "v1alpha2"}

H2C = "kubernetes.io/h2c"


class _Metadata(msgspec.Struct, frozen=True):
    name: str = ""
    uid: str = ""


class _Selector(msgspec.Struct, frozen=True, rename="camel"):
    match_labels: dict[str, str] | None = None


class _Port(msgspec.Struct, frozen=True):
    number: int = 0


class _Picker(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    failure_mode: str = "FailClose"


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    selector: _Selector = _Selector()
    target_ports: list[_Port] | None = None
    app_protocol: str = "http"
    endpoint_picker_ref: _Picker | None = None


class _AlphaSpec(msgspec.Struct, frozen=True, rename="camel"):
    selector: dict[str, str] | None = None
    target_port_number: int = 0
    extension_ref: _Picker | None = None


class PoolObject(msgspec.Struct, frozen=True):
    """An InferencePool of ``v1``."""

    metadata: _Metadata = _Metadata()
    spec: _Spec = _Spec()


class AlphaPoolObject(msgspec.Struct, frozen=True):
    """An InferencePool of ``v1alpha2``."""

    metadata: _Metadata = _Metadata()
    spec: _AlphaSpec = _AlphaSpec()


@dataclass(frozen=True, slots=True)
class Pool:
    """What an InferencePool says of its pods, and of how a gateway treats them."""

    selector: str
    """The label selector of its pods."""
    ports: tuple[int, ...]
    """The ports of requests of each of its pods."""
    app_protocol: str = "http"
    """What the gateway speaks to pods: ``http`` or ``kubernetes.io/h2c``."""
    failure_mode: str | None = None
    """What the gateway does while no endpoint picker answers: ``FailOpen``: it chooses a pod
    itself, ``FailClose``: it refuses the request; ``None``: the pool has no endpoint picker."""


class PoolError(ValueError):
    """An InferencePool that cannot be used. The message says why."""


class PoolNameError(ValueError):
    """The namespace of the InferencePool is unknown."""


def pool_name(name: str) -> tuple[str, str]:
    """Return the namespace and the name of ``NAMESPACE/NAME``, or of ``NAME`` in the router's own.

    Raises:
        PoolNameError: There is no namespace, and this process does not run in a pod.
    """
    namespace, slash, own = name.rpartition("/")
    if slash:
        return namespace, own
    try:
        return NAMESPACE_FILE.read_text().strip(), name
    except OSError:
        raise PoolNameError(
            f"inference_pool={name}: outside of a pod, write NAMESPACE/{name}"
        ) from None


def pool_query(namespace: str, name: str, group: PoolGroup) -> ResourceQuery:
    """Return the query for one InferencePool."""
    return ResourceQuery(group, _VERSIONS[group], "inferencepools", namespace, name)


def pool_type(query: ResourceQuery) -> type[PoolObject] | type[AlphaPoolObject]:
    """Return the record of an InferencePool of the query's version."""
    return PoolObject if query.group == V1 else AlphaPoolObject


def to_pool(found: PoolObject | AlphaPoolObject) -> Pool:
    """Translate an InferencePool.

    Raises:
        PoolError: It selects no pods, or names no port.
    """
    spec = found.spec
    ports: tuple[int, ...]
    if isinstance(spec, _AlphaSpec):
        labels, ports, picker = spec.selector, (spec.target_port_number,), spec.extension_ref
        app_protocol = "http"
    else:
        labels = spec.selector.match_labels
        ports = tuple(dict.fromkeys(port.number for port in spec.target_ports or ()))
        picker, app_protocol = spec.endpoint_picker_ref, spec.app_protocol
    if not 0 < len(ports) <= MAX_PORTS or not all(0 < port < 65536 for port in ports):
        raise PoolError(f"its target ports must be 1 to {MAX_PORTS} ports from 1 to 65535")
    failure_mode = None if picker is None else picker.failure_mode
    return Pool(_selector(labels or {}), ports, app_protocol, failure_mode)


def _selector(labels: Mapping[str, str]) -> str:
    if not labels:
        # An empty selector would take every pod of the namespace.
        raise PoolError("its selector has no labels")
    selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    try:
        parse_selector(selector)
    except SelectorError as error:
        raise PoolError(f"its selector cannot be used: {error}") from None
    return selector

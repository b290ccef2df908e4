"""A Lease of the Kubernetes API (``coordination.k8s.io/v1``).

All calls name the Lease, so that a Role may be limited to it. Only its creation cannot be.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Self

import msgspec
from kubernetes.aio.client.api.coordination_v1_api import CoordinationV1Api

from lora_router.discovery.endpoint_slices import NAMESPACE_FILE
from lora_router.discovery.kubernetes_api import (
    ApiError,
    Credentials,
    KubernetesApi,
    event_error,
    read_body,
    read_events,
)
from lora_router.replication.lease import Claim, Lease

_COLLECTION = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
_MAX_BYTES = 1024 * 1024
"""Longest Lease. One has 1 KB; annotations may add to it."""


class LeaseNameError(ValueError):
    """The namespace of the Lease is unknown."""


@dataclass(frozen=True, slots=True)
class LeaseName:
    """Which Lease."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def lease_name(name: str, namespace: str | None) -> LeaseName:
    """Return the name of a Lease, by default in the router's own namespace.

    Raises:
        LeaseNameError: There is no namespace, and this process does not run in a pod.
    """
    if namespace is not None:
        return LeaseName(namespace, name)
    try:
        return LeaseName(NAMESPACE_FILE.read_text().strip(), name)
    except OSError:
        raise LeaseNameError("replication=lease: outside of a pod, set lease_namespace") from None


class _Metadata(msgspec.Struct, frozen=True):
    version: str = msgspec.field(default="", name="resourceVersion")


class _Spec(msgspec.Struct, frozen=True):
    holder: str | None = msgspec.field(default=None, name="holderIdentity")
    duration: int | None = msgspec.field(default=None, name="leaseDurationSeconds")
    acquired: str | None = msgspec.field(default=None, name="acquireTime")
    renewed: str | None = msgspec.field(default=None, name="renewTime")
    transitions: int | None = msgspec.field(default=None, name="leaseTransitions")


class _LeaseObject(msgspec.Struct, frozen=True):
    metadata: _Metadata
    spec: _Spec | None = None


class KubernetesLease:
    """The ``LeaseStore`` of one Lease."""

    def __init__(
        self, api: KubernetesApi, name: LeaseName, *, request_seconds: float, watch_seconds: int
    ) -> None:
        """Create it, without connecting.

        Args:
            api: The client, which is closed with this.
            name: Which Lease.
            request_seconds: Timeout of a request that reads or writes.
            watch_seconds: Server-side timeout of a watch.
        """
        self._api = api
        self._name = name
        self._calls = CoordinationV1Api(api.client)
        self.request_seconds = request_seconds
        self._watch_seconds = watch_seconds

    @classmethod
    async def open(
        cls,
        credentials: Credentials,
        name: LeaseName,
        *,
        request_seconds: float,
        watch_seconds: int,
    ) -> Self:
        """Read the credentials, without connecting.

        Raises:
            CredentialsError: There are no credentials, or they cannot be read.
        """
        api = await KubernetesApi.open(credentials)
        return cls(api, name, request_seconds=request_seconds, watch_seconds=watch_seconds)

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

    async def read(self) -> Lease | None:
        """Return the Lease, or ``None`` if it does not exist."""
        try:
            return await self._ask(
                self._calls.read_namespaced_lease_without_preload_content, name=self._name.name
            )
        except ApiError as error:
            if error.cause == "missing":
                return None
            raise

    async def write(self, claim: Claim, over: Lease | None) -> Lease:
        """Replace the claim of ``over``, or create the Lease. Returns what was written."""
        if over is None:
            document: dict[str, Any] = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._name.name, "namespace": self._name.namespace},
            }
            document["spec"] = _spec_of(claim, {})
            return await self._ask(self._api.send, method="POST", path=_COLLECTION, body=document)
        # The document contains the resource version, which makes the server refuse a late write.
        document = {**over.document, "spec": _spec_of(claim, over.document.get("spec") or {})}
        return await self._ask(
            self._api.send,
            method="PUT",
            path=f"{_COLLECTION}/{{name}}",
            name=self._name.name,
            body=document,
        )

    async def watch(self, version: str) -> AsyncGenerator[Lease | None]:
        """Yield each change after ``version``, ``None`` for a deletion, until the watch ends."""
        async with (
            self._api.answer(
                self._calls.list_namespaced_lease_without_preload_content,
                self._watch_seconds,
                namespace=self._name.namespace,
                field_selector=f"metadata.name={self._name.name}",
                watch=True,
                resource_version=version,
                timeout_seconds=self._watch_seconds,
                _request_timeout=self._watch_seconds + self.request_seconds,
            ) as response,
            aclosing(read_events(response)) as batches,
        ):
            async for batch in batches:
                for event in batch:
                    if event.type == "ERROR":
                        raise event_error(event)
                    if event.type == "DELETED":
                        yield None
                    elif event.type != "BOOKMARK":
                        yield _lease(bytes(event.object))

    async def _ask(self, call: Callable[..., Any], **options: Any) -> Lease:
        async with self._api.answer(
            call,
            self.request_seconds,
            namespace=self._name.namespace,
            _request_timeout=self.request_seconds,
            **options,
        ) as response:
            return _lease(await read_body(response, _MAX_BYTES))


def _spec_of(claim: Claim, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec with a new claim. What else it contains stays."""
    written = {
        **spec,
        "holderIdentity": claim.holder,
        "leaseDurationSeconds": claim.duration,
        "acquireTime": claim.acquired,
        "renewTime": claim.renewed,
        "leaseTransitions": claim.transitions,
    }
    if not claim.holder:
        # Some releases refuse an empty text. Without the field, nobody holds the Lease.
        del written["holderIdentity"]
    return written


def _lease(data: bytes) -> Lease:
    try:
        found = msgspec.json.decode(data, type=_LeaseObject)
        document = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError("malformed", f"not a Lease: {error}") from None
    spec = found.spec or _Spec()
    claim = Claim(
        holder=spec.holder or "",
        duration=spec.duration or 0,
        acquired=spec.acquired or "",
        renewed=spec.renewed or "",
        transitions=spec.transitions or 0,
    )
    return Lease(claim, found.metadata.version, document)

"""Writes statuses of ModelAdapters at the Kubernetes API server."""

from typing import Any, Protocol

import msgspec

from lora_router.discovery.kubernetes_api import ApiError, Credentials, KubernetesApi, read_body
from lora_router.discovery.model_adapter_object import (
    GROUP,
    PLURAL,
    VERSION,
    ModelAdapterObject,
    ModelAdapterStatus,
)
from lora_router.discovery.model_adapter_record import ModelAdapter

REQUEST_SECONDS = 10.0
_PATH = f"/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/{PLURAL}/{{name}}/status"
_MAX_BYTES = 4 * 1024 * 1024


class StatusStore(Protocol):
    """Where statuses are written."""

    async def write(self, record: ModelAdapter, status: ModelAdapterStatus) -> str:
        """Write the status of a resource as last seen. Returns its new resource version.

        Raises:
            ApiError: ``conflict``: the resource has changed meanwhile. ``missing``: it is gone.
        """

    async def close(self) -> None:
        """Close all connections."""


class KubernetesStatus:
    """The store at the API server.

    Writes are JSON merge patches of the subresource, which need no permission for the resource
    itself. An API server drops fields that the cluster's definition of ModelAdapter does not have.
    """

    def __init__(self, api: KubernetesApi, manager: str) -> None:
        """Create it, without connecting.

        Args:
            api: The client, which is closed with this.
            manager: The field manager, ``manager_of`` the fleet.
        """
        self._api = api
        self._query = {"fieldManager": manager}

    @classmethod
    async def open(cls, credentials: Credentials, manager: str) -> "KubernetesStatus":
        """Read the credentials, without connecting.

        Raises:
            CredentialsError: There are no credentials, or they cannot be read.
        """
        return cls(await KubernetesApi.open(credentials), manager)

    async def write(self, record: ModelAdapter, status: ModelAdapterStatus) -> str:
        """Write the status of a resource as last seen."""
        body: dict[str, Any] = {
            # The version makes the API server refuse a late write. No other object has it.
            "metadata": {"resourceVersion": record.version},
            "status": msgspec.to_builtins(status),
        }
        async with self._api.answer(
            self._api.send,
            REQUEST_SECONDS,
            method="PATCH",
            path=_PATH,
            body=body,
            content_type="application/merge-patch+json",
            query=self._query,
            namespace=record.key.namespace,
            name=record.key.name,
            _request_timeout=REQUEST_SECONDS,
        ) as response:
            data = await read_body(response, _MAX_BYTES)
        try:
            return msgspec.json.decode(data, type=ModelAdapterObject).metadata.resource_version
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ApiError("malformed", f"unexpected response: {error}") from None

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

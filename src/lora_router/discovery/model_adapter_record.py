"""A ModelAdapter resource as the router knows it, and who works on it."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import msgspec

from lora_router.adapters.declared import DeclaredAdapter
from lora_router.adapters.sources import AllowedSources
from lora_router.discovery.model_adapter_object import (
    AIBRIX_FINALIZER,
    Metadata,
    ModelAdapterObject,
    ModelAdapterStatus,
)
from lora_router.discovery.model_adapter_translation import Translation, to_declared

NO_STATUS = ModelAdapterStatus()
MANAGERS = "lora-router/"
"""Field managers of routers begin so. Each fleet has its own."""
MAX_MANAGER_LENGTH = 128
"""Characters of a field manager: a limit of the API server."""
_MAX_WRITERS = 16
"""Writers of one status that are remembered."""


class Key(NamedTuple):
    """Names a resource."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class ModelAdapter:
    """One resource."""

    key: Key
    uid: str
    created: str
    """When it was created, RFC 3339."""
    version: str
    """Its resource version."""
    generation: int
    """Counts the changes of its spec."""
    translation: Translation
    status: ModelAdapterStatus = NO_STATUS
    """As last written, by whomever."""
    is_deleted: bool = False
    """It is being deleted: only finalizers keep it."""
    finalizers: tuple[str, ...] = ()
    writers: frozenset[tuple[str, str]] = field(default=frozenset())
    """The field managers that wrote its status, and when, other than this fleet's routers."""
    left_to: str = ""
    """Who else works on it, so that this router does not."""

    @property
    def is_of_other_fleet(self) -> bool:
        """Whether routers of another fleet write its status."""
        return any(manager.startswith(MANAGERS) for manager, _ in self.writers)

    @property
    def declares(self) -> DeclaredAdapter | None:
        """The adapter that it declares, if it is to be used."""
        return None if self.is_deleted or self.left_to else self.translation.adapter


def manager_of(fleet: str) -> str:
    """Return the field manager of the routers of a fleet."""
    return f"{MANAGERS}{fleet}"[:MAX_MANAGER_LENGTH]


def next_record(
    known: ModelAdapter | None, found: ModelAdapterObject, allowed: AllowedSources, manager: str
) -> ModelAdapter:
    """Return the record of an object that was read.

    Args:
        known: The record of the same name until now.
        found: The object.
        allowed: The sources from which pods may load.
        manager: The field manager by which the routers of this fleet write.
    """
    metadata = found.metadata
    if known is not None and known.uid != metadata.uid:
        known = None
    finalizers = tuple(metadata.finalizers or ())
    writers = _writers(metadata, manager)
    left_to = "" if known is None else known.left_to
    translation = to_declared(found, allowed)
    if translation.problem and known is not None:
        translation = replace(translation, adapter=known.translation.adapter)
    if known is not None and AIBRIX_FINALIZER in finalizers:
        if AIBRIX_FINALIZER not in known.finalizers:
            left_to = left_to or "AIBrix's controller"
        else:
            new = {manager for manager, _ in writers - known.writers}
            others = sorted(each for each in new if not each.startswith(MANAGERS))
            left_to = left_to or next(iter(others), "")
    return ModelAdapter(
        key=Key(metadata.namespace, metadata.name),
        uid=metadata.uid,
        created=metadata.creation_timestamp,
        version=metadata.resource_version,
        generation=metadata.generation,
        translation=translation,
        status=_status(found.status),
        is_deleted=metadata.deletion_timestamp is not None,
        finalizers=finalizers,
        writers=writers,
        left_to=left_to,
    )


def _writers(metadata: Metadata, manager: str) -> frozenset[tuple[str, str]]:
    fields = (metadata.managed_fields or ())[:_MAX_WRITERS]
    return frozenset(
        (each.manager, each.time)
        for each in fields
        if each.subresource == "status" and each.manager != manager
    )


def _status(raw: msgspec.Raw) -> ModelAdapterStatus:
    """Return a status; one that cannot be read counts as none, and is written anew."""
    try:
        return msgspec.json.decode(raw, type=ModelAdapterStatus)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return NO_STATUS

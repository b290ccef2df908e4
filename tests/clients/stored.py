"""What one pod has made and keeps in its memory: responses, files, batches, conversations."""

import time
import uuid
from typing import Any

_KINDS = {
    "responses": ("resp_", "response"),
    "files": ("file-", "file"),
    "batches": ("batch_", "batch"),
    "conversations": ("conv_", "conversation"),
}
"""How IDs begin, and the name of the object, by kind."""


class Stored:
    """The objects of one pod, by kind and ID."""

    def __init__(self, pod: str) -> None:
        self.contents: dict[str, bytes] = {}
        """The bytes of files."""
        self._pod = pod
        self._objects: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in _KINDS}

    def add(self, kind: str, document: dict[str, Any]) -> dict[str, Any]:
        """Give a document an ID, and keep it."""
        prefix, name = _KINDS[kind]
        made = {
            "id": prefix + uuid.uuid4().hex,
            "object": name,
            "created_at": int(time.time()),
            **document,
        }
        self._objects[kind][made["id"]] = made
        return made

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return the document, if this pod made it."""
        return self._objects[kind].get(name)

    def remove(self, kind: str, name: str) -> None:
        """Forget a document."""
        del self._objects[kind][name]

    def all(self, kind: str) -> list[dict[str, Any]]:
        """Return all documents of a kind."""
        return list(self._objects[kind].values())

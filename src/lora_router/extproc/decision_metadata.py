"""The dynamic metadata that tell Envoy's access log and rate limits of a decision, as bytes.

They are merged into the answer that names the pod, or into the answer to the client: Protobuf
merges the fields of messages that follow each other. Envoy takes them if the ext_proc filter lists
the namespace in ``receiving_namespaces``, and ignores them otherwise.
"""

import struct
from functools import lru_cache

from lora_router.extproc.message_fields import field, field_head
from lora_router.telemetry.decisions import Decision

NAMESPACE = "io.lora_router"
"""The namespace of the metadata."""

# The tags of ProcessingResponse; Struct; an entry of its map; Value.
_DYNAMIC_METADATA = b"\x42"
_ENTRY = b"\x0a"
_KEY, _VALUE = b"\x0a", b"\x12"
_NUMBER, _STRING, _STRUCT = b"\x11", b"\x1a", b"\x2a"


def encode_metadata(decision: Decision) -> bytes:
    """Return the metadata of a decision.

    They are the texts ``pod``, ``reason``, ``algorithm``, ``adapter`` and ``base_model``, as far as
    they are not empty, and the number ``held_ms``.
    """
    held_seconds = decision.held_seconds
    if held_seconds:
        entries = _place(decision.pod, decision.reason, decision.algorithm)
        entries += _adapter(decision.adapter, decision.base_model)
        entries += number_entry("held_ms", round(held_seconds * 1000))
        return before_entries(len(entries)) + entries
    return metadata_of(
        decision.pod, decision.reason, decision.algorithm, decision.adapter, decision.base_model
    )


@lru_cache(maxsize=8192)
def metadata_of(pod: str, reason: str, algorithm: str, adapter: str, base_model: str) -> bytes:
    """Return the metadata of a decision about a request that was not held."""
    entries = _place(pod, reason, algorithm) + _adapter(adapter, base_model) + _NOT_HELD
    return before_entries(len(entries)) + entries


@lru_cache(maxsize=4096)
def _place(pod: str, reason: str, algorithm: str) -> bytes:
    return _text("pod", pod) + _text("reason", reason) + _text("algorithm", algorithm)


@lru_cache(maxsize=4096)
def _adapter(adapter: str, base_model: str) -> bytes:
    return _text("adapter", adapter) + _text("base_model", base_model)


def _text(name: str, text: str) -> bytes:
    if not text:
        return b""
    # The reason is a text of an algorithm, which may be from elsewhere.
    return _entry(name, field(_STRING, text.encode(errors="replace")))


def number_entry(name: str, number: float) -> bytes:
    """Return the entry of a number."""
    return _entry(name, _NUMBER + struct.pack("<d", number))


def _entry(name: str, value: bytes) -> bytes:
    return field(_ENTRY, field(_KEY, name.encode()) + field(_VALUE, value))


_NOT_HELD = number_entry("held_ms", 0)


@lru_cache(maxsize=4096)
def before_entries(size: int) -> bytes:
    """Return what precedes the entries, for entries of so many bytes."""
    made = field_head(_STRUCT, size)
    made = field_head(_VALUE, len(made) + size) + made
    made = field(_KEY, NAMESPACE.encode()) + made
    made = field_head(_ENTRY, len(made) + size) + made
    return field_head(_DYNAMIC_METADATA, len(made) + size) + made

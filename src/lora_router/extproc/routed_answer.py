"""The answer that names the picked pod, as bytes.

Every request has this answer, and almost every answer is different: models, picked pods and
fallbacks form more combinations than a cache could hold. So the message is put together from its
values and from what stands between them. The latter depends only on the lengths of the values, so
it is computed once for each combination of lengths.
"""

from functools import lru_cache
from typing import TypeAlias

from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.message_fields import (
    OVERWRITE,
    before_value,
    field,
    field_head,
    set_header,
)
from lora_router.routing.outcome import Routed

METADATA_NAMESPACE = "envoy.lb"
"""Where the endpoint-picker protocol puts the picked endpoint."""

_ID_SIZE = 36

# The tags of ProcessingResponse; HeadersResponse and BodyResponse; CommonResponse; HeaderMutation.
_REQUEST_HEADERS, _REQUEST_BODY, _DYNAMIC_METADATA = b"\x0a", b"\x1a", b"\x42"
_RESPONSE = b"\x0a"
_HEADER_MUTATION, _CLEAR_ROUTE_CACHE = b"\x12", b"\x28\x01"
_REMOVE_HEADER = b"\x12"
# The tags of Struct; an entry of its map; Value.
_ENTRY = b"\x0a"
_KEY, _VALUE = b"\x0a", b"\x12"
_STRING, _STRUCT = b"\x1a", b"\x2a"


_Frame: TypeAlias = tuple[bytes, bytes, bytes, bytes, bytes]
"""What precedes the target pod, the destination, the request ID, the model, and the destination in
the metadata."""


def encode_routed(
    names: HeaderNames,
    outcome: Routed,
    *,
    to_body: bool,
    made_id: str,
    more: bytes = b"",
) -> bytes:
    """Return the answer to ``request_body`` if ``to_body``, or to ``request_headers``.

    The answer names the algorithm and the model, unless the request names no model. If
    ``made_id``, a UUID, is not empty, it becomes the ``x-request-id`` of the request. The
    destination lists the picked pod and its fallbacks, and the dynamic metadata are equal to it.
    ``more``: further fields of the answer.
    """
    pod = outcome.reservation.state.pod
    target = destination = pod.address.encode()
    if outcome.fallbacks:
        destination += b"," + ",".join(outcome.fallbacks).encode()
    model = outcome.model.encode()
    before_target, before_destination, before_id, before_model, before_metadata = _frame(
        names,
        pod.pool if names.pool else "",
        outcome.algorithm,
        len(target),
        len(destination),
        len(model),
        to_body,
        not made_id,
    )
    return b"".join(
        (
            before_target,
            target,
            before_destination,
            destination,
            before_id,
            made_id.encode(),
            before_model,
            model,
            before_metadata,
            destination,
            more,
        )
    )


@lru_cache(maxsize=8192)
def _frame(
    names: HeaderNames,
    pool: str,
    algorithm: str,
    target: int,
    destination: int,
    model: int,
    to_body: bool,
    has_id: bool,
) -> _Frame:
    """Return what stands between the values of an answer, for values of the given lengths."""
    before_target = before_value(names.target_pod, target)
    before_destination = OVERWRITE + before_value(names.destination, destination)
    before_id = OVERWRITE
    if pool:
        before_id += set_header(names.pool, pool.encode())
    if not has_id:
        before_id += before_value(names.request_id, _ID_SIZE)
    before_model = b"" if has_id else OVERWRITE
    if model:
        before_model += set_header(names.strategy, algorithm.encode())
        before_model += before_value(names.model, model)
        end = OVERWRITE
    else:
        end = b"".join(
            field(_REMOVE_HEADER, name.encode()) for name in (names.strategy, names.model)
        )
    sizes = (
        target,
        destination,
        0 if has_id else _ID_SIZE,
        model,
        *map(len, (before_target, before_destination, before_id, before_model, end)),
    )
    start = _before_mutation(_REQUEST_BODY if to_body else _REQUEST_HEADERS, sum(sizes))
    return (
        start + before_target,
        before_destination,
        before_id,
        before_model,
        end + _CLEAR_ROUTE_CACHE + _before_metadata(names.destination, destination),
    )


def _before_mutation(tag: bytes, size: int) -> bytes:
    """Return what precedes a header mutation. ``_CLEAR_ROUTE_CACHE`` follows it."""
    common = field_head(_HEADER_MUTATION, size)
    size += len(_CLEAR_ROUTE_CACHE)
    response = field_head(_RESPONSE, len(common) + size) + common
    return field_head(tag, len(response) + size) + response


def _before_metadata(name: str, size: int) -> bytes:
    """Return what precedes the destination in the dynamic metadata."""
    made = field_head(_STRING, size)
    for key in (name, METADATA_NAMESPACE):
        made = field_head(_VALUE, len(made) + size) + made
        made = field(_KEY, key.encode()) + made
        made = field_head(_ENTRY, len(made) + size) + made
        if key is name:
            made = field_head(_STRUCT, len(made) + size) + made
    return field_head(_DYNAMIC_METADATA, len(made) + size) + made

"""What the first message of a stream states about the whole stream: modes and allowed endpoints."""

from ipaddress import IPv6Address

from msgspec import Struct

from lora_router.extproc.pb.core_pb2 import Metadata
from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode

SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET_KEY = "x-gateway-destination-endpoint-subset"
"""Where the endpoint-picker protocol puts the endpoints that a gateway allows (subset hint)."""

_IN_PIECES = (ProcessingMode.STREAMED, ProcessingMode.FULL_DUPLEX_STREAMED)


class Setup(Struct, frozen=True):
    """The configuration of a stream."""

    body_mode: int = ProcessingMode.BUFFERED
    """The configured request body mode. BUFFERED if the gateway sends no ``protocol_config``, until
    it sends a body without waiting."""
    is_told: bool = True
    """Whether the gateway sends ``protocol_config``. Envoy before 1.33 and some gateways do not."""
    collects: bool = False
    """Whether the body arrives in pieces and the headers are answered when it is complete."""
    response_body_mode: int = ProcessingMode.NONE
    headers_wait: bool = False
    """Whether Envoy sends no body before the headers are answered, and forwards the headers then.
    In that case the router requests BUFFERED instead."""
    subset: frozenset[str] | None = None
    """Endpoints that the gateway allows. ``None``: all endpoints."""


def read_setup(request: ProcessingRequest) -> Setup:
    """Return the setup from the fields beside the first message of a stream."""
    config = request.protocol_config
    told = request.HasField("protocol_config")
    mode = config.request_body_mode if told else ProcessingMode.BUFFERED
    headers_wait = mode == ProcessingMode.NONE or (
        mode == ProcessingMode.STREAMED and not config.send_body_without_waiting_for_header_response
    )
    return Setup(
        body_mode=mode,
        is_told=told,
        collects=not told or (mode in _IN_PIECES and not headers_wait),
        response_body_mode=config.response_body_mode,
        headers_wait=headers_wait,
        subset=_read_subset(request.metadata_context)
        if request.HasField("metadata_context")
        else None,
    )


def _read_subset(metadata: Metadata) -> frozenset[str] | None:
    """Return the endpoints that the gateway allows, or ``None`` without a subset hint.

    An empty hint allows no endpoint (endpoint-picker protocol). An entry without a port is the
    address of a pod, and allows all its endpoints.
    """
    hint = metadata.filter_metadata.get(SUBSET_NAMESPACE)
    if hint is None or SUBSET_KEY not in hint.fields:
        return None
    value = hint.fields[SUBSET_KEY]
    listed = [item.string_value for item in value.list_value.values]
    listed.append(value.string_value)
    # Some gateways write the list as one string, like the value of a header, or in its items.
    return read_endpoints(*listed)


def read_endpoints(*listed: str) -> frozenset[str]:
    """Return the endpoints in lists with commas. Entries without a port are addresses."""
    written = [entry.strip() for text in listed for entry in text.split(",")]
    return frozenset(_as_in_pods(entry) for entry in written if entry)


def _as_in_pods(entry: str) -> str:
    """Return an endpoint or an address as pods have it: an IPv6 address is in brackets."""
    host, port = entry, ""
    if entry.startswith("["):
        host, _, port = entry[1:].partition("]")
    elif entry.count(":") < 2:
        return entry
    try:
        return f"[{IPv6Address(host)}]{port}"
    except ValueError:
        return entry

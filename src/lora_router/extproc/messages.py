"""What Envoy says, as far as it matters. No state, no decisions, no I/O.

Envoy sends header values in ``raw_value`` and lower-cases names.
"""

from dataclasses import dataclass

from msgspec import Struct

from lora_router.extproc.pb.core_pb2 import HeaderMap, Metadata
from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode

SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET_KEY = "x-gateway-destination-endpoint-subset"
"""Where the endpoint-picker protocol puts the endpoints a gateway allows."""

_IN_PIECES = (ProcessingMode.STREAMED, ProcessingMode.FULL_DUPLEX_STREAMED)


@dataclass(frozen=True, slots=True, eq=False)
class HeaderNames:
    """The names of the headers that are read and set. All lower case, all different.

    One for a server's life: answers are remembered by it.
    """

    target_pod: str = "target-pod"
    destination: str = "x-gateway-destination-endpoint"
    strategy: str = "routing-strategy"
    pod_filter: str = "external-filter"
    model: str = "model"
    request_id: str = "x-request-id"

    @property
    def ours(self) -> tuple[str, ...]:
        """What only this service may set: a client's own values never pass."""
        return (self.target_pod, self.destination, self.strategy, self.model)

    @property
    def wanted(self) -> tuple[str, ...]:
        """What is read of a request's headers, in the order in which ``make_head`` takes it."""
        return (
            ":path",
            "content-type",
            "content-length",
            self.request_id,
            self.strategy,
            self.pod_filter,
        )


class RequestHeaders(Struct, frozen=True):
    """What routing needs of a request's headers."""

    path: str
    """Without the query."""
    content_type: str
    content_length: int | None
    request_id: str
    """Empty if the client sent none."""
    strategy: str | None
    pod_filter: str | None


def read_head(headers: HeaderMap, names: HeaderNames) -> RequestHeaders:
    """Pick out the headers that matter. Where one stands twice, the first counts.

    Bytes that are not UTF-8 become replacement characters: such a value matches nothing and
    cannot be told from other nonsense, but it breaks nothing either.
    """
    wanted = dict.fromkeys(names.wanted, "")
    for header in headers.headers:
        key = header.key
        if key in wanted and not wanted[key]:
            wanted[key] = header.raw_value.decode(errors="replace") or header.value
    return make_head(*wanted.values())


def make_head(
    path: str, content_type: str, length: str, request_id: str, strategy: str, pod_filter: str
) -> RequestHeaders:
    """Make a head of headers' values, which are empty where there is none."""
    return RequestHeaders(
        path.partition("?")[0],
        content_type,
        int(length) if length.isascii() and length.isdigit() and len(length) < 20 else None,
        request_id,
        strategy or None,
        pod_filter or None,
    )


class Setup(Struct, frozen=True):
    """What Envoy says with the first message about all of them."""

    body_mode: int = ProcessingMode.BUFFERED
    """As configured; BUFFERED where an older Envoy does not say."""
    collects: bool = False
    """Whether the headers are answered when the body is complete, which comes in pieces."""
    response_body_mode: int = ProcessingMode.NONE
    headers_wait: bool = False
    """Whether Envoy sends no body before the headers are answered, and then does not keep it. So
    BUFFERED is asked for instead."""
    subset: frozenset[str] | None = None
    """Endpoints that the gateway allows; ``None``: all."""
    only_tells: bool = False
    """Whether no answer is wanted (``observability_mode``)."""


def read_setup(request: ProcessingRequest) -> Setup:
    """Read what is said beside the headers."""
    config = request.protocol_config
    told = request.HasField("protocol_config")
    mode = config.request_body_mode if told else ProcessingMode.BUFFERED
    headers_wait = mode == ProcessingMode.NONE or (
        mode == ProcessingMode.STREAMED and not config.send_body_without_waiting_for_header_response
    )
    return Setup(
        body_mode=mode,
        collects=mode in _IN_PIECES and not headers_wait,
        response_body_mode=config.response_body_mode,
        headers_wait=headers_wait,
        subset=read_subset(request.metadata_context)
        if request.HasField("metadata_context")
        else None,
        only_tells=request.observability_mode,
    )


def read_subset(metadata: Metadata) -> frozenset[str] | None:
    """Return the endpoints that the gateway allows, or ``None`` if it says nothing.

    A hint that is there and names nothing allows nothing (endpoint-picker protocol).
    """
    hint = metadata.filter_metadata.get(SUBSET_NAMESPACE)
    if hint is None or SUBSET_KEY not in hint.fields:
        return None
    value = hint.fields[SUBSET_KEY]
    listed = [item.string_value for item in value.list_value.values]
    # Some gateways write the list as one string, as the header of the same name would hold it.
    listed += value.string_value.split(",")
    return frozenset(endpoint.strip() for endpoint in listed if endpoint.strip())

"""Both sides of an ext_proc stream as plain objects: messages from Envoy, and the answers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.struct_pb2 import Struct

from lora_router.extproc.context import SessionContext
from lora_router.extproc.gateway_faults import GatewayFaults
from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.models_answer import ModelsAnswers
from lora_router.extproc.outputs import BodyPiece, EndStream, Output
from lora_router.extproc.path_table import rules_of_settings
from lora_router.extproc.paths import Paths
from lora_router.extproc.pb.core_pb2 import HeaderMap, HeaderValue
from lora_router.extproc.pb.ext_proc_pb2 import (
    HeaderMutation,
    HttpBody,
    HttpHeaders,
    HttpTrailers,
    ProcessingRequest,
    ProcessingResponse,
    ProtocolConfiguration,
)
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.extproc.session import Session
from lora_router.extproc.sticky_ids import StickyIds
from lora_router.extproc.usage_reading import UsageReading
from lora_router.fleet.fleet import Fleet
from lora_router.routing.algorithm import Algorithm, AlgorithmOptions
from lora_router.routing.director import Director
from lora_router.routing.least_request import LeastRequest
from lora_router.routing.model_names import NamePolicy
from lora_router.telemetry.decisions import DecisionLog
from tests.fleet import Decisions, ManualClock, make_fleet


def request_headers(
    path: str = "/v1/chat/completions",
    *,
    method: str = "POST",
    content_type: str = "application/json",
    end: bool = False,
    mode: "ProcessingMode.BodySendMode | None" = ProcessingMode.BUFFERED,
    response_body_mode: "ProcessingMode.BodySendMode" = ProcessingMode.NONE,
    send_body_without_waiting: bool = False,
    subset: Iterable[str] | None = None,
    headers: Iterable[tuple[str, bytes]] = (),
) -> ProcessingRequest:
    """Return the first message. ``mode`` ``None``: no ``protocol_config``."""
    listed = [
        (":method", method.encode()),
        (":path", path.encode()),
        ("content-type", content_type.encode()),
        *headers,
    ]
    request = ProcessingRequest(
        request_headers=HttpHeaders(
            headers=HeaderMap(headers=[HeaderValue(key=k, raw_value=v) for k, v in listed]),
            end_of_stream=end,
        )
    )
    if mode is not None:
        request.protocol_config.CopyFrom(
            ProtocolConfiguration(
                request_body_mode=mode,
                response_body_mode=response_body_mode,
                send_body_without_waiting_for_header_response=send_body_without_waiting,
            )
        )
    if subset is not None:
        hint = Struct()
        hint.update({"x-gateway-destination-endpoint-subset": list(subset)})
        request.metadata_context.filter_metadata["envoy.lb.subset_hint"].CopyFrom(hint)
    return request


def request_body(body: bytes, *, end: bool = True) -> ProcessingRequest:
    """Return a piece of the request body."""
    return ProcessingRequest(request_body=HttpBody(body=body, end_of_stream=end))


def request_trailers() -> ProcessingRequest:
    """Return the request trailers."""
    return ProcessingRequest(request_trailers=HttpTrailers())


def response_headers(
    status: str = "200",
    *,
    end: bool = False,
    content_type: str = "application/json",
    attributes: Mapping[str, str | float] | None = None,
    served: str | None = None,
    first: "ProcessingMode.BodySendMode | None" = None,
    headers: Iterable[tuple[str, bytes]] = (),
) -> ProcessingRequest:
    """Return the headers of the response.

    Args:
        status: The value of ``:status``.
        end: Whether the response ends with its headers.
        content_type: The value of ``content-type``.
        attributes: What Envoy states if it is asked for attributes.
        served: The endpoint that metadata names as the one that served the request.
        first: The response body mode, which Envoy sends with the first message of a stream only.
        headers: Further headers.
    """
    listed = [(":status", status.encode()), ("content-type", content_type.encode()), *headers]
    request = ProcessingRequest(
        response_headers=HttpHeaders(
            headers=HeaderMap(headers=[HeaderValue(key=k, raw_value=v) for k, v in listed]),
            end_of_stream=end,
        )
    )
    if attributes is not None:
        struct = Struct()
        struct.update(dict(attributes))
        request.attributes["envoy.filters.http.ext_proc"] = struct.SerializeToString()
    if served is not None:
        struct = Struct()
        struct.update({"x-gateway-destination-endpoint-served": served})
        request.metadata_context.filter_metadata["envoy.lb"].CopyFrom(struct)
    if first is not None:
        request.protocol_config.response_body_mode = first
    return request


def served_by(
    endpoint: str, status: float = 200, details: str = "via_upstream"
) -> dict[str, str | float]:
    """Return the attributes of an answer."""
    return {
        "upstream.address": endpoint,
        "response.code": status,
        "response.code_details": details,
    }


def response_body(body: bytes, *, end: bool) -> ProcessingRequest:
    """Return a piece of the response body."""
    return ProcessingRequest(response_body=HttpBody(body=body, end_of_stream=end))


def response_trailers() -> ProcessingRequest:
    """Return the trailers of the response."""
    return ProcessingRequest(response_trailers=HttpTrailers())


@dataclass(frozen=True)
class Told:
    """The changes of request headers in an answer."""

    set: dict[str, str]
    removed: list[str]
    overwrites: bool


def told(mutation: HeaderMutation) -> Told:
    """Return a header mutation in short form."""
    options = mutation.set_headers
    return Told(
        set={option.header.key: option.header.raw_value.decode() for option in options},
        removed=list(mutation.remove_headers),
        overwrites=all(option.append_action == 2 for option in options),
    )


def read_answer(output: Output) -> ProcessingResponse:
    """Parse an answer to Envoy."""
    assert not isinstance(output, EndStream), output
    return ProcessingResponse.FromString(
        output.joined() if isinstance(output, BodyPiece) else output
    )


class Conversation:
    """A session with a fleet behind it."""

    def __init__(
        self,
        fleet: Fleet | None = None,
        *,
        algorithm: Algorithm | None = None,
        max_body_bytes: int = 10_000,
        headers: HeaderNames | None = None,
        paths: Mapping[str, str] | None = None,
        prefixes: Iterable[str] = (),
        admin_allowed: bool = False,
        refuse_unknown_paths: bool = False,
        names: NamePolicy | None = None,
        default_model: str | None = None,
        answers_as_asked: bool = False,
        pass_unknown_ids: bool = False,
        special_numbers: bool = True,
        records: int = 0,
        slow_seconds: float = 5.0,
        tells_decisions: bool = False,
        usage: UsageReading | None = None,
    ) -> None:
        """Create it. The last ``records`` decisions are kept in ``log``."""
        self.fleet = make_fleet() if fleet is None else fleet
        self.clock = ManualClock()
        self.decisions = Decisions()
        least = LeastRequest(AlgorithmOptions())
        chosen = algorithm or least
        director = Director(
            self.fleet,
            {chosen.name: chosen, least.name: least},
            chosen.name,
            self.clock,
            self.decisions,
            names=names,
            default_model=default_model,
        )
        self.log = DecisionLog(records, slow_seconds=slow_seconds, now=self.clock.now)
        if records:
            director.observe()
        self.context = SessionContext(
            director=director,
            observer=self.decisions,
            paths=Paths(
                rules_of_settings((paths or {}).items()), prefixes, admin_allowed=admin_allowed
            ),
            refuse_unknown_paths=refuse_unknown_paths,
            answers_as_asked=answers_as_asked,
            special_numbers=special_numbers,
            headers=headers or HeaderNames(),
            max_body_bytes=max_body_bytes,
            models=ModelsAnswers(director, self.clock),
            ids=StickyIds(
                self.fleet, director.sticky.made, self.clock, pass_unknown=pass_unknown_ids
            ),
            gateway=GatewayFaults(self.clock.now),
            decisions=self.log if records else None,
            tells_decisions=tells_decisions,
            usage=usage,
        )
        self.late: list[Output] = []
        self.session = Session(self.context, self.late.extend)

    def another(self, on_late: Callable[[Sequence[Output]], None] | None = None) -> Session:
        """Return another session of the same server."""
        return Session(self.context, on_late or self.late.extend)

    def say(self, *requests: ProcessingRequest) -> list[ProcessingResponse]:
        """Send messages as Envoy; return the answers, which must not end the stream."""
        answers: list[ProcessingResponse] = []
        for request in requests:
            answers += map(read_answer, self.session.receive(request.SerializeToString()))
        return answers

    def breaks(self, request: ProcessingRequest) -> EndStream:
        """Send a message as Envoy; return the end of the stream that it causes."""
        (output,) = self.session.receive(request.SerializeToString())
        assert isinstance(output, EndStream)
        return output

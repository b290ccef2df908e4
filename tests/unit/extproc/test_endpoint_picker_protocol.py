"""What the endpoint-picker protocol asks of a picker, whichever gateway speaks it."""

from collections.abc import Iterable, Sequence

import pytest
from google.protobuf.struct_pb2 import Struct

from lora_router.extproc.header_names import CONFORMANCE_HEADER, HeaderNames
from lora_router.extproc.pb.core_pb2 import HeaderMap, HeaderValue
from lora_router.extproc.pb.ext_proc_pb2 import HttpHeaders, ProcessingRequest, ProcessingResponse
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import Hold, InferenceRequest, Pick
from tests.fleet import make_fleet, make_pod
from tests.unit.extproc.conversation import (
    Conversation,
    read_answer,
    request_body,
    request_headers,
    request_trailers,
    response_headers,
    told,
)
from tests.unit.extproc.process_peer import EnvoyPeer

SQL = b'{"model": "sql-lora", "messages": []}'
FULL_DUPLEX = ProcessingMode.FULL_DUPLEX_STREAMED
DESTINATION = "x-gateway-destination-endpoint"


class Busy:
    """Holds requests while a pod has one."""

    name = "busy"

    def pick(
        self, _request: InferenceRequest, candidates: Sequence[PodView], _now: float
    ) -> Pick | Hold:
        return Hold("busy", 5.0) if candidates[0].in_flight else Pick(candidates[0], "free")


def plain_headers(
    headers: Iterable[tuple[str, str]], *, raw: bool = False, end: bool = False
) -> ProcessingRequest:
    """Return the first message of a gateway that is not Envoy: no ``protocol_config``."""
    listed = [
        HeaderValue(key=key, raw_value=value.encode()) if raw else HeaderValue(key=key, value=value)
        for key, value in headers
    ]
    return ProcessingRequest(
        request_headers=HttpHeaders(headers=HeaderMap(headers=listed), end_of_stream=end)
    )


def hinted(request: ProcessingRequest, value: str | float | list[str]) -> ProcessingRequest:
    """Add a subset hint to a message: a list of strings, a string, or something else."""
    hint = Struct()
    hint.update({"x-gateway-destination-endpoint-subset": value})
    request.metadata_context.filter_metadata["envoy.lb.subset_hint"].CopyFrom(hint)
    return request


def mutation_of(answer: ProcessingResponse) -> dict[str, str]:
    """Return the headers that the answer to the headers or the body sets."""
    kind = answer.WhichOneof("response")
    assert kind in ("request_headers", "request_body"), answer
    return told(getattr(answer, kind).response.header_mutation).set


def picked(answers: list[ProcessingResponse]) -> str:
    """Return the endpoint, which the header and the metadata must both name."""
    (answer,) = [each for each in answers if each.HasField("dynamic_metadata")]
    metadata = answer.dynamic_metadata["envoy.lb"]
    assert isinstance(metadata, Struct)
    endpoint = mutation_of(answer)[DESTINATION]
    assert metadata[DESTINATION] == endpoint
    return endpoint.partition(",")[0]


def refused(answers: list[ProcessingResponse]) -> int:
    """Return the status with which the client is answered."""
    return int(answers[-1].immediate_response.status.code)


def several_pods(headers: HeaderNames | None = None) -> Conversation:
    """Return a fleet with two endpoints at one address, and one pod with IPv6."""
    endpoints = {
        "1": "10.0.0.1:8000",
        "2": "10.0.0.2:8000",
        "2-rank-1": "10.0.0.2:8001",
        "3": "10.0.0.3:8000",
        "6": "[fd00::6]:8000",
    }
    fleet = Fleet()
    fleet.replace(
        make_pod(0, name=name, address=address, models=("base", "sql-lora"))
        for name, address in endpoints.items()
    )
    return Conversation(fleet, headers=headers)


class TestSubsetHint:
    """``envoy.lb.subset_hint`` → ``x-gateway-destination-endpoint-subset``."""

    @pytest.mark.parametrize(
        "hint",
        [
            ["10.0.0.3:8000"],
            ["10.0.0.3"],
            ["10.9.9.9:8000, 10.0.0.3:8000"],
            ["10.9.9.9:8000", " 10.0.0.3:8000 "],
            "10.0.0.3:8000",
            "10.9.9.9,10.0.0.3",
            " 10.0.0.3:8000 , ,10.0.0.3:9000,",
        ],
    )
    def test_every_spelling_is_read(self, hint: str | list[str]) -> None:
        for _ in range(3):
            talk = several_pods()
            answers = talk.say(hinted(request_headers(), hint), request_body(SQL))
            assert picked(answers) == "10.0.0.3:8000"

    @pytest.mark.parametrize(
        "hint", ["[fd00::6]:8000", "[fd00::6]", "fd00::6", "[fd00:0::0006]:8000", ["FD00::6"]]
    )
    def test_ipv6_has_brackets_or_none(self, hint: str | list[str]) -> None:
        answers = several_pods().say(hinted(request_headers(), hint), request_body(SQL))
        assert picked(answers) == "[fd00::6]:8000"

    def test_an_address_without_a_port_allows_all_its_endpoints(self) -> None:
        talk = several_pods()
        seen = set()
        for _ in range(2):
            session = talk.session = talk.another()
            seen.add(picked(talk.say(hinted(request_headers(), "10.0.0.2"), request_body(SQL))))
            assert session is talk.session
        assert seen == {"10.0.0.2:8000", "10.0.0.2:8001"}

    def test_an_address_with_a_port_allows_only_that_one(self) -> None:
        talk = several_pods()
        for _ in range(3):
            talk.session = talk.another()
            answers = talk.say(hinted(request_headers(), ["10.0.0.2:8001"]), request_body(SQL))
            assert picked(answers) == "10.0.0.2:8001"

    @pytest.mark.parametrize(
        "hint", [[], "", " , ", ["10.9.9.9:8000"], "10.0.0.2:9000", "10.0.0.20", 7, ["\x00"]]
    )
    def test_a_hint_that_no_pod_fits_is_answered_with_503(
        self, hint: str | float | list[str]
    ) -> None:
        answers = several_pods().say(hinted(request_headers(), hint), request_body(SQL))
        assert refused(answers) == 503

    def test_another_key_in_the_namespace_is_no_hint(self) -> None:
        request = request_headers()
        request.metadata_context.filter_metadata["envoy.lb.subset_hint"].update({"other": "x"})
        assert picked(several_pods().say(request, request_body(SQL)))

    @pytest.mark.parametrize("mode", [ProcessingMode.BUFFERED, FULL_DUPLEX])
    def test_the_message_with_the_body_may_have_it(
        self, mode: "ProcessingMode.BodySendMode"
    ) -> None:
        talk = several_pods()
        answers = talk.say(request_headers(mode=mode), hinted(request_body(SQL), ["10.0.0.3:8000"]))
        assert picked(answers) == "10.0.0.3:8000"

    def test_the_message_with_the_trailers_may_have_it(self) -> None:
        talk = several_pods()
        answers = talk.say(
            request_headers(mode=FULL_DUPLEX),
            request_body(SQL + b"    ", end=False),
            hinted(request_trailers(), []),
        )
        assert refused(answers) == 503

    def test_it_binds_requests_without_a_model(self) -> None:
        answers = several_pods().say(hinted(request_headers("/ping", end=True), "10.0.0.3"))
        assert picked(answers) == "10.0.0.3:8000"


class TestHeaders:
    @pytest.mark.parametrize("raw", [True, False])
    def test_names_may_have_capitals(self, raw: bool) -> None:
        headers = [
            (":path", "/v1/chat/completions"),
            (":method", "POST"),
            ("Content-Type", "application/json"),
            ("Routing-Strategy", "nonsense"),
        ]
        answers = several_pods().say(plain_headers(headers, raw=raw), request_body(SQL))
        assert refused(answers) == 400

    def test_values_may_be_text_beside_others_that_are_bytes(self) -> None:
        request = request_headers()
        more = HeaderValue(key="routing-strategy", value="nonsense")
        request.request_headers.headers.headers.append(more)
        assert refused(several_pods().say(request, request_body(SQL))) == 400

    def test_bytes_count_where_both_are_there(self) -> None:
        request = request_headers()
        more = HeaderValue(key="routing-strategy", value="nonsense", raw_value=b"least-request")
        request.request_headers.headers.headers.append(more)
        assert picked(several_pods().say(request, request_body(SQL)))

    @pytest.mark.parametrize("model", ["sql-lora", "base"])
    @pytest.mark.parametrize("kind", [[("content-type", "application/json")], []])
    def test_without_a_path_the_body_names_the_model(
        self, model: str, kind: list[tuple[str, str]]
    ) -> None:
        request = plain_headers(kind)
        request.protocol_config.request_body_mode = FULL_DUPLEX
        body = b'{"model": "%s"}' % model.encode()
        answers = several_pods().say(request, request_body(body))
        assert mutation_of(answers[0])["model"] == model

    def test_without_a_path_an_unknown_model_is_refused(self) -> None:
        request = plain_headers([("content-type", "application/json")])
        request.protocol_config.request_body_mode = FULL_DUPLEX
        assert refused(several_pods().say(request, request_body(b'{"model": "nope"}'))) == 404

    def test_a_forged_destination_is_overwritten(self) -> None:
        forged = [(DESTINATION, b"6.6.6.6:80"), ("target-pod", b"6.6.6.6:80")]
        answers = several_pods().say(
            request_headers(headers=forged, mode=FULL_DUPLEX), request_body(SQL)
        )
        assert "6.6.6.6" not in picked(answers)

    def test_a_trace_context_is_left_alone(self) -> None:
        trace = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        for path in ("/v1/chat/completions", "/v1/files", "/ping"):
            for mode in (ProcessingMode.BUFFERED, FULL_DUPLEX):
                answers = several_pods().say(
                    request_headers(path, mode=mode, headers=[trace]), request_body(SQL)
                )
                for answer in answers:
                    if answer.WhichOneof("response") not in ("request_headers", "request_body"):
                        continue
                    kind = getattr(answer, answer.WhichOneof("response") or "")
                    changed = told(kind.response.header_mutation)
                    assert not {"traceparent", "tracestate", "baggage"} & {
                        *changed.set,
                        *changed.removed,
                    }


class TestDestination:
    def test_no_ready_pod_is_answered_with_503(self) -> None:
        talk = Conversation(Fleet())
        answers = talk.say(request_headers(mode=FULL_DUPLEX), request_body(SQL))
        assert refused(answers) == 503

    def test_a_request_without_a_body_gets_an_endpoint_with_its_headers(self) -> None:
        (answer,) = several_pods().say(request_headers("/health", end=True, mode=FULL_DUPLEX))
        assert answer.HasField("request_headers")
        assert picked([answer])

    def test_the_body_follows_the_endpoint_whole(self) -> None:
        talk = several_pods()
        first, second = SQL[:20], SQL[20:]
        headers, *body = talk.say(
            request_headers(mode=FULL_DUPLEX),
            request_body(first, end=False),
            request_body(second, end=False),
            request_body(b"", end=True),
        )
        assert picked([headers])
        pieces = [each.request_body.response.body_mutation.streamed_response for each in body]
        assert b"".join(piece.body for piece in pieces) == SQL
        assert [piece.end_of_stream for piece in pieces] == [False, True]

    def test_the_endpoint_that_served_counts(self) -> None:
        talk = several_pods()
        first = picked(talk.say(request_headers(), request_body(SQL)))
        other = next(each.pod.address for each in talk.fleet if each.pod.address != first)

        (answer,) = talk.say(response_headers(served=other))

        assert answer.HasField("response_headers")
        busy = [state.pod.address for state in talk.fleet if state.in_flight]
        assert busy == [other]

    @pytest.mark.parametrize("served", ["", "nonsense", "10.9.9.9:8000", "x" * 5000])
    def test_a_served_endpoint_that_is_no_pod_changes_nothing(self, served: str) -> None:
        talk = several_pods()
        first = picked(talk.say(request_headers(), request_body(SQL)))

        talk.say(response_headers(served=served))

        busy = [state.pod.address for state in talk.fleet if state.in_flight]
        assert len(busy) <= 1
        assert set(busy) <= {first}


class TestWithoutProtocolConfig:
    """Gateways that do not say how they send bodies: what arrives decides."""

    HEADERS = (
        (":path", "/v1/chat/completions"),
        (":method", "POST"),
        ("content-type", "application/json"),
    )

    def test_a_body_that_comes_unasked_is_answered_with_the_headers(self) -> None:
        headers, body = several_pods().say(plain_headers(self.HEADERS), request_body(SQL))

        assert headers.HasField("request_headers")
        assert picked([headers])
        piece = body.request_body.response.body_mutation.streamed_response
        assert (piece.body, piece.end_of_stream) == (SQL, True)

    def test_a_body_in_two_pieces_is_collected(self) -> None:
        headers, body = several_pods().say(
            plain_headers(self.HEADERS),
            request_body(SQL[:10], end=False),
            request_body(SQL[10:]),
        )

        assert picked([headers])
        assert body.request_body.response.body_mutation.streamed_response.body == SQL

    def test_trailers_may_end_the_body(self) -> None:
        headers, body, trailers = several_pods().say(
            plain_headers(self.HEADERS), request_body(SQL, end=False), request_trailers()
        )

        assert picked([headers])
        assert not body.request_body.response.body_mutation.streamed_response.end_of_stream
        assert trailers.HasField("request_trailers")

    def test_headers_are_answered_at_once_if_nothing_follows_them(self) -> None:
        (headers,) = several_pods().say(plain_headers([(":path", "/health")], end=True))
        assert picked([headers])

    def waiting(self) -> Conversation:
        """Return a conversation with a gateway that waits for the answer to the headers."""
        talk = several_pods()
        assert talk.say(plain_headers(self.HEADERS)) == []
        talk.clock.advance(1)
        (headers,) = map(read_answer, talk.late)
        assert not headers.request_headers.response.header_mutation.set_headers
        return talk

    def test_a_gateway_that_waits_gets_the_endpoint_with_the_body(self) -> None:
        (body,) = self.waiting().say(request_body(SQL))
        assert body.HasField("request_body")
        assert picked([body])

    def test_a_whole_body_before_trailers_is_answered_without_them(self) -> None:
        talk = self.waiting()
        assert picked(talk.say(request_body(SQL, end=False)))
        (trailers,) = talk.say(request_trailers())
        assert trailers.HasField("request_trailers")

    def test_what_comes_in_pieces_then_is_collected_all_the_same(self) -> None:
        first, second = self.waiting().say(
            request_body(SQL[:10], end=False), request_body(SQL[10:])
        )
        assert picked([first])
        assert second.HasField("request_body")
        assert not second.request_body.response.HasField("header_mutation")

    def test_a_client_that_leaves_meanwhile_is_forgotten(self) -> None:
        talk = several_pods()
        talk.say(plain_headers(self.HEADERS))
        talk.session.end()
        talk.clock.advance(1)
        assert talk.late == []

    def test_a_body_is_bounded_in_pieces_too(self) -> None:
        talk = several_pods()
        answers = talk.say(
            plain_headers(self.HEADERS),
            *(request_body(b"x" * 4000, end=False) for _ in range(3)),
        )
        assert refused(answers) == 413


class TestHalfClose:
    """A gateway may close its side as soon as it has sent the request (``CloseSend``)."""

    def test_a_last_piece_that_is_not_marked_is_the_last(self) -> None:
        talk = several_pods()
        body = SQL + b"    "
        talk.say(plain_headers(TestWithoutProtocolConfig.HEADERS), request_body(body, end=False))

        answers = [read_answer(each) for each in talk.session.half_closed()]

        assert picked(answers)
        assert not talk.session.is_held

    def test_envoy_closes_its_side_when_the_client_has_left(self) -> None:
        talk = several_pods()
        talk.say(request_headers(mode=FULL_DUPLEX), request_body(SQL[:9], end=False))
        assert talk.session.half_closed() == ()
        assert not talk.session.is_held

    def test_a_held_request_is_answered_first(self) -> None:
        peer = EnvoyPeer(conversation=Conversation(make_fleet(1), algorithm=Busy()))
        first, second = peer.open(), peer.open()
        peer.tell(first, request_headers(), request_body(SQL))
        peer.tell(second, request_headers(), request_body(SQL))
        peer.end(second)
        assert peer.conversation.context.director.held == 1

        peer.end(first)
        peer.exchange()

        assert picked(peer.answers(second))
        assert peer.status(second) == 0
        assert peer.idle

    def test_a_held_request_of_a_stream_that_is_reset_is_forgotten(self) -> None:
        peer = EnvoyPeer(conversation=Conversation(make_fleet(1), algorithm=Busy()))
        first, second = peer.open(), peer.open()
        peer.tell(first, request_headers(), request_body(SQL))
        peer.tell(second, request_headers(), request_body(SQL))
        peer.end(second)

        peer.reset(second)

        assert peer.conversation.context.director.held == 0
        peer.end(first)
        assert peer.idle


class TestConformanceHeader:
    """Conformance tests of gateways choose the endpoint by a header."""

    HEADERS = HeaderNames(selection=CONFORMANCE_HEADER)

    def chosen(self, value: bytes, names: HeaderNames, hint: list[str] | None = None) -> str:
        talk = several_pods(headers=names)
        request = request_headers(headers=[(CONFORMANCE_HEADER, value)])
        if hint is not None:
            hinted(request, hint)
        answers = talk.say(request, request_body(SQL))
        return picked(answers) if answers[-1].HasField("request_body") else ""

    @pytest.mark.parametrize("value", [b"10.0.0.3:8000", b"10.0.0.3", b"10.9.9.9, 10.0.0.3:8000"])
    def test_it_names_endpoints(self, value: bytes) -> None:
        assert self.chosen(value, self.HEADERS) == "10.0.0.3:8000"

    def test_it_stands_above_the_subset_of_the_gateway(self) -> None:
        assert self.chosen(b"10.0.0.3", self.HEADERS, ["10.0.0.1:8000"]) == "10.0.0.3:8000"

    def test_it_names_only_pods_that_are_known(self) -> None:
        assert self.chosen(b"6.6.6.6:80", self.HEADERS) == ""

    def test_by_default_it_means_nothing(self) -> None:
        assert self.chosen(b"6.6.6.6:80", HeaderNames())

    def test_it_is_read_beside_the_header_that_keeps_rewrites_together(self) -> None:
        names = HeaderNames(selection=CONFORMANCE_HEADER, rewrite_key="x-user")
        assert self.chosen(b"10.0.0.3", names) == "10.0.0.3:8000"

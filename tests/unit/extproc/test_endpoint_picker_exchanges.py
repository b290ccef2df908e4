"""Whole exchanges of the endpoint-picker protocol, as gateways of full duplex have them.

These gateways send all messages without waiting, in both directions. The barest of them send no
``protocol_config``, no ``:path`` and no ``content-type``, and values in ``value``.
"""

import json
from collections.abc import Iterable

import pytest
from google.protobuf.struct_pb2 import Struct

from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.pb.core_pb2 import HeaderMap, HeaderValue
from lora_router.extproc.pb.ext_proc_pb2 import HttpHeaders, ProcessingRequest, ProcessingResponse
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.fleet.fleet import Fleet
from lora_router.routing.algorithm import Hold, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from lora_router.routing.model_names import NamePolicy
from lora_router.routing.model_rewrites import Rewrite, Target
from tests.fleet import make_fleet, make_pod
from tests.unit.extproc.conversation import (
    Conversation,
    read_answer,
    request_body,
    request_headers,
    request_trailers,
    response_body,
    response_headers,
    response_trailers,
    told,
)

FULL_DUPLEX = ProcessingMode.FULL_DUPLEX_STREAMED
REWRITE = "x-gateway-model-name-rewrite"
OBJECTIVE = "x-gateway-inference-objective"
DESTINATION = "x-gateway-destination-endpoint"
GRPC = (":path", "/vllm.grpc.engine.VllmEngine/Generate"), ("content-type", "application/grpc")
FRAME = b"\x00\x00\x00\x00\x05\xff\x00\xfe\x01\x02"
"""A message of gRPC, which is neither JSON nor text."""
JSON = ("content-type", "application/json")
LONG = b"x" * 200_000


def bare_headers(*headers: tuple[str, str], end: bool = False) -> ProcessingRequest:
    """Return the first message of a gateway that says as little as it can."""
    listed = [HeaderValue(key=key, value=value) for key, value in headers]
    return ProcessingRequest(
        request_headers=HttpHeaders(headers=HeaderMap(headers=listed), end_of_stream=end)
    )


def hinted(requests: Iterable[ProcessingRequest], *endpoints: str) -> list[ProcessingRequest]:
    """Add a subset hint to each message, as GIE's tests do."""
    hint = {"x-gateway-destination-endpoint-subset": list(endpoints)}
    listed = list(requests)
    for each in listed:
        each.metadata_context.filter_metadata["envoy.lb.subset_hint"].update(hint)
    return listed


def generation(model: str | None = "sql-lora") -> bytes:
    named = {} if model is None else {"model": model}
    return json.dumps({"max_tokens": 100, **named, "prompt": "test", "temperature": 0}).encode()


def three_pods(**options: object) -> Conversation:
    """Return three pods, of which only the second has the adapter."""
    fleet = Fleet()
    fleet.replace(
        make_pod(0, name=str(n), address=f"192.168.1.{n}:8000", models=models)
        for n, models in ((1, ("base",)), (2, ("base", "sql-lora")), (3, ("base",)))
    )
    return Conversation(fleet, **options)  # type: ignore[arg-type]


def rewriting() -> Conversation:
    return three_pods(names=NamePolicy(by_header=True), headers=HeaderNames(new_model=REWRITE))


def destination(answer: ProcessingResponse) -> str:
    """Return the picked endpoint, which must be in the answer to the headers."""
    assert answer.HasField("request_headers"), answer
    changes = told(answer.request_headers.response.header_mutation).set
    metadata = answer.dynamic_metadata["envoy.lb"]
    assert isinstance(metadata, Struct)
    assert metadata[DESTINATION] == changes[DESTINATION]
    assert answer.request_headers.response.clear_route_cache
    return changes[DESTINATION].partition(",")[0]


def forwarded(answers: Iterable[ProcessingResponse], field: str = "request_body") -> bytes:
    """Return the body that a gateway of full duplex forwards: what the answers contain."""
    return b"".join(
        getattr(each, field).response.body_mutation.streamed_response.body
        for each in answers
        if each.HasField(field)
    )


def refused(answers: list[ProcessingResponse]) -> int:
    return int(answers[-1].immediate_response.status.code)


class TestRequests:
    def test_the_headers_come_back_with_the_endpoint_and_then_the_body(self) -> None:
        body = generation()

        first, *rest = three_pods().say(
            bare_headers(("hi", "mom"), ("x-request-id", "one")), request_body(body)
        )

        assert destination(first) == "192.168.1.2:8000"
        assert forwarded(rest) == body
        assert rest[-1].request_body.response.body_mutation.streamed_response.end_of_stream

    def test_headers_of_the_client_are_neither_repeated_nor_changed(self) -> None:
        first, *_ = three_pods().say(
            bare_headers(("hi", "mom"), ("x-request-id", "one"), (OBJECTIVE, "batch")),
            request_body(generation()),
        )

        changes = told(first.request_headers.response.header_mutation)
        assert not {"hi", "x-request-id", OBJECTIVE} & {*changes.set, *changes.removed}

    def test_a_name_that_is_cut_between_two_pieces_is_read(self) -> None:
        body = generation()
        cut = body.index(b"lora")

        first, *rest = three_pods().say(
            bare_headers(("hi", "mom")),
            request_body(body[:cut], end=False),
            request_body(body[cut:]),
        )

        assert destination(first) == "192.168.1.2:8000"
        assert forwarded(rest) == body

    def test_an_objective_that_nobody_defines_changes_nothing(self) -> None:
        first, *_ = three_pods().say(
            bare_headers((OBJECTIVE, "direct-model")), request_body(generation())
        )
        assert destination(first)

    def test_broken_json_is_answered_with_400(self) -> None:
        answers = three_pods().say(bare_headers(("hi", "mom")), request_body(b"no JSON"))
        assert refused(answers) == 400

    @pytest.mark.parametrize("path", [[], [(":path", "/v1/completions")]])
    def test_json_without_a_model_is_answered_with_400(self, path: list[tuple[str, str]]) -> None:
        talk = three_pods()
        answers = talk.say(bare_headers(*path, JSON), request_body(generation(None)))
        assert refused(answers) == 400
        assert talk.fleet.ledger.total == 0

    def test_a_default_model_stands_for_it(self) -> None:
        first, *_ = three_pods(default_model="sql-lora").say(
            bare_headers(JSON), request_body(generation(None))
        )
        assert destination(first) == "192.168.1.2:8000"

    def test_an_unknown_model_is_answered_with_404(self) -> None:
        answers = three_pods(names=NamePolicy(unknown="reject")).say(
            bare_headers(JSON), request_body(generation("nobody"))
        )
        assert refused(answers) == 404

    def test_a_body_that_is_no_json_passes_to_any_pod(self) -> None:
        first, *rest = three_pods().say(
            bare_headers(("content-type", "text/plain"), (OBJECTIVE, "batch")),
            request_body(b"as it is"),
        )

        assert destination(first)
        assert forwarded(rest) == b"as it is"

    def test_a_request_without_a_body_gets_an_endpoint(self) -> None:
        (answer,) = three_pods().say(
            bare_headers(("content-type", "text/event-stream"), ("status", "200"), end=True)
        )
        assert destination(answer)

    def test_without_pods_it_is_answered_with_503(self) -> None:
        assert refused(Conversation(Fleet()).say(bare_headers(JSON, end=True))) == 503

    def test_no_request_is_shed_by_default_however_loaded_the_pods_are(self) -> None:
        talk = three_pods()
        for _ in range(200):
            talk.session = talk.another()
            first, *_ = talk.say(bare_headers(JSON), request_body(generation()))
            assert destination(first) == "192.168.1.2:8000"


class TestSubsets:
    @pytest.mark.parametrize(
        ("endpoints", "model", "picked"),
        [
            (["192.168.1.1:8000", "192.168.1.2:8000", "192.168.1.3:8000"], "sql-lora", "2"),
            (["192.168.1.3:8000"], "base", "3"),
            (["192.168.1.3:8000", "192.168.1.99:8000"], "base", "3"),
        ],
    )
    def test_the_best_of_the_allowed_is_picked(
        self, endpoints: list[str], model: str, picked: str
    ) -> None:
        requests = hinted([bare_headers(), request_body(generation(model))], *endpoints)
        first, *_ = three_pods().say(*requests)
        assert destination(first) == f"192.168.1.{picked}:8000"

    def test_if_none_is_a_pod_it_is_answered_with_503(self) -> None:
        requests = hinted([bare_headers(), request_body(generation())], "192.168.1.99:8000")
        assert refused(three_pods().say(*requests)) == 503

    def test_they_bind_grpc_too(self) -> None:
        requests = hinted([bare_headers(*GRPC), request_body(FRAME)], "192.168.1.3:8000")
        first, *rest = three_pods().say(*requests)
        assert destination(first) == "192.168.1.3:8000"
        assert forwarded(rest) == FRAME


class TestRewrite:
    def test_the_body_names_what_the_clients_name_stands_for(self) -> None:
        names = NamePolicy((Rewrite("to-be-rewritten", (Target("sql-lora"),)),))

        first, *rest = three_pods(names=names).say(
            bare_headers(("hi", "mom")), request_body(generation("to-be-rewritten"))
        )

        assert destination(first) == "192.168.1.2:8000"
        changes = told(first.request_headers.response.header_mutation).set
        assert changes["content-length"] == str(len(generation()))
        assert forwarded(rest) == generation()


class TestRewriteHeader:
    @pytest.mark.parametrize("pieces", [1, 2])
    def test_it_names_the_model_that_the_pod_is_asked_for(self, pieces: int) -> None:
        body = generation("my-model")
        cut = 30 if pieces == 2 else 0

        first, *rest = rewriting().say(
            bare_headers(("hi", "mom"), (REWRITE, "sql-lora")),
            *([request_body(body[:cut], end=False)] if cut else []),
            request_body(body[cut:]),
        )

        assert destination(first) == "192.168.1.2:8000"
        changes = told(first.request_headers.response.header_mutation).set
        assert changes["model"] == "sql-lora"
        assert changes["content-length"] == str(len(generation()))
        assert forwarded(rest) == generation()

    def test_the_same_name_changes_nothing(self) -> None:
        _, *rest = rewriting().say(bare_headers((REWRITE, "sql-lora")), request_body(generation()))
        assert forwarded(rest) == generation()

    def test_it_stands_above_the_name_in_the_path(self) -> None:
        first, *_ = rewriting().say(
            request_headers(
                "/v1/realtime?model=my-model",
                method="GET",
                end=True,
                headers=[(REWRITE, b"sql-lora")],
            )
        )
        assert destination(first) == "192.168.1.2:8000"
        changes = told(first.request_headers.response.header_mutation).set
        assert changes[":path"] == "/v1/realtime?model=sql-lora"

    @pytest.mark.parametrize("name", ["x" * 5000, "a\tb"])
    def test_a_name_that_no_model_can_have_is_refused(self, name: str) -> None:
        answers = rewriting().say(bare_headers((REWRITE, name)), request_body(generation()))
        assert refused(answers) == 400

    @pytest.mark.parametrize("name", [b"nobody", b"\xff\xfe"])
    def test_an_unknown_name_is_answered_with_404(self, name: bytes) -> None:
        talk = three_pods(
            names=NamePolicy(by_header=True, unknown="reject"),
            headers=HeaderNames(new_model=REWRITE),
        )
        answers = talk.say(request_headers(headers=[(REWRITE, name)]), request_body(generation()))
        assert refused(answers) == 404

    def test_a_body_in_one_message_is_replaced_too(self) -> None:
        _, answer = rewriting().say(
            request_headers(headers=[(REWRITE, b"sql-lora")]), request_body(generation("my-model"))
        )
        assert answer.request_body.response.body_mutation.body == generation()

    def test_by_default_it_means_nothing(self) -> None:
        first, *rest = three_pods().say(bare_headers((REWRITE, "base")), request_body(generation()))
        assert destination(first) == "192.168.1.2:8000"
        assert forwarded(rest) == generation()

    def test_what_is_not_read_beside_it_has_names_that_no_client_can_send(self) -> None:
        *unused, last = HeaderNames(new_model=REWRITE).wanted[10:]
        assert last == REWRITE
        assert all(" " in name for name in unused)


class Later:
    """Holds each request, and picks when its time is up."""

    name = "later"

    def pick(self, request: InferenceRequest, candidates: Candidates, _now: float) -> Pick | Hold:
        return Hold("busy", 1.0) if request.may_hold else Pick(candidates[0], "first")


class TestBodiesThatAreNotRead:
    """The headers decide. The body comes unasked all the same, and is forwarded."""

    @pytest.mark.parametrize("said", [True, False], ids=["protocol_config", "none"])
    def test_grpc_passes_to_any_pod_byte_for_byte(self, said: bool) -> None:
        headers = bare_headers(*GRPC)
        if said:
            headers.protocol_config.request_body_mode = FULL_DUPLEX

        first, *rest = three_pods().say(
            headers, request_body(FRAME[:4], end=False), request_body(FRAME[4:])
        )

        assert destination(first)
        assert forwarded(rest) == FRAME
        assert rest[-1].request_body.response.body_mutation.streamed_response.end_of_stream

    def test_each_piece_is_answered_once_if_nothing_is_known_of_the_gateway(self) -> None:
        answers = three_pods().say(bare_headers(*GRPC), request_body(LONG))
        assert len(answers) == 2
        assert forwarded(answers) == LONG

    def test_trailers_may_end_it(self) -> None:
        first, *rest, last = three_pods().say(
            bare_headers(*GRPC), request_body(FRAME, end=False), request_trailers()
        )
        assert destination(first)
        assert forwarded(rest) == FRAME
        assert last.HasField("request_trailers")

    def test_while_the_request_is_held_it_is_kept(self) -> None:
        talk = Conversation(make_fleet(1), algorithm=Later())
        path = (":path", "/v1/realtime?model=sql-lora")

        talk.say(bare_headers(path), request_body(FRAME[:4], end=False), request_body(FRAME[4:]))
        talk.clock.advance(1)

        first, *rest = map(read_answer, talk.late)
        assert destination(first)
        assert forwarded(rest) == FRAME


class TestResponses:
    """Each piece comes back as it is, in the mode of the gateway."""

    STREAM = (b"data: {}\n\n", b'data: {"usage": {"prompt_tokens": 7}}\n\ndata: [DONE]', b"")

    def pieces(self, *bodies: bytes) -> list[ProcessingRequest]:
        last = len(bodies) - 1
        return [response_body(body, end=at == last) for at, body in enumerate(bodies)]

    @pytest.mark.parametrize("mode", [FULL_DUPLEX, None], ids=["protocol_config", "none"])
    @pytest.mark.parametrize(
        "bodies",
        [
            (b'{"model": "sql-lo', b'ra"}'),
            (b"no healthy upstream",),
            (b'{"model": "sql-lora"}', b""),
            STREAM,
        ],
        ids=["two pieces", "no JSON", "an empty end", "events"],
    )
    def test_a_stream_that_begins_with_the_response(
        self, mode: "ProcessingMode.BodySendMode | None", bodies: tuple[bytes, ...]
    ) -> None:
        first, *rest = three_pods().say(response_headers(first=mode), *self.pieces(*bodies))

        assert first.HasField("response_headers")
        assert not first.response_headers.response.header_mutation.set_headers
        assert forwarded(rest, "response_body") == b"".join(bodies)
        ends = [
            each.response_body.response.body_mutation.streamed_response.end_of_stream
            for each in rest
        ]
        assert ends == [False] * (len(bodies) - 1) + [True]

    @pytest.mark.parametrize("request_body_sent", [True, False])
    def test_after_a_request(self, request_body_sent: bool) -> None:
        talk = three_pods()
        if request_body_sent:
            talk.say(bare_headers(JSON), request_body(generation()))
        else:
            talk.say(bare_headers(end=True))

        headers, *body = talk.say(response_headers(), *self.pieces(*self.STREAM))

        assert headers.HasField("response_headers")
        assert forwarded(body, "response_body") == b"".join(self.STREAM)
        assert len(body) == len(self.STREAM)

    def test_after_a_request_whose_headers_decide(self) -> None:
        talk = three_pods()
        talk.say(bare_headers(*GRPC), request_body(FRAME))
        _, *body = talk.say(response_headers(), *self.pieces(FRAME, b""))
        assert forwarded(body, "response_body") == FRAME

    @pytest.mark.parametrize("mode", [FULL_DUPLEX, None], ids=["protocol_config", "none"])
    def test_trailers_end_grpc(self, mode: "ProcessingMode.BodySendMode | None") -> None:
        *body, trailers = three_pods().say(
            response_headers(content_type="application/grpc", first=mode),
            response_body(FRAME[:4], end=False),
            response_body(FRAME[4:], end=False),
            response_trailers(),
        )

        assert forwarded(body, "response_body") == FRAME
        assert trailers.HasField("response_trailers")

    def test_an_envoy_that_waits_for_the_answer_to_the_headers_keeps_its_body(self) -> None:
        """Without ``protocol_config`` in BUFFERED mode: such an Envoy forwards what it has."""
        talk = three_pods()
        talk.say(bare_headers(JSON))
        talk.clock.advance(1)
        talk.say(request_body(generation()))

        _, body = talk.say(response_headers(), response_body(b"{}", end=True))

        assert body.HasField("response_body")
        assert not body.response_body.response.HasField("body_mutation")

"""A request that names an ID goes to the pod that made it."""

import json
from typing import Any

import pytest

from lora_router.extproc.pb.ext_proc_pb2 import ProcessingResponse
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.extproc.sticky_ids import MAX_WAITING
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from tests.fleet import make_fleet, make_pod, state_of
from tests.unit.extproc.conversation import (
    Conversation,
    read_answer,
    request_body,
    request_headers,
    response_body,
    response_headers,
    served_by,
    told,
)

STREAMED, FULL_DUPLEX = ProcessingMode.STREAMED, ProcessingMode.FULL_DUPLEX_STREAMED
CREATED = b'{"id":"resp_1","object":"response"}'


def conversation(pods: int = 4, **options: Any) -> Conversation:
    return Conversation(make_fleet(pods), **options)


def body(**fields: object) -> bytes:
    return json.dumps({"model": "sql-lora", **fields}).encode()


def pod_of(answer: ProcessingResponse) -> str:
    part = answer.request_body if answer.HasField("request_body") else answer.request_headers
    return told(part.response.header_mutation).set["target-pod"]


def error(answer: ProcessingResponse) -> tuple[int, dict[str, str]]:
    response = answer.immediate_response
    return response.status.code, json.loads(response.body)["error"]


def create(talk: Conversation, answer: bytes = CREATED, **fields: object) -> str:
    """Make a response; return the address of the pod that made it."""
    talk.session = talk.another()
    _, routed = talk.say(request_headers("/v1/responses"), request_body(body(**fields)))
    talk.say(response_headers(), response_body(answer, end=True))
    talk.session.end()
    return pod_of(routed)


class TestWhatARouterLearns:
    def test_it_asks_for_the_answer_and_only_there(self) -> None:
        talk = conversation()
        talk.say(request_headers("/v1/responses"), request_body(body()))

        (answer,) = talk.say(response_headers())

        assert answer.HasField("response_headers")
        assert answer.mode_override.response_body_mode == STREAMED
        assert answer.mode_override.response_trailer_mode == ProcessingMode.SEND

    @pytest.mark.parametrize(
        ("path", "status", "fields"),
        [
            ("/v1/chat/completions", "200", {}),
            ("/v1/responses", "400", {}),
            ("/v1/responses", "200", {"store": False}),
        ],
        ids=["another path", "an error", "nothing is stored"],
    )
    def test_it_leaves_other_answers_alone(
        self, path: str, status: str, fields: dict[str, object]
    ) -> None:
        talk = conversation()
        talk.say(request_headers(path), request_body(body(**fields)))

        (answer,) = talk.say(response_headers(status))

        assert not answer.HasField("mode_override")

    def test_each_piece_of_the_answer_passes_unchanged(self) -> None:
        talk = conversation()
        talk.say(request_headers("/v1/responses"), request_body(body(stream=True)))
        talk.say(response_headers(content_type="text/event-stream"))

        first, second = talk.say(
            response_body(b'data: {"response":' + CREATED + b"}\n\n", end=False),
            response_body(b"data: x\n\n", end=True),
        )

        assert first == second
        assert not first.response_body.response.HasField("body_mutation")
        assert talk.context.ids.made.find("resp_1")

    def test_the_pod_that_answered_made_it_not_the_one_that_was_picked(self) -> None:
        talk = conversation()
        _, routed = talk.say(request_headers("/v1/responses"), request_body(body()))
        other = next(
            state.pod.address for state in talk.fleet if state.pod.address != pod_of(routed)
        )

        talk.say(response_headers(attributes=served_by(other)), response_body(CREATED, end=True))

        assert talk.context.ids.made.find("resp_1") == (other, "")

    def test_where_all_answers_come_unasked_it_asks_for_none(self) -> None:
        talk = conversation()
        talk.say(
            request_headers("/v1/responses", mode=FULL_DUPLEX, response_body_mode=FULL_DUPLEX),
            request_body(body()),
        )

        headers, piece = talk.say(response_headers(), response_body(CREATED, end=True))

        assert not headers.HasField("mode_override")
        streamed = piece.response_body.response.body_mutation.streamed_response
        assert (streamed.body, streamed.end_of_stream) == (CREATED, True)
        assert talk.context.ids.made.find("resp_1")

    def test_files_are_learned_without_a_look_at_the_upload(self) -> None:
        talk = conversation()
        (routed,) = talk.say(request_headers("/v1/files", content_type="multipart/form-data"))
        talk.say(response_headers(), response_body(b'{"id":"file-1"}', end=True))

        assert talk.context.ids.made.find("file-1") == (pod_of(routed), "")

    def test_a_gateway_that_sends_no_bodies_is_noticed_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        talk = conversation()
        for _ in range(8):
            talk.session = talk.another()
            talk.say(request_headers("/v1/responses"), request_body(body()), response_headers())
            talk.session.end()

        assert "allow_mode_override: true" in str(talk.context.gateway.status())
        assert caplog.text.count("allow_mode_override") == 1

        create(talk)
        assert talk.context.gateway.status() == {}


class TestWhereItGoes:
    def test_paths_with_an_id(self) -> None:
        talk = conversation()
        maker = create(talk)

        for path, method in [
            ("/v1/responses/resp_1", "GET"),
            ("/v1/responses/resp_1?stream=true", "GET"),
            ("/v1/responses/resp_1/input_items", "GET"),
            ("/v1/responses/resp_1/cancel", "POST"),
            ("/v1/responses/resp_1", "DELETE"),
        ]:
            talk.session = talk.another()
            (answer,) = talk.say(request_headers(path, method=method, end=True))
            assert pod_of(answer) == maker

    @pytest.mark.parametrize("field", ["previous_response_id", "conversation"])
    def test_bodies_that_name_one(self, field: str) -> None:
        talk = conversation()
        maker = create(talk)
        busy = next(state for state in talk.fleet if state.pod.address == maker)
        load = [talk.fleet.ledger.reserve(busy, None) for _ in range(10)]

        talk.session = talk.another()
        _, answer = talk.say(
            request_headers("/v1/responses"), request_body(body(**{field: "resp_1"}))
        )

        assert pod_of(answer) == maker
        assert busy.in_flight == 1 + len(load)
        assert dict(busy.in_flight_adapters) == {"sql-lora": 1}
        assert talk.decisions.seen[-1] == ("least-request", "routed", "sticky")

    def test_a_chain_of_responses_stays_on_its_pod(self) -> None:
        talk = conversation()
        makers = [create(talk)]
        for number in range(1, 5):
            answer = json.dumps({"id": f"resp_{number + 1}"}).encode()
            makers.append(create(talk, answer, previous_response_id=f"resp_{number}"))

        assert len(set(makers)) == 1

    def test_a_batch_runs_where_its_file_is_and_so_do_the_files_that_it_makes(self) -> None:
        talk = conversation()
        maker = state_of(talk.fleet, 3)
        talk.context.ids.made.learn("file-1", maker)

        talk.session = talk.another()
        _, made = talk.say(
            request_headers("/v1/batches"), request_body(b'{"input_file_id":"file-1"}')
        )
        talk.say(response_headers(), response_body(b'{"id":"batch_1"}', end=True))
        talk.session = talk.another()
        (read,) = talk.say(request_headers("/v1/batches/batch_1", method="GET", end=True))
        talk.say(
            response_headers(),
            response_body(b'{"id":"batch_1","output_file_id":"file-2"}', end=True),
        )
        talk.session = talk.another()
        (content,) = talk.say(request_headers("/v1/files/file-2/content", method="GET", end=True))

        assert {pod_of(answer) for answer in (made, read, content)} == {maker.pod.address}
        assert talk.decisions.seen[-1] == ("sticky", "routed", "sticky")

    def test_a_body_in_pieces_goes_on_to_the_pod(self) -> None:
        talk = conversation()
        maker = create(talk)
        talk.session = talk.another()

        headers, piece = talk.say(
            request_headers("/v1/responses", mode=FULL_DUPLEX),
            request_body(body(previous_response_id="resp_1")),
        )

        assert pod_of(headers) == maker
        assert piece.request_body.response.body_mutation.HasField("streamed_response")


class TestLostIds:
    @pytest.mark.parametrize(
        ("path", "code"),
        [
            ("/v1/responses/x", "response_not_found"),
            ("/v1/files/x", "file_not_found"),
            ("/v1/batches/x", "batch_not_found"),
            ("/v1/conversations/x", "conversation_not_found"),
            ("/v1/videos/x", "video_not_found"),
        ],
    )
    def test_an_unknown_one_is_404_with_a_reason(self, path: str, code: str) -> None:
        talk = conversation()

        (answer,) = talk.say(request_headers(path, method="GET", end=True))

        status, document = error(answer)
        assert (status, document["code"]) == (404, code)
        assert "no pod is known to have made it" in document["message"]
        assert talk.fleet.ledger.total == 0
        assert talk.decisions.seen == [("none", "refused", "id-not-found")]

    def test_one_of_a_pod_that_is_gone_says_so(self) -> None:
        talk = conversation()
        maker = create(talk)
        gone = next(state.pod.name for state in talk.fleet if state.pod.address == maker)
        talk.fleet.remove(gone)
        talk.session = talk.another()

        _, answer = talk.say(
            request_headers("/v1/responses"), request_body(body(previous_response_id="resp_1"))
        )

        status, document = error(answer)
        assert (status, document["param"]) == (404, "previous_response_id")
        assert "the pod that made it is gone" in document["message"]

    def test_another_pod_at_the_same_address_did_not_make_it(self) -> None:
        talk = Conversation(Fleet())
        talk.fleet.replace([make_pod(1, uid="a"), make_pod(2)])
        talk.context.ids.made.learn("resp_1", state_of(talk.fleet, 1))
        talk.fleet.replace([make_pod(1, uid="b"), make_pod(2)])

        (answer,) = talk.say(request_headers("/v1/responses/resp_1", method="GET", end=True))

        assert error(answer)[0] == 404

    def test_the_only_pod_answers_for_itself(self) -> None:
        (answer,) = conversation(1).say(request_headers("/v1/responses/x", method="GET", end=True))

        assert pod_of(answer) == "10.0.0.1:8000"

    def test_pods_that_share_what_they_store_get_unknown_ones(self) -> None:
        talk = conversation(pass_unknown_ids=True)

        (by_path,) = talk.say(request_headers("/v1/responses/x", method="GET", end=True))
        talk.session = talk.another()
        _, by_body = talk.say(
            request_headers("/v1/responses"), request_body(body(previous_response_id="x"))
        )

        assert pod_of(by_path)
        assert pod_of(by_body)

    def test_a_model_that_the_pod_does_not_serve_is_refused(self) -> None:
        talk = conversation()
        maker = create(talk)
        for state in talk.fleet:
            if state.pod.address != maker:
                talk.fleet.put_models(state, [ServedModel("base"), ServedModel("other", "base")])
        talk.session = talk.another()

        _, answer = talk.say(
            request_headers("/v1/responses"),
            request_body(body(model="other", previous_response_id="resp_1")),
        )

        status, document = error(answer)
        assert (status, document["code"]) == (400, "model_elsewhere")

    @pytest.mark.parametrize(
        ("options", "status", "code"),
        [
            ({"subset": ["10.0.0.9:8000"]}, 503, "no_pod_selected"),
            ({"headers": [("routing-strategy", b"nope")]}, 400, "invalid_routing_strategy"),
        ],
    )
    def test_what_the_gateway_or_the_client_forbids_is_refused(
        self, options: dict[str, Any], status: int, code: str
    ) -> None:
        talk = conversation()
        create(talk)
        talk.session = talk.another()

        _, answer = talk.say(
            request_headers("/v1/responses", **options),
            request_body(body(previous_response_id="resp_1")),
        )

        assert error(answer)[0] == status
        assert error(answer)[1]["code"] == code

    def test_a_pod_that_is_not_ready_may_be_later(self) -> None:
        talk = conversation()
        maker = create(talk)
        number = int(maker.split(".")[3].split(":")[0])
        talk.fleet.upsert(make_pod(number, ready=False))
        talk.session = talk.another()

        (answer,) = talk.say(request_headers("/v1/responses/resp_1", method="GET", end=True))

        assert error(answer)[0] == 503

    def test_a_batch_without_a_file_is_the_pods_to_refuse(self) -> None:
        talk = conversation()

        _, answer = talk.say(request_headers("/v1/batches"), request_body(b"{}"))

        assert pod_of(answer)


class TestIdsThatPeersTell:
    """A client may know an ID a moment before the peer of the router that learned it."""

    def shared(self) -> Conversation:
        talk = conversation()
        talk.context.ids.made.share()
        return talk

    def test_a_request_waits_a_moment_for_them(self) -> None:
        talk = self.shared()
        maker = state_of(talk.fleet, 3)

        (by_path,) = talk.say(request_headers("/v1/responses/resp_1", method="GET", end=True))
        talk.context.ids.made.hear("resp_1", maker)
        talk.clock.advance(0.2)

        assert by_path.HasField("override_message_timeout")
        (answer,) = map(read_answer, talk.late)
        assert pod_of(answer) == maker.pod.address

    @pytest.mark.parametrize("mode", [ProcessingMode.BUFFERED, FULL_DUPLEX])
    def test_bodies_wait_too(self, mode: "ProcessingMode.BodySendMode") -> None:
        talk = self.shared()
        maker = state_of(talk.fleet, 2)

        talk.say(
            request_headers("/v1/responses", mode=mode),
            request_body(body(previous_response_id="resp_1")),
        )
        talk.context.ids.made.hear("resp_1", maker)
        talk.clock.advance(0.2)

        answer, *pieces = map(read_answer, talk.late)
        assert pod_of(answer) == maker.pod.address
        assert len(pieces) == (mode == FULL_DUPLEX)

    def test_then_an_unknown_one_is_refused(self) -> None:
        talk = self.shared()
        talk.say(request_headers("/v1/responses/resp_1", method="GET", end=True))

        talk.clock.advance(0.2)

        (answer,) = map(read_answer, talk.late)
        assert error(answer)[0] == 404
        assert talk.context.ids.waiting == 0

    def test_a_router_that_stalls_waits_again_for_what_it_could_not_read_meanwhile(self) -> None:
        talk = self.shared()
        maker = state_of(talk.fleet, 3)
        talk.say(request_headers("/v1/responses/resp_1", method="GET", end=True))

        talk.clock.stall(2.0)
        assert not talk.late
        talk.context.ids.made.hear("resp_1", maker)
        talk.clock.stall(2.0)

        (answer,) = map(read_answer, talk.late)
        assert pod_of(answer) == maker.pod.address
        assert talk.context.ids.waiting == 0

    def test_a_client_that_leaves_is_forgotten(self) -> None:
        talk = self.shared()
        talk.say(request_headers("/v1/responses/resp_1", method="GET", end=True))

        talk.clock.stall(2.0)
        talk.session.end()
        talk.clock.advance(1)

        assert not talk.late
        assert talk.context.ids.waiting == 0

    def test_the_number_that_waits_is_limited(self) -> None:
        talk = self.shared()
        message = request_headers("/v1/responses/resp_1", method="GET", end=True)
        for _ in range(MAX_WAITING):
            talk.another().receive(message.SerializeToString())

        (answer,) = talk.say(message)

        assert error(answer)[0] == 404

    def test_where_meanwhile_one_pod_is_left_it_answers_for_itself(self) -> None:
        talk = self.shared()
        talk.say(
            request_headers("/v1/responses"),
            request_body(body(previous_response_id="resp_1")),
        )
        talk.fleet.update((), gone=["pod-1", "pod-2", "pod-3"])

        talk.clock.advance(0.2)

        (answer,) = map(read_answer, talk.late)
        assert pod_of(answer) == "10.0.0.4:8000"


def test_a_stream_that_ends_early_teaches_nothing() -> None:
    talk = conversation()
    talk.say(request_headers("/v1/responses"), request_body(body()), response_headers())

    talk.session.end()

    assert len(talk.context.ids.made) == 0

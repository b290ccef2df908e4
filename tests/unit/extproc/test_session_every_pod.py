"""Loads and unloads of adapters go to every pod, where ``admin_paths`` allows them."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lora_router.extproc.every_pod import MAX_CALLS, EveryPod
from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.pb.ext_proc_pb2 import ImmediateResponse
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.pod_calls import PodRequest, PodResult
from lora_router.fleet.pod_state import PodState
from tests.fleet import make_fleet, make_pod, state_of
from tests.unit.extproc.conversation import (
    Conversation,
    read_answer,
    request_body,
    request_headers,
    request_trailers,
)

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
BODY = b'{"lora_name": "new", "lora_path": "/a"}'


class Pods:
    """Keeps what pods are sent until a test lets them answer."""

    def __init__(self) -> None:
        self.calls: list[tuple[Sequence[PodState], PodRequest]] = []
        self._done: list[Callable[[Sequence[PodResult]], None]] = []

    def call(
        self,
        states: Sequence[PodState],
        request: PodRequest,
        _seconds: float,
        on_done: Callable[[Sequence[PodResult]], None],
    ) -> None:
        self.calls.append((states, request))
        self._done.append(on_done)

    def answer(self, *statuses: int) -> None:
        """Let the pods of the last call answer: with these statuses, or all with 200."""
        states, _ = self.calls[-1]
        listed = statuses or (200,) * len(states)
        self._done[-1](
            [PodResult(state, status, "said") for state, status in zip(states, listed, strict=True)]
        )

    @property
    def names(self) -> list[str]:
        states, _ = self.calls[-1]
        return [state.pod.name for state in states]


class Talk(Conversation):
    """A conversation with a router that allows administrative paths."""

    def __init__(self, pods: int = 3, **options: Any) -> None:
        names = HeaderNames(passes_authorization=True)
        super().__init__(make_fleet(pods), admin_allowed=True, headers=names, **options)
        self.pods = Pods()
        every_pod = EveryPod(self.context.director, self.pods)
        object.__setattr__(self.context, "every_pod", every_pod)

    def ask(self, path: str = LOAD, body: bytes = BODY, **more: Any) -> Any:
        """Send a request; return the last answer of the router."""
        self.session = self.another()
        return self.say(request_headers(path, **more), request_body(body))[-1]

    def answered(self) -> tuple[ImmediateResponse, Any]:
        (answer,) = map(read_answer, self.late)
        response = answer.immediate_response
        return response, json.loads(response.body)


def test_every_ready_pod_gets_it() -> None:
    talk = Talk()

    more_time = talk.ask(f"{LOAD}?a=b", headers=[("authorization", b"Bearer key")])
    talk.pods.answer()

    assert more_time.HasField("override_message_timeout")
    ((_, request),) = talk.pods.calls
    assert talk.pods.names == ["pod-1", "pod-2", "pod-3"]
    assert request == PodRequest("POST", f"{LOAD}?a=b", BODY, "application/json", "Bearer key")
    response, document = talk.answered()
    assert response.status.code == 200
    assert [(each["pod"], each["status"]) for each in document["pods"]] == [
        ("pod-1", 200),
        ("pod-2", 200),
        ("pod-3", 200),
    ]
    assert talk.decisions.seen == [("none", "answered", "every-pod")]
    assert talk.fleet.ledger.total == 0


def test_the_status_is_that_of_the_first_pod_that_failed() -> None:
    talk = Talk()
    talk.ask()

    talk.pods.answer(200, 400, 500)

    response, document = talk.answered()
    assert response.status.code == 400
    assert document["error"]["code"] == "pods_failed"
    assert "2 of 3 pods failed" in document["error"]["message"]
    assert [each["status"] for each in document["pods"]] == [200, 400, 500]


@pytest.mark.parametrize(
    ("path", "statuses", "status"),
    [
        (UNLOAD, (404, 200, 404), 200),
        (UNLOAD, (404, 404, 404), 404),
        (UNLOAD, (404, 200, 500), 500),
        (LOAD, (404, 200, 200), 404),
    ],
)
def test_a_pod_that_has_nothing_to_unload_did_not_fail(
    path: str, statuses: tuple[int, ...], status: int
) -> None:
    talk = Talk()
    talk.ask(path)

    talk.pods.answer(*statuses)

    assert talk.answered()[0].status.code == status


def test_the_lists_of_the_pods_are_read_again() -> None:
    talk = Talk()
    read: list[str] = []
    talk.fleet.changes.doubted.subscribe(lambda states: read.extend(s.pod.name for s in states))
    talk.ask()

    talk.pods.answer()

    assert read == ["pod-1", "pod-2", "pod-3"]


class TestWhichPods:
    def talk(self) -> Talk:
        talk = Talk()
        talk.fleet.upsert(make_pod(3, labels={"zone": "b"}))
        talk.fleet.put_models(
            state_of(talk.fleet, 3), [ServedModel("other"), ServedModel("theirs", "other")]
        )
        return talk

    @pytest.mark.parametrize(
        ("body", "names"),
        [
            (b'{"lora_name": "new", "base_model_name": "other"}', ["pod-3"]),
            (b'{"lora_name": "new", "model": "base"}', ["pod-1", "pod-2"]),
            (b'{"lora_name": "sql-lora"}', ["pod-1", "pod-2"]),
            (b'{"lora_name": "theirs"}', ["pod-3"]),
            (b'{"lora_name": "new"}', ["pod-1", "pod-2", "pod-3"]),
            (b"not json", ["pod-1", "pod-2", "pod-3"]),
            (b'{"lora_name": 5}', ["pod-1", "pod-2", "pod-3"]),
        ],
    )
    def test_those_of_the_base_model(self, body: bytes, names: list[str]) -> None:
        talk = self.talk()

        talk.ask(body=body)

        assert talk.pods.names == names

    def test_those_that_the_filter_and_the_gateway_allow(self) -> None:
        talk = self.talk()

        talk.ask(headers=[("external-filter", b"zone=b")])
        filtered = talk.pods.names
        talk.ask(subset=["10.0.0.1:8000"])

        assert (filtered, talk.pods.names) == (["pod-3"], ["pod-1"])

    def test_a_base_model_that_nobody_serves_is_refused(self) -> None:
        answer = self.talk().ask(body=b'{"base_model_name": "none"}')

        assert answer.immediate_response.status.code == 404

    def test_without_a_ready_pod_it_is_refused(self) -> None:
        answer = Talk(0).ask()

        assert answer.immediate_response.status.code == 503


class TestTheSession:
    def test_a_client_that_leaves_does_not_stop_it(self) -> None:
        talk = Talk()
        talk.ask()
        every_pod = talk.context.every_pod
        assert every_pod is not None

        talk.session.end()
        running = every_pod.calls
        talk.pods.answer()

        assert (running, every_pod.calls) == (1, 0)
        assert not talk.late

    def test_a_body_in_pieces_is_collected(self) -> None:
        talk = Talk()

        talk.say(
            request_headers(LOAD, mode=ProcessingMode.FULL_DUPLEX_STREAMED),
            request_body(BODY[:5], end=False),
            request_body(BODY[5:], end=False),
            request_trailers(),
        )
        talk.pods.answer()

        assert talk.pods.calls[0][1].body == BODY
        assert talk.answered()[0].status.code == 200

    def test_without_a_body_pods_say_what_is_wrong(self) -> None:
        talk = Talk()

        talk.say(request_headers(LOAD, end=True))
        talk.pods.answer(422, 422, 422)

        assert talk.answered()[0].status.code == 422

    def test_few_run_at_the_same_time(self) -> None:
        talk = Talk()
        for _ in range(MAX_CALLS):
            talk.ask()

        answer = talk.ask()

        assert answer.immediate_response.status.code == 503
        talk.pods.answer()
        assert talk.ask().HasField("override_message_timeout")

    def test_below_a_prefix_that_the_gateway_removes_the_pods_get_the_path(self) -> None:
        talk = Talk()

        talk.ask("/llm/v1/load_lora_adapter")

        assert talk.pods.calls[0][1].path == LOAD

    def test_other_administrative_paths_go_to_one_pod(self) -> None:
        talk = Talk()

        answer = talk.ask("/sleep", b"")

        assert answer.HasField("request_body")
        assert not talk.pods.calls

    def test_without_the_setting_it_is_refused(self) -> None:
        (answer,) = Conversation().say(request_headers(LOAD))

        assert answer.immediate_response.status.code == 404

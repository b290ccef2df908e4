"""The router answers questions about models itself."""

import json
from typing import Any
from unittest.mock import patch

import pytest

from lora_router.extproc import model_lists
from lora_router.extproc.model_lists import MAX_PENDING, MAX_WAITING, WAIT_SECONDS
from lora_router.extproc.outputs import BodyPiece
from lora_router.extproc.pb.ext_proc_pb2 import ImmediateResponse, ProcessingResponse
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.routing.model_names import NamePolicy
from lora_router.routing.model_rewrites import Rewrite, Target
from tests.fleet import make_fleet, make_pod, state_of
from tests.unit.extproc.conversation import Conversation, read_answer, request_headers

ANTHROPIC = ("anthropic-version", b"2023-06-01")
MANY = 5_000


def ask(
    talk: Conversation, path: str = "/v1/models", method: str = "GET", **more: Any
) -> ImmediateResponse:
    (answer,) = talk.say(request_headers(path, method=method, end=True, **more))
    return answer.immediate_response


def document(response: ImmediateResponse) -> Any:
    assert response.status.code == 200, response.body
    return json.loads(response.body)


def names(response: ImmediateResponse) -> list[str]:
    return [model["id"] for model in document(response)["data"]]


def error(response: ImmediateResponse) -> tuple[int, str]:
    return response.status.code, json.loads(response.body)["error"]["code"]


def two_kinds_of_pods() -> Fleet:
    fleet = make_fleet(2, adapters=["sql"])
    fleet.upsert(make_pod(3, labels={"zone": "b"}))
    fleet.put_models(state_of(fleet, 3), [ServedModel("base"), ServedModel("team/chat", "base")])
    return fleet


class TestTheList:
    def test_it_is_the_union_over_the_ready_pods(self) -> None:
        talk = Conversation(two_kinds_of_pods())

        response = ask(talk)

        assert names(response) == ["base", "sql", "team/chat"]
        headers = {each.header.key: each.header.raw_value for each in response.headers.set_headers}
        assert headers["content-type"] == b"application/json"
        assert talk.fleet.ledger.total == 0
        assert talk.decisions.seen == [("none", "answered", "models")]

    def test_models_of_pods_that_are_not_ready_are_left_out(self) -> None:
        fleet = two_kinds_of_pods()
        fleet.upsert(make_pod(3, ready=False))

        assert names(ask(Conversation(fleet))) == ["base", "sql"]

    def test_it_follows_what_pods_load(self) -> None:
        talk = Conversation(make_fleet(1))
        before = names(ask(talk))
        talk.fleet.put_models(state_of(talk.fleet, 1), [ServedModel("base")])
        talk.session = talk.another()

        assert (before, names(ask(talk))) == (["base", "sql-lora"], ["base"])

    def test_a_filter_and_a_subset_narrow_it(self) -> None:
        fleet = two_kinds_of_pods()
        filtered = ask(Conversation(fleet), headers=[("external-filter", b"zone=b")])
        subset = ask(Conversation(fleet), subset=["10.0.0.1:8000"])

        assert names(filtered) == ["base", "team/chat"]
        assert names(subset) == ["base", "sql"]

    def test_a_filter_that_is_none_is_refused(self) -> None:
        response = ask(Conversation(), headers=[("external-filter", b"=(")])

        assert error(response) == (400, "invalid_external_filter")

    def test_what_is_known_of_some_pods_is_listed_before_all_were_read(self) -> None:
        fleet = make_fleet(1)
        fleet.upsert(make_pod(2))

        assert names(ask(Conversation(fleet))) == ["base", "sql-lora"]

    def test_before_any_pod_was_read_the_client_may_try_again(self) -> None:
        fleet = Fleet()
        fleet.replace([make_pod(1)])

        assert error(ask(Conversation(fleet))) == (503, "models_unknown")

    def test_without_a_ready_pod_there_is_none(self) -> None:
        assert error(ask(Conversation(Fleet()))) == (503, "no_ready_pod")

    def test_anthropics_clients_get_their_shape(self) -> None:
        page = document(
            ask(Conversation(two_kinds_of_pods()), "/v1/models?limit=2", headers=[ANTHROPIC])
        )

        assert [model["id"] for model in page["data"]] == ["base", "sql"]
        assert page["data"][0]["type"] == "model"
        assert page["has_more"]

    def test_a_query_that_is_wrong_is_refused(self) -> None:
        response = ask(Conversation(), "/v1/models?limit=x", headers=[ANTHROPIC])

        assert response.status.code == 400

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_it_is_found_with_a_slash_and_a_prefix(self, method: str) -> None:
        talk = Conversation(make_fleet(1), prefixes=["/llm"])

        assert names(ask(talk, "/llm/v1/models/", method)) == ["base", "sql-lora"]


class TestOneModel:
    @pytest.mark.parametrize(
        ("name", "parent"), [("base", None), ("team/chat", "base"), ("team%2Fchat", "base")]
    )
    def test_it_is_described(self, name: str, parent: str | None) -> None:
        model = document(ask(Conversation(two_kinds_of_pods()), f"/v1/models/{name}"))

        assert model["id"] == name.replace("%2F", "/")
        assert model["parent"] == parent

    def test_anthropics_clients_get_their_shape(self) -> None:
        model = document(ask(Conversation(), "/v1/models/sql-lora", headers=[ANTHROPIC]))

        assert (model["type"], model["display_name"]) == ("model", "sql-lora")

    def test_an_unknown_one_is_404(self) -> None:
        talk = Conversation()

        assert error(ask(talk, "/v1/models/nobody")) == (404, "model_not_found")
        assert talk.decisions.seen == [("none", "refused", "model-not-found")]

    def test_one_that_only_other_pods_serve_is_refused(self) -> None:
        response = ask(
            Conversation(two_kinds_of_pods()), "/v1/models/sql", subset=["10.0.0.3:8000"]
        )

        assert error(response) == (503, "no_pod_selected")


class TestRewrittenNames:
    def talk(self) -> Conversation:
        rewrites = (
            Rewrite("gpt-small", (Target("team/chat"), Target("sql"))),
            Rewrite("gpt-base", (Target("base"),)),
            Rewrite("gpt-gone", (Target("nobody"),)),
            Rewrite("claude-*", (Target("sql"),)),
        )
        return Conversation(two_kinds_of_pods(), names=NamePolicy(rewrites))

    def test_those_that_a_pod_serves_are_listed(self) -> None:
        models = document(ask(self.talk()))["data"]

        assert {each["id"]: each["parent"] for each in models} == {
            "base": None,
            "gpt-base": None,
            "gpt-small": None,
            "sql": "base",
            "team/chat": "base",
        }

    def test_the_list_follows_them(self) -> None:
        talk = self.talk()
        before = names(ask(talk))
        further = Rewrite("gpt-later", (Target("sql"),))
        talk.context.director.names.replace_rewrites([further])
        talk.session = talk.another()

        assert set(names(ask(talk))) - set(before) == {"gpt-later"}

    @pytest.mark.parametrize("name", ["gpt-small", "claude-opus"])
    def test_each_is_found(self, name: str) -> None:
        model = document(ask(self.talk(), f"/v1/models/{name}"))

        assert (model["id"], model["object"]) == (name, "model")

    def test_one_that_leads_to_no_pod_is_404(self) -> None:
        assert error(ask(self.talk(), "/v1/models/gpt-gone"))[0] == 404


class TestALongList:
    def talk(self) -> Conversation:
        return Conversation(make_fleet(1, adapters=[f"adapter-{n:05}" for n in range(MANY)]))

    def late(self, talk: Conversation) -> list[ProcessingResponse]:
        return [read_answer(output) for output in talk.late]

    def test_it_is_made_in_steps_while_the_request_waits(self) -> None:
        talk = self.talk()

        (more_time,) = talk.say(request_headers("/v1/models", method="GET", end=True))
        nothing_yet = not talk.late
        talk.clock.advance(5)

        assert more_time.override_message_timeout.seconds >= WAIT_SECONDS
        assert nothing_yet
        (answer,) = self.late(talk)
        assert len(names(answer.immediate_response)) == MANY + 1

    def test_the_next_request_gets_it_at_once(self) -> None:
        talk = self.talk()
        talk.say(request_headers("/v1/models", method="GET", end=True))
        talk.clock.advance(5)
        talk.session = talk.another()

        assert len(names(ask(talk))) == MANY + 1

    def test_all_who_wait_get_the_same_one(self) -> None:
        talk = self.talk()
        sessions = [talk.another() for _ in range(50)]
        message = request_headers("/v1/models", method="GET", end=True).SerializeToString()
        for session in sessions:
            session.receive(message)

        talk.clock.advance(5)

        assert len(talk.late) == 50
        pieces = [output for output in talk.late if isinstance(output, BodyPiece)]
        assert len({id(piece.body.obj) for piece in pieces}) == 1

    def test_a_client_that_leaves_gets_nothing(self) -> None:
        talk = self.talk()
        talk.say(request_headers("/v1/models", method="GET", end=True))

        talk.session.end()
        talk.clock.advance(20)

        assert not talk.late

    def test_the_number_of_requests_that_wait_is_limited(self) -> None:
        talk = self.talk()
        message = request_headers("/v1/models", method="GET", end=True).SerializeToString()
        waiting = [talk.another() for _ in range(MAX_WAITING)]
        for session in waiting:
            session.receive(message)

        assert error(ask(talk)) == (503, "router_overloaded")

        waiting[0].end()
        talk.session = talk.another()
        (more_time,) = talk.say(request_headers("/v1/models", method="GET", end=True))
        assert more_time.HasField("override_message_timeout")

    def test_the_number_of_lists_that_clients_can_ask_for_is_limited(self) -> None:
        fleet = Fleet()
        fleet.replace(make_pod(n, labels={"n": str(n)}) for n in range(1, MAX_PENDING + 2))
        for number, state in enumerate(fleet):
            models = [ServedModel(f"adapter-{number}-{n}", "base") for n in range(2_000)]
            fleet.put_models(state, models)
        talk = Conversation(fleet)
        for number in range(1, MAX_PENDING + 1):
            talk.session = talk.another()
            label = f"n={number}".encode()
            talk.say(
                request_headers(
                    "/v1/models", method="GET", end=True, headers=[("external-filter", label)]
                )
            )
        talk.session = talk.another()

        last = ask(talk, headers=[("external-filter", f"n={MAX_PENDING + 1}".encode())])

        assert error(last) == (503, "router_overloaded")
        talk.clock.advance(9)
        assert len(talk.late) == MAX_PENDING

    @pytest.mark.slow
    def test_a_burst_of_long_documents_leaves_at_a_limited_rate(self) -> None:
        talk = self.talk()
        message = request_headers("/v1/models", method="GET", end=True).SerializeToString()
        talk.session.receive(message)
        talk.clock.advance(5)
        size = sum(len(each.body) for each in talk.late if isinstance(each, BodyPiece))
        sessions = [talk.another() for _ in range(2 * model_lists.BURST_BYTES // size)]

        at_once = [session.receive(message) for session in sessions]
        immediate = sum(read_answer(answer).HasField("immediate_response") for (answer,) in at_once)
        talk.clock.advance(1)

        assert immediate * size <= model_lists.BURST_BYTES + size
        assert immediate + len(talk.late) - 1 == len(sessions)
        assert all(len(names(each.immediate_response)) == MANY + 1 for each in self.late(talk)[:2])

    def test_a_list_that_takes_too_long_is_refused(self) -> None:
        talk = self.talk()
        with patch.object(model_lists.ModelLists, "_begin"):
            talk.say(request_headers("/v1/models", method="GET", end=True))

        talk.clock.advance(WAIT_SECONDS)

        (answer,) = self.late(talk)
        assert error(answer.immediate_response) == (503, "router_overloaded")


class TestAliases:
    REWRITES = (
        Rewrite("gpt-small", (Target("gone"), Target("sql"))),
        Rewrite("gpt-old", (Target("gone"),)),
        Rewrite("sql", (Target("base"),)),
        Rewrite("claude*", (Target("base"),)),
    )

    def talk(self) -> Conversation:
        return Conversation(two_kinds_of_pods(), names=NamePolicy(self.REWRITES))

    def test_those_for_models_in_the_list_are_in_it(self) -> None:
        talk = self.talk()

        assert names(ask(talk)) == ["base", "gpt-small", "sql", "team/chat"]
        talk.session = talk.another()
        assert "gpt-small" not in names(ask(talk, headers=[("external-filter", b"zone=b")]))

    def test_each_of_them_is_a_model(self) -> None:
        for name in ("gpt-small", "claude-x"):
            found = document(ask(self.talk(), f"/v1/models/{name}"))
            assert found["id"] == name
        assert error(ask(self.talk(), "/v1/models/gpt-old")) == (404, "model_not_found")

    def test_the_list_follows_changes(self) -> None:
        talk = self.talk()
        assert "new" not in names(ask(talk))

        talk.context.director.names.replace_rewrites([Rewrite("new", (Target("base"),))])

        talk.session = talk.another()
        assert "new" in names(ask(talk))

"""Explanations in sentences: what would happen now, and what happened."""

import json
from collections.abc import Sequence

import pytest

from lora_router.admin.server import AdminServer, Readiness
from lora_router.debug.client import DebugClient
from lora_router.debug.fact_rows import RouterFacts
from lora_router.debug.gathering import NoAnswerError
from lora_router.debug.pages import DecisionPage
from lora_router.extproc.body import BodyError, checked_model
from lora_router.routing.outcome import Routed
from lora_router.telemetry.decisions import Decision
from lora_router.telemetry.exposition import Page
from lora_router.visible_text import visible
from tests.fleet import make_fleet, make_pod, state_of
from tests.unit.debug.debugged import Debugged, gathering, pages
from tests.unit.debug.test_pages import slots


def busy_router(pods: int = 3) -> Debugged:
    """A router whose pods have one slot each: `sql` runs on one, `law` on another."""
    router = Debugged(make_fleet(pods, adapters=("sql", "law", "med")))
    slots(router, 1)
    router.fleet.ledger.reserve(state_of(router.fleet, 1), "sql")
    router.fleet.ledger.reserve(state_of(router.fleet, 2), "law")
    return router


async def told(router: Debugged, **args: str) -> Sequence[str]:
    return (await gathering(router).explain(args)).text.splitlines()


def waits_and_is_served(router: Debugged, model: str, name: str) -> Decision:
    """Hold a request for 3 s, then route it, and answer it after 4 s more."""
    release = router.routed("sql").reservation.release
    held = router.held(model, name, request_id=name)
    decision = router.log.begin(name, "/v1/completions")
    decision.model = model
    decision.asked_at, decision.held_for = router.clock.now(), held.reason
    decision.held_looks = held.looks
    router.clock.advance(3.0)
    release()
    [(_, outcome)] = router.late
    assert isinstance(outcome, Routed)
    decision.decided_at = router.clock.now()
    decision.routed(outcome)
    router.log.decided(decision)
    router.clock.advance(4.0)
    decision.answered_at, decision.status = router.clock.now(), 200
    router.clock.advance(1.0)
    router.log.ended(decision)
    return decision


async def test_a_pick_is_told_with_its_cost_the_next_best_and_what_is_excluded() -> None:
    router = busy_router(4)
    router.fleet.upsert(make_pod(4, ready=False))

    assert await told(router, model="sql") == [
        "A request for sql would go to pod-1 now. lora-placement picks it (joined): the adapter "
        "has requests in flight there.",
        "sql runs on pod-1.",
        "pod-1 costs 2 (2 requests in flight), the least of 2.",
        "Others cost: pod-3 289 (1 request in flight + 240 to load the adapter + 48 for a "
        "further slot).",
        "Excluded: pod-2 (no free slot); pod-4 (not ready).",
    ]


async def test_a_hold_is_told_with_the_slot_that_is_emptied() -> None:
    router = Debugged(make_fleet(1, adapters=("sql", "law")))
    slots(router, 1)
    router.routed("sql")
    router.held("law")
    router.clock.advance(7.0)

    lines = await told(router, model="law")

    assert lines[:3] == [
        "A request for law would be held now. lora-placement holds it (no-slot): no pod has a "
        "free slot for the adapter, and it can join none.",
        "1 request with the same question waits already.",
        "The slot of sql on pod-1 is emptied for it.",
    ]


async def test_a_refusal_is_told_with_what_would_be_valid() -> None:
    lines = await told(busy_router(), model="sql", strategy="best")

    assert lines == [
        "A request for sql would be refused now (unknown-algorithm): there is no such algorithm.",
        "Known are lora-placement.",
    ]


async def test_a_body_over_the_limit_is_refused_whatever_it_asks_for() -> None:
    router = Debugged(make_fleet(1, adapters=("sql",)), facts=RouterFacts(max_body_bytes=2000))

    assert await told(router, model="sql", size="2001") == [
        "A request for sql would be refused now (body-too-large): its body is too large, which the "
        "client is told with status 413.",
        "A body may have at most 2,000 bytes (setting max_body_bytes).",
    ]
    [first, *_] = await told(router, model="sql", size="2000")
    assert first.startswith("A request for sql would go to pod-1 now.")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("a\nRequest forged", "contains characters that are not printable"),
        ("a\x1b[2J", "contains characters that are not printable"),
        (" a", "begins or ends with a space"),
        ("a" * 513, "is longer than 512 characters"),
    ],
)
async def test_a_name_that_requests_cannot_have_is_refused_although_a_pod_lists_it(
    name: str, wrong: str
) -> None:
    with pytest.raises(BodyError, match=wrong):
        checked_model(name)

    [first, second] = await told(Debugged(make_fleet(1, adapters=(name,))), model=name)

    assert first.startswith(f"A request for {visible(name)} would be refused now (bad-model-name):")
    assert second == f"The name of the model {wrong}."


async def test_names_begin_no_line_of_an_explanation() -> None:
    router = Debugged()
    router.record("r\nRequest forged", model="sql\nIt went to pod-9", pod="pod-1\x1b[2J")

    page = await gathering(router).decision({"id": "r\nRequest forged"})

    assert not any(line.startswith(("Request forged", "It went")) for line in page.text.split("\n"))
    assert all(line.isprintable() for line in page.text.split("\n"))


async def test_a_filter_that_cannot_be_read_excludes_no_pod() -> None:
    page = await gathering(busy_router()).explain({"model": "sql", "filter": "gpu==="})

    assert page.excluded == {}
    assert page.candidates == []
    [first, *rest] = page.text.splitlines()
    assert first == (
        "A request for sql would be refused now (bad-selector): the filter cannot be read."
    )
    assert not any("Excluded" in line for line in rest)


async def test_of_many_excluded_pods_some_are_named_and_all_are_counted() -> None:
    router = Debugged(make_fleet(200, adapters=("sql",)))
    for number in range(2, 201):
        router.fleet.upsert(make_pod(number, ready=False))

    page = await gathering(router).explain({"model": "sql"})

    assert page.excluded == {"not ready": 199}
    assert len(page.candidates) == 1 + 64
    assert page.more == 135
    assert page.text.splitlines()[-1] == (
        "Excluded: pod-2, pod-3, pod-4, pod-5, pod-6 and 194 more (not ready)."
    )


async def test_a_slow_request_is_told_with_the_parts_of_its_time_and_the_slot_it_waited_for() -> (
    None
):
    router = Debugged(make_fleet(1, adapters=("sql", "law")))
    slots(router, 1)
    waits_and_is_served(router, "law", "slow-one")

    page = await gathering(router).decision({"id": "slow-one"})
    lines = page.text.splitlines()

    assert lines[0] == (
        "Request slow-one (2023-11-14 22:13:20 UTC, /v1/completions) asked for law. It went to "
        "pod-1 (10.0.0.1:8000). lora-placement picked it (placed): it is the cheapest pod with a "
        "free slot."
    )
    assert lines[1:4] == [
        "It was held for 3.00 s (no-slot): no pod has a free slot for the adapter, and it can "
        "join none.",
        "When it began to wait, the router saw pod-1 (2 requests, no free slot).",
        "Then it got a slot of pod-1, where law was not loaded.",
    ]
    assert lines[4].startswith("Its first byte came after 7.00 s (held 3.00 s, decision ")
    # The decision takes real time, which is the pod's no more.
    assert 3.0 < float(lines[4].rpartition(", pod ")[2].removesuffix(" s).")) <= 4.0
    assert lines[5:7] == [
        "It ended after 8.00 s with status 200.",
        "It is slow: its first byte took longer than 5 s.",
    ]
    assert page.candidates[0].terms["adapter-load"] == pytest.approx(300)
    assert page.held_candidates[0].excluded == "no free slot"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_long_answer_that_is_not_streamed_is_slow_for_that_reason(stream: bool) -> None:
    router = Debugged(make_fleet(1, adapters=("sql",)))
    router.record("long-one", takes=6.0, model="sql", pod="pod-1", stream=stream)

    told = (await gathering(router).decision({"id": "long-one"})).text.splitlines()

    assert "It is slow: its first byte took longer than 5 s." in told
    because = "Its answer was not streamed, so the first byte came with the last one."
    assert (because in told) is not stream


async def test_a_request_that_is_held_now_is_told_although_nothing_is_decided() -> None:
    router = Debugged(make_fleet(1, adapters=("sql", "law")))
    slots(router, 1)
    router.routed("sql")
    router.held("law", request_id="waits")
    router.clock.advance(7.0)

    page = await gathering(router).decision({"id": "waits"})

    assert page.outcome == ""
    assert page.text.splitlines() == [
        "Request waits (2023-11-14 22:13:20 UTC) asked for law. It is held.",
        "It has been held for 7.00 s (no-slot): no pod has a free slot for the adapter, and it "
        "can join none.",
        "When it began to wait, the router saw pod-1 (2 requests, no free slot).",
        "The slot of sql on pod-1 is being emptied for it.",
    ]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"retried_on": "pod-2"},
            "pod-1 did not serve it. Envoy sent it to pod-2 instead.",
        ),
        ({"details": "upstream_reset"}, "Envoy itself answered: upstream_reset."),
        ({"unanswered": True}, "Its stream ended before an answer began."),
    ],
)
async def test_what_went_wrong_behind_the_router_is_told(
    fields: dict[str, object], line: str
) -> None:
    router = Debugged()
    router.record("r", model="sql-lora", pod="pod-1", **fields)  # type: ignore[arg-type]

    page = await gathering(router).decision({"id": "r"})

    assert line in page.text.splitlines()


async def test_candidates_of_an_ordinary_request_that_were_not_kept_are_told_as_such() -> None:
    router = Debugged()
    router.record("r", model="sql-lora", pod="pod-1")

    page = await gathering(router).decision({"id": "r"})

    assert "decisions_candidates_share" in page.text


async def test_an_unknown_request_is_an_error_that_says_why_that_may_be() -> None:
    shown = await pages(Debugged(), silent=("b",)).show("decisions/none", {})

    message = json.loads(shown.body)["error"]
    assert shown.status == 404
    assert message.startswith("request none is not known.")
    for part in ("setting decisions)", "decisions_share", "Routers that do not answer: b."):
        assert part in message


async def test_the_router_of_a_decision_can_be_named_and_the_newest_of_several_counts() -> None:
    one, two = Debugged(name="a"), Debugged(name="b")
    one.record("r", model="sql")
    two.clock.advance(10.0)
    two.record("r", model="law")

    both = gathering(one, two)

    assert (await both.decision({"id": "r"})).router == "b"
    assert (await both.decision({"id": "r", "router": "a"})).model == "sql"
    with pytest.raises(NoAnswerError):
        await both.decision({"id": "r", "router": "c"})


async def test_routers_that_would_answer_otherwise_are_listed() -> None:
    one, two = busy_router(), busy_router()
    two.name = "router-b"
    two.fleet.upsert(make_pod(1, ready=False))

    page = await gathering(one, two).explain({"model": "sql"})

    assert (page.router, page.pod) == ("router-a", "pod-1")
    assert [(each.router, each.pod) for each in page.others] == [("router-b", "pod-3")]


@pytest.mark.parametrize("request_id", [".", "..", "a\nb", "a/b?c#d", "%2e%2e", "名前", "a b"])
async def test_a_request_is_found_whatever_its_id_is(request_id: str) -> None:
    router = Debugged()
    router.record(request_id, model="sql")
    server = AdminServer(
        no_metrics, ready, lambda: 0.0, host="127.0.0.1", port=0, show=pages(router).show
    )
    await server.start()
    try:
        async with DebugClient(f"http://127.0.0.1:{server.port}") as client:
            found = await client.page(DecisionPage, {"id": request_id})
    finally:
        await server.stop()

    assert (found.request_id, found.model) == (request_id, "sql")


async def no_metrics(_accept: str) -> Page:
    return Page(b"", "text/plain")


def ready() -> Readiness:
    return Readiness(ready=True, reason="ready", details={})


@pytest.mark.parametrize(
    ("name", "query"),
    [("explain", {"model": "sql"}), ("decision", {"id": "r"}), ("decisions/r", {})],
)
async def test_explanations_are_json(name: str, query: dict[str, str]) -> None:
    router = busy_router()
    router.record("r", model="sql")

    shown = await pages(router).show(name, query)

    assert shown.status == 200
    assert {"router", "candidates", "text"} <= json.loads(shown.body).keys()


async def test_a_size_that_is_no_number_is_an_error_that_names_it() -> None:
    shown = await pages(busy_router()).show("explain", {"model": "sql", "size": "big"})

    assert json.loads(shown.body) == {
        "error": "size=big: must be a whole number from 0 to 1099511627776"
    }

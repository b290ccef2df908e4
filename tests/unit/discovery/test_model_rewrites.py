"""InferenceModelRewrite resources: what they mean, and how they are followed."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from lora_router.discovery import watch_pace
from lora_router.discovery.kubernetes_api import Credentials
from lora_router.discovery.model_rewrites import (
    MAX_REWRITES,
    POOL_GROUP,
    FollowedRewrites,
    LastValid,
    ModelRewriteObject,
    to_rewrites,
)
from lora_router.routing.model_rewrites import Rewrite, Target
from lora_router.supervision import Supervisor
from tests.unit.discovery.api_server import ApiServer, Document

PATH = "/apis/inference.networking.x-k8s.io/v1alpha2/namespaces/ml/inferencemodelrewrites"


def rule(*names: str, **targets: int | None) -> Document:
    return {
        "matches": [{"model": {"type": "Exact", "value": name}} for name in names],
        "targets": [
            {"modelRewrite": model} | ({} if weight is None else {"weight": weight})
            for model, weight in targets.items()
        ],
    }


def resource(
    name: str, *rules: Document, created: str = "2026-01-01", pool: str = "pool"
) -> Document:
    return {
        "metadata": {
            "name": name,
            "uid": f"{name}-{created}",
            "creationTimestamp": f"{created}T00:00:00Z",
        },
        "spec": {"poolRef": {"name": pool, "group": POOL_GROUP}, "rules": list(rules)},
    }


def read(*resources: Document) -> tuple[tuple[Rewrite, ...], tuple[str, ...]]:
    objects = msgspec.convert(resources, list[ModelRewriteObject])
    return to_rewrites(objects, "pool", POOL_GROUP)


def test_rules_with_weights_and_without() -> None:
    found, problems = read(
        resource("canary", rule("gpt-small", v1=90, v2=10), rule("a", "b", base=None), rule(any=1))
    )

    assert found == (
        Rewrite("gpt-small", (Target("v1", 90), Target("v2", 10))),
        Rewrite("a", (Target("base"),)),
        Rewrite("b", (Target("base"),)),
        Rewrite("*", (Target("any"),)),
    )
    assert problems == ()


def test_resources_of_other_pools_do_not_count() -> None:
    other = resource("other", rule("a", v1=1), pool="another")
    other_group: Document = {
        "spec": {"poolRef": {"name": "pool", "group": "x"}, "rules": [rule("a", v1=1)]}
    }

    assert read(other, other_group) == ((), ())


def test_the_older_resource_counts_then_the_earlier_name() -> None:
    found, _ = read(
        resource("c", rule("x", three=1), created="2026-03-01"),
        resource("b", rule("x", two=1), created="2026-02-01"),
        resource("a", rule("x", one=1), rule("x", zero=1), created="2026-02-01"),
    )

    assert found == (Rewrite("x", (Target("one"),)),)


@pytest.mark.parametrize(
    "broken",
    [
        {"matches": [{"model": {"value": "a"}}]},
        rule("a", **{"": 1}),
        rule("a", **{"line\nend": 1}),
        rule("a", v1=0),
        rule("a", v1=1, v2=2_000_000),
        rule("gpt-*", v1=1),
        rule(" a", v1=1),
        rule("a", **{f"v{number}": 1 for number in range(65)}),
    ],
)
def test_a_rule_that_cannot_be_used_is_a_problem_and_the_others_count(broken: Document) -> None:
    found, problems = read(resource("r", broken, rule("b", v1=1)))

    assert found == (Rewrite("b", (Target("v1"),)),)
    assert len(problems) == 1
    assert problems[0].startswith("r: rules[0]: ")


def test_the_number_of_names_is_bounded() -> None:
    found, problems = read(resource("r", rule(*map(str, range(MAX_REWRITES + 1)), v1=1)))

    assert len(found) == MAX_REWRITES
    assert "more than" in problems[0]


def test_a_resource_that_became_invalid_keeps_its_last_valid_rules() -> None:
    last_valid = LastValid("pool", POOL_GROUP)

    def put(*resources: Document) -> tuple[list[str], list[str]]:
        rewrites, problems = last_valid.put(msgspec.convert(resources, list[ModelRewriteObject]))
        return [f"{each.name}={each.targets[0].model}" for each in rewrites], list(problems)

    other = resource("other", rule("c", v9=1))
    assert put(resource("r", rule("a", v1=1), rule("b", v1=1)), other)[1] == []
    invalid = rule("a", v2=0), rule("b", v2=1)
    for _ in range(2):
        names, problems = put(resource("r", *invalid), other)
        assert names == ["c=v9", "a=v1", "b=v1"]
        assert problems == [
            "r: rules[0]: it has no usable targets, or too many; its last valid rules stay in use"
        ]
    assert put(resource("r", rule("a", v3=1)), other) == (["c=v9", "a=v3"], [])

    created_again = resource("r", *invalid, created="2026-02-02")
    assert put(created_again, other)[0] == ["c=v9", "b=v2"], "it has no rules of before"
    assert put(other) == (["c=v9"], [])
    assert put(resource("r", *invalid))[0] == ["b=v2"]


async def test_changes_are_followed_and_a_lost_server_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_pace, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(watch_pace, "LONGEST_PAUSE_SECONDS", 0.05)
    server, used = ApiServer(), list[tuple[Rewrite, ...]]()
    await server.put(PATH, resource("r", rule("a", v1=1)))
    supervisor = Supervisor()
    async with server.run(tmp_path) as kubeconfig:
        followed = FollowedRewrites(
            "ml",
            "pool",
            POOL_GROUP,
            lambda rewrites: used.append(tuple(rewrites)),
            Credentials(kubeconfig),
            supervisor,
        )
        assert followed.unread() is not None
        followed.start()
        async with asyncio.timeout(60):
            while not used:
                await asyncio.sleep(0.01)
            assert used == [(Rewrite("a", (Target("v1"),)),)]
            assert followed.unread() is None

            server.refused[PATH] = 403
            await server.put(PATH)
            while "error" not in str(followed.status()):
                await asyncio.sleep(0.01)
            assert len(used) == 1

            server.refused.clear()
            while len(used) < 2:
                await asyncio.sleep(0.01)
        assert used[1:] == [()]
        assert followed.status() == {"inference_model_rewrites": {"names": 0}}
        await supervisor.stop()

"""When the others are used without a namespace that cannot be read."""

import pytest

from lora_router.discovery.followed_namespaces import (
    FAILING_SECONDS,
    REFUSED_SECONDS,
    FollowedNamespace,
    FollowedNamespaces,
)
from lora_router.discovery.kubernetes_api import ApiError

FORBIDDEN, AWAY = ApiError("forbidden", "status 403: no"), ApiError("connect", "refused")


class Followed:
    """Namespaces in the time of a test."""

    def __init__(self, *names: str) -> None:
        self.now = 0.0
        self.by_name = {name: FollowedNamespace(name) for name in names}
        self.all = FollowedNamespaces(tuple(self.by_name.values()), lambda: self.now)

    def list(self, name: str) -> None:
        self.by_name[name].error = None
        self.all.was_listed(self.by_name[name])

    def fail(self, name: str, error: ApiError, *, after: float = 0.0) -> bool:
        self.now += after
        self.by_name[name].error = str(error)
        return self.all.failed(self.by_name[name], error)


def test_all_namespaces_are_waited_for() -> None:
    followed = Followed("a", "b")
    followed.list("a")
    before = followed.all.are_read
    followed.list("b")
    assert (before, followed.all.are_read) == (False, True)
    assert followed.all.left_out == {}


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (FORBIDDEN, REFUSED_SECONDS),
        (ApiError("missing", "status 404: no"), REFUSED_SECONDS),
        (AWAY, FAILING_SECONDS),
        (ApiError("status", "status 500: no"), FAILING_SECONDS),
    ],
)
def test_one_that_cannot_be_read_is_left_out_after_a_while(error: ApiError, seconds: float) -> None:
    followed = Followed("a", "b")
    followed.list("a")
    assert not followed.fail("b", error)
    assert not followed.fail("b", error, after=seconds - 0.1)
    before = followed.all.are_read
    assert followed.fail("b", error, after=0.1)
    assert (before, followed.all.are_read) == (False, True)
    assert followed.all.left_out == {"b": str(error)}
    assert not followed.fail("b", error, after=60.0), "it is left out once"

    followed.list("b")
    assert followed.all.left_out == {}


def test_a_router_that_can_read_nothing_waits_for_ever() -> None:
    for names in (("a",), ("a", "b")):
        followed = Followed(*names)
        for _ in range(100):
            assert not any(followed.fail(name, FORBIDDEN, after=60.0) for name in names)
        assert not followed.all.are_read


def test_time_in_which_no_namespace_is_followed_does_not_count() -> None:
    followed = Followed("a", "b")
    for _ in range(10):
        followed.fail("a", AWAY, after=30.0)
        followed.fail("b", AWAY)
    followed.list("a")
    # The API server is back. The next attempt at the other namespace may take a while.
    assert not followed.fail("b", AWAY)
    assert not followed.fail("b", AWAY, after=FAILING_SECONDS - 1)
    # And gone again.
    followed.fail("a", AWAY)
    assert not followed.fail("b", AWAY, after=FAILING_SECONDS)
    followed.list("a")
    assert not followed.fail("b", AWAY)


def test_a_refusal_after_other_failures_is_not_believed_at_once() -> None:
    followed = Followed("a", "b")
    followed.list("a")
    followed.fail("b", AWAY)
    assert not followed.fail("b", FORBIDDEN, after=REFUSED_SECONDS)
    assert followed.fail("b", FORBIDDEN, after=REFUSED_SECONDS)


def test_one_that_has_been_read_is_never_left_out() -> None:
    followed = Followed("a", "b")
    followed.list("a")
    followed.list("b")
    followed.fail("b", FORBIDDEN)
    assert not followed.fail("b", FORBIDDEN, after=600.0)
    assert followed.all.left_out == {}

"""Which lists of models are doubted."""

import pytest

from lora_router.fleet.catalog import Catalog, ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.scrape.list_doubt import DOUBT_SECONDS, ListDoubt, joined


def listing(*adapters: str, base: str | None = "base") -> Catalog:
    bases = () if base is None else (ServedModel(base),)
    return Catalog.of((*bases, *(ServedModel(name, "base") for name in adapters)))


NOTHING = listing(base=None)


class Lists:
    """The lists of one pod, one after the other."""

    def __init__(self) -> None:
        self.now = 0.0
        self.fleet = Fleet()
        self.fleet.replace([Pod("a", "10.0.0.1:80", "", "")])
        self.doubt = ListDoubt(lambda: self.now)

    @property
    def state(self) -> PodState:
        state = self.fleet.get("a")
        assert state is not None
        return state

    def started_at(self, time: float) -> None:
        self.fleet.put_metrics(self.state, PodMetrics(scraped_at=0.0, started_at=time))

    def read(self, listed: Catalog) -> str | None:
        why = self.doubt.about(self.state, listed)
        if why is None:
            self.fleet.put_models(self.state, listed)
        return why


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (listing("a", "b"), listing("a")),
        (listing("a", "b"), listing("a", "c")),
        (listing("a"), listing()),
        (listing("a"), listing("b")),
        (listing(), listing("a")),
        (listing(), listing(base="other")),
        (NOTHING, NOTHING),
    ],
)
def test_ordinary_changes_are_believed_at_once(before: Catalog, after: Catalog) -> None:
    lists = Lists()
    assert lists.read(before) is None
    assert lists.read(after) is None


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (listing("a", "b"), NOTHING, "the list is empty; the last one had 3 models"),
        (listing(), NOTHING, "the list is empty; the last one had 1 models"),
        (listing("a", "b"), listing(), "none of the 2 adapters of the last one"),
        (listing("a", "b"), listing("c", "d"), "none of the 2 adapters of the last one"),
    ],
)
def test_a_list_that_lost_everything_is_doubted_for_a_while(
    before: Catalog, after: Catalog, why: str
) -> None:
    lists = Lists()
    lists.read(before)
    for _ in range(2):
        answer = lists.read(after)
        assert answer is not None
        assert why in answer
        lists.now += DOUBT_SECONDS / 2

    assert lists.read(after) is None
    assert lists.read(after) is None


def test_the_doubt_starts_anew_after_a_good_list() -> None:
    lists = Lists()
    lists.read(listing("a", "b"))
    assert lists.read(NOTHING) is not None
    lists.now += DOUBT_SECONDS - 1
    assert lists.read(listing("a", "b")) is None
    lists.now += 2

    assert lists.read(NOTHING) is not None


def test_a_404_confirms_the_loss() -> None:
    lists = Lists()
    lists.read(listing("a", "b"))
    assert lists.read(listing()) is not None
    lists.doubt.confirm()

    assert lists.read(listing()) is None


def test_an_old_404_confirms_nothing() -> None:
    lists = Lists()
    lists.doubt.confirm()
    lists.read(listing("a", "b"))

    assert lists.read(listing()) is not None


def test_a_server_that_restarted_has_lost_what_was_loaded() -> None:
    lists = Lists()
    lists.started_at(100.0)
    lists.read(listing("a", "b"))
    lists.started_at(200.0)

    assert lists.read(listing()) is None


def test_the_first_start_time_that_is_known_is_no_restart() -> None:
    lists = Lists()
    lists.read(listing("a", "b"))
    lists.started_at(100.0)

    assert lists.read(listing()) is not None


def test_the_first_list_is_believed_whatever_discovery_assumed() -> None:
    lists = Lists()
    lists.fleet.replace([Pod("a", "10.0.0.1:80", "", "", base_model="base")])

    assert lists.read(NOTHING) is None


def test_what_a_doubted_list_adds_joins_the_last_one() -> None:
    both = joined(listing("a", "b"), listing("c", base="other"))
    assert both.base_models == {"base", "other"}
    assert set(both.adapters) == {"a", "b", "c"}

    known = listing("a", "b")
    assert joined(known, listing()) is known


def test_long_lists_are_not_joined() -> None:
    known = listing(*(f"a{number}" for number in range(3000)))
    other = listing(*(f"b{number}" for number in range(3000)))
    assert joined(known, other) is known

"""Shares as hypothesis makes them, and what a peer must make of them."""

from hypothesis import strategies as st
from msgspec import structs

from lora_router.fleet.peer_ledgers import HeldShare, LedgerShare, PodShare, SentShare, UsedShare

PODS = [f"ns/pod-{number}" for number in range(5)]
ADAPTERS = [*(f"adapter-{number}" for number in range(6)), "Größe"]

_servers = st.tuples(st.sampled_from(["10.0.0.1:8000", "[::1]:8000"]), st.sampled_from(["", "uid"]))
_adapter_counts = st.dictionaries(st.sampled_from(ADAPTERS), st.integers(1, 3), max_size=5)


@st.composite
def _pod_shares(draw: st.DrawFn) -> PodShare:
    adapters = draw(_adapter_counts)
    base = draw(st.integers(0 if adapters else 1, 3))
    return PodShare(draw(_servers), base + sum(adapters.values()), adapters)


_held = st.builds(
    HeldShare,
    seconds=st.integers(0, 3000).map(lambda hundredths: hundredths / 100),
    wanted=st.none() | st.sampled_from(PODS),
    closed=st.none() | st.tuples(st.sampled_from(PODS), st.sampled_from(ADAPTERS)),
)

_used = st.builds(
    UsedShare,
    server=_servers,
    adapters=st.lists(st.sampled_from(ADAPTERS), min_size=1, max_size=5, unique=True).map(
        lambda names: dict.fromkeys(names, 0.0)
    ),
)

_sent = st.builds(
    SentShare,
    server=_servers,
    seconds=st.integers(1, 600_000).map(lambda milliseconds: milliseconds / 1000),
)

shares = st.builds(
    LedgerShare,
    router=st.just("there"),
    number=st.just(0),
    every=st.just(0.1),
    pods=st.dictionaries(st.sampled_from(PODS), _pod_shares(), max_size=5),
    held=st.dictionaries(st.sampled_from(ADAPTERS), _held, max_size=4),
    heard=st.dictionaries(st.sampled_from(["here", "third"]), st.integers(1, 9), max_size=2),
    ejected=st.dictionaries(st.sampled_from(PODS), _servers, max_size=3),
    used=st.dictionaries(st.sampled_from(PODS), _used, max_size=3),
    sent=st.dictionaries(st.sampled_from(PODS), _sent, max_size=3),
)


def same(read: LedgerShare, sent: LedgerShare) -> bool:
    """Return whether a share arrived as it was sent.

    Times are rounded to milliseconds. Acknowledgements of 0 are as good as none.
    """
    if read.held.keys() != sent.held.keys():
        return False
    late = [
        name
        for name, held in read.held.items()
        if abs(held.seconds - sent.held[name].seconds) > 0.005
    ]
    heard = {name: number for name, number in read.heard.items() if number}
    held = {name: structs.replace(each, seconds=0.0) for name, each in read.held.items()}
    sent_held = {name: structs.replace(each, seconds=0.0) for name, each in sent.held.items()}
    return (
        not late
        and held == sent_held
        and heard == sent.heard
        and (read.router, read.number, read.pods, read.ejected)
        == (sent.router, sent.number, sent.pods, sent.ejected)
    )

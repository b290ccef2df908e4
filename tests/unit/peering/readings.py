"""Readings as hypothesis makes them."""

from hypothesis import strategies as st

from lora_router.fleet.catalog import Catalog, ServedModel
from lora_router.fleet.pod_metrics import LoraActivity, LoraResidency, PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.reading import ReadFailure, Reading

_adapters = st.frozensets(
    st.sampled_from([*(f"adapter-{n}" for n in range(9)), "Größe", "語"]), max_size=6
)
_number = st.none() | st.floats(0, 1e15)
_usage = st.none() | st.floats(0, 1)
_requests = st.none() | st.floats(0, 1e6)
_slots = st.none() | st.integers(1, 1000)


@st.composite
def _residencies(draw: st.DrawFn) -> LoraResidency:
    gpu = draw(_adapters)
    return LoraResidency(gpu=gpu, cpu=draw(_adapters) - gpu, max_gpu=draw(_slots))


_activities = st.builds(
    LoraActivity,
    max_lora=_slots,
    running=_adapters,
    waiting=_adapters,
    updated_at=st.floats(0, 2e9),
)


def snapshots(read_at: float) -> st.SearchStrategy[PodMetrics]:
    return st.builds(
        PodMetrics,
        scraped_at=st.just(read_at),
        running=_requests,
        waiting=_requests,
        kv_cache_usage=_usage,
        deferred=_requests,
        lora=st.none() | _activities,
        residency=st.none() | _residencies(),
        adapter_load_seconds=_number,
        started_at=_number,
        generated_tokens=_number,
        cache_tokens=_number,
    )


catalogs = st.dictionaries(
    st.text(min_size=1, max_size=20), st.none() | st.text(min_size=1, max_size=9), max_size=20
).map(lambda models: Catalog.of(ServedModel(name, base) for name, base in models.items()))

failures = st.builds(
    ReadFailure,
    page=st.sampled_from(["metrics", "models"]),
    cause=st.sampled_from(["timeout", "connect", "status"]),
    unreachable=st.booleans(),
)


def readings(states: list[PodState], read_at: float) -> st.SearchStrategy[Reading]:
    return st.builds(
        Reading,
        state=st.sampled_from(states),
        read_at=st.just(read_at),
        found=snapshots(read_at) | catalogs | failures,
    )

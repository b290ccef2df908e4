"""The fast reader returns what the slow reader returns."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.scrape.exposition import read_page
from lora_router.scrape.series import ExpositionError
from tests.unit.scrape.slow_reader import read_slowly

RECORDED = Path(__file__).parents[2] / "data" / "vllm-0.32.0"
NOW = 1.7954273e9

METRICS = (
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:num_requests_waiting_by_reason",
    "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc",
    "vllm:lora_requests_info",
    "vllm:lora_adapter_loaded",
    "vllm:num_gpu_loaded_lora_adapters",
    "vllm:max_gpu_lora_adapters",
    "vllm:lora_adapter_load_seconds_sum",
    "vllm:lora_adapter_load_seconds_count",
    "vllm:generation_tokens_total",
    "process_start_time_seconds",
)
"""All metrics that are read."""
OTHERS = (
    "vllm:num_requests",
    "vllm:num_requests_running_total",
    "vllm:lora_adapter_load_seconds_bucket",
    "xvllm:num_requests_running",
    "python_info",
)
LABELS = (
    "adapter_name",
    "engine",
    "level",
    "max_lora",
    "reason",
    "running_lora_adapters",
    "waiting_lora_adapters",
)


def escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


values = (
    st.integers(-2, 10**9).map(str)
    | st.floats().map(repr)
    | st.floats(NOW - 1e6, NOW + 1e4).map(repr)
    | st.sampled_from(["NaN", "+Inf", "-Inf", "0.0", "1.5e+09", "2e-05"])
)
label_values = (
    st.sampled_from(["deferred", "capacity", "gpu", "cpu", "0", "4", "a1", "a1,a2", "a2, a1", ""])
    | st.sampled_from(["} 5", '{x="y"} 7', "vllm:num_requests_running 3", "\n", "\\", '"', "#"])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
)


@st.composite
def lines(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(METRICS) | st.sampled_from(OTHERS))
    labels = draw(st.dictionaries(st.sampled_from(LABELS), label_values, max_size=4))
    inside = ",".join(f'{label}="{escaped(value)}"' for label, value in labels.items())
    with_braces = draw(st.booleans())
    head = f"{name}{{{inside}}}" if labels or with_braces else name
    blank = draw(st.sampled_from([" ", " ", " ", "  ", "\t", " \t"]))
    time_stamp = draw(st.sampled_from(["", "", "", " 1795427300000", " ", "\r"]))
    return head + blank + draw(values) + time_stamp


@pytest.mark.slow
def test_of_recorded_pages() -> None:
    pages = [path.read_bytes() for path in RECORDED.glob("*.prom")]

    assert len(pages) == 8
    for page in pages:
        fast = read_page(page, engine=None, scraped_at=1.0, wall_now=NOW)
        assert fast == read_slowly(page, scraped_at=1.0, wall_now=NOW)


@pytest.mark.slow
@given(st.lists(lines(), max_size=20), st.sampled_from(["", "\n"]))
def test_of_invented_pages(page: list[str], end: str) -> None:
    data = ("\n".join(page) + end).encode()

    fast = read_page(data, engine="vllm", scraped_at=1.0, wall_now=NOW)

    assert fast == read_slowly(data, scraped_at=1.0, wall_now=NOW)


@given(st.sampled_from(["", *'{}"\\,= \t_x#\xff']), st.booleans(), st.data())
def test_of_a_recorded_page_with_a_damage(damage: str, instead: bool, data: st.DataObject) -> None:
    """Both readers accept the page, or both refuse it, whichever line is damaged."""
    page = (RECORDED / "06_three_lora_one_waits_t1s.prom").read_bytes().splitlines()
    read = [line for line in page if line.startswith(b"vllm:num_requests_")]
    number = data.draw(st.integers(0, len(read) - 1))
    line = read[number]
    at = data.draw(st.integers(line.index(b"{") + 1, len(line) - 1))
    read[number] = line[:at] + damage.encode("latin-1") + line[at + instead :]
    damaged = b"\n".join(read)

    try:
        slow = read_slowly(damaged, scraped_at=1.0, wall_now=NOW)
    except (ValueError, KeyError, IndexError, TypeError):
        with pytest.raises(ExpositionError):
            read_page(damaged, engine="vllm", scraped_at=1.0, wall_now=NOW)
    else:
        assert read_page(damaged, engine="vllm", scraped_at=1.0, wall_now=NOW) == slow

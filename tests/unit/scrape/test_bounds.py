"""Bounds on the cost of a page, on what is cached of it, and on its numbers."""

import gc
import tracemalloc

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.scrape import series
from lora_router.scrape.exposition import read_page
from lora_router.scrape.labels import LabelCache, plain_labels
from lora_router.scrape.series import ExpositionError, PageTooLargeError

NOW = 1.8e9
RUNNING = "vllm:num_requests_running 1\n"


def read(text: str) -> PodMetrics:
    return read_page(text.encode(), engine="vllm", scraped_at=0.0, wall_now=NOW)


def lora(max_lora: str) -> str:
    labels = f'max_lora="{max_lora}",running_lora_adapters="a",waiting_lora_adapters=""'
    return f"vllm:lora_requests_info{{{labels}}} {NOW}\n"


@pytest.mark.parametrize(
    "slots",
    ["0", "-4", "100001", "9" * 4000, "9" * 5000, "1e308", "inf", "nan", "4.5", "", " ", "1 0"],
)
def test_slots_that_cannot_be_true_are_unknown(slots: str) -> None:
    activity = read(RUNNING + lora(slots)).lora
    assert activity is not None
    assert activity.max_lora is None
    assert activity.active == {"a"}


def test_the_most_slots_that_are_believed() -> None:
    activity = read(RUNNING + lora("100000")).lora
    assert activity is not None
    assert activity.max_lora == 100_000


@pytest.mark.parametrize("value", ["-1", "NaN", "+Inf", "-Inf", "1e308", "1e13", "9" * 4000])
def test_numbers_that_cannot_be_true_are_unknown(value: str) -> None:
    metrics = read(
        f"vllm:num_requests_running {value}\n"
        f"vllm:num_requests_waiting {value}\n"
        f"vllm:kv_cache_usage_perc {value}\n"
        f'vllm:num_requests_waiting_by_reason{{reason="deferred"}} {value}\n'
        f"vllm:max_gpu_lora_adapters {value}\n"
        f"vllm:lora_adapter_load_seconds_sum {value}\n"
        "vllm:lora_adapter_load_seconds_count 1\n"
    )

    assert metrics.running is None
    assert metrics.waiting is None
    assert metrics.kv_cache_usage is None
    assert metrics.deferred is None
    assert metrics.residency is not None
    assert metrics.residency.max_gpu is None
    assert metrics.adapter_load_seconds is None


def test_an_engine_with_an_impossible_number_is_left_out_of_the_sum() -> None:
    page = "".join(
        f'vllm:num_requests_running{{engine="{engine}"}} {value}\n'
        for engine, value in enumerate(["3", "NaN", "-1", "1e308", "1e308", "4"])
    )
    assert read(page).running == 7


def test_loads_that_take_longer_than_an_hour_are_not_believed() -> None:
    page = "vllm:lora_adapter_load_seconds_sum {}\nvllm:lora_adapter_load_seconds_count 2\n"

    assert read(page.format(7000)).adapter_load_seconds == 3500
    assert read(page.format(7300)).adapter_load_seconds is None


# What a page may cost


def engines(count: int, label: str = "engine") -> str:
    return "".join(
        f'vllm:num_requests_running{{{label}="{number}"}} 1\n' for number in range(count)
    )


def test_a_page_of_distinct_series_is_too_large() -> None:
    assert read(engines(10_000)).running == 10_000
    with pytest.raises(PageTooLargeError, match="more than 10000 series of one metric"):
        read(engines(10_001))


def test_a_page_of_too_many_lines_is_too_large() -> None:
    line = lora("4")
    assert len(line) * 40_000 > 512 * 1024
    assert read(line * 30_000).lora is not None
    with pytest.raises(PageTooLargeError, match="more than 40000 lines"):
        read(line * 41_000)


def test_lines_that_need_the_parser_are_few() -> None:
    page = "".join(f'vllm:num_requests_running{{a="{n}"}} 1 1795427300000\n' for n in range(501))
    with pytest.raises(PageTooLargeError, match="more than 500 unusual lines"):
        read(page)
    assert read(page[: page.rindex("vllm:")]).running == 500


def test_labels_that_need_the_parser_are_few() -> None:
    page = "".join(f'vllm:num_requests_running{{b="\\n{n}"}} 1\n' for n in range(501))
    with pytest.raises(PageTooLargeError, match="more than 500 unusual lines"):
        read(page)


def test_a_label_has_a_length() -> None:
    label = "x" * 70_000
    with pytest.raises(PageTooLargeError, match="bytes of labels"):
        read(f'vllm:num_requests_running{{model_name="{label}"}} 1\n')


def test_a_label_names_so_many_adapters_and_no_more() -> None:
    line = RUNNING + lora("4")
    most = ",".join(f"a{number}" for number in range(4096))
    activity = read(line.replace('"a"', f'"{most}"')).lora
    assert activity is not None
    assert len(activity.running) == 4096
    with pytest.raises(PageTooLargeError, match="more than 4096 adapters"):
        read(line.replace('"a"', f'"{most},b"'))


@pytest.mark.slow
def test_a_new_long_label_in_each_scrape_leaves_nothing_behind() -> None:
    page = 'vllm:num_requests_running{{model_name="{}"}} 1\n'
    read(page.format("x" * 60_000))
    gc.collect()
    tracemalloc.start()
    for number in range(200):
        assert read(page.format(f"{number}" + "x" * 60_000)).running == 1
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 1_000_000


def test_the_cache_of_labels_is_bounded_in_bytes() -> None:
    cache = LabelCache(100_000)
    for number in range(10_000):
        cache.put(b"x" * 100 + str(number).encode(), {"a": "b"})
        assert cache.bytes <= 100_000

    assert cache.get(b"x" * 100 + b"9999", None) == {"a": "b"}
    assert cache.get(b"x" * 100 + b"0", None) is None

    cache.put(b"y" * 9000, {"a": "b"})
    assert cache.get(b"y" * 9000, None) is None


# Labels without the parser


@pytest.mark.parametrize(
    "labels",
    [
        "",
        "{}",
        '{a="b"}',
        '{a="",_b1="}{,=#"}',
        '{a="ü 漢",b="x=\'y\'"}',
    ],
)
def test_plain_labels_are_read_as_the_parser_reads_them(labels: str) -> None:
    (family,) = text_string_to_metric_families(f"m{labels} 0\n")
    (sample,) = family.samples

    assert plain_labels(f"m{labels}".encode(), b"m") == sample.labels


@pytest.mark.parametrize(
    "labels",
    [
        b'{a="b",}',
        b'{a="b" }',
        b'{ a="b"}',
        b'{a="b", c="d"}',
        b'{a="b",a="c"}',
        b'{a="\\n"}',
        b'{__name__="x"}',
        b'{a="b}',
        b'{1a="b"}',
        b'{"a"="b"}',
        b'{a="b""c"}',
        b'{a="\xff"}',
        b" {}",
    ],
)
def test_all_other_labels_are_the_parsers(labels: bytes) -> None:
    assert plain_labels(b"m" + labels, b"m") is None


def test_a_page_that_is_too_large_is_an_error_like_others() -> None:
    assert issubclass(PageTooLargeError, ExpositionError)
    assert series.MAX_SERIES < series.MAX_LINES

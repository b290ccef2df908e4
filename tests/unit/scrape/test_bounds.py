"""Bounds on the cost of a page, on what is cached of it, and on its numbers."""

import gc
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.reading_bounds import MAX_SERIES
from lora_router.scrape import exposition, series
from lora_router.scrape.exposition import page_in_steps, read_page
from lora_router.scrape.labels import LabelCache, plain_labels
from lora_router.scrape.series import ExpositionError, PageTooLargeError

NOW = 1.8e9
RECORDED = Path(__file__).parents[2] / "data" / "vllm-0.32.0"
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


REQUESTS = (
    "vllm:num_requests_running {0}\n"
    "vllm:num_requests_waiting {0}\n"
    'vllm:num_requests_waiting_by_reason{{reason="deferred"}} {0}\n'
)


@pytest.mark.parametrize(("value", "found"), [("1000000", 1e6), ("1000001", None), ("1e12", None)])
def test_more_than_a_million_requests_cannot_be_true(value: str, found: float | None) -> None:
    metrics = read(REQUESTS.format(value))

    assert metrics.running == metrics.waiting == metrics.deferred == found


def test_nor_can_they_be_true_of_all_engines_together() -> None:
    page = "".join(f'vllm:num_requests_running{{engine="{n}"}} 400000\n' for n in range(3))

    assert read(page).running is None


def test_loads_that_take_longer_than_an_hour_are_not_believed() -> None:
    page = "vllm:lora_adapter_load_seconds_sum {}\nvllm:lora_adapter_load_seconds_count 2\n"

    assert read(page.format(7000)).adapter_load_seconds == 3500
    assert read(page.format(7300)).adapter_load_seconds is None


# What a page may cost


def engines(count: int, label: str = "engine") -> str:
    return "".join(
        f'vllm:num_requests_running{{{label}="{number}"}} 1\n' for number in range(count)
    )


@pytest.mark.slow
def test_a_page_of_distinct_series_is_too_large() -> None:
    assert read(engines(8192)).running == 8192
    with pytest.raises(PageTooLargeError, match="more than 8192 series that matter"):
        read(engines(8193))


@pytest.mark.slow
def test_series_of_several_metrics_count_together() -> None:
    page = engines(5000) + engines(5000).replace("running", "waiting")
    with pytest.raises(PageTooLargeError, match="more than 8192 series that matter"):
        read(page)


@pytest.mark.slow
def test_a_page_of_too_many_lines_is_too_large() -> None:
    line = lora("4")
    assert read(line * 30_000).lora is not None
    with pytest.raises(PageTooLargeError, match="more than 40000 lines"):
        read(line * 41_000)


def test_a_line_has_a_length_whether_it_matters_or_not() -> None:
    page = RUNNING + "x" * 200_000
    with pytest.raises(PageTooLargeError, match="a line with more than 65536 bytes"):
        read(page)


@pytest.mark.slow
def test_bytes_of_lines_that_need_the_parser_are_few() -> None:
    page = "".join(f'vllm:num_requests_running{{a="{n}"}} 1 1795427300000\n' for n in range(2000))
    with pytest.raises(PageTooLargeError, match="more than 65536 bytes of unusual lines"):
        read(page)
    assert read(page[:40_000] + "\n").running == pytest.approx(page[:40_000].count(" 1 "), abs=1)


def test_bytes_of_labels_that_need_the_parser_are_few() -> None:
    page = "".join(f'vllm:num_requests_running{{b="\\n{n}"}} 1\n' for n in range(3000))
    with pytest.raises(PageTooLargeError, match="more than 65536 bytes of unusual lines"):
        read(page)


def test_a_line_that_needs_the_parser_is_short() -> None:
    label = "\\n" * 2000
    with pytest.raises(PageTooLargeError, match=r"an unusual line with 40.. bytes"):
        read(f'vllm:num_requests_running{{model_name="{label}"}} 1\n')


def test_a_label_has_a_length() -> None:
    label = "x" * 40_000
    with pytest.raises(PageTooLargeError, match="bytes of labels"):
        read(f'vllm:num_requests_running{{model_name="{label}"}} 1\n')


def test_a_series_has_so_many_labels_and_no_more() -> None:
    def series_with(labels: int) -> str:
        inside = ",".join(f'l{number}="x"' for number in range(labels))
        return f"vllm:num_requests_running{{{inside}}} 1\n"

    assert read(series_with(100)).running == 1
    with pytest.raises(PageTooLargeError, match="more than 100 labels"):
        read(series_with(101))


def test_a_value_has_a_length() -> None:
    assert read(f"vllm:num_requests_running 0.{'0' * 8000}1\n").running == 0
    with pytest.raises(PageTooLargeError, match="a value with more than 8192 bytes"):
        read(f"vllm:num_requests_running 0.{'0' * 9000}1\n")


def test_a_label_names_so_many_adapters_and_no_more() -> None:
    line = RUNNING + lora("4")
    most = ",".join(f"a{number}" for number in range(4096))
    activity = read(line.replace('"a"', f'"{most}"')).lora
    assert activity is not None
    assert len(activity.running) == 4096
    with pytest.raises(PageTooLargeError, match="more than 4096 adapters"):
        read(line.replace('"a"', f'"{most},b"'))


def test_an_adapter_whose_name_no_request_can_contain_is_left_out() -> None:
    name = "x" * 512
    loaded = f'vllm:lora_adapter_loaded{{adapter_name="{name}",level="gpu"}} 1\n'
    loaded += loaded.replace("xx", "xxx", 1)
    metrics = read(RUNNING + lora("4").replace('"a"', f'"{name},{name}x"') + loaded)

    assert metrics.lora is not None
    assert metrics.lora.running == {name}
    assert metrics.residency is not None
    assert metrics.residency.gpu == {name}


@pytest.mark.parametrize(
    "labels",
    [
        "a" * 30_000,
        "m=" + '"' + "x" * 30_000,
        "a=" * 15_000,
        "," * 30_000,
        'a="",' * 90 + "b" * 30_000,
    ],
    ids=lambda labels: labels[:8],
)
def test_labels_are_read_in_linear_time(labels: str) -> None:
    """A regular expression that starts anew at each character takes a minute for each of these."""
    with pytest.raises(ExpositionError):
        read(f"vllm:num_requests_running{{{labels}}} 1\n")


# A page is read in steps


def steps_of(page: bytes) -> int:
    steps = page_in_steps(page, engine="vllm", scraped_at=0.0, wall_now=NOW)
    count = 1
    try:
        while True:
            next(steps)
            count += 1
    except (StopIteration, ExpositionError):
        return count


def test_an_ordinary_page_is_read_in_one_step() -> None:
    for path in RECORDED.glob("*.prom"):
        assert steps_of(path.read_bytes()) == 1


HOSTILE = {
    "distinct series": engines(8192),
    "long labels": engines(100, "x" * 30_000),
    "many combinations": RUNNING + "".join(lora(f"{n}") for n in range(30_000)),
    "other lines": RUNNING + "http_requests 1\n" * 39_000,
    "lines that are nearly read": RUNNING + "vllm:num_requests_running_ 1\n" * 39_000,
    "unusual": engines(1000).replace('"}', '"} '),
}


class CountedFinder:
    """Counts the bytes that are searched in each step."""

    def __init__(self, finder: series.SeriesFinder) -> None:
        self._finder = finder
        self.bytes = 0

    def all(self, page: bytes, start: int, end: int) -> list[series.Line]:
        self.bytes += end - start
        return self._finder.all(page, start, end)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_step_is_short_whatever_is_on_the_page(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, found = exposition._kinds_by_engine["vllm"]
    finder = CountedFinder(found)
    kind = names, finder
    monkeypatch.setitem(exposition._kinds_by_engine, "vllm", kind)
    monkeypatch.setitem(exposition._kinds_by_metric, names.running.name.encode(), kind)
    parsed = [0]

    def labels(head: bytes, name: bytes) -> object:
        parsed[0] += len(head)
        return plain_labels(head, name)

    monkeypatch.setattr(series, "plain_labels", labels)
    monkeypatch.setattr(series, "_cache", LabelCache(1_000_000))
    page = HOSTILE[name].encode()
    steps = page_in_steps(page, engine="vllm", scraped_at=0.0, wall_now=NOW)
    first, going, most_searched, most_read = True, True, 0, 0
    while going:
        finder.bytes = parsed[0] = 0
        try:
            next(steps)
        except StopIteration:
            going = False
        most_searched = max(most_searched, 0 if first else finder.bytes)
        most_read = max(most_read, parsed[0])
        first = False

    assert most_searched <= series._STEP_BYTES + series.MAX_LINE_BYTES
    assert most_read <= series._STEP_BYTES + series.MAX_LABELS_BYTES


@given(
    st.lists(
        st.sampled_from(
            ["vllm:num_requests_running", "{", "}", '"', "=", ",", "a", "\\", "\n", " "]
        )
        | st.sampled_from([" 1", "vllm:lora_requests_info{", "9" * 50, "1e308", "-1", "NaN", "#"]),
        max_size=60,
    ),
    st.integers(1, 2000),
)
def test_any_page_is_read_or_refused_and_steps_change_nothing(words: list[str], times: int) -> None:
    page = ("".join(words) + "\n").encode() * times
    try:
        whole: object = read(page.decode())
    except ExpositionError as error:
        whole = type(error)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(series, "_FIRST_STEP_BYTES", 100)
        patched.setattr(series, "_STEP_BYTES", 50)
        try:
            stepped: object = read(page.decode())
        except ExpositionError as error:
            stepped = type(error)
    # A page that has two faults is refused for one of them.
    if isinstance(whole, PodMetrics) or isinstance(stepped, PodMetrics):
        assert stepped == whole or stepped is PageTooLargeError


@pytest.mark.slow
def test_a_new_long_label_in_each_scrape_leaves_nothing_behind() -> None:
    page = 'vllm:num_requests_running{{model_name="{}"}} 1\n'
    read(page.format("x" * 30_000))
    gc.collect()
    tracemalloc.start()
    for number in range(200):
        assert read(page.format(f"{number}" + "x" * 30_000)).running == 1
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
    assert MAX_SERIES < series.MAX_LINES

"""A long page says the same when only what can matter is kept of it."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.scrape.exposition import UnknownPageError, read_page
from lora_router.scrape.page_filter import PageFilter, filtered
from lora_router.scrape.series import ExpositionError, PageTooLargeError
from lora_router.steps import all_at_once

NOW = 1.8e9
DATA = Path(__file__).parents[2] / "data"
RUNNING = b"vllm:num_requests_running 3\n"


def activity(adapters: str, time: object = NOW, slots: int = 8) -> bytes:
    labels = f'max_lora="{slots}",running_lora_adapters="{adapters}",waiting_lora_adapters=""'
    return f"vllm:lora_requests_info{{{labels}}} {time}\n".encode()


def read(page: bytes) -> PodMetrics:
    return read_page(page, engine="vllm", scraped_at=0.0, wall_now=NOW)


def in_pieces(page: bytes, lengths: list[int]) -> bytes:
    """Filter a page that arrives in pieces."""
    page_filter, start = PageFilter(NOW), 0
    for length in lengths:
        all_at_once(page_filter.add(page[start : start + length]))
        start += length
    all_at_once(page_filter.add(page[start:]))
    return all_at_once(page_filter.finish())


def outcome(page: bytes) -> PodMetrics | str:
    try:
        return read(page)
    except UnknownPageError:
        return "unknown"
    except ExpositionError:
        return "malformed"


def add(page_filter: PageFilter, piece: bytes, times: int) -> None:
    for _ in range(times):
        all_at_once(page_filter.add(piece))


# What a page says


@pytest.mark.parametrize("path", sorted(DATA.rglob("*.prom")), ids=lambda path: path.stem)
def test_a_recorded_page_says_the_same(path: Path) -> None:
    page = path.read_bytes()

    assert outcome(filtered(page, NOW)) == outcome(page)


NAMES = [
    "vllm:lora_requests_info",
    "vllm:lora_requests_info_created",
    "ray_vllm_lora_requests_info",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:num_requests_waiting_by_reason",
    "vllm:lora_adapter_loaded",
    "vllm:generation_tokens_total",
    "sglang:num_running_reqs",
    "process_start_time_seconds",
    "# HELP vllm:lora_requests_info",
    "other",
    "",
]
LABELS = [
    "",
    "{}",
    '{max_lora="2",running_lora_adapters="a,b",waiting_lora_adapters="c"}',
    '{max_lora="4",running_lora_adapters="",waiting_lora_adapters=""}',
    '{running_lora_adapters="}",max_lora="x"} {"}',
    '{reason="deferred"}',
    ' {engine="1"}',
    '{a="\\n\\""}',
    "{",
    "}",
]
VALUES = [
    "1",
    "0",
    "-5",
    "NaN",
    "1_0",
    "x",
    "",
    f"{NOW}",
    f"{NOW - 5:.17e}",
    f"{NOW - 7} 1795427300000",
    f"{2 * NOW}",
    "+Inf",
    f"{1.4 * NOW}",
    f"{2000 * NOW}",
    "7" * 9000,
]
lines = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(NAMES),
    st.sampled_from(LABELS),
    st.sampled_from([" ", "\t", "  ", ""]),
    st.sampled_from(VALUES),
    st.sampled_from(["\n", "\n", "\n", "\r\n", "\n\n", "\r", "\x00\n", ""]),
)
good_lines = st.one_of(
    st.sampled_from(
        [
            RUNNING.decode(),
            "vllm:num_requests_running 0\n",
            "other 1\n",
            "process_start_time_seconds 5\r\n",
        ]
    ),
    st.builds(
        lambda adapters, time: activity(adapters, time).decode(),
        st.sampled_from(["", "a", "a,b", "b,a", "}"]),
        st.sampled_from(
            [NOW - 5, NOW, f"{NOW - 3:.17e}", 2 * NOW, 1.4 * NOW, 0, -1, "NaN", "1e3 5"]
        ),
    ),
)


@pytest.mark.slow
@given(
    st.one_of(st.lists(good_lines, max_size=12), st.lists(st.one_of(good_lines, lines))).map(
        "".join
    ),
    st.lists(st.integers(0, 300)),
)
@example("vllm:lora_requests_info{5\n", [])
@example("vllm:lora_requests_info{a} 5", [3])
@example("vllm:lora_requests_info{} 7\nvllm:lora_requests_info{} x\n", [])
@example("vllm:lora_requests_info {a} 0\nvllm:lora_requests_info{b} 0\n", [])
@example("vllm:lora_requests_info{a} 0\nvllm:lora_requests_info {b} 0\n", [])
@example(RUNNING.decode() + "vllm:lora_requests_info{5\r", [])
def test_any_page_says_the_same_however_it_arrives(text: str, lengths: list[int]) -> None:
    page = text.encode()

    assert outcome(in_pieces(page, lengths)) == outcome(page)


@pytest.mark.slow
@given(st.binary(), st.lists(st.integers(0, 30)))
def test_bytes_that_are_no_page_say_the_same(page: bytes, lengths: list[int]) -> None:
    assert outcome(in_pieces(page, lengths)) == outcome(page)


# What is kept of it


@pytest.mark.slow
def test_hardly_anything_is_kept_of_the_combinations_that_ever_ran() -> None:
    page = RUNNING + b"".join(activity(f"a{n},b", NOW - 9000 + n % 8000) for n in range(20_000))

    kept = filtered(page, NOW)

    assert len(page) > 2_000_000
    assert len(kept) < 1000
    assert read(kept) == read(page)


def test_a_filter_holds_little_while_a_page_arrives() -> None:
    page_filter, most = PageFilter(NOW), 0
    page = b"".join(activity(f"a{n},b", NOW - 9000 + n % 8000) for n in range(5000))
    for start in range(0, len(page), 50_000):
        all_at_once(page_filter.add(page[start : start + 50_000]))
        most = max(most, page_filter.held)

    assert most < 1000


def test_the_first_line_and_one_with_a_sum_of_times_are_kept() -> None:
    page = activity("first", NOW - 9, slots=3) + activity("b", NOW - 5) * 9
    page += activity("sum", 2 * NOW) * 9 + activity("never", 0) * 9

    kept = filtered(RUNNING + page, NOW)

    adapters = [line.split(b'"')[3] for line in kept.splitlines() if b"lora" in line]
    assert sorted(adapters) == [b"b", b"first", b"sum"]


@pytest.mark.slow
def test_a_page_that_is_longer_than_a_reader_without_a_filter_reads() -> None:
    page = RUNNING + b"".join(activity(f"a{n}", NOW - 1e6 + n) for n in range(50_000))

    with pytest.raises(PageTooLargeError, match="more than 40000 lines"):
        read(page)
    lora = read(filtered(page, NOW)).lora
    assert lora is not None
    assert lora.active == {"a49999"}


# What a page may cost


def test_a_line_without_an_end_is_not_held() -> None:
    page_filter = PageFilter(NOW)

    with pytest.raises(PageTooLargeError, match="a line with more than 65536 bytes"):
        add(page_filter, b"vllm:lora_requests_info{" * 1000, times=100)
    assert page_filter.held < 200_000


def test_a_line_within_a_page_has_a_length() -> None:
    with pytest.raises(PageTooLargeError, match="a line with more than 65536 bytes"):
        filtered(RUNNING + b"x" * 70_000 + b"\n" + RUNNING, NOW)


@pytest.mark.slow
@pytest.mark.parametrize("line", [b"\n", b"vllm:lora_requests_info{} 1\n", b"a\n"])
def test_a_page_has_so_many_lines_and_no_more(line: bytes) -> None:
    page_filter = PageFilter(NOW)
    with pytest.raises(PageTooLargeError, match="more than 200000 lines"):
        add(page_filter, line * 20_000, times=11)


def test_lines_that_matter_are_few() -> None:
    page_filter = PageFilter(NOW)
    line = b'vllm:num_requests_running{engine="%s"} 1\n' % (b"x" * 30_000)

    with pytest.raises(PageTooLargeError, match="bytes of lines that matter"):
        add(page_filter, line, times=200)
    assert page_filter.held < 5_000_000


@pytest.mark.parametrize("line", [b"\n", RUNNING, activity("a"), b"vllm:lora_requests_info{\n"])
def test_a_step_is_short_whatever_arrives(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    searched = list[int]()
    search = PageFilter._search

    def count(page_filter: PageFilter, text: bytes) -> None:
        searched.append(len(text))
        search(page_filter, text)

    monkeypatch.setattr(PageFilter, "_search", count)
    page_filter = PageFilter(NOW)
    for _ in page_filter.add(line * (200_000 // len(line))):
        assert len(searched) == 1
        assert searched.pop() < 17_000

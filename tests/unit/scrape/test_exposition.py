"""Reading metrics pages: recorded pages of vLLM 0.32.0, and invented ones."""

import random
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet.pod_metrics import LoraActivity, LoraResidency, PodMetrics
from lora_router.scrape.exposition import read_page
from lora_router.scrape.series import ExpositionError

RECORDED = Path(__file__).parents[2] / "data" / "vllm-0.32.0"
NOW = 1.7954273e9


def read(page: str | bytes, engine: str | None = None) -> PodMetrics:
    data = page.encode() if isinstance(page, str) else page
    return read_page(data, engine=engine, scraped_at=5.0, wall_now=NOW)


def lora_of(page: str) -> LoraActivity:
    lora = read(BUSY + page).lora
    assert lora is not None
    return lora


def series(running: str, waiting: str, value: float | str, max_lora: str = "2") -> str:
    labels = (
        f'max_lora="{max_lora}",running_lora_adapters="{running}",waiting_lora_adapters="{waiting}"'
    )
    return f"vllm:lora_requests_info{{{labels}}} {value}\n"


BUSY = 'vllm:num_requests_running{engine="0",model_name="base"} 1.0\n'

CACHES = [
    ('kv_cache_size_tokens="5000",num_gpu_blocks="100",block_size="16"', 5000),
    ('kv_cache_size_tokens="None",num_gpu_blocks="100",block_size="16"', 1600),
    ('num_gpu_blocks="100",block_size="16"', 1600),
    ('num_gpu_blocks="None",block_size="16"', None),
    ('num_gpu_blocks="0",block_size="16"', None),
    ('num_gpu_blocks="-5",block_size="16"', None),
    (f'kv_cache_size_tokens="{"9" * 50}"', None),
    ('enable_prefix_caching="False",kv_cache_size_tokens="5000"', 0),
    ('enable_prefix_caching="True",kv_cache_size_tokens="5000"', 5000),
    ("", None),
]


@pytest.mark.parametrize(("labels", "tokens"), CACHES)
def test_the_size_of_the_cache_is_that_of_the_servers_settings(
    labels: str, tokens: float | None
) -> None:
    page = f'vllm:cache_config_info{{engine="0",{labels}}} 1.0\n'

    assert read(BUSY + page).cache_tokens == tokens


def test_the_caches_of_several_engines_add_up() -> None:
    page = "".join(
        f'vllm:cache_config_info{{engine="{engine}",kv_cache_size_tokens="5000"}} 1.0\n'
        for engine in range(2)
    )

    assert read(BUSY + page).cache_tokens == 10_000


def test_sglang_states_the_size_of_its_cache_as_a_number() -> None:
    page = 'sglang:num_running_reqs{model_name="m"} 1.0\n'

    assert read(page).cache_tokens is None
    assert read(page + 'sglang:max_total_num_tokens{model_name="m"} 7000.0\n').cache_tokens == 7000


ACTIVE = {
    "02_after_two_base_requests_idle": set(),
    "04_one_lora_a1_in_flight": {"a1"},
    "04c_a1_done_10s_idle": set(),
    "05_two_lora_a1_a2_in_flight": {"a1", "a2"},
    "06_three_lora_one_waits_t1s": {"a1", "a2"},
    "07_idle_10s_after_everything": set(),
    "12_after_unload_a5": set(),
}


class TestRecordedPages:
    @pytest.mark.parametrize(("name", "active"), ACTIVE.items(), ids=ACTIVE)
    def test_the_newest_series_says_what_was_active(self, name: str, active: set[str]) -> None:
        metrics = read((RECORDED / f"{name}.prom").read_bytes())

        assert metrics.lora is not None
        assert metrics.lora.max_lora == 2
        assert metrics.lora.active == active

    def test_before_the_first_request_nothing_is_known(self) -> None:
        metrics = read((RECORDED / "01_fresh_before_any_request.prom").read_bytes())

        assert metrics.lora is None
        assert (metrics.running, metrics.waiting, metrics.kv_cache_usage) == (0, 0, 0)

    def test_a_request_that_waits_for_a_slot_shows_as_deferred_only(self) -> None:
        metrics = read((RECORDED / "06_three_lora_one_waits_t1s.prom").read_bytes())

        assert (metrics.running, metrics.waiting, metrics.deferred) == (2, 1, 1)
        assert metrics.kv_cache_usage == pytest.approx(0.000122, rel=0.01)
        assert metrics.scraped_at == 5.0
        assert metrics.lora is not None
        assert metrics.lora.updated_at == 1.795427249684291e09

    def test_the_size_of_the_cache_is_known(self) -> None:
        metrics = read((RECORDED / "07_idle_10s_after_everything.prom").read_bytes())

        assert metrics.cache_tokens == 2097152

    @pytest.mark.slow
    @given(st.randoms(use_true_random=False))
    def test_the_order_of_lines_does_not_matter(self, rng: random.Random) -> None:
        page = (RECORDED / "06_three_lora_one_waits_t1s.prom").read_bytes()
        lines = page.splitlines()
        rng.shuffle(lines)

        assert read(b"\n".join(lines)) == read(page)

    @pytest.mark.parametrize("end", [b"\r\n", b"\n"])
    def test_line_ends_do_not_matter(self, end: bytes) -> None:
        page = (RECORDED / "05_two_lora_a1_a2_in_flight.prom").read_bytes()

        assert read(end.join(page.splitlines())) == read(page)


class TestNewestSeries:
    def test_of_all_combinations_that_ever_occurred_the_newest_counts(self) -> None:
        page = series("a1", "a1", NOW - 3) + series("a2,a1", "a2,a1", NOW) + series("", "", NOW - 1)

        assert lora_of(page).active == {"a1", "a2"}

    @pytest.mark.parametrize("age", [0, 5, -5, 59])
    def test_a_sum_of_two_times_is_no_time(self, age: float) -> None:
        """With several API servers, vLLM merges pages by adding the values."""
        page = series("", "", 2 * NOW - 9) + series("a1,a2", "a1,a2", NOW - age)

        assert lora_of(page).active == {"a1", "a2"}

    @pytest.mark.parametrize("age", [61, 86_400, -3600])
    def test_of_times_of_which_some_are_lost_only_a_fresh_one_is_the_present(
        self, age: float
    ) -> None:
        """The others may have been written since."""
        page = series("", "", 2 * NOW - 9) + series("a1,a2", "a1,a2", NOW - age)

        assert lora_of(page) == LoraActivity(2, frozenset(), frozenset(), NOW - age)

    @pytest.mark.parametrize("processes", [2, 3, 16])
    def test_a_page_of_sums_alone_states_the_slots(self, processes: int) -> None:
        page = series("", "", processes * NOW) + series("a", "a", processes * NOW - 5)

        assert lora_of(page) == LoraActivity(2, frozenset(), frozenset(), 0.0)

    @pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "-5", "0", "9e99"])
    def test_of_a_series_whose_value_is_no_time_only_the_slots_count(self, value: str) -> None:
        assert lora_of(series("x", "x", value) + series("a", "a", NOW)).active == {"a"}
        assert lora_of(series("x", "x", value)) == LoraActivity(2, frozenset(), frozenset(), 0.0)

    @pytest.mark.parametrize("seconds", [600, 3_700, 30 * 86_400, -3_700, -30 * 86_400])
    def test_a_pods_clock_may_be_wrong(self, seconds: float) -> None:
        page = series("b", "b", NOW + seconds - 2) + series("a", "a", NOW + seconds)

        assert lora_of(page) == LoraActivity(2, frozenset("a"), frozenset("a"), NOW + seconds)

    def test_an_old_value_is_an_idle_pod(self) -> None:
        assert lora_of(series("", "", NOW - 86_400)).active == set()

    def test_a_time_stamp_after_the_value_is_not_the_value(self) -> None:
        page = series("a", "a", f"{NOW} 1795427300000") + series("b", "b", f"{NOW - 1} 99")

        assert lora_of(page).active == {"a"}

    def test_twenty_thousand_series_are_no_trouble(self) -> None:
        pages = [series(f"a{n},b", f"a{n},b", NOW - n) for n in range(20_000)]
        random.Random(1).shuffle(pages)

        assert lora_of("".join(pages)).active == {"a0", "b"}

    @pytest.mark.parametrize("line", ["vllm:lora_requests_info{x} \n", series("a", "a", "soon")])
    def test_a_series_that_cannot_be_read_spoils_the_page(self, line: str) -> None:
        with pytest.raises(ExpositionError, match="malformed line: 'vllm:lora_requests_info"):
            read(BUSY + line)


class TestLabels:
    @pytest.mark.parametrize(
        ("label", "adapters"),
        [
            ("", set()),
            (" ", set()),
            (",", set()),
            ("a", {"a"}),
            ("a,b", {"a", "b"}),
            ("a, b", {"a", "b"}),
            ("b,a,b", {"a", "b"}),
            (r"say \"hi\"", {'say "hi"'}),
            (r"back\\slash", {"back\\slash"}),
            ("brace} 5,{", {"brace} 5", "{"}),
            ("größe,模型", {"größe", "模型"}),
        ],
    )
    def test_names_are_told_apart(self, label: str, adapters: set[str]) -> None:
        lora = lora_of(series(label, "", NOW))

        assert lora.running == adapters
        assert lora.active == adapters

    def test_running_and_waiting_are_kept_apart_and_united(self) -> None:
        lora = lora_of(series("a,b", "b,c", NOW))

        assert lora.running == {"a", "b"}
        assert lora.waiting == {"b", "c"}
        assert lora.active == {"a", "b", "c"}

    @pytest.mark.parametrize(
        ("text", "slots"),
        [("2", 2), ("0", None), ("-1", None), ("many", None), ("", None), ("2.5", None)],
    )
    def test_a_maximum_that_is_none_is_unknown(self, text: str, slots: int | None) -> None:
        assert lora_of(series("a", "a", NOW, max_lora=text)).max_lora == slots

    def test_a_maximum_that_is_missing_is_unknown(self) -> None:
        line = f'vllm:lora_requests_info{{running_lora_adapters="a"}} {NOW}\n'

        assert lora_of(line) == LoraActivity(None, frozenset({"a"}), frozenset(), NOW)


class TestNumbers:
    def test_engines_are_added_up_and_the_fullest_cache_counts(self) -> None:
        metrics = read(
            'vllm:num_requests_running{engine="0"} 2\n'
            'vllm:num_requests_running{engine="1"} 3\n'
            'vllm:num_requests_waiting{engine="0"} 1\n'
            'vllm:num_requests_waiting{engine="1"} 0\n'
            'vllm:kv_cache_usage_perc{engine="0"} 0.2\n'
            'vllm:kv_cache_usage_perc{engine="1"} 0.7\n'
            'vllm:num_requests_waiting_by_reason{engine="0",reason="deferred"} 1\n'
            'vllm:num_requests_waiting_by_reason{engine="1",reason="deferred"} 2\n'
            'vllm:num_requests_waiting_by_reason{engine="1",reason="capacity"} 9\n'
        )

        assert (metrics.running, metrics.waiting, metrics.deferred) == (5, 1, 3)
        assert metrics.kv_cache_usage == 0.7

    def test_the_older_name_of_the_cache_usage_is_known(self) -> None:
        assert read(BUSY + "vllm:gpu_cache_usage_perc 0.4\n").kv_cache_usage == 0.4

    def test_what_the_page_does_not_say_is_unknown(self) -> None:
        assert read(BUSY) == PodMetrics(scraped_at=5.0, running=1.0)

    def test_metrics_whose_names_only_begin_alike_do_not_count(self) -> None:
        page = (
            "# HELP vllm:num_requests_running Number of requests.\n"
            "# TYPE vllm:num_requests_running gauge\n"
            "vllm:num_requests_running_total 7\n"
            f"x_{BUSY}{BUSY}"
        )

        assert read(page).running == 1.0

    @pytest.mark.parametrize("number", ["NaN", "-Inf", "9" * 400, "9" * 5000])
    def test_a_number_that_is_none_does_not_count(self, number: str) -> None:
        assert read(BUSY + f"vllm:kv_cache_usage_perc {number}\n").kv_cache_usage is None

    @pytest.mark.parametrize(
        ("usages", "usage"),
        [((0.37,), 0.37), ((1.0,), 1.0), ((1.02,), 1.0), ((37.0,), None), ((0.4, 37.0), None)],
    )
    def test_a_cache_usage_in_percent_is_unknown(
        self, usages: tuple[float, ...], usage: float | None
    ) -> None:
        """Also if one engine uses less than a percent of its cache."""
        page = "".join(
            f'vllm:kv_cache_usage_perc{{engine="{engine}"}} {value}\n'
            for engine, value in enumerate(usages)
        )

        assert read(BUSY + page).kv_cache_usage == usage


def loaded(adapter: str, level: str = "gpu", value: float | str = 1.0, engine: int = 0) -> str:
    return (
        f'vllm:lora_adapter_loaded{{adapter_name="{adapter}",engine="{engine}",level="{level}",'
        f'pinned="false",rank="8"}} {value}\n'
    )


def residency_of(page: str) -> LoraResidency:
    residency = read(BUSY + page).residency
    assert residency is not None
    return residency


class TestResidency:
    """vllm-project/vllm#54830."""

    @pytest.mark.parametrize("name", ACTIVE)
    def test_vllm_0_32_0_does_not_say_what_is_loaded(self, name: str) -> None:
        metrics = read((RECORDED / f"{name}.prom").read_bytes())

        assert metrics.residency is None
        assert metrics.adapter_load_seconds is None

    def test_adapters_are_told_by_where_they_are(self) -> None:
        page = (
            loaded("a")
            + loaded("b", "cpu")
            + loaded("c")
            + "vllm:num_gpu_loaded_lora_adapters 2.0\n"
            + "vllm:max_gpu_lora_adapters 4.0\n"
        )

        assert residency_of(page) == LoraResidency(frozenset({"a", "c"}), frozenset({"b"}), 4)

    def test_what_is_on_the_gpu_is_not_listed_again_for_the_copy_in_host_memory(self) -> None:
        assert residency_of(loaded("a", "cpu") + loaded("a")) == LoraResidency(
            frozenset({"a"}), frozenset(), None
        )

    def test_a_pod_has_what_any_of_its_engines_has_and_the_slots_of_one(self) -> None:
        page = (
            loaded("a", "gpu", engine=0)
            + loaded("a", "cpu", engine=1)
            + loaded("b", "gpu", engine=1)
            + 'vllm:max_gpu_lora_adapters{engine="0"} 2\n'
            + 'vllm:max_gpu_lora_adapters{engine="1"} 2\n'
        )

        assert residency_of(page) == LoraResidency(frozenset({"a", "b"}), frozenset(), 2)

    @pytest.mark.parametrize(
        ("page", "slots"),
        [("vllm:num_gpu_loaded_lora_adapters 0\n", None), ("vllm:max_gpu_lora_adapters 4\n", 4)],
    )
    def test_nothing_loaded_is_not_nothing_said(self, page: str, slots: int | None) -> None:
        assert residency_of(page) == LoraResidency(frozenset(), frozenset(), slots)

    @pytest.mark.parametrize(
        "line",
        [
            loaded("x", value=0),
            loaded("x", value="NaN"),
            loaded("x", value=-1),
            loaded("x", level="disk"),
            loaded(""),
            "vllm:lora_adapter_loaded 1\n",
            'vllm:lora_adapter_loaded{adapter_name="x"} 1\n',
        ],
    )
    def test_a_series_that_names_no_loaded_adapter_does_not_count(self, line: str) -> None:
        assert residency_of(loaded("a") + line).gpu == {"a"}
        assert residency_of(line) == LoraResidency(frozenset(), frozenset(), None)

    def test_a_sum_over_api_servers_is_loaded_too(self) -> None:
        assert residency_of(loaded("a", value=2)).gpu == {"a"}

    @pytest.mark.parametrize(
        ("name", "adapter"),
        [(r"say \"hi\"", 'say "hi"'), ("brace} 0,{", "brace} 0,{"), ("größe", "größe")],
    )
    def test_names_are_read_as_they_are(self, name: str, adapter: str) -> None:
        assert residency_of(loaded(name)).gpu == {adapter}

    @pytest.mark.parametrize("slots", ["0", "-1", "NaN", "+Inf", "0.5"])
    def test_a_number_of_slots_that_is_none_is_unknown(self, slots: str) -> None:
        assert residency_of(f"vllm:max_gpu_lora_adapters {slots}\n").max_gpu is None

    @pytest.mark.slow
    @given(
        st.dictionaries(
            st.text(st.characters(exclude_characters='\n\r\\"', exclude_categories=["Cs"])),
            st.sets(st.sampled_from(["gpu", "cpu"])),
        ),
        st.randoms(use_true_random=False),
    )
    def test_every_adapter_is_found_once_in_whatever_order(
        self, levels: dict[str, set[str]], rng: random.Random
    ) -> None:
        levels.pop("", None)
        lines = [loaded(name, level) for name, where in levels.items() for level in where]
        rng.shuffle(lines)

        residency = residency_of("vllm:max_gpu_lora_adapters 2\n" + "".join(lines))

        assert residency.gpu == {name for name, where in levels.items() if "gpu" in where}
        assert residency.cpu == {name for name, where in levels.items() if where == {"cpu"}}

    def test_a_malformed_series_is_shown_each_time(self) -> None:
        page = BUSY + 'vllm:lora_adapter_loaded{adapter_name="a" 1\n'

        for _ in range(2):
            with pytest.raises(ExpositionError, match="malformed line: 'vllm:lora_adapter_loaded"):
                read(page)


class TestLoadTimes:
    def test_the_mean_is_over_all_series(self) -> None:
        page = (
            'vllm:lora_adapter_load_seconds_bucket{engine="0",le="+Inf"} 3.0\n'
            'vllm:lora_adapter_load_seconds_sum{engine="0"} 0.75\n'
            'vllm:lora_adapter_load_seconds_count{engine="0"} 3.0\n'
            'vllm:lora_adapter_load_seconds_sum{engine="1"} 0.25\n'
            'vllm:lora_adapter_load_seconds_count{engine="1"} 1\n'
        )

        assert read(BUSY + page).adapter_load_seconds == 0.25

    @pytest.mark.parametrize(
        ("total", "count"), [("0", "0"), ("1", "NaN"), ("NaN", "1"), ("-1", "1"), ("1", "-1")]
    )
    def test_before_the_first_load_it_is_unknown(self, total: str, count: str) -> None:
        page = (
            f"vllm:lora_adapter_load_seconds_sum {total}\n"
            f"vllm:lora_adapter_load_seconds_count {count}\n"
        )

        assert read(BUSY + page).adapter_load_seconds is None

    @pytest.mark.parametrize("part", ["sum", "count"])
    def test_half_a_histogram_is_none(self, part: str) -> None:
        page = f"vllm:lora_adapter_load_seconds_{part} 1\n"

        assert read(BUSY + page).adapter_load_seconds is None


class TestStart:
    """The server's start time, or the counter that detects a restart without it."""

    def test_the_recorded_pages_are_of_one_process(self) -> None:
        starts = {read(page.read_bytes()).started_at for page in RECORDED.glob("*.prom")}

        assert starts == {1.79542710513e9}

    def test_without_a_start_time_the_tokens_of_all_engines_are_counted(self) -> None:
        page = (
            'vllm:generation_tokens_total{engine="0",model_name="base"} 11524.0\n'
            'vllm:generation_tokens_total{engine="1",model_name="base"} 76.0 1795427333000\n'
            'vllm:generation_tokens_created{engine="0",model_name="base"} 1.795427154e+09\n'
        )
        metrics = read(BUSY + page)

        assert (metrics.started_at, metrics.generated_tokens) == (None, 11600)
        assert read(TestEngines.SGLANG + "sglang:generation_tokens_total 5\n").generated_tokens == 5

    @pytest.mark.parametrize("number", ["NaN", "+Inf", "-1", "0"])
    def test_a_start_time_that_is_none_is_unknown(self, number: str) -> None:
        assert read(BUSY + f"process_start_time_seconds {number}\n").started_at is None

    @pytest.mark.parametrize("number", ["NaN", "+Inf", "-1"])
    def test_a_count_that_is_none_is_unknown(self, number: str) -> None:
        metrics = read(BUSY + f"vllm:generation_tokens_total {number}\n")

        assert metrics.generated_tokens is None

    @pytest.mark.parametrize("name", ["process_start_time_seconds", "vllm:generation_tokens_total"])
    @pytest.mark.parametrize("value", ["soon", ""])
    def test_a_value_that_cannot_be_read_spoils_the_page(self, name: str, value: str) -> None:
        with pytest.raises(ExpositionError, match=f"malformed line: '{name}"):
            read(BUSY + f"{name} {value}\n")


class TestEngines:
    SGLANG = (
        'sglang:num_running_reqs{model_name="base"} 3.0\n'
        'sglang:num_queue_reqs{model_name="base"} 2.0\n'
        'sglang:token_usage{model_name="base"} 0.28\n'
        'sglang:lora_pool_slots_used{model_name="base"} 2.0\n'
        'sglang:lora_pool_slots_total{model_name="base"} 8.0\n'
    )

    def test_sglang_is_told_from_its_page(self) -> None:
        metrics = read(self.SGLANG)

        assert (metrics.running, metrics.waiting, metrics.kv_cache_usage) == (3, 2, 0.28)
        assert metrics.deferred is None
        assert metrics.lora == LoraActivity(8, frozenset(), frozenset(), NOW)

    def test_the_parts_by_priority_are_not_added_to_their_total(self) -> None:
        page = "".join(
            f'sglang:{gauge}{{model_name="base",priority="{priority}",dp_rank="{rank}"}} {count}\n'
            for gauge, total in [("num_running_reqs", 6), ("num_queue_reqs", 2)]
            for rank in range(2)
            for priority, count in [("", total), ("0", total - 1), ("7", 1)]
        )

        metrics = read(page)

        assert (metrics.running, metrics.waiting) == (12, 4)

    def test_sglang_without_adapters_says_nothing_of_them(self) -> None:
        assert read("sglang:num_running_reqs 0\n").lora is None
        assert read("sglang:num_running_reqs 0\nsglang:lora_pool_slots_total 0\n").lora is None

    def test_a_page_of_no_known_engine_is_refused(self) -> None:
        with pytest.raises(ExpositionError, match="not the page of a known model server"):
            read("http_requests_total 5\n")

    def test_an_engine_that_is_named_need_not_be_guessed(self) -> None:
        assert read("", engine="vllm") == PodMetrics(scraped_at=5.0)


class TestMalformedPages:
    @pytest.mark.parametrize(
        "line",
        [
            'vllm:num_requests_running{engine="0" 1\n',
            "vllm:num_requests_running many\n",
            "vllm:num_requests_running \n",
            "vllm:num_requests_running{\xff} 1\n",
        ],
    )
    def test_a_malformed_line_is_shown(self, line: str) -> None:
        with pytest.raises(ExpositionError, match="malformed line: 'vllm:num_requests_running"):
            read(BUSY + line)

    def test_what_is_shown_of_a_line_is_short(self) -> None:
        with pytest.raises(ExpositionError) as caught:
            read("vllm:num_requests_running " + "x" * 10_000)

        assert len(str(caught.value)) < 200

    @given(st.binary(max_size=200), st.text('{}="\\, \n5', max_size=40))
    def test_no_bytes_whatever_raise_anything_else(self, noise: bytes, tail: str) -> None:
        for page in (
            noise,
            BUSY.encode() + noise,
            b"vllm:num_requests_running" + noise,
            f"vllm:num_requests_running{tail}\n".encode(),
            f"{BUSY}vllm:lora_requests_info{tail}\n".encode(),
            f"{BUSY}vllm:lora_adapter_loaded{tail}\n".encode(),
            f"{BUSY}vllm:max_gpu_lora_adapters{tail}\n".encode(),
            f"{BUSY}vllm:lora_adapter_load_seconds_sum{tail}\n".encode(),
        ):
            with suppress(ExpositionError):
                read(page)

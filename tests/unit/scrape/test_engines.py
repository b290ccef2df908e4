"""Pages of each engine, with the metrics that its documentation names."""

from pathlib import Path

import pytest

from lora_router.fleet.engine_names import ENGINES
from lora_router.fleet.pod_metrics import LoraActivity, PodMetrics
from lora_router.scrape.engines import PAGES
from lora_router.scrape.exposition import UnknownPageError, read_page

NOW = 1.7954273e9
RECORDED = Path(__file__).parents[2] / "data" / "vllm-0.32.0"


def read(page: str, engine: str | None = None) -> PodMetrics:
    return read_page(page.encode(), engine=engine, scraped_at=5.0, wall_now=NOW)


def load(page: str) -> tuple[float | None, float | None, float | None, float | None]:
    metrics = read(page)
    return metrics.running, metrics.waiting, metrics.kv_cache_usage, metrics.generated_tokens


def test_every_engine_with_a_name_has_a_page() -> None:
    assert {names.engine for names in PAGES} == set(ENGINES)


@pytest.mark.parametrize("prefix", ["ray_vllm_", "ray_vllm:"])
def test_vllm_in_ray_serve_has_everything_that_vllm_has(prefix: str) -> None:
    path = RECORDED / "06_three_lora_one_waits_t1s.prom"
    lines = [line for line in path.read_text().splitlines() if "start_time" not in line]
    plain = "\n".join(lines)
    renamed = plain.replace("vllm:", prefix).replace("{engine=", '{ReplicaId="r1",engine=')

    assert read(renamed) == read(plain)
    assert read(renamed).lora is not None


def test_the_replicas_on_a_node_of_ray_are_added_up() -> None:
    page = (
        'ray_vllm_num_requests_running{ReplicaId="a",WorkerId="1",engine="0"} 3\n'
        'ray_vllm_num_requests_running{ReplicaId="b",WorkerId="2",engine="0"} 4\n'
        'ray_vllm_num_requests_waiting{ReplicaId="a",WorkerId="1",engine="0"} 1\n'
        'ray_vllm_kv_cache_usage_perc{ReplicaId="a",WorkerId="1",engine="0"} 0.5\n'
        'ray_vllm_kv_cache_usage_perc{ReplicaId="b",WorkerId="2",engine="0"} 0.75\n'
        'ray_vllm_generation_tokens_total{ReplicaId="a",WorkerId="1",engine="0"} 99\n'
    )

    assert load(page) == (7, 1, 0.75, 99)


def test_nim_1_has_vllms_names_without_a_prefix() -> None:
    page = (
        'gpu_cache_usage_perc{model_name="meta/llama3-8b-instruct"} 0.125\n'
        'num_requests_running{model_name="meta/llama3-8b-instruct"} 2\n'
        'num_requests_waiting{model_name="meta/llama3-8b-instruct"} 1\n'
        'num_request_max{model_name="meta/llama3-8b-instruct"} 256\n'
        'generation_tokens_total{model_name="meta/llama3-8b-instruct"} 512\n'
    )

    assert load(page) == (2, 1, 0.125, 512)
    assert read(page).lora is None


def test_nim_2_has_the_page_of_the_server_in_it() -> None:
    assert load('vllm:num_requests_running{engine="0"} 2\n')[0] == 2
    assert read("sglang:num_running_reqs 3\n", engine="nim").running == 3


def test_trtllm_serve() -> None:
    labels = '{engine_type="trtllm",model_name="llama"}'
    page = (
        f"trtllm_num_requests_running{labels} 8\n"
        f"trtllm_num_requests_waiting{labels} 5\n"
        f"trtllm_num_requests_completed_total{labels} 77\n"
        f"trtllm_kv_cache_utilization{labels} 0.5\n"
        f"trtllm_kv_cache_host_utilization{labels} 0.9\n"
        f"trtllm_generation_tokens_total{labels} 1024\n"
    )

    assert load(page) == (8, 5, 0.5, 1024)


class TestTriton:
    PAGE = (
        'nv_inference_request_success{model="tensorrt_llm",version="1"} 9\n'
        'nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="context",version="1"} 1\n'
        'nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 6\n'
        'nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 512\n'
        'nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 8\n'
        'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="tensorrt_llm"} 5\n'
    )

    def test_each_number_is_one_value_of_a_label(self) -> None:
        page = (
            self.PAGE
            + 'nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting"} 2\n'
            + 'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction"} 0.25\n'
        )

        assert load(page) == (6, 2, 0.25, None)

    def test_an_older_release_does_not_tell_what_waits(self) -> None:
        assert load(self.PAGE) == (6, None, None, None)

    def test_without_its_tensorrt_llm_backend_it_does_not_tell_its_load(self) -> None:
        page = 'nv_inference_request_success{model="resnet",version="1"} 9\n'
        with pytest.raises(UnknownPageError):
            read(page)

        assert load_of_labelled(page, "triton") == (None, None)


def load_of_labelled(page: str, engine: str) -> tuple[float | None, float | None]:
    metrics = read(page, engine)
    return metrics.running, metrics.waiting


class TestTgi:
    def test_its_queue_and_its_batch_are_read(self) -> None:
        page = (
            "tgi_queue_size 3\n"
            "tgi_batch_current_size 12\n"
            "tgi_batch_current_max_tokens 4096\n"
            'tgi_request_generated_tokens_bucket{le="+Inf"} 5\n'
            "tgi_request_generated_tokens_sum 640\n"
            "tgi_request_generated_tokens_count 5\n"
        )

        assert load(page) == (12, 3, None, 640)

    def test_the_queue_alone_identifies_it(self) -> None:
        assert load("tgi_queue_size 3\n") == (None, 3, None, None)

    def test_before_its_first_request_only_the_label_tells_the_engine(self) -> None:
        assert load_of_labelled("", "tgi") == (None, None)


def test_lmdeploy() -> None:
    labels = '{engine="0",model_name="internlm"}'
    page = (
        f"lmdeploy:num_requests_running{labels} 4\n"
        f"lmdeploy:num_requests_waiting{labels} 2\n"
        f"lmdeploy:gpu_cache_usage_perc{labels} 0.5\n"
        f"lmdeploy:generation_tokens_total{labels} 100\n"
    )

    assert load(page) == (4, 2, 0.5, 100)


def test_the_server_of_llama_cpp() -> None:
    page = (
        "llamacpp:tokens_predicted_total 100\n"
        "llamacpp:requests_processing 2\n"
        "llamacpp:requests_deferred 7\n"
    )

    assert load(page) == (2, 7, None, 100)
    assert read(page + "llamacpp:kv_cache_usage_ratio 0.5\n").kv_cache_usage == 0.5


def test_a_wrong_label_does_not_hide_what_the_page_shows() -> None:
    assert read("tgi_batch_current_size 2\n", engine="vllm").running == 2


def test_the_slots_of_sglang_are_those_of_its_page() -> None:
    page = "sglang:num_running_reqs 3\nsglang:lora_pool_slots_total 8\n"

    assert read(page).lora == LoraActivity(8, frozenset(), frozenset(), NOW)

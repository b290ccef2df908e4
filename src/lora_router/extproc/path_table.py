"""The table of paths: the only place that knows them.

The paths are those of vLLM 0.33 (``vllm/entrypoints``), SGLang 0.5 (``srt/entrypoints``), OpenAI's
and Anthropic's APIs and Azure's form of OpenAI's. ``docs/paths.md`` shows the table.
"""

from collections.abc import Iterable, Iterator

from lora_router.extproc.path_rules import Api, ModelIn, PathRule, Treatment, UsageIn

_GET = frozenset({"GET", "HEAD"})
_POST = frozenset({"POST"})
_ID = ("id",)


def _routed(
    *paths: str, api: Api = Api.OPENAI, usage: UsageIn = UsageIn.NONE
) -> Iterator[PathRule]:
    for path in paths:
        yield PathRule(path, Treatment.ROUTED, ModelIn.BODY, api=api, usage=usage)


def _passed(*paths: str) -> Iterator[PathRule]:
    for path in paths:
        yield PathRule(path, Treatment.PASSED)


def _refused(*paths: str, changes_pod: bool, to_all: bool = False) -> Iterator[PathRule]:
    for path in paths:
        yield PathRule(path, Treatment.REFUSED, changes_pod=changes_pod, to_all=to_all)


def _of_ids(kind: str, *paths: str, makes_ids: tuple[str, ...] = ()) -> Iterator[PathRule]:
    for path in paths:
        yield PathRule(path, Treatment.STICKY, id_kind=kind, makes_ids=makes_ids)


def _azure(*operations: str, usage: UsageIn = UsageIn.NONE) -> Iterator[PathRule]:
    for operation in operations:
        path = f"/openai/deployments/{{model}}/{operation}"
        yield PathRule(path, Treatment.ROUTED, ModelIn.PATH, usage=usage)


def _rules() -> Iterator[PathRule]:
    # Generation and what belongs to it.
    yield from _routed(
        "/v1/chat/completions",
        "/v1/completions",
        "/inference/v1/generate",
        "/invocations",
        usage=UsageIn.ASKED,
    )
    yield from _routed(
        "/v1/chat/completions/batch",
        "/v1/responses/compact",
        "/v1/decisions",
        "/v1/systemone",
        "/generative_scoring",
        "/cohere/v2/chat",
        usage=UsageIn.ALL,
    )
    yield from _routed(
        "/v1/chat/completions/render",
        "/v1/chat/completions/derender",
        "/v1/completions/render",
        "/v1/completions/derender",
        "/v1/responses/render",
        "/v1/responses/input_tokens",
        "/cohere/v2/chat/render",
        "/generate",
        "/api/chat",
        "/api/generate",
        "/api/show",
    )
    # Vectors, scores, classes.
    yield from _routed(
        "/v1/embeddings",
        "/v2/embed",
        "/pooling",
        "/encode",
        "/classify",
        "/v1/classify",
        "/v1/moderations",
        "/score",
        "/v1/score",
        "/rerank",
        "/v1/rerank",
        "/v2/rerank",
        usage=UsageIn.ALL,
    )
    # Tokens, sound, images.
    yield from _routed(
        "/tokenize", "/detokenize", "/v1/tokenize", "/v1/detokenize", "/v1/audio/speech"
    )
    yield from _routed(
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/images/generations",
        "/v1/images/edits",
        "/v1/images/variations",
        usage=UsageIn.ALL,
    )
    yield from _routed("/v1/messages", api=Api.ANTHROPIC, usage=UsageIn.ALL)
    yield from _routed(
        "/v1/messages/count_tokens", "/v1/messages/render", "/v1/complete", api=Api.ANTHROPIC
    )
    yield PathRule("/v1/realtime", Treatment.ROUTED, ModelIn.QUERY)
    yield from _azure("chat/completions", "completions", usage=UsageIn.ASKED)
    yield from _azure(
        "embeddings",
        "audio/transcriptions",
        "audio/translations",
        "images/generations",
        "images/edits",
        usage=UsageIn.ALL,
    )
    yield from _azure("audio/speech")

    # What the fleet knows as a whole.
    yield PathRule("/v1/models", Treatment.ANSWERED, methods=_GET)
    yield PathRule("/v1/models/{model:path}", Treatment.ANSWERED, ModelIn.PATH, methods=_GET)
    yield from _passed("/v1/models", "/v1/models/{model:path}")

    # IDs that one pod made and only this pod knows.
    yield PathRule(
        "/v1/responses",
        Treatment.ROUTED,
        ModelIn.BODY,
        methods=_POST,
        ids_in=(("previous_response_id", "response"), ("conversation", "conversation")),
        makes_ids=_ID,
        usage=UsageIn.ALL,
    )
    yield PathRule("/v1/files", Treatment.PASSED, methods=_POST, makes_ids=_ID)
    yield PathRule(
        "/v1/batches",
        Treatment.STICKY,
        methods=_POST,
        ids_in=(("input_file_id", "file"),),
        makes_ids=_ID,
    )
    yield PathRule("/v1/conversations", Treatment.PASSED, methods=_POST, makes_ids=_ID)
    yield PathRule("/v1/videos", Treatment.ROUTED, ModelIn.BODY, methods=_POST, makes_ids=_ID)
    yield from _passed(
        "/v1/files", "/v1/batches", "/v1/conversations", "/v1/responses", "/v1/videos"
    )
    yield from _of_ids(
        "response",
        "/v1/responses/{id}",
        "/v1/responses/{id}/cancel",
        "/v1/responses/{id}/input_items",
    )
    yield from _of_ids("file", "/v1/files/{id}", "/v1/files/{id}/content")
    yield from _of_ids(
        "batch",
        "/v1/batches/{id}",
        "/v1/batches/{id}/cancel",
        makes_ids=("id", "output_file_id", "error_file_id"),
    )
    yield from _of_ids(
        "conversation",
        "/v1/conversations/{id}",
        "/v1/conversations/{id}/items",
        "/v1/conversations/{id}/items/{item}",
    )
    yield from _of_ids("video", "/v1/videos/{id}", "/v1/videos/{id}/content")

    # State of a server that harms nobody.
    yield from _passed(
        "/", "/health", "/health_generate", "/ping", "/ready", "/readyz", "/version", "/load"
    )
    yield from _passed("/tokenizer_info", "/get_model_info", "/model_info", "/api/tags")

    yield from _administrative()


def _administrative() -> Iterator[PathRule]:
    yield from _refused(
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/load_lora_adapter",
        "/load_lora_adapter_from_tensors",
        "/unload_lora_adapter",
        changes_pod=True,
        to_all=True,
    )
    # vLLM.
    yield from _refused(
        "/sleep",
        "/wake_up",
        "/pause",
        "/resume",
        "/shutdown",
        "/collective_rpc",
        "/reset_prefix_cache",
        "/reset_mm_cache",
        "/reset_encoder_cache",
        "/release_kv_cache_memory",
        "/abort_requests",
        "/inference/v1/abort_requests",
        "/scale_elastic_ep",
        "/is_scaling_elastic_ep",
        "/fault_tolerance/apply",
        "/init_weight_transfer_engine",
        "/shutdown_weight_transfer_engine",
        "/start_weight_update",
        "/start_draft_weight_update",
        "/finish_weight_update",
        "/update_weights",
        "/update_weight_version",
        "/weight_checker",
        "/start_profile",
        "/stop_profile",
        changes_pod=True,
    )
    # SGLang.
    yield from _refused(
        "/abort_request",
        "/add_external_corpus",
        "/begin_weight_update",
        "/close_session",
        "/configure_logging",
        "/continue_generation",
        "/destroy_weights_update_group",
        "/dump_expert_distribution_record",
        "/dumper/{method}",
        "/end_weight_update",
        "/flush_cache",
        "/freeze_gc",
        "/hicache/storage-backend",
        "/hicache/storage-backend/clear",
        "/init_weights_send_group_for_remote_instance",
        "/init_weights_update_group",
        "/open_session",
        "/pause_generation",
        "/pd_role_switch",
        "/register_transfer_engine_info",
        "/release_memory_occupation",
        "/remove_external_corpus",
        "/resume_memory_occupation",
        "/send_weights_to_remote_instance",
        "/set_internal_state",
        "/set_trace_level",
        "/slow_down",
        "/start_expert_distribution_record",
        "/stop_expert_distribution_record",
        "/update_weights_from_disk",
        "/update_weights_from_distributed",
        "/update_weights_from_ipc",
        "/update_weights_from_tensor",
        "/weights_checker",
        changes_pod=True,
    )
    # What shows the internals of a server. Servers mount the metrics for all paths that begin so.
    yield PathRule("/metrics", Treatment.REFUSED, is_mounted=True)
    yield from _refused(
        "/docs",
        "/docs/oauth2-redirect",
        "/redoc",
        "/openapi.json",
        "/server_info",
        "/get_server_info",
        "/is_sleeping",
        "/is_paused",
        "/weight_info",
        "/get_world_size",
        "/kv_event_sources",
        "/fault_tolerance/status",
        "/get_weights_by_name",
        "/get_hicache_l3_cache_layout",
        "/get_remote_instance_transfer_engine_info",
        "/remote_instance_transfer_engine_info",
        "/get_transfer_engine_info",
        "/list_external_corpora",
        changes_pod=False,
    )


RULES = tuple(_rules())
"""All rules. The first rule of a path that has the request's method counts."""


def rules_of_settings(treatments: Iterable[tuple[str, str]]) -> tuple[PathRule, ...]:
    """Return rules for the paths that the settings name: ``routed``, ``passed`` or ``refused``."""
    return tuple(
        PathRule(
            path,
            treatment := Treatment(name),
            ModelIn.BODY if treatment is Treatment.ROUTED else ModelIn.NOWHERE,
            usage=UsageIn.ALL if treatment is Treatment.ROUTED else UsageIn.NONE,
            changes_pod=treatment is Treatment.REFUSED,
        )
        for path, name in treatments
    )

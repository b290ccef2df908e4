from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Readings(_message.Message):
    __slots__ = ("number", "now_us", "readings", "lists", "interval_ms")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NOW_US_FIELD_NUMBER: _ClassVar[int]
    READINGS_FIELD_NUMBER: _ClassVar[int]
    LISTS_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    number: int
    now_us: int
    readings: _containers.RepeatedCompositeFieldContainer[Reading]
    lists: _containers.RepeatedCompositeFieldContainer[ModelList]
    interval_ms: int
    def __init__(self, number: _Optional[int] = ..., now_us: _Optional[int] = ..., readings: _Optional[_Iterable[_Union[Reading, _Mapping]]] = ..., lists: _Optional[_Iterable[_Union[ModelList, _Mapping]]] = ..., interval_ms: _Optional[int] = ...) -> None: ...

class Reading(_message.Message):
    __slots__ = ("pod", "read_at_us", "metrics", "models", "failure")
    POD_FIELD_NUMBER: _ClassVar[int]
    READ_AT_US_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    pod: int
    read_at_us: int
    metrics: Snapshot
    models: bytes
    failure: ReadFailure
    def __init__(self, pod: _Optional[int] = ..., read_at_us: _Optional[int] = ..., metrics: _Optional[_Union[Snapshot, _Mapping]] = ..., models: _Optional[bytes] = ..., failure: _Optional[_Union[ReadFailure, _Mapping]] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("running", "waiting", "kv_cache_usage", "deferred", "adapter_load_seconds", "started_at", "generated_tokens", "adapters", "lora", "residency", "cache_tokens")
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_USAGE_FIELD_NUMBER: _ClassVar[int]
    DEFERRED_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_LOAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    GENERATED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    LORA_FIELD_NUMBER: _ClassVar[int]
    RESIDENCY_FIELD_NUMBER: _ClassVar[int]
    CACHE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    running: float
    waiting: float
    kv_cache_usage: float
    deferred: float
    adapter_load_seconds: float
    started_at: float
    generated_tokens: float
    adapters: _containers.RepeatedScalarFieldContainer[str]
    lora: LoraActivity
    residency: LoraResidency
    cache_tokens: float
    def __init__(self, running: _Optional[float] = ..., waiting: _Optional[float] = ..., kv_cache_usage: _Optional[float] = ..., deferred: _Optional[float] = ..., adapter_load_seconds: _Optional[float] = ..., started_at: _Optional[float] = ..., generated_tokens: _Optional[float] = ..., adapters: _Optional[_Iterable[str]] = ..., lora: _Optional[_Union[LoraActivity, _Mapping]] = ..., residency: _Optional[_Union[LoraResidency, _Mapping]] = ..., cache_tokens: _Optional[float] = ...) -> None: ...

class LoraActivity(_message.Message):
    __slots__ = ("max_lora", "running", "waiting", "updated_at")
    MAX_LORA_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    max_lora: int
    running: _containers.RepeatedScalarFieldContainer[int]
    waiting: _containers.RepeatedScalarFieldContainer[int]
    updated_at: float
    def __init__(self, max_lora: _Optional[int] = ..., running: _Optional[_Iterable[int]] = ..., waiting: _Optional[_Iterable[int]] = ..., updated_at: _Optional[float] = ...) -> None: ...

class LoraResidency(_message.Message):
    __slots__ = ("max_gpu", "gpu", "cpu")
    MAX_GPU_FIELD_NUMBER: _ClassVar[int]
    GPU_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    max_gpu: int
    gpu: _containers.RepeatedScalarFieldContainer[int]
    cpu: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, max_gpu: _Optional[int] = ..., gpu: _Optional[_Iterable[int]] = ..., cpu: _Optional[_Iterable[int]] = ...) -> None: ...

class ReadFailure(_message.Message):
    __slots__ = ("models", "cause", "unreachable")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_FIELD_NUMBER: _ClassVar[int]
    models: bool
    cause: str
    unreachable: bool
    def __init__(self, models: _Optional[bool] = ..., cause: _Optional[str] = ..., unreachable: _Optional[bool] = ...) -> None: ...

class ModelList(_message.Message):
    __slots__ = ("digest", "part", "more_follows", "base_models", "parents", "adapters", "adapter_parents")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    MORE_FOLLOWS_FIELD_NUMBER: _ClassVar[int]
    BASE_MODELS_FIELD_NUMBER: _ClassVar[int]
    PARENTS_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_PARENTS_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    part: int
    more_follows: bool
    base_models: _containers.RepeatedScalarFieldContainer[str]
    parents: _containers.RepeatedScalarFieldContainer[str]
    adapters: _containers.RepeatedScalarFieldContainer[str]
    adapter_parents: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, digest: _Optional[bytes] = ..., part: _Optional[int] = ..., more_follows: _Optional[bool] = ..., base_models: _Optional[_Iterable[str]] = ..., parents: _Optional[_Iterable[str]] = ..., adapters: _Optional[_Iterable[str]] = ..., adapter_parents: _Optional[_Iterable[int]] = ...) -> None: ...

from lora_router.peering.pb import readings_pb2 as _readings_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PeerMessage(_message.Message):
    __slots__ = ("greeting", "report", "leaves", "wants_complete", "readings", "made_ids", "question", "answer", "sent_prompts", "failed_loads", "withdrawals", "load_times", "early_refusals")
    GREETING_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    WANTS_COMPLETE_FIELD_NUMBER: _ClassVar[int]
    READINGS_FIELD_NUMBER: _ClassVar[int]
    MADE_IDS_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    SENT_PROMPTS_FIELD_NUMBER: _ClassVar[int]
    FAILED_LOADS_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWALS_FIELD_NUMBER: _ClassVar[int]
    LOAD_TIMES_FIELD_NUMBER: _ClassVar[int]
    EARLY_REFUSALS_FIELD_NUMBER: _ClassVar[int]
    greeting: Greeting
    report: Report
    leaves: bool
    wants_complete: bool
    readings: _readings_pb2.Readings
    made_ids: _containers.RepeatedCompositeFieldContainer[MadeIds]
    question: Question
    answer: Answer
    sent_prompts: _containers.RepeatedCompositeFieldContainer[SentPrompts]
    failed_loads: _containers.RepeatedCompositeFieldContainer[FailedLoad]
    withdrawals: _containers.RepeatedCompositeFieldContainer[Withdrawal]
    load_times: _containers.RepeatedCompositeFieldContainer[LoadTimes]
    early_refusals: _containers.RepeatedCompositeFieldContainer[EarlyRefusal]
    def __init__(self, greeting: _Optional[_Union[Greeting, _Mapping]] = ..., report: _Optional[_Union[Report, _Mapping]] = ..., leaves: _Optional[bool] = ..., wants_complete: _Optional[bool] = ..., readings: _Optional[_Union[_readings_pb2.Readings, _Mapping]] = ..., made_ids: _Optional[_Iterable[_Union[MadeIds, _Mapping]]] = ..., question: _Optional[_Union[Question, _Mapping]] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ..., sent_prompts: _Optional[_Iterable[_Union[SentPrompts, _Mapping]]] = ..., failed_loads: _Optional[_Iterable[_Union[FailedLoad, _Mapping]]] = ..., withdrawals: _Optional[_Iterable[_Union[Withdrawal, _Mapping]]] = ..., load_times: _Optional[_Iterable[_Union[LoadTimes, _Mapping]]] = ..., early_refusals: _Optional[_Iterable[_Union[EarlyRefusal, _Mapping]]] = ...) -> None: ...

class EarlyRefusal(_message.Message):
    __slots__ = ("adapter", "milliseconds", "priority")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    milliseconds: int
    priority: int
    def __init__(self, adapter: _Optional[str] = ..., milliseconds: _Optional[int] = ..., priority: _Optional[int] = ...) -> None: ...

class LoadTimes(_message.Message):
    __slots__ = ("base_model", "host", "disk", "in_slot")
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    DISK_FIELD_NUMBER: _ClassVar[int]
    IN_SLOT_FIELD_NUMBER: _ClassVar[int]
    base_model: str
    host: _containers.RepeatedScalarFieldContainer[int]
    disk: _containers.RepeatedScalarFieldContainer[int]
    in_slot: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, base_model: _Optional[str] = ..., host: _Optional[_Iterable[int]] = ..., disk: _Optional[_Iterable[int]] = ..., in_slot: _Optional[_Iterable[int]] = ...) -> None: ...

class Withdrawal(_message.Message):
    __slots__ = ("pod", "adapter", "milliseconds")
    POD_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    pod: int
    adapter: str
    milliseconds: int
    def __init__(self, pod: _Optional[int] = ..., adapter: _Optional[str] = ..., milliseconds: _Optional[int] = ...) -> None: ...

class FailedLoad(_message.Message):
    __slots__ = ("adapter", "detail", "milliseconds")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    MILLISECONDS_FIELD_NUMBER: _ClassVar[int]
    adapter: str
    detail: str
    milliseconds: int
    def __init__(self, adapter: _Optional[str] = ..., detail: _Optional[str] = ..., milliseconds: _Optional[int] = ...) -> None: ...

class SentPrompts(_message.Message):
    __slots__ = ("pod", "model", "name_counts", "new_tokens", "names")
    POD_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NAME_COUNTS_FIELD_NUMBER: _ClassVar[int]
    NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    pod: int
    model: str
    name_counts: _containers.RepeatedScalarFieldContainer[int]
    new_tokens: _containers.RepeatedScalarFieldContainer[int]
    names: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, pod: _Optional[int] = ..., model: _Optional[str] = ..., name_counts: _Optional[_Iterable[int]] = ..., new_tokens: _Optional[_Iterable[int]] = ..., names: _Optional[_Iterable[int]] = ...) -> None: ...

class Question(_message.Message):
    __slots__ = ("number", "text")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    number: int
    text: bytes
    def __init__(self, number: _Optional[int] = ..., text: _Optional[bytes] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("number", "piece", "more_follows")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    PIECE_FIELD_NUMBER: _ClassVar[int]
    MORE_FOLLOWS_FIELD_NUMBER: _ClassVar[int]
    number: int
    piece: bytes
    more_follows: bool
    def __init__(self, number: _Optional[int] = ..., piece: _Optional[bytes] = ..., more_follows: _Optional[bool] = ...) -> None: ...

class MadeIds(_message.Message):
    __slots__ = ("pod", "ids")
    POD_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    pod: int
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, pod: _Optional[int] = ..., ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Greeting(_message.Message):
    __slots__ = ("router", "version", "oldest_version", "release", "host", "worker", "workers")
    ROUTER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OLDEST_VERSION_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    router: str
    version: int
    oldest_version: int
    release: str
    host: str
    worker: int
    workers: int
    def __init__(self, router: _Optional[str] = ..., version: _Optional[int] = ..., oldest_version: _Optional[int] = ..., release: _Optional[str] = ..., host: _Optional[str] = ..., worker: _Optional[int] = ..., workers: _Optional[int] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("number", "base", "part", "more_follows", "now_ms", "new_pods", "new_adapters", "new_routers", "pod", "pod_requests", "count_pod", "count_adapter", "count_requests", "held", "no_longer_held", "acknowledged", "ejected", "no_longer_ejected", "used", "sent_pod", "sent_ms", "loads_no_adapters")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    MORE_FOLLOWS_FIELD_NUMBER: _ClassVar[int]
    NOW_MS_FIELD_NUMBER: _ClassVar[int]
    NEW_PODS_FIELD_NUMBER: _ClassVar[int]
    NEW_ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    NEW_ROUTERS_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    POD_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    COUNT_POD_FIELD_NUMBER: _ClassVar[int]
    COUNT_ADAPTER_FIELD_NUMBER: _ClassVar[int]
    COUNT_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    NO_LONGER_HELD_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    EJECTED_FIELD_NUMBER: _ClassVar[int]
    NO_LONGER_EJECTED_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    SENT_POD_FIELD_NUMBER: _ClassVar[int]
    SENT_MS_FIELD_NUMBER: _ClassVar[int]
    LOADS_NO_ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    number: int
    base: int
    part: int
    more_follows: bool
    now_ms: int
    new_pods: _containers.RepeatedCompositeFieldContainer[Pod]
    new_adapters: _containers.RepeatedScalarFieldContainer[str]
    new_routers: _containers.RepeatedScalarFieldContainer[str]
    pod: _containers.RepeatedScalarFieldContainer[int]
    pod_requests: _containers.RepeatedScalarFieldContainer[int]
    count_pod: _containers.RepeatedScalarFieldContainer[int]
    count_adapter: _containers.RepeatedScalarFieldContainer[int]
    count_requests: _containers.RepeatedScalarFieldContainer[int]
    held: _containers.RepeatedCompositeFieldContainer[Held]
    no_longer_held: _containers.RepeatedScalarFieldContainer[int]
    acknowledged: _containers.RepeatedScalarFieldContainer[int]
    ejected: _containers.RepeatedScalarFieldContainer[int]
    no_longer_ejected: _containers.RepeatedScalarFieldContainer[int]
    used: _containers.RepeatedCompositeFieldContainer[Used]
    sent_pod: _containers.RepeatedScalarFieldContainer[int]
    sent_ms: _containers.RepeatedScalarFieldContainer[int]
    loads_no_adapters: bool
    def __init__(self, number: _Optional[int] = ..., base: _Optional[int] = ..., part: _Optional[int] = ..., more_follows: _Optional[bool] = ..., now_ms: _Optional[int] = ..., new_pods: _Optional[_Iterable[_Union[Pod, _Mapping]]] = ..., new_adapters: _Optional[_Iterable[str]] = ..., new_routers: _Optional[_Iterable[str]] = ..., pod: _Optional[_Iterable[int]] = ..., pod_requests: _Optional[_Iterable[int]] = ..., count_pod: _Optional[_Iterable[int]] = ..., count_adapter: _Optional[_Iterable[int]] = ..., count_requests: _Optional[_Iterable[int]] = ..., held: _Optional[_Iterable[_Union[Held, _Mapping]]] = ..., no_longer_held: _Optional[_Iterable[int]] = ..., acknowledged: _Optional[_Iterable[int]] = ..., ejected: _Optional[_Iterable[int]] = ..., no_longer_ejected: _Optional[_Iterable[int]] = ..., used: _Optional[_Iterable[_Union[Used, _Mapping]]] = ..., sent_pod: _Optional[_Iterable[int]] = ..., sent_ms: _Optional[_Iterable[int]] = ..., loads_no_adapters: _Optional[bool] = ...) -> None: ...

class Used(_message.Message):
    __slots__ = ("pod", "adapters", "tenths_ago")
    POD_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    TENTHS_AGO_FIELD_NUMBER: _ClassVar[int]
    pod: int
    adapters: _containers.RepeatedScalarFieldContainer[int]
    tenths_ago: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, pod: _Optional[int] = ..., adapters: _Optional[_Iterable[int]] = ..., tenths_ago: _Optional[_Iterable[int]] = ...) -> None: ...

class Pod(_message.Message):
    __slots__ = ("name", "address", "uid")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    uid: str
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., uid: _Optional[str] = ...) -> None: ...

class Held(_message.Message):
    __slots__ = ("adapter", "since_ms", "wanted_pod", "closed_pod", "closed_adapter", "priority")
    ADAPTER_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    WANTED_POD_FIELD_NUMBER: _ClassVar[int]
    CLOSED_POD_FIELD_NUMBER: _ClassVar[int]
    CLOSED_ADAPTER_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    adapter: int
    since_ms: int
    wanted_pod: int
    closed_pod: int
    closed_adapter: int
    priority: int
    def __init__(self, adapter: _Optional[int] = ..., since_ms: _Optional[int] = ..., wanted_pod: _Optional[int] = ..., closed_pod: _Optional[int] = ..., closed_adapter: _Optional[int] = ..., priority: _Optional[int] = ...) -> None: ...

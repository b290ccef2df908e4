"""The keys of a scenario file, with their bounds, defaults and meanings.

The reference in docs/simulator.md is generated from here. The defaults describe the fleet that the
figures of docs/routing.md were measured on; changing one changes those figures.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from lora_router.simulator.autoscaler_keys import AutoscalerKeys
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.key_kinds import (
    Flag,
    InTurn,
    ListOf,
    Number,
    NumberOrNames,
    Text,
    Whole,
    WordOf,
    WordOr,
    WrongValueError,
)
from lora_router.simulator.key_records import Record, key
from lora_router.simulator.lengths import Lengths
from lora_router.simulator.loader_keys import LoaderKeys
from lora_router.simulator.recorded.formats import FORMATS
from lora_router.simulator.router_keys import SHARE, RouterEventKeys, RouterKeys, WireKeys
from lora_router.simulator.trace import OUTPUT_TOKENS, PROMPT_TOKENS
from lora_router.simulator.traffic_keys import (
    LENGTHS,
    BurstKeys,
    CrowdKeys,
    GoodputKeys,
    LoadKeys,
    LongPromptKeys,
    SessionKeys,
    prompt_lengths,
)

Value = TypeVar("Value")

SLOTS = "slots"
"""``max_cpu_loras``: host memory for as many adapters as the pod has slots, vLLM's default."""
UNLIMITED = "unlimited"
ALL, NONE = "all", "none"
"""``preload``: as many adapters as host memory holds, or no adapter."""

_ENGINE = EngineOptions()
_MOST_ADAPTERS = 100_000
_MOST_PRELOADED = 5_000_000
"""Adapters in the host memory of all pods at the start. They take about 100 bytes each."""
_LOAD_MS = InTurn(Number(0, 600_000))


@dataclass(frozen=True, slots=True, kw_only=True)
class OutageKeys:
    """One of ``outages``: a pod that leaves and returns empty."""

    pod: int = key(Whole(0, 9_999), "Number of the pod, from 0.")
    at: float = key(SHARE, "When it leaves, as a share of the duration.")
    lasts: float = key(SHARE, "Until it returns, as a share of the duration.")
    sudden: bool = key(
        Flag(),
        "Whether its requests are lost (and sent again at once). Otherwise they end first.",
        default=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioKeys:
    """All keys of a scenario."""

    about: str = key(Text(200), "One line that describes the scenario.")

    pods: int = key(Whole(1, 10_000), "Pods of the fleet.")
    slots: tuple[int, ...] = key(
        InTurn(Whole(1, 10_000)),
        "Adapter slots of a pod (vLLM: `--max-loras`). `[2, 8]` gives every other pod 8.",
    )
    max_cpu_loras: tuple[int | str, ...] = key(
        InTurn(WordOr((SLOTS, UNLIMITED), Whole(1, 1_000_000))),
        "Adapters that fit in a pod's host memory, those in slots included (vLLM: "
        "`--max-cpu-loras`). At least `slots`. vLLM without the flag: `slots`.",
        default=(_ENGINE.max_cpu_loras,),
    )
    preload: str | int | tuple[str, ...] = key(
        WordOr((ALL, NONE), NumberOrNames(_MOST_ADAPTERS)),
        "Adapters that are in every pod's host memory at the start: `all` that fit, `none`, the "
        "first so many, or the named ones (`adapter-000`, `adapter-001`, …). A pod that starts "
        "later, after an outage or by the autoscaler, has none.",
        default=ALL,
    )
    host_memory_told: bool = key(
        Flag(),
        "Whether routers know `max_cpu_loras` and what a pod starts with, as they do from its "
        "command line. Otherwise they assume that every adapter that was used stays in host "
        "memory.",
        default=False,
    )
    max_num_seqs: tuple[int, ...] = key(
        InTurn(Whole(1, 100_000)),
        "Requests in a pod's batch (vLLM: `--max-num-seqs`).",
        default=(_ENGINE.max_num_seqs,),
    )
    kv_cache_tokens: tuple[int, ...] = key(
        InTurn(Whole(1, 1_000_000_000)),
        "Tokens of prompts and answers that fit in a pod's KV cache (vLLM logs this number as "
        "`GPU KV cache size`), at least the longest prompt and its answer. Requests that do not "
        "fit wait. With `prefix_caching`, what is kept of past requests shares this room with the "
        "running ones.",
        default=(_ENGINE.kv_cache_tokens,),
    )
    step_ms: tuple[float, ...] = key(
        InTurn(Number(0.01, 60_000)),
        "Time of a decoding step, without what each request adds.",
        default=(_ENGINE.step_seconds * 1000,),
    )
    step_ms_per_request: tuple[float, ...] = key(
        InTurn(Number(0, 1_000)),
        "What each running request adds to a step.",
        default=(_ENGINE.step_seconds_per_request * 1000,),
    )
    prefill_tokens_per_second: tuple[float, ...] = key(
        InTurn(Number(1, 1_000_000_000)),
        "Prompt tokens that a pod processes in a second. Without `chunk_tokens`, a prompt is "
        "processed whole, in the first step of its request, and that step takes so much longer for "
        "the whole batch.",
        default=(round(1 / _ENGINE.prefill_seconds_per_token, 6),),
    )
    host_load_ms: tuple[float, ...] = key(
        _LOAD_MS,
        "Time to load an adapter from host memory into a slot.",
        default=(_ENGINE.host_load_seconds * 1000,),
    )
    disk_load_ms: tuple[float, ...] = key(
        _LOAD_MS,
        "Time to load an adapter that is not in host memory.",
        default=(_ENGINE.disk_load_seconds * 1000,),
    )
    loads_block: bool = key(
        Flag(),
        "Whether a load stalls the pod's whole batch. Otherwise it delays the requests of its "
        "adapter only.",
        default=_ENGINE.loads_block,
    )

    prefix_caching: bool = key(
        Flag(),
        "Whether pods keep the KV blocks of past requests, and prompts with the same beginning "
        "find them (vLLM: `--enable-prefix-caching`, its default). Blocks are kept apart for the "
        "base model and each adapter, for as long as their room is not needed; the least recently "
        "used one is evicted first.",
        default=_ENGINE.prefix_caching,
    )
    block_tokens: tuple[int, ...] = key(
        InTurn(Whole(1, 4_096)),
        "Tokens in a block of the KV cache (vLLM: `--block-size`), with `prefix_caching` or "
        "`preemption`.",
        default=(_ENGINE.block_tokens,),
    )
    chunk_tokens: tuple[int, ...] | None = key(
        InTurn(Whole(1, 1_000_000)),
        "Tokens that a step computes at most, of answers and prompts together (vLLM: "
        "`--max-num-batched-tokens`, with chunked prefill). At least `max_num_seqs`. Absent: "
        "prompts are processed whole.",
        default=None,
    )
    preemption: bool = key(
        Flag(),
        "Whether requests take KV blocks as their tokens are computed, and the request that joined "
        "the batch last is preempted and computed again when no block is left, as in vLLM. "
        "Otherwise room for the prompt and the whole answer is reserved.",
        default=_ENGINE.preemption,
    )
    speed: tuple[float, ...] = key(
        InTurn(Number(0.01, 100)),
        "How many times as fast as the keys above a pod computes: steps and prompts, not loads. "
        "`[1, 0.33]` makes every other pod three times slower.",
        default=(1.0,),
    )

    adapters: int = key(Whole(1, _MOST_ADAPTERS), "Adapters that every pod serves.")
    rate: float = key(Number(0.001, 1_000_000), "Requests in a second, over the whole fleet.")
    zipf: float = key(
        Number(0, 5), "Popularity of the nth adapter: `n ** -zipf`. 0: all alike.", default=0.0
    )
    base_share: float = key(
        SHARE, "Share of the requests that ask for the base model.", default=0.0
    )
    capacity: float | None = key(
        Number(0.001, 1_000_000),
        "Requests in a second that the best algorithm carries. `--load` is a share of it. Absent: "
        "not known.",
        default=None,
    )
    recorded: str | None = key(
        WordOf(tuple(FORMATS)),
        "The requests are recorded, in this format: `--trace` names the file, and `prompt_tokens` "
        "and the like have no effect. Absent: they are generated.",
        default=None,
    )
    prompt_tokens: Lengths = key(LENGTHS, "Length of prompts.", default=PROMPT_TOKENS)  # noqa: RUF009
    output_tokens: Lengths = key(LENGTHS, "Length of answers.", default=OUTPUT_TOKENS)  # noqa: RUF009
    long_prompts: LongPromptKeys | None = key(  # noqa: RUF009
        Record(LongPromptKeys),
        "Prompts of another length among the others. Absent: none.",
        default=None,
    )
    sessions: SessionKeys | None = key(  # noqa: RUF009
        Record(SessionKeys),
        "Chats whose prompts grow. Absent: every request is on its own.",
        default=None,
    )
    shuffle_seconds: float | None = key(
        Number(0.001, 1_000_000),
        "How often popularity is dealt again among the adapters. Absent: never.",
        default=None,
    )
    burstiness: float = key(
        Number(1, 100),
        "Squared coefficient of variation of the time between requests. 1: Poisson arrivals.",
        default=1.0,
    )
    crowd: CrowdKeys | None = key(  # noqa: RUF009 -- it returns a dataclasses.field
        Record(CrowdKeys),
        "A burst of requests for one adapter that had no requests before, on top of the others.",
        default=None,
    )
    bursts: BurstKeys | None = key(  # noqa: RUF009 -- it returns a dataclasses.field
        Record(BurstKeys),
        "Many requests at once for one adapter, again and again, on top of the others. Absent: "
        "none.",
        default=None,
    )
    load: tuple[LoadKeys, ...] = key(
        ListOf(Record(LoadKeys)),
        "How the rate changes: evenly from one item to the next. Empty: it does not.",
        default=(),
    )
    goodput: GoodputKeys = key(  # noqa: RUF009
        Record(GoodputKeys),
        "Limits of a good request. Absent: 2 s to the first token, 50 ms for each further one.",
        default=GoodputKeys(),
    )
    seconds: float = key(
        Number(1, 1_000_000), "Duration, unless `--duration` is given.", default=300.0
    )
    autoscaler: AutoscalerKeys | None = key(  # noqa: RUF009 -- it returns a dataclasses.field
        Record(AutoscalerKeys),
        "Adds and removes pods as a HorizontalPodAutoscaler does. Absent: the fleet stays as it "
        "is.",
        default=None,
    )
    loader: LoaderKeys | None = key(  # noqa: RUF009 -- it returns a dataclasses.field
        Record(LoaderKeys),
        "Loads adapters where they belong, as the router does with declared ones. A pod then "
        "lists only what it has loaded, and `preload` at the start. Absent: every pod lists all "
        "adapters, and loads one when it is asked for.",
        default=None,
    )
    outages: tuple[OutageKeys, ...] = key(
        ListOf(Record(OutageKeys)), "Pods that leave and return empty.", default=()
    )

    strangers: float = key(
        SHARE, "Share of the requests that pass no router. They go to a random pod.", default=0.0
    )
    lost_scrapes: float = key(SHARE, "Share of the scrapes that fail.", default=0.0)
    router: RouterKeys = key(  # noqa: RUF009
        Record(RouterKeys), "Settings of the routers.", default=RouterKeys()
    )
    wire: WireKeys | None = key(  # noqa: RUF009 -- it returns a dataclasses.field
        Record(WireKeys),
        "What happens to messages between routers. Absent: they take 5 to 10 ms.",
        default=None,
    )
    router_events: tuple[RouterEventKeys, ...] = key(
        ListOf(Record(RouterEventKeys)), "Routers that fail.", default=()
    )
    clock_rates: tuple[float, ...] = key(
        InTurn(Number(0.5, 2)),
        "Seconds that a router's clock counts in a second. `[1, 0.9]` lets the clock of every "
        "other router lose a tenth.",
        default=(1.0,),
    )

    def __post_init__(self) -> None:
        """Check the keys that depend on each other.

        Raises:
            WrongValueError: Two values contradict each other.
        """
        for number, outage in enumerate(self.outages):
            if outage.pod >= self.pods:
                allowed = f"must be below pods ({self.pods}), not {outage.pod}"
                raise WrongValueError(allowed, f"outages[{number}].pod")
        if self.bursts is not None and self.bursts.within_seconds > self.bursts.every_seconds:
            allowed = f"must be at most every_seconds ({self.bursts.every_seconds:g})"
            raise WrongValueError(
                f"{allowed}, not {self.bursts.within_seconds:g}", "bursts.within_seconds"
            )
        for number, (before, point) in enumerate(pairwise(self.load), start=1):
            if point.at <= before.at:
                allowed = f"must be above {before.at:g}, that of the item before, not {point.at:g}"
                raise WrongValueError(allowed, f"load[{number}].at")
        if self.autoscaler is not None and self.autoscaler.slots_per_pod >= max(self.slots):
            allowed = f"must be below slots ({max(self.slots)})"
            raise WrongValueError(
                f"{allowed}, not {self.autoscaler.slots_per_pod:g}", "autoscaler.slots_per_pod"
            )
        if self.autoscaler is not None and self.outages:
            raise WrongValueError("cannot be used together with autoscaler", "outages")
        preloaded = 0
        for pod in range(self.pods):
            slots, room = of_pod(self.slots, pod), self.host_room(pod)
            if room is not None and room < slots:
                allowed = f"must be at least the slots of each pod ({slots} on pod {pod})"
                raise WrongValueError(f"{allowed}, not {room}", "max_cpu_loras")
            self._check_preload_fits(pod, room)
            self._check_tokens_fit(pod)
            preloaded += min(self._wanted, self.adapters if room is None else room)
        served = self.adapters + (self.crowd is not None)
        if isinstance(self.preload, int) and self.preload > served and self.recorded is None:
            raise WrongValueError(
                f"must be at most adapters ({served}), not {self.preload}", "preload"
            )
        if preloaded > _MOST_PRELOADED:
            raise WrongValueError(
                f"must be at most {_MOST_PRELOADED:,} adapters on all pods together, "
                f"not {preloaded:,}",
                "preload",
            )

    def host_room(self, pod: int) -> int | None:
        """Return how many adapters fit in a pod's host memory. ``None``: any number."""
        room = of_pod(self.max_cpu_loras, pod)
        if isinstance(room, int):
            return room
        return None if room == UNLIMITED else of_pod(self.slots, pod)

    @property
    def _wanted(self) -> int:
        """Adapters to preload on each pod, as many of them as fit if it says ``all``."""
        if isinstance(self.preload, str):
            return self.adapters if self.preload == ALL else 0
        return self.preload if isinstance(self.preload, int) else len(self.preload)

    @property
    def _longest_request(self) -> int:
        """Tokens of the longest request, without the later ones of sessions, or of recordings."""
        if self.recorded is not None:
            return 0
        prompts = [prompt_lengths(self.prompt_tokens, self.long_prompts).most]
        if self.sessions is not None:
            first = self.sessions.system_tokens + self.sessions.first_prompt_tokens.most
            prompts = [first] if self.sessions.share == 1 else [*prompts, first]
        return max(prompts) + self.output_tokens.most

    def _check_preload_fits(self, pod: int, room: int | None) -> None:
        if self.preload != ALL and room is not None and self._wanted > room:
            raise WrongValueError(
                f"must be at most max_cpu_loras of each pod ({room} on pod {pod}), "
                f"not {self._wanted}",
                "preload",
            )

    def _check_tokens_fit(self, pod: int) -> None:
        if self.chunk_tokens is not None:
            least, chunk = of_pod(self.max_num_seqs, pod), of_pod(self.chunk_tokens, pod)
            if chunk < least:
                raise WrongValueError(
                    f"must be at least max_num_seqs ({least} on pod {pod}), not {chunk}",
                    "chunk_tokens",
                )
        if self.prefix_caching or self.preemption:
            least, tokens = of_pod(self.block_tokens, pod), of_pod(self.kv_cache_tokens, pod)
            if tokens < least:
                raise WrongValueError(
                    f"must be at least block_tokens ({least} on pod {pod}), not {tokens}",
                    "kv_cache_tokens",
                )
        least, tokens = self._longest_request, of_pod(self.kv_cache_tokens, pod)
        if tokens < least:
            allowed = f"must be at least the longest prompt and answer ({least:,} tokens)"
            raise WrongValueError(f"{allowed}, not {tokens:,}", "kv_cache_tokens")


def of_pod(values: tuple[Value, ...], pod: int) -> Value:
    """Return a pod's own of the values that pods take in turn."""
    return values[pod % len(values)]

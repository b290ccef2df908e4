"""What all sessions of a server share."""

from dataclasses import dataclass, field

from lora_router.extproc.every_pod import EveryPod
from lora_router.extproc.gateway_faults import GatewayFaults
from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.models_answer import ModelsAnswers
from lora_router.extproc.paths import Paths
from lora_router.extproc.sticky_ids import StickyIds
from lora_router.extproc.token_lengths import TokenLengths
from lora_router.extproc.usage_reading import UsageReading
from lora_router.log_limit import LogLimit
from lora_router.routing.director import Director
from lora_router.routing.outcome import DecisionObserver
from lora_router.telemetry.answer_counts import AnswerCounts
from lora_router.telemetry.decisions import DecisionLog


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What all sessions of a server share."""

    director: Director
    observer: DecisionObserver
    paths: Paths
    headers: HeaderNames
    max_body_bytes: int
    models: ModelsAnswers
    """Answers ``/v1/models``."""
    ids: StickyIds
    """The IDs that pods made."""
    every_pod: EveryPod | None = None
    """Sends requests to every pod, if clients may do that."""
    refuse_unknown_paths: bool = False
    """Whether a request is refused if no rule has its path and its body names no model."""
    special_numbers: bool = True
    """Whether JSON bodies may contain NaN and infinities."""
    answers_as_asked: bool = False
    """Whether an answer names the model as the client did, where the request was rewritten."""
    decisions: DecisionLog | None = None
    """Records every decision, if any are recorded."""
    tells_decisions: bool = False
    """Whether clients are told of the decision, if it is recorded."""
    usage: UsageReading | None = None
    """Which answers are read for their numbers of tokens, if any are."""
    lengths: TokenLengths = field(default_factory=TokenLengths)
    """How long the tokens of prompts are."""
    answers: AnswerCounts = field(default_factory=AnswerCounts)
    gateway: GatewayFaults = field(default_factory=GatewayFaults)
    log_limit: LogLimit = field(default_factory=LogLimit)

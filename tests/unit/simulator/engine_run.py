"""An engine driven in simulated time."""

from collections.abc import Iterable

from lora_router.simulator.engine import Engine, EngineRequest
from lora_router.simulator.engine_options import EngineOptions


def ask(
    adapter: str | None, *, tokens: int = 10, at: float = 0.0, prompt: int = 1
) -> EngineRequest:
    return EngineRequest(adapter, prompt_tokens=prompt, output_tokens=tokens, arrived=at)


class Run:
    """An engine and its clock."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.now = 0.0
        self.first_token: dict[EngineRequest, float] = {}
        """Seconds from arrival to the first token."""
        self.max_active = 0
        self._coming: list[EngineRequest] = []

    def step(self) -> bool:
        """Run a step; return false if there was nothing to do."""
        step = self.engine.begin_step(self.now)
        if step is None:
            return False
        self.max_active = max(self.max_active, len(self.engine.active))
        self.now += step.seconds
        for request in self.engine.end_step():
            if request.generated == 1:
                self.first_token[request] = self.now - request.arrived
        return True

    def play(self, requests: Iterable[EngineRequest] = (), until: float = 1e9) -> None:
        """Submit each request when it arrives, and run until all have ended."""
        coming = self._coming = sorted(
            [*self._coming, *requests], key=lambda request: request.arrived
        )
        while self.now < until:
            while coming and coming[0].arrived <= self.now:
                self.engine.submit(coming.pop(0))
            if not self.step():
                if not coming:
                    return
                self.now = coming[0].arrived


def make(**options: object) -> Run:
    values: dict[str, object] = {
        "max_loras": 2,
        "step_seconds": 0.01,
        "step_seconds_per_request": 0.0,
        "prefill_seconds_per_token": 0.0,
        "host_load_seconds": 0.0,
        "disk_load_seconds": 0.0,
    }
    return Run(Engine(EngineOptions(**(values | options))))  # type: ignore[arg-type]

"""What the end of a call, a list that was read, and a restart mean for the record of a pod."""

import logging
import random
from collections.abc import Callable

from lora_router.adapters.backoff import (
    FIRST_SILENT_SECONDS,
    LONGEST_SILENT_SECONDS,
    Failures,
    pause,
)
from lora_router.adapters.calls import Call, LoadsAdapters, Result
from lora_router.adapters.pod_loads import PodLoads
from lora_router.fleet.pod_state import PodState
from lora_router.log_limit import LogLimit

log = logging.getLogger("lora_router.adapters")

LINES_PER_MINUTE = 20
"""Lines about adapters that fail, and as many about pods that take no calls."""
NOT_LISTED = (
    "the pod says that it has loaded the adapter, but /v1/models does not list it; "
    "the server's log may say why"
)
"""Why a load failed that the pod confirmed."""


class Outcomes:
    """Applies what happened to the records of pods.

    A call that is not answered in time may be the adapter's fault: its source hangs. So the pod
    goes on with other adapters. If it does not answer for a second one either, it rests.

    The log names each failure once. If more begin than it may name in a minute, the others follow
    when they fail again, and a line says where all of them are shown.
    """

    def __init__(
        self,
        pods: LoadsAdapters,
        failures: Failures,
        now: Callable[[], float],
        rng: random.Random,
    ) -> None:
        """Create it.

        Args:
            pods: Calls pods.
            failures: What fails.
            now: Returns seconds, monotonic.
            rng: Source of jitter.
        """
        self._pods = pods
        self._failures = failures
        self._now = now
        self._rng = rng
        self._limit = LogLimit(60.0, burst=LINES_PER_MINUTE, clock=now)
        self._more = LogLimit(60.0, clock=now)

    def begins(self) -> None:
        """Note that this router loads from now on."""
        log.info("this router loads adapters")

    def ended(self, pod: PodLoads, call: Call, result: Result) -> None:
        """Apply the end of a call."""
        if result.outcome != "timeout":
            pod.silent_for = ""
        if call.action == "load":
            self._load_ended(pod, call, result)
        else:
            self._unload_ended(pod, call, result)
        if result.is_unknown:
            self._must_read(pod)

    def is_doubted(self, state: PodState, name: str) -> bool:
        """Return whether a pod said that it loaded an adapter, and did not list it."""
        failure = self._failures.get(state, name)
        return failure is not None and failure.reason == NOT_LISTED

    def shown(self, pod: PodLoads, read_at: float) -> bool:
        """Apply what a list shows of loads that ended before it was asked for.

        Returns:
            Whether it shows all of them.
        """
        lacks = False
        for name, since in tuple(pod.unproven.items()):
            if since > read_at:
                continue
            del pod.unproven[name]
            is_leaving = pod.leaving is not None and pod.leaving.name == name
            if name not in pod.state.adapters and not is_leaving:
                lacks = True
                pod.ours.pop(name, None)
                self._failed(pod, name, "load", NOT_LISTED)
        return not lacks

    def list_read(self, pod: PodLoads) -> None:
        """Apply a list that was read, if it was to be read before the next call."""
        pod.unread = False
        if pod.lost:
            lost, pod.lost = pod.lost, ()
            self._pods.restore(pod.state, lost)
        name, pod.verify = pod.verify, ""
        if name and name in pod.state.adapters:
            self._succeeded(pod, name)
        elif name:
            self._failed(pod, name, "load", NOT_LISTED)

    def restarted(self, pod: PodLoads) -> None:
        """Apply a restart of a pod's server: what this router loaded there is gone."""
        state = pod.state
        pod.blocked_until, pod.blocked_reason, pod.refusals = 0.0, "", 0
        pod.silent_for = ""
        pod.budget.refill()
        pod.blocked_told = False
        self._failures.forget_pod(state)
        lost = tuple(name for name in pod.ours if name in state.adapters)
        pod.ours.clear()
        pod.unproven.clear()
        pod.verify = ""
        if lost:
            pod.lost = (*pod.lost, *lost)
            self._pods.withdraw(state, lost)
        self._must_read(pod)

    def restore(self, pod: PodLoads) -> None:
        """Let an adapter serve again that was withdrawn."""
        leaving, pod.leaving = pod.leaving, None
        if leaving is not None:
            self._pods.restore(pod.state, (leaving.name,))

    def takes_no_loads(self, pod: PodLoads) -> None:
        """Let everything serve again that was withdrawn on a pod, which takes no loads any more."""
        if pod.call is None:
            self.restore(pod)
        lost, pod.lost = pod.lost, ()
        if lost:
            self._pods.restore(pod.state, lost)

    def _must_read(self, pod: PodLoads) -> None:
        pod.unread, pod.unread_since = True, self._now()
        self._pods.read_again(pod.state)

    def _load_ended(self, pod: PodLoads, call: Call, result: Result) -> None:
        name = call.name
        match result.outcome:
            case "done":
                pod.refusals, pod.blocked_reason, pod.blocked_told = 0, "", False
                pod.ours[name] = call.source
                pod.loaded(name)
                pod.unproven[name] = self._now()
                self._succeeded(pod, name)
                log.info(
                    "pod %s loaded adapter %s in %.2f s", pod.state.pod.name, name, result.seconds
                )
            case "already":
                pod.verify = name
                pod.unproven.pop(name, None)
            case "cannot-load":
                self._block(pod, result.message)
            case "timeout":
                self._silent(pod, name, "load", result.message)
            case _:
                refused = result.outcome == "refused"
                self._failed(pod, name, "load", result.message, is_refused=refused)

    def _unload_ended(self, pod: PodLoads, call: Call, result: Result) -> None:
        name = call.name
        if result.outcome in {"done", "already"}:
            pod.leaving = None
            pod.ours.pop(name, None)
            pod.unproven.pop(name, None)
            self._succeeded(pod, name)
            log.info("pod %s unloaded adapter %s", pod.state.pod.name, name)
            return
        self.restore(pod)
        if result.outcome == "cannot-load":
            self._block(pod, result.message)
            return
        if result.outcome == "timeout":
            self._silent(pod, name, "unload", result.message)
        else:
            self._failed(pod, name, "unload", result.message)

    def _succeeded(self, pod: PodLoads, name: str) -> None:
        if self._failures.succeeded(pod.state, name):
            log.info("pod %s no longer fails with adapter %s", pod.state.pod.name, name)

    def _silent(self, pod: PodLoads, name: str, action: str, reason: str) -> None:
        """Note that a pod did not answer a call in time."""
        if pod.silent_for not in {"", name}:
            self._rest(pod, reason)
        pod.silent_for = name
        self._failed(pod, name, action, reason, is_silent=True)

    def _failed(
        self,
        pod: PodLoads,
        name: str,
        action: str,
        reason: str,
        *,
        is_refused: bool = False,
        is_silent: bool = False,
    ) -> None:
        failure = self._failures.failed(
            pod.state, name, action, reason, is_refused=is_refused, is_silent=is_silent
        )
        pod.put_last(name)
        if not failure.is_told:
            failure.is_told = self._warn(
                "failed",
                "pod %s cannot %s adapter %s: %s; next try in %.0f s",
                pod.state.pod.name,
                action,
                name,
                reason,
                max(failure.next_at, pod.blocked_until) - self._now(),
            )

    def _block(self, pod: PodLoads, reason: str) -> None:
        if reason != pod.blocked_reason:
            pod.blocked_told = False
        seconds = self._rest(pod, reason)
        if not pod.blocked_told:
            pod.blocked_told = self._warn(
                "cannot-load",
                "pod %s cannot load adapters: %s; next try in %.0f s",
                pod.state.pod.name,
                reason,
                seconds,
            )

    def _rest(self, pod: PodLoads, reason: str) -> float:
        """Give a pod no calls for some time; return for how many seconds."""
        pod.refusals += 1
        seconds = pause(pod.refusals, self._rng, FIRST_SILENT_SECONDS, LONGEST_SILENT_SECONDS)
        pod.blocked_until, pod.blocked_reason = self._now() + seconds, reason
        return seconds

    def _warn(self, key: str, message: str, *args: object) -> bool:
        """Write a line; return whether it was written, and not left out."""
        if self._limit.allow(key) is not None:
            log.warning(message, *args)
            return True
        if self._more.allow("more") is not None:
            log.warning(
                "more adapters or pods fail than the log names (%d in a minute); "
                "`lora-router adapters` shows all of them",
                LINES_PER_MINUTE,
            )
        return False

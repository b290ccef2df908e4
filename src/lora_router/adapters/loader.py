"""The loader: brings the fleet to where adapters belong, by loads and unloads. No I/O.

Rules:

- A pod gets one call at a time, and some pods get calls at the same time (``call_limit``).
- No pod lists more adapters than its host memory holds. If it is full, the least useful adapter is
  unloaded first: one that is declared, does not belong there, is not pinned, has no requests there,
  and for which none waits. Adapters that were never declared are left alone.
- A copy that its declaration excludes is unloaded once the adapter is loaded where it belongs.
- Before an unload, the adapter is withdrawn: the fleet's list of the pod no longer has it, so that
  requests go elsewhere. ``grace_seconds`` later, when all routers know it, it is unloaded.
- Loads stall a pod that serves requests for at most ``stall_share`` of its time, unless requests
  wait for the adapter because no pod has it. Pods without requests come first.
- A load that failed is tried again later (``backoff``), and delays nothing else. If it is unknown
  what a pod did, its list is read before its next call.
- An adapter that no pod has yet is loaded on one pod at a time, until one has it (``proofs``).
- The fleet's lists decide what is loaded, so that two loaders at the same time do no harm.
- Work that grows with pods and adapters is done in steps of about a millisecond, with pauses.
"""

import random
from collections.abc import Callable, Collection
from functools import partial
from itertools import islice

from lora_router.adapters.backoff import Failures
from lora_router.adapters.calls import Call, LoadsAdapters, Result
from lora_router.adapters.capacity import may_take_loads
from lora_router.adapters.changed_lists import ChangedLists
from lora_router.adapters.declarations import Declarations
from lora_router.adapters.demand import Demand
from lora_router.adapters.dispatch import TICK_SECONDS, Dispatch, LoaderOptions
from lora_router.adapters.first_places import MAX_NEW, FirstPlaces, WaitsForAdapters
from lora_router.adapters.outcomes import Outcomes
from lora_router.adapters.pace import StallBudget
from lora_router.adapters.planner import MakesPlans, Planner
from lora_router.adapters.planning import Plan, apply_plan, demand_to_plan, look_again
from lora_router.adapters.pod_loads import PodLoads, unlisted_on
from lora_router.adapters.proofs import Proofs
from lora_router.adapters.removed_names import RemovedNames
from lora_router.adapters.retirement import Retirement
from lora_router.adapters.slices import REST, Slices, Work
from lora_router.adapters.steps import Surroundings
from lora_router.adapters.survey import Surveys
from lora_router.adapters.tally import Tally
from lora_router.clock import Clock, Timer
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState

REPLAN_SECONDS = 5.0
"""Time between two plans if nothing but the demand changed."""
SOONEST_SECONDS = 0.1
"""Time between two plans if something changed."""


class Loader:
    """The loader of one router. It does nothing before ``start``, and while another one loads."""

    def __init__(  # noqa: PLR0913 -- each is a part that tests and the simulator replace
        self,
        fleet: Fleet,
        declarations: Declarations,
        calls: LoadsAdapters,
        clock: Clock,
        options: LoaderOptions | None = None,
        *,
        demand: Callable[[], Demand] = Demand,
        is_held: Callable[[str], bool] = lambda _: False,
        may_leave: Callable[[str], bool] = lambda _: True,
        is_loader: Callable[[], bool] = lambda: True,
        look: Callable[[], object] = lambda: None,
        waits: WaitsForAdapters | None = None,
        planner: MakesPlans | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Create it.

        Args:
            fleet: The pods, and what they list.
            declarations: What should be served.
            calls: Calls pods.
            clock: Time and timers.
            options: How to load.
            demand: Returns how much each adapter is asked for. Called once for each plan.
            is_held: Returns whether requests for an adapter wait in a router.
            may_leave: Returns whether routing sends no new requests to an older version.
            is_loader: Returns whether this router is the one that loads.
            look: Reads the lists of all pods that are not recent: another router loads.
            waits: Is told what becomes of adapters for which requests wait.
            planner: Finds out where adapters belong.
            rng: Source of jitter.
        """
        self.fleet = fleet
        self.now = clock.now
        self._clock = clock
        self._options = options or LoaderOptions()
        self._demand = demand
        self._is_held = is_held
        self._may_leave = may_leave
        self._is_loader = is_loader
        self._look = look
        self._planner = planner or Planner()
        rng = rng or random.Random()
        slices = self._slices = Slices(clock)
        removed = RemovedNames(fleet, clock, slices, lambda each: unlisted_on(self.pods.get(each)))
        self.retirement = Retirement(declarations, removed)
        self.failures = Failures(clock.now, rng)
        self.tally = Tally()
        self.plan = Plan()
        """What belongs where."""
        self.pods: dict[PodState, PodLoads] = {}
        """The pods that could be loaded."""
        self.proofs = Proofs(fleet, self.failures, self.pods, clock.now)
        self._changed_lists = ChangedLists(slices, self.pods, self._derive)
        self._outcomes = Outcomes(calls, self.failures, clock.now, rng)
        self.surveys = Surveys(fleet, clock, slices)
        """How far the fleet is as declared."""
        self._dispatch = Dispatch(
            calls,
            self._outcomes,
            clock,
            self._options,
            self.pods,
            self._ended,
            self._around,
        )
        self._first = FirstPlaces(
            fleet,
            self.retirement,
            self.proofs,
            self.pods,
            self._slices,
            waits,
            clock.now,
            self._dispatch.look_at,
        )
        self.running = self._dispatch.running
        """The pods with a call under way."""
        self._unread: dict[PodLoads, None] = {}
        """Pods whose first page has not been read, so that their host memory is unknown."""
        self._planning = False
        self._is_stale = True
        """Whether something changed since the last plan was begun."""
        self._looks_at_all = True
        """Whether the next plan is compared with all pods, and not only with those it changes."""
        self._planned_at = self._rests_until = float("-inf")
        self._timer: Timer | None = None
        self._declarations = declarations
        self.on_replaced: Callable[[], Work] | None = None
        """Returns what is to be done when another router loads."""
        self._new = 0
        """Adapters of the change under way that may have been placed before the next plan."""
        declarations.subscribe_to_names(self._declared)
        declarations.subscribe(self._all_declared)
        fleet.changes.pods.subscribe(self._pods_changed)
        fleet.changes.restarted.subscribe(self._restarted)
        self._pods_changed(tuple(fleet))

    @property
    def loads(self) -> bool:
        """Whether this router loads now."""
        return self._dispatch.active

    def start(self) -> None:
        """Begin to load."""
        if self._timer is None:
            self._tick()

    def stop(self) -> None:
        """Start no more calls. Adapters that were withdrawn serve again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._rest()

    def want(self, name: str) -> None:
        """Load an adapter soon: a request waits for it, and no pod lists it.

        Cheap enough for the path of requests.

        Args:
            name: Its served name.
        """
        if self._first.add(name):
            if self.loads:
                self._first.place(name)
            else:
                self._look()

    def try_now(self, name: str | None) -> None:
        """Forget why loads are put off that failed, so that they are tried again now.

        Args:
            name: A served name. ``None``: all adapters, and all pods that did not take loads.
        """
        if name is not None:
            self.failures.forget_adapter(name)
        for pod in tuple(self.pods.values()):
            if name is None:
                self.failures.forget_pod(pod.state)
                pod.blocked_until, pod.silent_for = 0.0, ""
            pod.budget.refill()
            self._dispatch.look_at(pod)
        self._is_stale = True

    def remove(self, name: str) -> None:
        """Unload an adapter from all pods that was never declared, once it has no requests."""
        self.retirement.remove(name)
        for pod in tuple(self.pods.values()):
            if pod.retire(name, self.retirement, self._clock.now()):
                self._dispatch.look_at(pod)

    def list_read(self, state: PodState, read_at: float) -> None:
        """Note that a pod's list is in the fleet that was asked for at some time."""
        pod = self.pods.get(state)
        if pod is None:
            return
        if not self._outcomes.shown(pod, read_at):
            self._derive(pod)
        if pod.call is not None or not pod.unread or read_at < pod.unread_since:
            return
        self._outcomes.list_read(pod)
        self._derive(pod)

    # What changed

    def _declared(self, names: Collection[str]) -> None:
        replaced = self.retirement.changed(names)
        self.proofs.sources_changed(replaced)
        for name in replaced:
            self.failures.forget_adapter(name)
        for pod in self.pods.values():
            pod.sources_changed(replaced)
            if pod.leaving is not None and pod.leaving.why != "makes-room":
                self._dispatch.look_at(pod)
        self._is_stale = self._looks_at_all = True
        if self.loads and (self._planning or self._clock.now() < self._rests_until):
            self._first.place_new(islice(names, max(0, MAX_NEW - self._new)))
            self._new += len(names)

    def _all_declared(self) -> None:
        self._new = 0
        if self.loads:
            self._clock.call_later(0.0, self._plan_if_due)

    def _pods_changed(self, states: Collection[PodState]) -> None:
        for state in states:
            pod = self.pods.get(state)
            if not may_take_loads(state) or self.fleet.get(state.pod.name) is not state:
                if pod is not None:
                    self._forget(pod)
            elif pod is None:
                self._add(state)
            elif pod.catalog is not state.catalog and pod.call is None:
                self._changed_lists.add(pod)
            if self._first.names:
                self._first.listed(state.adapters)
        self.surveys.changed()

    def _restarted(self, states: Collection[PodState]) -> None:
        for state in states:
            pod = self.pods.get(state)
            if pod is not None:
                # A listener must not change the fleet.
                self._clock.call_later(0.0, partial(self._begin_again, pod))

    def _begin_again(self, pod: PodLoads) -> None:
        if self.pods.get(pod.state) is pod:
            self._outcomes.restarted(pod)
            self._dispatch.look_at(pod)

    def _ended(self, pod: PodLoads, call: Call, result: Result) -> None:
        self.tally.ended(call, result)
        if self._timer is None or self.pods.get(pod.state) is not pod:
            return  # This router stops, or the pod has left.
        self._outcomes.ended(pod, call, result)
        if pod.catalog is not pod.state.catalog:
            self._derive(pod)
        if result.outcome == "done" and call.action == "load":
            if self.proofs.loaded(call, self.retirement.declared.get(call.name)):
                self._slices.do(look_again(self.plan, call.name, self.pods, self._dispatch.look_at))
            self._first.loaded(call.name)
        else:
            self._is_stale = self._is_stale or self.proofs.begins_to_fail(call.name)
            self._first.failed(pod, call.name)
        self._dispatch.look_at(pod)
        self._first.freed(pod)

    # Pods and time

    def _add(self, state: PodState) -> None:
        # It may have left with a call under way. It gets no second one at the same time.
        pod = self._dispatch.running.get(state)
        if pod is None:
            share, burst = self._options.stall_share, self._options.stall_burst_seconds
            pod = PodLoads(state, StallBudget(self._clock.now(), share, burst))
        self.pods[state] = pod
        self._unread[pod] = None
        self._is_stale = True

    def _forget(self, pod: PodLoads) -> None:
        del self.pods[pod.state]
        self._dispatch.forget(pod)
        self._unread.pop(pod, None)
        self.failures.forget_pod(pod.state)
        self._first.left(pod)
        self._clock.call_later(0.0, partial(self._outcomes.takes_no_loads, pod))
        self._is_stale = True

    def _derive(self, pod: PodLoads) -> None:
        """Find out again what is missing on a pod. If a call is under way, that is at its end."""
        if pod.call is not None:
            pod.catalog = None
            return
        failing, now = self.failures.of_pod(pod.state), self._clock.now()
        pod.derive(self.retirement, failing, now, in_place=self._options.in_place)
        self._dispatch.look_at(pod)

    def _tick(self) -> None:
        self._timer = self._clock.call_later(TICK_SECONDS, self._tick)
        loads = self._is_loader()
        if loads and not self.loads:
            self._dispatch.active = self._is_stale = self._looks_at_all = True
            self._outcomes.begins()
            self._slices.do(self._first.planned())
        elif not loads and self.loads:
            self._rest()
            if self.on_replaced is not None:
                self._slices.do(self.on_replaced())
        if not self.loads:
            if self._first.names:
                self._look()
            return
        self._first.look_at_slow(self.running.values())
        for pod in tuple(self._unread):
            if pod.has_known_memory:
                del self._unread[pod]
                self._is_stale = True
        self._plan_if_due()
        self.surveys.begin_if_due(self.retirement.declared, self.plan.by_name.__contains__)
        self._dispatch.start_calls()

    def _plan_if_due(self) -> None:
        now = self._clock.now()
        if self._planning or now < self._rests_until or not self.loads:
            return
        if self._declarations.is_telling:
            return  # Much of a long list may still be unknown here.
        every = SOONEST_SECONDS if self._is_stale else REPLAN_SECONDS
        if now - self._planned_at >= every:
            self._is_stale, self._planning, self._planned_at = False, True, now
            self._slices.do(self._make_plan())

    def _rest(self) -> None:
        """Start no more calls, and let withdrawn adapters serve again."""
        self._dispatch.clear()
        for pod in self.pods.values():
            if pod.call is None:
                self._outcomes.restore(pod)

    # Work in steps

    def _make_plan(self) -> Work:
        try:
            yield from self._plan_and_apply()
        finally:
            self._planning = False

    def _plan_and_apply(self) -> Work:
        began, waiting = self._clock.now(), tuple(self._first.names)
        pods = tuple(state for state, pod in self.pods.items() if pod.is_fit(began))
        declared = dict(self.retirement.declared)
        demand = demand_to_plan(
            self._demand(), self.retirement, self.pods.values(), self.proofs.trouble
        )
        plan = yield from self._planner.plan(declared, pods, demand, began)
        self.plan = plan
        self._first.renew(waiting, demand)
        is_whole, self._looks_at_all = self._looks_at_all, False
        yield from apply_plan(plan, self.pods, self._derive, is_whole=is_whole)
        yield from self._first.planned()
        now = self._clock.now()
        self.surveys.changed()
        self._rests_until = now + REST * (now - began)

    def _around(self) -> Surroundings:
        return Surroundings(
            self.fleet,
            self.failures,
            self.retirement,
            self.proofs,
            self.plan.demand.loads,
            self._may_leave,
            self.plan.demand.total / max(1, len(self.pods)),
            self._is_held,
            self.plan.by_name,
        )

"""The fleet: every pod that the router knows, and the state of each pod."""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from lora_router.fleet.catalog import MAX_CATALOG_BYTES, Catalog, Catalogs, ServedModel
from lora_router.fleet.changes import Changes
from lora_router.fleet.doubts import Doubts
from lora_router.fleet.exclusions import Exclusions
from lora_router.fleet.idle_adapters import idle_by_pod, used_since
from lora_router.fleet.index import FleetIndex
from lora_router.fleet.ledger import Ledger
from lora_router.fleet.model_index import ModelIndex, ModelPods
from lora_router.fleet.outliers import Outliers
from lora_router.fleet.peer_ledgers import HeldShare, LedgerShare, UsedShare
from lora_router.fleet.peers import Peers
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_group import PodGroup
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.prefixes import PrefixIndex
from lora_router.fleet.reported_ejections import suspect_reported
from lora_router.fleet.reported_uses import ReportedUses
from lora_router.fleet.usual_slots import UsualSlots
from lora_router.steps import Steps, all_at_once, in_turn


class Fleet:
    """Pods by name, with an index from model names to the ready pods that serve them.

    Discovery, the scraper, peers and answers report what they know of pods here.
    """

    def __init__(self, *, metrics_max_age: float = 15.0, outliers: Outliers | None = None) -> None:
        """Create a fleet without pods.

        Args:
            metrics_max_age: Seconds after which a snapshot is stale.
            outliers: Decides which pods are excluded because they fail; ``None``: none are.
        """
        self._metrics_max_age = metrics_max_age
        self._fleet_index = FleetIndex()
        self.changes = Changes()
        """Reports what changed."""
        self.outliers = outliers
        self.ledger = Ledger(self._fleet_index, self.changes.released, outliers)
        self.ledger.find = self.at
        self.ledger.on_not_found = self._doubt
        if outliers is not None:
            outliers.unwell.on_change = self._health_changed
        self._exclusions = Exclusions(None if outliers is None else outliers.unwell, self._is_known)
        self._doubts = Doubts(time.monotonic if outliers is None else outliers.now)
        self._by_endpoint: dict[str, PodState] | None = None
        self.synced = False
        """Whether discovery has delivered its first full list. Discovery sets it."""
        self._states: dict[str, PodState] = {}
        self._usual_slots = UsualSlots()
        self._ready: PodGroup | None = None
        self._in_use: PodGroup | None = None
        self._model_index = ModelIndex(self.ready, self.in_use, self._doubts, self._fleet_index)
        self._by_model = self._model_index.found
        """Read here, so that a request costs one lookup."""
        self._catalogs = Catalogs()
        self.peers = Peers(self._states, self._model_index, self._after_exchange)
        self.prefixes = PrefixIndex()
        """Which pods have which beginnings of prompts."""
        self._reported_uses = ReportedUses()

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[PodState]:
        return iter(tuple(self._states.values()))

    @property
    def index(self) -> FleetIndex:
        """The index of the ready pods by adapter and by load, up to date."""
        self._fleet_index.refresh()
        return self._fleet_index

    def get(self, name: str) -> PodState | None:
        """Return a pod's state, or ``None`` if the pod is unknown."""
        return self._states.get(name)

    def at(self, endpoint: str) -> PodState | None:
        """Return the pod that serves at an endpoint, or ``None``."""
        if self._by_endpoint is None:
            self._by_endpoint = {state.pod.address: state for state in self._states.values()}
        return self._by_endpoint.get(endpoint)

    # Updates from discovery

    def replace(self, pods: Iterable[Pod]) -> None:
        """Replace the list of pods: add new pods, update changed ones, and remove all others."""
        wanted = {pod.name: pod for pod in pods}
        self.synced = True
        self.update(wanted.values(), gone=self._states.keys() - wanted.keys())

    def update(self, pods: Iterable[Pod], gone: Iterable[str] = ()) -> None:
        """Update some pods, and remove others by name.

        Open requests on a pod that was removed continue. Their reservations still count on its
        record. A server that goes on under another name keeps its record: the servers of a pod get
        other names when it gets a second port.
        """
        pods = tuple(pods)
        renamed, changed = self._take_renamed(pods)
        for name in tuple(gone):
            state = self._states.pop(name, None)
            if state is not None:
                self._leave(state)
                changed.append(state)
        for pod in pods:
            changed += self._put(pod, renamed.get(pod.name))
        if changed:
            self._changed(changed)

    def upsert(self, pod: Pod) -> None:
        """Add a pod, or replace its description."""
        self.update((pod,))

    def remove(self, name: str) -> None:
        """Remove a pod."""
        self.update((), gone=(name,))

    # Updates from the scraper

    def put_metrics(self, state: PodState, metrics: PodMetrics) -> None:
        """Store a pod's newest snapshot."""
        is_first, state.metrics = state.metrics is None, metrics
        if self.outliers is not None:
            self.outliers.scraped(state, metrics, is_first=is_first)
        state.scrape_failures = state.unreachable_scrapes = 0
        restarted = state.beliefs.scraped(metrics, state.in_flight)
        self.prefixes.scraped(state, metrics)
        self._usual_slots.learn(state)
        self.ledger.load_times.refresh(state)
        self._index(state)
        self.changes.scraped.send((state,))
        if restarted:
            self.changes.restarted.send((state,))

    def put_scrape_failure(self, state: PodState, now: float, *, unreachable: bool = False) -> None:
        """Record that a scrape failed.

        The last good snapshot stays, and its age shows that it is stale.

        Args:
            state: The pod's record.
            now: Seconds on the clock of ``PodMetrics.scraped_at``.
            unreachable: Whether the pod's own endpoint refused or reset the connection, or did not
                respond within the timeout. False: it responded with something that cannot be used,
                another endpoint serves its metrics, or this process is at fault.
        """
        state.scrape_failures += 1
        state.unreachable_scrapes = state.unreachable_scrapes + 1 if unreachable else 0
        if unreachable and self.outliers is not None:
            self.outliers.scrape_failed(state)
        if state.beliefs.forget_old(now, self._metrics_max_age):
            self._index(state)
            self.changes.scraped.send((state,))

    def put_models(
        self,
        state: PodState,
        models: Catalog | Iterable[ServedModel],
        listed: Catalog | None = None,
    ) -> None:
        """Store the models that a pod's ``/v1/models`` lists.

        Args:
            state: The pod's record.
            models: What requests may go there for.
            listed: What the pod lists, if that is more: what is about to be unloaded is still
                loaded. ``None``: the same.

        Raises:
            CatalogsFullError: The models of all pods would need too much memory. The pod's last
                list stays.
        """
        catalog = self._catalogs.of(models, max_bytes=MAX_CATALOG_BYTES)
        for model in self._doubts.settle(state):
            self._model_index.forget(model)
        adapters = catalog.adapters if listed is None else listed.adapters
        was_known, before = state.models_known, state.catalog
        is_another = not was_known or catalog is not before
        state.catalog, state.models_known = catalog, True
        if is_another:
            self._usual_slots.assume(state)
            self._usual_slots.learn(state)
        # What is withdrawn is still listed, and to compare long lists takes long.
        if not was_known or adapters is not state.beliefs.unlisted.listed:
            state.beliefs.lists(adapters)
        if is_another and catalog.base_models == before.base_models:
            self._adapters_changed(state)
        elif is_another:
            self._changed((state,))

    def check_health(self) -> None:
        """Find out what only time shows about the health of pods. To be called regularly."""
        for model in self._doubts.expire():
            self._model_index.forget(model)
        if self.outliers is not None:
            self.outliers.tick(self._states.values())

    # Exchange of shares with peers

    def put_peer(self, share: LedgerShare, now: float) -> None:
        """Apply the share that a peer sent, and all that follows from it."""
        all_at_once(self.take_share(share, now))
        self.peers.renew(now)

    def take_share(self, share: LedgerShare, now: float) -> Steps[None]:
        """Return the steps that apply a peer's share, and what is left of its earlier ones."""
        steps = self.peers.put(share, now)
        others = self._reported_uses.put(share, self._states, now, self._used_at_peers)
        if self.outliers is not None and share.ejected:
            suspect_reported(share.ejected, self.outliers, self.get)
        return in_turn(steps, others)

    def _used_at_peers(self, uses: Mapping[PodState, list[str]]) -> None:
        for state, adapters in uses.items():
            self._fleet_index.used(state, adapters)
        self._after_exchange(uses.keys())

    def forget_peer(self, router: str, now: float) -> None:
        """Forget everything that a peer reported, because it stopped."""
        all_at_once(self.drop_peer(router, now))

    def drop_peer(self, router: str, now: float) -> Steps[None]:
        """Return the steps that forget everything that a peer reported."""
        uses = self._reported_uses.forget(router, self._states, self._used_at_peers)
        return in_turn(self.peers.forget(router, now), uses)

    def report_to_peers(
        self, router: str, every: float, held: Mapping[str, HeldShare], now: float
    ) -> LedgerShare:
        """Return this router's share. The caller must send it to all peers immediately.

        Args:
            router: The name under which peers know this router.
            every: Seconds until the next share.
            held: The requests that this router holds, by adapter.
            now: Seconds on the clock of ``PodMetrics.scraped_at``.
        """
        ejected = {} if self.outliers is None else self.outliers.unwell.ejected()
        used = used_since(self._states, now)
        share, changed = self.peers.report(router, every, held, now, ejected)
        self._after_exchange(changed)
        return replace(share, used=used) if used else share

    def idle_adapters(self, now: float, most: int) -> Mapping[str, UsedShare]:
        """Return up to ``most`` idle adapters that are probably loaded, by pod name."""
        return idle_by_pod(self._states, now, most)

    def _after_exchange(self, changed: Collection[PodState]) -> None:
        for state in changed:
            self._index(state)
        if changed:
            self.changes.shared.send(changed)

    # Queries of the request path

    def ready(self) -> PodGroup:
        """Return all pods that may receive new requests."""
        if self._ready is None:
            pods = [state for state in self._states.values() if state.pod.ready]
            self._ready = PodGroup.of(pods, self._fleet_index, is_everyone=True)
        return self._ready

    def in_use(self) -> PodGroup:
        """Return the ready pods without those that are excluded because they fail."""
        if self._in_use is None:
            ready, out = self.ready(), self._exclusions.pods
            pods = [state for state in ready if state not in out] if out else ()
            self._in_use = PodGroup.of(pods, self._fleet_index, is_everyone=True) if pods else ready
        return self._in_use

    def serving(self, model: str) -> ModelPods:
        """Return the pods that serve ``model``, and whether it is an adapter on them.

        They are the pods in use; if none of those serves the model, the excluded ones.
        """
        found = self._by_model.get(model)
        return self._model_index.find(model) if found is None else found

    def models(self) -> Mapping[str, ModelPods]:
        """Return every model that at least one ready pod serves."""
        return {name: self.serving(name) for name in sorted(self._model_index.names())}

    def catalogs(self) -> frozenset[Catalog]:
        """Return the catalogs of the ready pods.

        While they stay the same, no model moves between pods.
        """
        return frozenset(self._model_index.catalogs())

    def _take_renamed(self, pods: Iterable[Pod]) -> tuple[dict[str, PodState], list[PodState]]:
        """Take the records of servers out that get other names.

        Returns:
            The records by their new names; and for each old name a record that has left.
        """
        names: dict[PodState, str] = {}
        for pod in pods:
            state = self._states.get(pod.name)
            if not pod.uid or (state is not None and state.is_server(pod)):
                continue
            state = self.at(pod.address)
            if state is not None and state.is_server(pod):
                names[state] = pod.name
        left = [PodState(state.pod) for state in names]
        for state in names:
            del self._states[state.pod.name]
        return {name: state for state, name in names.items()}, left

    def _leave(self, state: PodState) -> None:
        """Forget what is known about a server that has left."""
        self._doubts.leave(state)
        self.prefixes.forget(state)

    def _put(self, pod: Pod, renamed: PodState | None = None) -> Iterable[PodState]:
        """Store a pod's description; return the states that changed.

        Args:
            pod: The description.
            renamed: The server's record, if it had another name.
        """
        before = self._states.get(pod.name)
        old = before if renamed is None else renamed
        if old is not None and old.pod == pod:
            return ()
        if old is not None and old.is_server(pod):
            if old.pod.models is not None and pod.models is None:
                old.models_known = False
            if (old.pod.lora, old.pod.engine) != (pod.lora, pod.engine):
                old.beliefs.told(pod.lora, pod.engine)
            old.pod = pod
            state = self._states[pod.name] = old
        else:
            # Another address or uid means another server. What is known about the old server
            # does not apply to it.
            state = self._states[pod.name] = PodState(pod)
        changed = [state]
        if before is not None and before is not state:
            self._leave(before)
            changed = [before, state]
        if pod.models is not None:
            state.catalog, state.models_known = self._catalogs.of_names(pod.models), True
            state.beliefs.serves(state.adapters)
        elif pod.base_model is not None and not state.models_known:
            state.catalog = self._catalogs.of((ServedModel(pod.base_model),))
        self._usual_slots.assume(state)
        return changed

    def _index(self, state: PodState) -> None:
        if state.pod.ready and state not in self._exclusions.pods and self._is_known(state):
            self._fleet_index.put(state)
        else:
            self._fleet_index.remove(state)

    def _is_known(self, state: PodState) -> bool:
        return self._states.get(state.pod.name) is state

    def _health_changed(self, states: Collection[PodState]) -> None:
        """Renew which pods are excluded. Which pods there are and what they serve stays."""
        changed = self._exclusions.renew(states, len(self.ready()))
        if changed:
            self._in_use = None
            self._model_index.use_others()
            for state in changed:
                self._index(state)
            self.changes.pods.send(changed)

    def _doubt(self, state: PodState, model: str) -> None:
        """Prefer other pods for a model that a pod does not serve after all."""
        # A list in the pods file is the operator's word, and is not read again.
        if state.pod.models is not None or model not in state.catalog:
            return
        if self._doubts.add(state, model):
            self._model_index.forget(model)
            self.changes.doubted.send((state,))

    def _adapters_changed(self, state: PodState) -> None:
        """Apply that a pod has other adapters. Which pods are ready and in use stays."""
        self._model_index.begin_again()
        self._fleet_index.used(state, self._reported_uses.settle(state))
        self._index(state)
        self.changes.pods.send((state,))

    def _changed(self, states: Collection[PodState]) -> None:
        self._ready = self._in_use = None
        self._by_endpoint = None
        self._model_index.begin_again()
        for state in states:
            self._fleet_index.used(state, self._reported_uses.settle(state))
        for state in (*states, *self._exclusions.count_again(self.ready())):
            self._index(state)
        self.changes.pods.send(states)

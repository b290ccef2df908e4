"""Rewrites of model names: what an alias stands for, perhaps shared by weight among several models.

A rewrite is applied once: what it leads to is not rewritten again, so there are no cycles. After
it, a declared adapter becomes the name under which pods serve one of its versions.
"""

import hashlib
import math
import random
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

ANY = "*"
"""At the end of a name: every name that begins so."""
_HALF = 0.5
_SCALE = 2.0**-53


@dataclass(frozen=True, slots=True)
class Target:
    """A model that requests are rewritten to."""

    model: str
    weight: int = 1
    """Its share of the requests, relative to the other targets; 0: none."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What becomes of one name, or of all names with a prefix."""

    name: str
    """As clients write it, or a prefix followed by ``*``."""
    targets: tuple[Target, ...]
    """One of them has a weight above 0."""


class _Targets:
    """The targets of one rewrite, ready to choose from."""

    __slots__ = ("_bounds", "_models", "_name", "_weights", "targets")

    def __init__(self, rewrite: Rewrite) -> None:
        self.targets = rewrite.targets
        used = [target for target in rewrite.targets if target.weight > 0]
        self._name = rewrite.name
        self._models = [target.model for target in used]
        self._weights = [target.weight for target in used]
        self._bounds = list(accumulate(self._weights))

    @property
    def models(self) -> Collection[str]:
        """The models that get a share."""
        return self._models

    def by_chance(self, chance: float) -> str:
        """Return a target for a number in [0, 1)."""
        return self._models[bisect_right(self._bounds, chance * self._bounds[-1])]

    def by_key(self, key: str) -> str:
        """Return the target of a key: the same on all routers, and after every restart.

        Weighted rendezvous hashing (Schindelhauer and Schomaker, 2005): if weights change, only as
        many keys change their target as the new shares require.
        """
        seed = hashlib.blake2b(f"{self._name}\0{key}".encode(errors="replace")).digest()
        targets = zip(self._models, self._weights, strict=True)
        return max(targets, key=lambda target: _score(seed, target))[0]


def _score(seed: bytes, target: tuple[str, int]) -> float:
    model, weight = target
    digest = hashlib.blake2b(model.encode(), key=seed, digest_size=8).digest()
    chance = ((int.from_bytes(digest) >> 11) + _HALF) * _SCALE
    return -weight / math.log(chance)


class ModelRewrites:
    """All rewrites in force. They may change while the router runs."""

    __slots__ = ("_aliases", "_declared", "_exact", "_prefixes", "_random", "active")

    def __init__(self, rewrites: Iterable[Rewrite] = (), rng: random.Random | None = None) -> None:
        self._random = rng or random.Random()
        self._declared: dict[str, _Targets] = {}
        self.replace(rewrites)

    def replace(self, rewrites: Iterable[Rewrite]) -> None:
        """Use other rewrites from now on. The first of several with one name counts."""
        self._exact: dict[str, _Targets] = {}
        prefixes: dict[str, _Targets] = {}
        for rewrite in rewrites:
            if rewrite.name.endswith(ANY):
                prefixes.setdefault(rewrite.name[:-1], _Targets(rewrite))
            else:
                self._exact.setdefault(rewrite.name, _Targets(rewrite))
        self._prefixes = sorted(prefixes.items(), key=lambda each: -len(each[0]))
        self._aliases = {name: targets.models for name, targets in self._exact.items()}
        self.active = bool(self._exact or self._prefixes or self._declared)
        """Whether there are any. An attribute, because each request reads it."""

    def declare(self, name: str, targets: tuple[Target, ...]) -> None:
        """Replace what one declared adapter or alias stands for; no targets: itself."""
        before = self._declared.get(name)
        if targets == (() if before is None else before.targets):
            return
        if targets:
            self._declared[name] = _Targets(Rewrite(name, targets))
        else:
            self._declared.pop(name, None)
        self.active = bool(self._exact or self._prefixes or self._declared)

    def aliases(self) -> Mapping[str, Collection[str]]:
        """Return the names that are rewritten, without those with prefixes, and their targets."""
        return self._aliases

    def targets(self, model: str) -> Collection[str]:
        """Return the models that a name may stand for; none, if it is not rewritten."""
        targets = self._targets_of(model)
        models = (model,) if targets is None else targets.models
        if not self._declared:
            return () if targets is None else models
        found: dict[str, None] = {}
        for each in models:
            declared = self._declared.get(each)
            found.update(dict.fromkeys((each,) if declared is None else declared.models))
        return () if targets is None and model not in self._declared else tuple(found)

    def target(self, model: str, key: str = "") -> str:
        """Return what a name stands for: itself, if it is not rewritten.

        An exact name comes before prefixes, and a longer prefix before a shorter one.

        Args:
            model: The name that the client sent.
            key: Requests with the same key get the same target. Empty: each request by chance.
        """
        targets = self._targets_of(model)
        if targets is not None:
            model = self._choose(targets, key)
        declared = self._declared.get(model)
        return model if declared is None else self._choose(declared, key)

    def _choose(self, targets: _Targets, key: str) -> str:
        return targets.by_key(key) if key else targets.by_chance(self._random.random())

    def _targets_of(self, model: str) -> _Targets | None:
        targets = self._exact.get(model)
        if targets is not None:
            return targets
        for prefix, found in self._prefixes:
            if model.startswith(prefix):
                return found
        return None

"""Finds the rule for the path of a request.

A path is read as the server behind reads it: percent-encoded characters are decoded (uvicorn
does so before it looks for a route), the query is not part of it, and a configured prefix is what a
gateway removes. A trailing slash and doubled slashes are ignored: a server redirects such a request
or does not know its path, and Envoy merges slashes.

A path that servers read in different ways is refused, because it may be an administrative path to
one of them:

- Control characters. The patterns of Starlette's routes match before a final line feed, so
  ``/sleep%0a`` is ``/sleep``.
- ``.`` and ``..`` segments and backslashes, which a proxy behind the router may resolve.
- A fragment, which httptools cuts off, and a path that does not begin with a slash, of which it
  takes the part after the host.
- More than ``MAX_PATH_LENGTH`` characters, which are not worth the time to take them apart.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import parse_qs, unquote

from lora_router.extproc.path_rules import AMBIGUOUS, ModelIn, PathRule, Place, Treatment
from lora_router.extproc.path_table import RULES

MAX_PATH_LENGTH = 4096
"""In characters."""
_SLASHES = re.compile("//+")
_READ_DIFFERENTLY = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
"""Control characters and backslashes, in a decoded path."""
_DOT_SEGMENT = re.compile(r"/\.\.?(?:/|\Z)")
_VARIABLE = re.compile(r"\{\w+(:path)?\}")


class _VariablePath:
    """The rules of a path with variable segments."""

    __slots__ = ("head", "pattern", "rules")

    def __init__(self, path: str) -> None:
        self.head = path[: path.index("{")]
        parts = _VARIABLE.split(path)
        # ``split`` also returns what the group matched: every second part.
        pattern = re.escape(parts[0])
        for kind, literal in zip(parts[1::2], parts[2::2], strict=True):
            pattern += ("(.+)" if kind else "([^/]+)") + re.escape(literal)
        self.pattern = re.compile(pattern, re.DOTALL)
        self.rules: list[PathRule] = []


class Paths:
    """All rules, from the settings and from the table. Those of the settings come first."""

    def __init__(
        self,
        further: Iterable[PathRule] = (),
        prefixes: Iterable[str] = (),
        *,
        admin_allowed: bool = False,
    ) -> None:
        """Create the lookup.

        Args:
            further: Rules that come before those of the table.
            prefixes: What may precede each path, for example ``/llm``.
            admin_allowed: Whether administrative paths are open.
        """
        self._prefixes = sorted((each.rstrip("/") for each in prefixes), key=len, reverse=True)
        self._fixed: dict[str, list[PathRule]] = {}
        self._variable: dict[str, _VariablePath] = {}
        for rule in (*further, *(map(_opened, RULES) if admin_allowed else RULES)):
            self._add(rule)
        self._usual = {
            path: Place(usual, path, reads_body=True)
            for path, rules in self._fixed.items()
            if (usual := _first(rules, "POST")) is not None
            and usual.treatment is Treatment.ROUTED
            and usual.model_in is ModelIn.BODY
        }
        """What a POST of a usual path means."""
        self._changing = tuple(path for path, rules in self._fixed.items() if rules[0].changes_pod)
        self._mounted = tuple(rules[0] for rules in self._fixed.values() if rules[0].is_mounted)

    def find(self, method: str, path: str) -> Place:
        """Return what a path means.

        Args:
            method: Empty if the gateway does not tell it. It then counts as POST.
            path: With its query.
        """
        if method == "POST" or not method:
            usual = self._usual.get(path)
            if usual is not None:
                return usual
            method = "POST"
        written, _, query = path.partition("?")
        if len(written) > MAX_PATH_LENGTH:
            return Place(AMBIGUOUS, written)
        decoded = unquote(written) if "%" in written else written
        if _is_ambiguous(written, decoded, method):
            return Place(AMBIGUOUS, decoded)
        seen = self._as_seen(decoded)
        rule = _first(self._fixed.get(seen, ()), method) or self._mounted_at(seen)
        if method == "OPTIONS" and (rule is None or not rule.is_mounted):
            # It asks what is allowed, and changes nothing.
            return Place(None, seen)
        if rule is not None:
            return Place(rule, seen, _model_in(query) if rule.model_in is ModelIn.QUERY else "")
        return self._find_variable(method, seen) or Place(self._below_a_prefix(seen), seen)

    def _as_seen(self, decoded: str) -> str:
        """Return a decoded path as the server sees it."""
        seen = decoded
        if "//" in seen:
            seen = _SLASHES.sub("/", seen)
        if seen.endswith("/") and len(seen) > 1:
            seen = seen[:-1]
        if not self._prefixes:
            return seen
        # The gateway removes one, and a server may remove another one (vLLM's --root-path).
        return self._below(self._below(seen))

    def _below(self, seen: str) -> str:
        """Return what follows a configured prefix, or the whole path if it has none."""
        for prefix in self._prefixes:
            if seen.startswith(prefix + "/"):
                return seen[len(prefix) :]
        return seen

    def _mounted_at(self, seen: str) -> PathRule | None:
        for rule in self._mounted:
            if seen.startswith(rule.path):
                return rule
        return None

    def _find_variable(self, method: str, seen: str) -> Place | None:
        for each in self._variable.values():
            if not seen.startswith(each.head):
                continue
            found = each.pattern.fullmatch(seen)
            rule = None if found is None else _first(each.rules, method)
            if found is not None and rule is not None:
                if rule.model_in is ModelIn.PATH:
                    return Place(rule, seen, model=found[1])
                return Place(rule, seen, resource=found[1])
        return None

    def _below_a_prefix(self, seen: str) -> PathRule | None:
        """Return the rule of a path that changes a pod, below a prefix that nobody configured.

        A gateway may remove the prefix after it asked the router.
        """
        for path in self._changing:
            if seen.endswith(path):
                return self._fixed[path][0]
        for each in self._variable.values():
            rule = each.rules[0]
            at = seen.rfind(each.head) if rule.changes_pod else -1
            if at > 0 and each.pattern.fullmatch(seen, at):
                return rule
        return None

    def _add(self, rule: PathRule) -> None:
        if "{" in rule.path:
            known = self._variable.setdefault(rule.path, _VariablePath(rule.path))
            known.rules.append(rule)
        else:
            self._fixed.setdefault(rule.path, []).append(rule)


def _is_ambiguous(written: str, decoded: str, method: str) -> bool:
    """Return whether servers and gateways read a path in different ways.

    An empty path is one that the gateway does not tell. ``OPTIONS *`` concerns a server as a whole.
    """
    if not written.startswith("/"):
        return bool(written) and (written, method) != ("*", "OPTIONS")
    if "#" in written or _READ_DIFFERENTLY.search(decoded) is not None:
        return True
    return "/." in decoded and _DOT_SEGMENT.search(decoded) is not None


def _opened(rule: PathRule) -> PathRule:
    """Return the rule of a path that clients may use because ``admin_paths`` allows it."""
    if rule.treatment is not Treatment.REFUSED:
        return rule
    if rule.to_all:
        return replace(rule, treatment=Treatment.EVERY_POD)
    return replace(rule, treatment=Treatment.PASSED, changes_pod=False)


def _first(rules: Iterable[PathRule], method: str) -> PathRule | None:
    for rule in rules:
        if not rule.methods or method in rule.methods:
            return rule
    return None


def _model_in(query: str) -> str:
    """Return the last value of ``model`` in a query, as Starlette does, or an empty string."""
    try:
        values = parse_qs(query, max_num_fields=64).get("model")
    except ValueError:
        return ""
    return values[-1] if values else ""

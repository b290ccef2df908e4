"""Tells in sentences what was decided, or what would be, and why."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from lora_router.counted import counted
from lora_router.debug.reasons import REASONS
from lora_router.debug.rows import CandidateRow, DecisionRow, ExplainedDecision, Explanation
from lora_router.debug.times_of_day import time_of_day
from lora_router.visible_text import visible

_NAMED = 5
"""Pods that a sentence names. The others are counted."""
_PLACES = {
    "running": "runs on",
    "slot": "is in a slot of",
    "host-memory": "is in the host memory of",
}
_TERMS = {
    "load": "of load",
    "last-slot": "for the last free slot",
    "adapter-load": "to load the adapter",
    "slot": "for a further slot",
    "prefix": "for prompt tokens that another pod has",
    "prompts": "for prompts on their way",
    "kv-cache": "for a nearly full KV cache",
    "slow-pod": "for a slow pod",
    "stalls": "that wait for a long prompt",
    "other-copies": "so that other copies of the adapter drain",
    "adapter-score": "score of the adapter",
    "load-score": "score of the load",
}


def tell_now(found: Explanation) -> str:
    """Return what would become of a request, in sentences."""
    asked = found.asked or "no model"
    name = asked if found.model in ("", asked) else f"{asked}, which stands for {found.model},"
    why = _why(found.reason)
    if found.answer == "pick":
        lines = [
            f"A request for {name} would go to {found.pod} now. {found.algorithm} picks it{why}."
        ]
    elif found.answer == "hold":
        lines = [f"A request for {name} would be held now. {found.algorithm} holds it{why}."]
        if found.held:
            lines.append(
                f"{counted(found.held, 'request')} with the same question "
                f"{_waits(found.held)} already."
            )
        if found.wanted is not None:
            lines.append(
                f"It would wait for the free slot of {found.wanted}, which is allotted to another "
                "router."
            )
        if found.closing is not None:
            lines.append(
                f"The slot of {found.closing.adapter} on {found.closing.pod} is emptied for it."
            )
    else:
        lines = [f"A request for {name} would be refused now{why}."]
    if found.detail:
        lines.append(f"{_capital(found.detail)}.")
    lines += _where(found.adapter, found.candidates, past=False)
    lines += _costs(found.pod, found.candidates, past=False)
    lines += _excluded(found.candidates, found.excluded)
    return told(lines)


def tell_past(row: ExplainedDecision, slow_seconds: float) -> str:
    """Return what became of a request, in sentences.

    Args:
        row: The request.
        slow_seconds: From when on it is slow.
    """
    lines = [_outcome(row)]
    if row.held_for:
        lines += _held(row)
    if row.outcome == "routed":
        lines += _times(row)
    if row.slow:
        lines.append(f"It is slow: its first byte took longer than {slow_seconds:g} s.")
        if not row.stream and (row.pod_seconds or 0.0) > slow_seconds:
            lines.append("Its answer was not streamed, so the first byte came with the last one.")
    if row.retried_on:
        lines.append(f"{row.pod} did not serve it. Envoy sent it to {row.retried_on} instead.")
    if row.details:
        lines.append(f"Envoy itself answered: {row.details}.")
    if row.unanswered:
        lines.append("Its stream ended before an answer began.")
    if row.outcome != "routed":
        lines += _seen("The router saw", row.candidates)
        return told(lines)
    if row.candidates:
        lines += _where(row.adapter, row.candidates, past=True)
        lines += _costs(row.pod, row.candidates, past=True)
        lines += _excluded(row.candidates, {})
    elif row.model:
        lines.append(
            "What it saw of the candidates was not kept: the request was an ordinary one "
            "(setting decisions_candidates_share)."
        )
    return told(lines)


def told(lines: Iterable[str]) -> str:
    """Return sentences on lines of their own. Names in them cannot begin a line."""
    return "\n".join(map(visible, lines))


def _outcome(row: DecisionRow) -> str:
    at = time_of_day(row.at, "%Y-%m-%d %H:%M:%S UTC")
    name = row.adapter or row.base_model
    asked = row.model or "no model"
    stands = "" if name in ("", asked) else f", which stands for {name}"
    when = f"{at}, {row.path}" if row.path else at
    what = f"Request {row.request_id or 'without an ID'} ({when}) asked for {asked}{stands}."
    why = _why(row.reason)
    match row.outcome:
        case "routed":
            return f"{what} It went to {row.pod} ({row.endpoint}). {row.algorithm} picked it{why}."
        case "refused":
            return f"{what} It was refused with status {row.status}{why}."
        case "answered":
            return f"{what} The router itself answered with status {row.status}{why}."
        case "cancelled":
            return f"{what} It was given up before a pod was picked{why}."
    return f"{what} It is held."


def _held(row: ExplainedDecision) -> list[str]:
    still = not row.outcome
    verb = "has been held for" if still else "was held for"
    lines = [f"It {verb} {seconds(row.held_seconds)}{_why(row.held_for)}."]
    lines += _seen("When it began to wait, the router saw", row.held_candidates)
    if row.outcome == "routed" and row.adapter:
        lines.append(_got(row))
    return lines


def _seen(verb: str, seen: Sequence[CandidateRow]) -> list[str]:
    """Tell what the router saw of the candidates of a request that got none of them."""
    if not seen:
        return []
    shown = ", ".join(
        f"{each.pod} ({counted(each.requests or 0, 'request')}, {_slots(each.free_slots)})"
        for each in seen[:_NAMED]
    )
    return [f"{verb} {shown}{_others(len(seen))}."]


def _got(row: DecisionRow) -> str:
    if row.place == "running":
        return f"Then it could join the requests of {row.adapter} on {row.pod}."
    if row.spilled:
        return f"Then it was sent to {row.pod}, although no slot was free there."
    found = {
        "slot": f", where {row.adapter} was still in a slot",
        "host-memory": f", where {row.adapter} was in host memory",
        "nowhere": f", where {row.adapter} was not loaded",
    }
    return f"Then it got a slot of {row.pod}{found.get(row.place, '')}."


def _times(row: DecisionRow) -> list[str]:
    lines = []
    if row.first_byte_seconds is not None:
        parts = [
            ("its body", row.body_seconds),
            ("held", row.held_seconds),
            ("decision", row.decision_seconds),
            ("pod", row.pod_seconds),
        ]
        shown = ", ".join(f"{name} {seconds(value)}" for name, value in parts if value)
        lines.append(f"Its first byte came after {seconds(row.first_byte_seconds)} ({shown}).")
    if row.seconds is None:
        lines.append("It has not ended.")
    else:
        status = f" with status {row.status}" if row.status else ""
        lines.append(f"It ended after {seconds(row.seconds)}{status}.")
    return lines


def _where(adapter: str, candidates: Sequence[CandidateRow], *, past: bool) -> list[str]:
    if not adapter or not candidates:
        return []
    parts = []
    for place, words in _PLACES.items():
        pods = [each.pod for each in candidates if each.place == place]
        if pods:
            parts.append(f"{words} {_list(pods)}")
    if not parts and past and any(not each.place for each in candidates):
        return []  # It was not noted.
    if not parts:
        return [f"{adapter} {'was' if past else 'is'} on none of the candidates."]
    words = "; it ".join(parts)
    if past:
        words = words.replace("runs on", "ran on").replace("is in ", "was in ")
    return [f"{adapter} {words}."]


def _costs(pod: str, candidates: Sequence[CandidateRow], *, past: bool) -> list[str]:
    """Tell what the picked pod and the next best one cost."""
    priced = sorted((each for each in candidates if each.cost is not None), key=_cost)
    picked = next((each for each in priced if each.pod == pod), None)
    verb = "cost" if past else "costs"
    lines = []
    if picked is not None:
        place = priced.index(picked)
        best = priced[0].cost == picked.cost
        least = f", the least of {len(priced)}" if len(priced) > 1 and best else ""
        lines.append(f"{pod} {verb} {_sum(picked)}{least}.")
        if place and not best:
            lines.append("A cheaper pod was not taken, because of what the terms do not show.")
        priced.remove(picked)
    if priced:
        shown = "; ".join(f"{each.pod} {_sum(each)}" for each in priced[:_NAMED])
        name = "Others" if picked is not None else "Candidates"
        lines.append(f"{name} cost: {shown}{_others(len(priced))}.")
    return lines


def _cost(row: CandidateRow) -> float:
    return row.cost if row.cost is not None else float("inf")


def _sum(row: CandidateRow) -> str:
    terms = [_term(name, value) for name, value in row.terms.items() if value or name == "requests"]
    because = f" ({' + '.join(terms)})" if terms else ""
    return f"{_number(row.cost or 0.0)}{because}"


def _term(name: str, value: float) -> str:
    if name == "requests":
        return f"{counted(int(value), 'request')} in flight"
    return f"{_number(value)} {_TERMS.get(name, name)}"


def _excluded(candidates: Iterable[CandidateRow], counts: Mapping[str, int]) -> list[str]:
    """Tell which pods are excluded, and why. ``counts`` has those beyond the candidates, too."""
    by_cause: dict[str, list[str]] = {}
    for each in candidates:
        if each.excluded:
            by_cause.setdefault(each.excluded, []).append(each.pod)
    parts = []
    for cause, pods in by_cause.items():
        more = max(counts.get(cause, 0), len(pods)) - len(pods)
        parts.append(f"{_list(pods, more)} ({cause})")
    rest = Counter({cause: count for cause, count in counts.items() if cause not in by_cause})
    parts += [f"{counted(count, 'pod')} ({cause})" for cause, count in rest.most_common(_NAMED)]
    return [f"Excluded: {'; '.join(parts)}."] if parts else []


def _why(reason: str) -> str:
    """Return a reason in words, with the word that metrics have."""
    if not reason:
        return ""
    words = REASONS.get(reason)
    return f" ({reason})" if words is None else f" ({reason}): {words}"


def _list(names: Sequence[str], more: int = 0) -> str:
    shown = list(names[:_NAMED])
    more += len(names) - len(shown)
    if more:
        shown.append(f"{more} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _others(count: int) -> str:
    return f", and {count - _NAMED} more" if count > _NAMED else ""


def _waits(count: int) -> str:
    return "waits" if count == 1 else "wait"


def _slots(free: int | None) -> str:
    if free is None:
        return "an unknown number of slots"
    return "no free slot" if free <= 0 else counted(free, "free slot")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def seconds(value: float | None) -> str:
    """Return a duration as people read it."""
    if value is None:
        return "unknown"
    if value >= 0.9995:
        return f"{value:.2f} s"
    return f"{value * 1000:.3g} ms" if value >= 0.0000005 else "0 s"

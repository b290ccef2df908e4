"""Translates ModelAdapter objects to declared adapters.

Rules:

- The adapter's name is that of the object. It belongs on pods of the object's namespace.
- ``spec.replicas`` is the number of copies. Without it the adapter belongs on all pods that
  ``spec.podSelector`` matches, as AIBrix has it. The annotation ``lora-router/pods`` takes
  precedence.
- Without ``spec.baseModel`` the selector says the base model, by the label of pods that has it.
- ``huggingface://ORG/NAME`` becomes ``ORG/NAME`` and ``file:///PATH`` becomes ``/PATH``, since
  vLLM and SGLang take repositories and paths. Any other source is passed on as it is, if
  ``adapter_sources`` allows it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from lora_router.adapters.declared import (
    NAME_RULE,
    DeclaredAdapter,
    WantedPods,
    is_name,
)
from lora_router.adapters.sources import AllowedSources, SourceError
from lora_router.discovery.adapters_list import MAX_ALIASES, MAX_COPIES
from lora_router.discovery.model_adapter_object import (
    ALIASES_ANNOTATION,
    PINNED_ANNOTATION,
    PODS_ANNOTATION,
    SHARE_ANNOTATION,
    VERSION_ANNOTATION,
    Annotations,
    LabelSelector,
    ModelAdapterObject,
    Spec,
)
from lora_router.discovery.pod_object import MODEL_LABEL
from lora_router.routing.selector import Operator, Requirement, Selector

MAX_REQUIREMENTS = 64
"""Requirements of one selector, and values of one requirement."""

_OPERATORS = {
    "In": Operator.IN,
    "NotIn": Operator.NOT_IN,
    "Exists": Operator.EXISTS,
    "DoesNotExist": Operator.ABSENT,
}
_HUGGING_FACE = "huggingface://"
_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_FILE = "file://"
_ELSEWHERE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_MAX_MODEL_LENGTH = 512
_SHOWN_CHARACTERS = 100
_ERROR_CHARACTERS = 300
_NO_ANNOTATIONS = Annotations()


class _UnfitError(ValueError):
    """The object declares no adapter. The message says why."""


@dataclass(frozen=True, slots=True)
class Translation:
    """What an object declares."""

    adapter: DeclaredAdapter | None = None
    problem: str = ""
    """What is wrong: which field, its value and what is allowed. The adapter is then that of the
    last valid object, if there was one."""
    note: str = ""
    """What of the object is not used."""


def to_declared(found: ModelAdapterObject, allowed: AllowedSources) -> Translation:
    """Translate an object.

    Args:
        found: The object.
        allowed: The sources from which pods may load.
    """
    try:
        spec = msgspec.json.decode(found.spec, type=Spec)
        adapter = _adapter(found, spec, allowed)
    except _UnfitError as error:
        return Translation(problem=str(error))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Translation(problem=f"spec: {error}"[:_ERROR_CHARACTERS])
    note = ""
    if spec.credentials_secret_ref is not None:
        note = "spec.credentialsSecretRef is not used: pods load with their own credentials"
    return Translation(adapter, note=note)


def origin_of(namespace: str, name: str) -> str:
    """Return the origin of the adapter that an object declares."""
    return f"model-adapter {namespace}/{name}"


def _adapter(found: ModelAdapterObject, spec: Spec, allowed: AllowedSources) -> DeclaredAdapter:
    metadata = found.metadata
    annotations = metadata.annotations or _NO_ANNOTATIONS
    if not is_name(metadata.name):
        raise _UnfitError(f"metadata.name: must be {NAME_RULE}")
    origin = origin_of(metadata.namespace, metadata.name)
    base_model = _base_model(spec)
    if metadata.name == base_model:
        raise _UnfitError(
            f"metadata.name={_shown(metadata.name)}: is the base model of the adapter; "
            "must be another name"
        )
    return DeclaredAdapter(
        name=metadata.name,
        base_model=base_model,
        source=_source(spec.artifact_url, allowed, origin),
        pods=_pods(spec, annotations, metadata.namespace),
        pinned=_pinned(annotations.pinned),
        version=_version(annotations.version),
        share=_share(annotations.share),
        aliases=_aliases(annotations.aliases, metadata.name),
        origin=origin,
    )


def _base_model(spec: Spec) -> str:
    labels = (spec.pod_selector and spec.pod_selector.match_labels) or {}
    name = spec.base_model or labels.get(MODEL_LABEL) or ""
    if not name:
        raise _UnfitError(
            "spec.baseModel is missing: it must name the model that pods serve, or else "
            f"spec.podSelector.matchLabels must have {MODEL_LABEL}"
        )
    if len(name) > _MAX_MODEL_LENGTH or not name.isprintable():
        raise _UnfitError(
            f"spec.baseModel={_shown(name)}: must be at most {_MAX_MODEL_LENGTH} printable "
            "characters"
        )
    return name


def _source(url: str, allowed: AllowedSources, origin: str) -> str:
    """Return the source as a pod takes it."""
    where = f"spec.artifactURL={_shown(url)}"
    source = url
    if url.startswith(_HUGGING_FACE):
        source = url.removeprefix(_HUGGING_FACE)
        if _REPOSITORY.fullmatch(source) is None:
            raise _UnfitError(f"{where}: must be {_HUGGING_FACE}ORGANISATION/NAME")
    elif url.startswith(_FILE):
        source = url.removeprefix(_FILE)
        if not source.startswith("/"):
            raise _UnfitError(f"{where}: must be {_FILE}/PATH, without a host")
    try:
        # A prefix may have either form.
        if source == url or not _is_allowed(url, allowed, origin):
            allowed.check(source, origin)
    except SourceError as error:
        hint = ""
        if (found := _ELSEWHERE.match(source)) is not None:
            hint = (
                f" (vLLM and SGLang load paths and Hugging Face repositories; allow {found[1]}:// "
                "only if your servers load it)"
            )
        raise _UnfitError(f"{where}: {error}{hint}") from None
    return source


def _is_allowed(source: str, allowed: AllowedSources, origin: str) -> bool:
    try:
        allowed.check(source, origin)
    except SourceError:
        return False
    return True


def _pods(spec: Spec, annotations: Annotations, namespace: str) -> WantedPods:
    copies = spec.replicas
    if copies is not None and not 0 < copies <= MAX_COPIES:
        raise _UnfitError(
            f"spec.replicas={copies}: must be a number from 1 to {MAX_COPIES}, or be left out for "
            "all pods"
        )
    everywhere = copies is None
    if (wanted := annotations.pods) is not None:
        copies = int(wanted) if re.fullmatch("[0-9]{1,5}", wanted) is not None else None
        everywhere = wanted == "all"
        usable = wanted in {"all", "demand"} if copies is None else 0 < copies <= MAX_COPIES
        if not usable:
            raise _UnfitError(
                f"annotation {PODS_ANNOTATION}={_shown(wanted)}: must be all, demand, or a number "
                f"from 1 to {MAX_COPIES}"
            )
    return WantedPods(everywhere, copies, _selector(spec.pod_selector), namespace)


def _selector(found: LabelSelector | None) -> Selector | None:
    if found is None:
        return None
    requirements = tuple(_requirements(found))
    if len(requirements) > MAX_REQUIREMENTS:
        raise _UnfitError(f"spec.podSelector: must have at most {MAX_REQUIREMENTS} requirements")
    return Selector(requirements) if requirements else None


def _requirements(found: LabelSelector) -> Iterator[Requirement]:
    for key, value in (found.match_labels or {}).items():
        yield Requirement(key, Operator.IN, frozenset((value,)))
    for number, each in enumerate(found.match_expressions or ()):
        where = f"spec.podSelector.matchExpressions[{number}]"
        operator = _OPERATORS.get(each.operator)
        if operator is None:
            raise _UnfitError(
                f"{where}: operator={_shown(each.operator)}: must be one of {', '.join(_OPERATORS)}"
            )
        values = frozenset(each.values or ())
        has_values = operator in {Operator.IN, Operator.NOT_IN}
        if not each.key or bool(values) != has_values or len(values) > MAX_REQUIREMENTS:
            raise _UnfitError(
                f"{where}: must have a key, and 1 to {MAX_REQUIREMENTS} values with In and NotIn "
                "only"
            )
        yield Requirement(each.key, operator, values)


def _pinned(value: str | None) -> bool:
    if value not in {None, "true", "false"}:
        raise _UnfitError(f"annotation {PINNED_ANNOTATION}={_shown(value)}: must be true or false")
    return value == "true"


def _version(value: str | None) -> str:
    if value and not is_name(value):
        raise _UnfitError(f"annotation {VERSION_ANNOTATION}={_shown(value)}: must be {NAME_RULE}")
    return value or ""


def _share(value: str | None) -> int:
    if value is None:
        return 100
    if value.isascii() and value.isdigit() and len(value) <= 3 and int(value) <= 100:
        return int(value)
    raise _UnfitError(
        f"annotation {SHARE_ANNOTATION}={_shown(value)}: must be a whole number from 0 to 100"
    )


def _aliases(value: str | None, name: str) -> tuple[str, ...]:
    aliases = tuple(each.strip() for each in (value or "").split(",") if each.strip())
    if (
        len(aliases) <= MAX_ALIASES
        and all(map(is_name, aliases))
        and len({name, *aliases}) == len(aliases) + 1
    ):
        return aliases
    raise _UnfitError(
        f"annotation {ALIASES_ANNOTATION}={_shown(value)}: must be up to {MAX_ALIASES} different "
        f"names other than its own, separated by commas, each {NAME_RULE}"
    )


def _shown(value: str | None) -> str:
    text = value or ""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")

"""Records about paths: what a rule says, and what the lookup of a path returns."""

from dataclasses import dataclass
from enum import Enum


class Treatment(Enum):
    """What the router does with a request."""

    ROUTED = "routed"
    """The model decides the pod."""
    ANSWERED = "answered"
    """The router answers. No pod sees the request."""
    STICKY = "sticky"
    """The pod that made an ID gets the requests that name it."""
    PASSED = "passed"
    """Any healthy pod gets it."""
    EVERY_POD = "every pod"
    """Every pod of the base model gets it, and the router answers with what they said."""
    REFUSED = "refused"
    """404, because the path changes a pod, shows its internals, or means different things."""


class ModelIn(Enum):
    """Where a request names its model."""

    BODY = "body"
    """The field ``model`` of a JSON object or of a form."""
    QUERY = "query"
    """The parameter ``model`` of the query."""
    PATH = "path"
    """A segment of the path. If the body names a model, that one counts: the pod reads the body."""
    NOWHERE = "-"


class Api(Enum):
    """The API of a path. It decides the form of errors."""

    OPENAI = "OpenAI"
    ANTHROPIC = "Anthropic"


class UsageIn(Enum):
    """Which answers state how many tokens the request took (``usage``)."""

    NONE = "none"
    """None, or none that is worth to be read."""
    ASKED = "asked"
    """Documents do. Streams do if the request asks for it (``stream_options``)."""
    ALL = "all"


@dataclass(frozen=True, slots=True)
class PathRule:
    """What the router does with one path.

    Treatments differ by method for few paths. These have several rules.
    """

    path: str
    """As servers declare it: ``{id}`` is one segment, and ``{model:path}`` is the rest."""
    treatment: Treatment
    model_in: ModelIn = ModelIn.NOWHERE
    methods: frozenset[str] = frozenset()
    """Empty: all methods without a rule of their own."""
    api: Api = Api.OPENAI
    id_kind: str = ""
    """Of what the path names the ID, for errors."""
    ids_in: tuple[tuple[str, str], ...] = ()
    """Fields of the JSON body that name an ID which a pod made, and of what."""
    makes_ids: tuple[str, ...] = ()
    """Fields of the answer, or of its field ``response``, that contain IDs which the pod made."""
    to_all: bool = False
    """Whether a request goes to every pod of its base model where ``admin_paths`` allows it."""
    usage: UsageIn = UsageIn.NONE
    changes_pod: bool = False
    """Whether the path changes a pod. Such a path is refused below any prefix, too."""
    is_mounted: bool = False
    """Whether servers mount an application there. It serves every path that begins so, and may
    ignore the method."""


AMBIGUOUS = PathRule("", Treatment.REFUSED)
"""The rule of all paths that servers and gateways read in different ways."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a path means."""

    rule: PathRule | None
    """``None``: no rule has the path."""
    path: str
    """The path that the server sees: without prefix, query, escapes and trailing slash."""
    model: str = ""
    """The model that the path or the query names."""
    resource: str = ""
    """The ID that the path names."""
    reads_body: bool = False
    """Whether it is known, without a look at the rule, that the body names the model."""

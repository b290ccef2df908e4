"""The setting of the processes of a router."""

from pydantic import BaseModel, Field

from lora_router.config import kinds


class WorkerSettings(BaseModel):
    """How many processes serve gateways."""

    workers: kinds.Workers = Field(
        1,
        description="Processes that serve Envoy's calls on the same port, beside the one that "
        "reads the pods. 1: one process does all. auto: the number of cores that the router may "
        "use. Limits of requests, streams and bytes apply to each worker.",
        json_schema_extra={"type": ["integer", "string"], "pattern": "^auto$"},
    )

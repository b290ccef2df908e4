from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Broadcast(_message.Message):
    __slots__ = ("publication", "signature")
    PUBLICATION_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    publication: bytes
    signature: bytes
    def __init__(self, publication: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Publication(_message.Message):
    __slots__ = ("router", "version", "oldest_version", "release", "sequence", "sent_ms", "to", "message")
    ROUTER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OLDEST_VERSION_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SENT_MS_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    router: str
    version: int
    oldest_version: int
    release: str
    sequence: int
    sent_ms: int
    to: str
    message: bytes
    def __init__(self, router: _Optional[str] = ..., version: _Optional[int] = ..., oldest_version: _Optional[int] = ..., release: _Optional[str] = ..., sequence: _Optional[int] = ..., sent_ms: _Optional[int] = ..., to: _Optional[str] = ..., message: _Optional[bytes] = ...) -> None: ...

class StoredState(_message.Message):
    __slots__ = ("broadcast",)
    BROADCAST_FIELD_NUMBER: _ClassVar[int]
    broadcast: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, broadcast: _Optional[_Iterable[bytes]] = ...) -> None: ...

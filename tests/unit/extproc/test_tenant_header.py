"""The header that says whose request it is: read if a setting names it, and kept as a hash."""

from lora_router.extproc.events import make_request_headers
from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.stream_setup import Setup


def tenant_of(names: HeaderNames, **headers: str) -> int:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    values = [sent.get(name, "") for name in names.wanted]
    return make_request_headers(True, Setup(), values).tenant


def test_the_header_is_read_if_it_has_a_name() -> None:
    names = HeaderNames(tenant="x-tenant")
    assert tenant_of(names, x_tenant="blue") == tenant_of(names, x_tenant="blue") != 0
    assert tenant_of(names, x_tenant="blue") != tenant_of(names, x_tenant="red")
    assert tenant_of(names) == 0


def test_it_is_not_read_otherwise() -> None:
    assert tenant_of(HeaderNames(), x_tenant="blue") == 0
    assert "x-tenant" not in HeaderNames().wanted


def test_what_it_says_is_not_kept() -> None:
    names = HeaderNames(tenant="authorization")
    values = ["secret" if name == "authorization" else "" for name in names.wanted]
    assert "secret" not in repr(make_request_headers(True, Setup(), values))

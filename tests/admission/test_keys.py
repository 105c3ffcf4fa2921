"""Who a key or a certificate is, and what it may do."""

from __future__ import annotations

import pytest

from headrace.admission.certificates import Certificates, Grant
from headrace.admission.key_text import digest
from headrace.admission.keys import NO_CERTIFICATES, Keys
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.key import Key
from headrace.domain.principal import ANYBODY, SCOPES, Scope

AN_ID = "spiffe://example.org/a"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def known(*keys: tuple[str, Key], clock: Clock | None = None) -> Keys:
    made = Keys(clock=clock or Clock())
    made.replace({digest(text): key for text, key in keys}, NO_CERTIFICATES)
    return made


def refused(
    keys: Keys, key: str | None, scope: Scope = "infer", names: tuple[str, ...] | None = None
) -> HeadraceError:
    with pytest.raises(HeadraceError) as error:
        keys.principal(key, scope, names)
    return error.value


A = ("sk-a", Key("id-a", "alpha"))
B = ("sk-b", Key("id-b", "beta", ("infer", "metrics")))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("key", [None, "", "sk-anything"])
def test_without_keys_everybody_may_do_everything(key: str | None, scope: Scope) -> None:
    assert Keys().principal(key, scope) is ANYBODY
    assert Keys().open


def test_a_server_that_others_reach_is_not_open_without_keys() -> None:
    keys = Keys(may_be_open=False)
    assert not keys.open
    assert refused(keys, None).code is Code.INVALID_API_KEY
    assert refused(keys, "sk-a").code is Code.INVALID_API_KEY


def test_a_key_names_its_tenant_and_itself() -> None:
    keys = known(A, B)
    for _ in range(2):  # looked up, and remembered
        principal = keys.principal("sk-b", "metrics")
        assert (principal.tenant, principal.key_id) == ("beta", "id-b")


@pytest.mark.parametrize("key", [None, "", "sk-", "sk-aa", "SK-A", "sk-a ", "id-a", "\udc80"])
def test_anything_else_is_refused(key: str | None) -> None:
    assert refused(known(A), key).code is Code.INVALID_API_KEY


def test_a_scope_that_a_key_lacks_is_forbidden_and_named() -> None:
    keys = known(A, B)
    for _ in range(2):
        error = refused(keys, "sk-b", "admin")
        assert error.code is Code.FORBIDDEN
        assert error.message == "This needs the scope admin; id-b has infer, metrics."
    assert refused(keys, "sk-a", "metrics").code is Code.FORBIDDEN


def test_who_may_admin_sees_the_metrics_and_asks_no_models() -> None:
    keys = known(("sk-c", Key("id-c", "default", ("admin",))))
    assert keys.principal("sk-c", "admin") == keys.principal("sk-c", "metrics")
    assert refused(keys, "sk-c", "infer").code is Code.FORBIDDEN


def test_a_key_is_good_until_the_moment_it_expires() -> None:
    clock = Clock()
    keys = known(("sk-e", Key("id-e", "alpha", expires_at=2000.0)), clock=clock)
    for now in (1000.0, 1999.999):
        clock.now = now
        assert keys.principal("sk-e", "infer").key_id == "id-e"
    clock.now = 2000.0
    error = refused(keys, "sk-e")
    assert (error.code, error.message) == (
        Code.INVALID_API_KEY,
        "This API key (id-e) has expired.",
    )


def test_a_key_that_was_revoked_says_so_to_its_owner_alone() -> None:
    keys = known(A)
    keys.principal("sk-a", "infer")
    keys.replace(
        {digest("sk-a"): Key("id-a", "alpha", revoked_at=1000.0)},
        NO_CERTIFICATES,
    )
    assert refused(keys, "sk-a").message == "This API key (id-a) was revoked."
    assert refused(keys, "id-a").message == "This API key is not known here."
    assert not keys.open, "the last key is gone: nobody else gets in by that"


def test_new_keys_count_at_once_and_nothing_is_remembered_of_old_ones() -> None:
    keys = known(A)
    keys.principal("sk-a", "infer")
    keys.replace({digest("sk-a"): Key("id-2", "gamma", ("metrics",))}, NO_CERTIFICATES)
    assert keys.principal("sk-a", "metrics").tenant == "gamma"
    assert refused(keys, "sk-a", "infer").code is Code.FORBIDDEN
    keys.replace({digest("sk-b"): B[1]}, NO_CERTIFICATES)
    assert refused(keys, "sk-a").code is Code.INVALID_API_KEY


def test_only_good_keys_are_remembered() -> None:
    keys = known(A, B)
    for number in range(100):
        refused(keys, f"sk-{number}")
    keys.principal("sk-a", "infer")
    assert list(keys._seen) == ["sk-a"]


def test_a_key_decides_where_there_is_a_certificate_too() -> None:
    keys = Keys()
    keys.replace({digest("sk-a"): A[1]}, Certificates({AN_ID: Grant("carl", ("infer", "metrics"))}))
    by_name = keys.principal(None, "metrics", (AN_ID,))
    assert (by_name.tenant, by_name.key_id) == ("carl", AN_ID)
    assert keys.principal("", "infer", (AN_ID,)).tenant == "carl"
    assert keys.principal("sk-a", "infer", (AN_ID,)).tenant == "alpha"
    assert refused(keys, "sk-x", "infer", (AN_ID,)).code is Code.INVALID_API_KEY
    assert refused(keys, None, "admin", (AN_ID,)).code is Code.FORBIDDEN
    assert refused(keys, None, "infer", ("spiffe://example.org/b",)).code is Code.INVALID_API_KEY


def test_a_certificate_opens_nothing_where_none_is_expected() -> None:
    assert "An API key is needed" in refused(known(A), None, "infer", (AN_ID,)).message


def test_certificates_alone_close_a_server() -> None:
    keys = Keys()
    keys.replace({}, Certificates({AN_ID: Grant("carl", ("infer",))}))
    assert not keys.open
    assert "An API key is needed" in refused(keys, None).message

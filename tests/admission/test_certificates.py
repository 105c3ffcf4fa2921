"""SPIFFE IDs and the tenants they name."""

from __future__ import annotations

import re

import pytest

from headrace.admission.certificates import REMEMBERED, Certificates, Grant
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.spiffe import MAX_BYTES, PATTERN, is_spiffe_id

GRANTS = {
    "spiffe://example.org/ns/a/sa/b": "exact",
    "spiffe://example.org/ns/a/*": "a",
    "spiffe://example.org/ns/*": "ns",
    "spiffe://example.org/*": "domain",
    "spiffe://other.test/x": "x",
}


def certificates() -> Certificates:
    return Certificates({name: Grant(tenant, ("infer",)) for name, tenant in GRANTS.items()})


@pytest.mark.parametrize(
    ("name", "tenant"),
    [
        ("spiffe://example.org/ns/a/sa/b", "exact"),
        ("spiffe://example.org/ns/a/sa/c", "a"),
        ("spiffe://example.org/ns/a/sa/b/c", "a"),
        ("spiffe://example.org/ns/a", "ns"),
        ("spiffe://example.org/ns/ab", "ns"),
        ("spiffe://example.org/ns", "domain"),
        ("spiffe://example.org/NS/a/sa/b", "domain"),
        ("spiffe://other.test/x", "x"),
    ],
)
def test_the_longest_that_matches_decides(name: str, tenant: str) -> None:
    principal = certificates().principal((name,))
    assert (principal.tenant, principal.key_id) == (tenant, name)


@pytest.mark.parametrize(
    "names",
    [
        ("spiffe://other.test/x/y",),
        ("spiffe://other.test/y",),
        ("spiffe://example.org.evil.test/ns/a/sa/b",),
        ("spiffe://example.orgx/ns",),
        ("spiffe://example.org/../other.test/x",),
        ("spiffe://example.org/ns/./a",),
        ("spiffe://example.org/ns//a",),
        ("spiffe://example.org/ns/",),
        ("spiffe://example.org/*",),
        ("spiffe://example.org/a%2e",),
        ("spiffe://example.org/a\n",),
        ("spiffe://example.org/a?b",),
        ("spiffe://example.org:443/a",),
        ("spiffe://user@example.org/a",),
        ("spiffe://Example.org/a",),
        ("spiffe://example.org",),
        ("spiffe:///a",),
        ("SPIFFE://example.org/a",),
        ("https://example.org/a",),
        ("spiffe://example.org/" + "a" * MAX_BYTES,),
        ("spiffe://example.org/ns/a/sa/b", "spiffe://other.test/x"),
        ("spiffe://example.org/ns/a/sa/b", "https://example.org"),
        ("",),
        (),
    ],
)
def test_everything_else_names_nobody(names: tuple[str, ...]) -> None:
    with pytest.raises(HeadraceError) as refused:
        certificates().principal(names)
    assert refused.value.code is Code.INVALID_API_KEY


@pytest.mark.parametrize(
    ("pattern", "possible"),
    [
        *[(name, True) for name in GRANTS],
        ("spiffe://example.org/a.b/c-d_e", True),
        ("spiffe://example.org", False),
        ("spiffe://example.org/", False),
        ("spiffe://*/a", False),
        ("spiffe://example.org/a*", False),
        ("spiffe://example.org/*/b", False),
        ("spiffe://example.org/a/../*", False),
        ("example.org/a", False),
        ("*", False),
    ],
)
def test_what_a_tenant_may_list(pattern: str, possible: bool) -> None:
    assert (re.search(PATTERN, pattern) is not None) is possible
    if possible and not pattern.endswith("*"):
        assert is_spiffe_id(pattern)


def test_what_is_remembered_is_bounded_and_strangers_are_not() -> None:
    made = certificates()
    for number in range(REMEMBERED + 10):
        made.principal((f"spiffe://example.org/{number}",))
    assert len(made._seen) == 10
    with pytest.raises(HeadraceError):
        made.principal(("spiffe://nobody.test/x",))
    assert len(made._seen) == 10


def test_without_any_nobody_is_named() -> None:
    assert not Certificates({})
    assert certificates()

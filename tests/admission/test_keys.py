"""Which tenant a key names."""

from __future__ import annotations

import pytest

from headrace.admission.keys import Keys
from headrace.domain.errors import Code, HeadraceError


def test_without_keys_everybody_is_the_default_tenant() -> None:
    assert Keys({}).tenant(None) == "default"
    assert Keys({}).tenant("sk-anything") == "default"


def test_a_key_names_its_tenant() -> None:
    keys = Keys({"sk-a": "alpha", "sk-b": "beta"})
    assert keys.tenant("sk-b") == "beta"


@pytest.mark.parametrize("key", [None, "", "sk-", "sk-aa", "SK-A", "sk-a ", "\udc80"])
def test_anything_else_is_refused(key: str | None) -> None:
    with pytest.raises(HeadraceError) as refused:
        Keys({"sk-a": "alpha"}).tenant(key)
    assert refused.value.code is Code.INVALID_API_KEY

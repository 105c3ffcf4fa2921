"""Abort tokens find the running generations of their tenant, and only those."""

from __future__ import annotations

from headrace.admission.aborts import AbortTokens


def test_a_token_finds_all_of_its_generations_until_they_end() -> None:
    tokens: AbortTokens[str] = AbortTokens()
    tokens.add("t", "stop", "one")
    tokens.add("t", "stop", "two")
    assert tokens.find("t", "stop") == ["one", "two"]
    tokens.remove("t", "stop", "one")
    assert tokens.find("t", "stop") == ["two"]
    tokens.remove("t", "stop", "two")
    assert tokens.find("t", "stop") == []


def test_another_tenants_generations_are_never_found() -> None:
    tokens: AbortTokens[str] = AbortTokens()
    tokens.add("t", "stop", "one")
    assert tokens.find("u", "stop") == []

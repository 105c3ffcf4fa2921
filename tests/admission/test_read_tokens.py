"""Read tokens: one generation, one hour, signed; a secret that survives."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.admission.read_tokens import LIFE_S, ReadTokens, kept_secret
from headrace.domain.errors import Code, HeadraceError

TOKENS = ReadTokens(b"secret")
NOW = 1_795_346_282.9


def refusal(token: str, generation: str = "01A", now: float = NOW) -> str:
    with pytest.raises(HeadraceError) as caught:
        TOKENS.tenant(token, generation, now)
    assert caught.value.code is Code.INVALID_API_KEY
    return caught.value.message


def test_a_token_is_good_for_its_generation_for_an_hour() -> None:
    token, expires_at = TOKENS.issue("01A", "alice", NOW)

    assert expires_at == int(NOW) + LIFE_S
    assert TOKENS.tenant(token, "01A", NOW) == "alice"
    assert TOKENS.tenant(token, "01A", expires_at - 0.1) == "alice"
    assert "expired" in refusal(token, now=expires_at)
    assert "another generation" in refusal(token, "01B")
    assert "another generation" in refusal(token, "")


def test_another_secret_signs_other_tokens() -> None:
    token, _ = ReadTokens(b"other").issue("01A", "alice", NOW)

    assert "this server's" in refusal(token)
    assert token != TOKENS.issue("01A", "alice", NOW).token


def test_no_character_of_a_token_can_be_changed() -> None:
    token, _ = TOKENS.issue("01A", "alice", NOW)

    for at in range(len(token)):
        for other in ("A", "b"):
            changed = token[:at] + other + token[at + 1 :]
            if changed != token:
                try:  # the last character has bits that say nothing
                    assert TOKENS.tenant(changed, "01A", NOW) == "alice"
                except HeadraceError as error:
                    refused = error
                    assert refused.code is Code.INVALID_API_KEY
                else:
                    assert at == len(token) - 1
        refusal(token[:at])


@given(st.text() | st.text().map(lambda text: f"rt_{text}"))
def test_anything_else_is_refused(token: str) -> None:
    assert "this server's" in refusal(token)


def test_a_tenants_name_may_be_anything() -> None:
    token, _ = TOKENS.issue("01A", "ä\n/" * 50, NOW)
    assert TOKENS.tenant(token, "01A", NOW) == "ä\n/" * 50


def test_a_secret_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "state" / "read-tokens.key"
    secret = kept_secret(path)

    assert len(secret) == 32
    assert kept_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    path.write_bytes(b"short")
    assert len(kept_secret(path)) == 32


def test_a_secret_that_cannot_be_kept_stops_the_start_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HeadraceError, match=r"file/read-tokens\.key") as caught:
        kept_secret(tmp_path / "file" / "read-tokens.key")
    assert caught.value.code is Code.STORE_FAILED

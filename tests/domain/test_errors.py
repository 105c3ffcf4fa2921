"""The one table of errors is complete and consistent."""

from __future__ import annotations

import pytest

from headrace.domain.errors import MEANINGS, Code, HeadraceError


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_a_meaning_on_every_wire(code: Code) -> None:
    meaning = MEANINGS[code]
    assert 400 <= meaning.http <= 599
    assert 1 <= meaning.grpc <= 16
    assert meaning.type.endswith("_error")


def test_an_error_carries_what_a_client_needs() -> None:
    error = HeadraceError(Code.QUEUE_FULL, "full", param="model", retry_after_s=2.0)
    assert (error.code, error.message, error.param, error.retry_after_s) == (
        Code.QUEUE_FULL,
        "full",
        "model",
        2.0,
    )
    assert error.meaning.retryable

"""Keys that secret scanners find and nobody guesses."""

from __future__ import annotations

import math
import re
from hashlib import sha256

from headrace.admission import key_text
from headrace.admission.key_text import SECRET_LENGTH, digest, new_key


def test_a_key_has_the_shape_that_scanners_are_told() -> None:
    assert key_text.__doc__
    shape = re.search(r"``(hr_\S+)``", key_text.__doc__)
    assert shape
    keys = [new_key() for _ in range(200)]
    assert all(re.fullmatch(shape[1], key.text) for key in keys)
    assert all(key.text.split("_")[1] == key.id for key in keys)
    assert len({key.id for key in keys} | {key.text[-43:] for key in keys}) == 400


def test_the_secret_has_at_least_32_bytes() -> None:
    assert SECRET_LENGTH * math.log2(62) >= 32 * 8


def test_what_is_kept_is_the_sha_256_of_all_of_it() -> None:
    assert digest("hr_a_b") == sha256(b"hr_a_b").digest()
    assert digest("\udc80"), "bytes of a header that are no text"

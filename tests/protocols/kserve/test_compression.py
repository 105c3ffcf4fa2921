"""Answers of KServe V2 that are compressed: for whom, and how."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import httpx
import pytest

from headrace.protocols.kserve.compression import coding_asked_for, compressed


@pytest.mark.parametrize(
    ("accepts", "coding"),
    [
        (None, None),
        ("", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("GZIP", "gzip"),
        ("gzip;q=0.5", "gzip"),
        ("gzip, identity;q=0.5", "gzip"),
        ("gzip;q=0.5, identity", None),
        ("gzip, deflate", None),
        ("gzip, deflate, br, zstd", None),
        ("gzip;q=0.5, deflate, identity;q=0", "deflate"),
        ("gzip, deflate;q=0", "gzip"),
        ("gzip, *;q=0", "gzip"),
        ("*, identity;q=0", "gzip"),
        ("*", None),
        ("*;q=0", None),
        ("identity", None),
        ("br", None),
        ("gzip;q=0", None),
        ("gzip;q=x", None),
    ],
)
def test_who_names_one_alone_is_given_it(accepts: str | None, coding: str | None) -> None:
    assert coding_asked_for(accepts) == coding


def test_the_parts_are_one_stream() -> None:
    parts = [b"one", memoryview(b"two"), b""]
    assert gzip.decompress(compressed(parts, "gzip")) == b"onetwo"
    assert zlib.decompress(compressed(parts, "deflate")) == b"onetwo"


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("accepts", ["gzip", "gzip, deflate"])
def test_an_answer_over_http(kit: Any, v2: Any, accepts: str, binary: bool) -> None:
    body = {
        "inputs": [{"name": "in", "datatype": "FP32", "shape": [1, 500], "data": [0.5] * 500}],
        "parameters": {"binary_data_output": binary},
    }

    async def main() -> None:
        async with v2.serving(kit.Service(kit.hello), v2.Lines()) as server:
            async with httpx.AsyncClient(base_url=server.url) as client:
                path = "/v2/models/identity_fp32/infer"
                answer = await client.post(path, json=body, headers={"accept-encoding": accepts})
        assert answer.headers.get("content-encoding") == ("gzip" if accepts == "gzip" else None)
        length = int(answer.headers.get("inference-header-content-length", len(answer.content)))
        assert json.loads(answer.content[:length])["outputs"][0]["shape"] == [1, 500]
        assert len(answer.content) - length == (2000 if binary else 0)
        sent = int(answer.headers["content-length"])
        assert (sent < 600) == (accepts == "gzip")

    kit.run(main())

"""A source's text names its kind, and nothing else is accepted."""

from __future__ import annotations

import pytest

from headrace.domain.errors import Code, HeadraceError
from headrace.models.hub import HubSource
from headrace.models.local import LocalSource
from headrace.models.pypi import PypiSource
from headrace.models.source import parse


@pytest.mark.parametrize(
    ("text", "source", "file_name"),
    [
        ("pypi:a-b==1.2/x/y.gguf", PypiSource("a-b", "1.2", "x/y.gguf"), "y.gguf"),
        ("file:~/y.gguf", LocalSource("~/y.gguf"), "y.gguf"),
        ("file:///y.gguf", LocalSource("/y.gguf"), "y.gguf"),
        ("hf:org/repo/deep/y.gguf", HubSource("org/repo", "deep/y.gguf"), "y.gguf"),
    ],
)
def test_each_kind_is_read(text: str, source: object, file_name: str) -> None:
    assert parse(text) == source
    assert parse(text).file_name == file_name


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "y.gguf", "http://h/y", "file:", "hf:org/repo", "hf:org", "hf:org/repo/../../y"),
        *("pypi:a/x.gguf", "pypi:a==1", "pypi:a==1/", "pypi:--index-url==1/x", "pypi:a>=1/x"),
    ],
)
def test_anything_else_is_refused_with_the_three_forms(text: str) -> None:
    with pytest.raises(HeadraceError, match="file:PATH, hf:ORG/REPO/FILE or pypi:NAME") as caught:
        parse(text)
    assert caught.value.code == Code.INVALID_REQUEST

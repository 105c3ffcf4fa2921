"""What the fetching process says on its standard output: one of these a line, the last one is its result."""

from __future__ import annotations

import msgspec

from headrace.domain.errors import Code
from headrace.models.wanted import ModelFile, Step


class Stepped(msgspec.Struct, frozen=True, tag="step"):
    step: Step


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    file: ModelFile


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    code: Code
    message: str


Line = Stepped | Ready | Failed

"""A model of ONNX Runtime GenAI as its process has it: its layout of chats, its tokens, its options.

Imports ``onnxruntime_genai``: only for the process that computes.
https://onnxruntime.ai/docs/genai/reference/config.html
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import onnxruntime_genai as og

from headrace.domain.delta import Prefix
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import Message, Sampling
from headrace.engines.genai_wire import Prompt, Start
from headrace.engines.llama_turns import Marks, completion
from headrace.engines.spoken import Decode

CONFIG = "genai_config.json"
TAIL = 16
"""Tokens before an answer that its first token's text may depend on."""


class DecoderConfig(msgspec.Struct, frozen=True):
    context_length: int
    vocab_size: int
    eos_token_id: int | list[int] = []


class EngineConfig(msgspec.Struct, frozen=True):
    dynamic_batching: dict[str, Any] | None = None


class ModelConfig(msgspec.Struct, frozen=True):
    """What we read of ``genai_config.json``."""

    model: DecoderConfig
    engine: EngineConfig = EngineConfig()


class GenaiModel:
    """``context``: tokens of prompt and answer together. ``batches``: many sequences are computed at once, by GenAI's
    ``Engine``. ``ends``: tokens that end an answer."""

    def __init__(
        self, folder: str, context: int, threads: int, device: Literal["auto", "cpu", "gpu"]
    ) -> None:
        """Raises what is wrong with the folder's files, in GenAI's own words."""
        said = msgspec.json.decode((Path(folder) / CONFIG).read_bytes(), type=ModelConfig)
        config = og.Config(folder)
        if threads:
            options = {"session_options": {"intra_op_num_threads": threads}}
            config.overlay(json.dumps({"model": {"decoder": options}}))
        if device != "auto":
            config.clear_providers()
        if device == "gpu":
            config.append_provider("cuda")
        self.handle = og.Model(config)
        self._tokenizer = og.Tokenizer(self.handle)
        trained = said.model.context_length
        self.context = min(context, trained) if context else trained
        self.vocabulary = said.model.vocab_size
        self.batches = said.engine.dynamic_batching is not None
        self.ends = frozenset(int(token) for token in self._tokenizer.eos_token_ids)

    # Prompts.

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """The token ids of a prompt. Raises ``INVALID_REQUEST`` where the model's template refuses it."""
        return [token for part in self._parts(prompt) for token in self._ids(part)]

    def _parts(self, prompt: Prompt) -> Sequence[str | int]:
        if not prompt.messages:
            return completion(prompt.text, prompt.turns)
        if not prompt.turns:
            return (self._rendered(prompt.messages, prompt.goes_on),)
        try:
            return self._with_turns(prompt, plain=False)
        except HeadraceError as error:
            if error.code is not Code.INVALID_REQUEST:
                raise
            return self._with_turns(prompt, plain=True)

    def _with_turns(self, prompt: Prompt, plain: bool) -> Sequence[str | int]:
        marks = Marks(prompt.messages, prompt.turns, plain)
        return marks.split(self._rendered(marks.messages, False))

    def _rendered(self, messages: Sequence[Message], goes_on: bool) -> str:
        begun = messages[-1].text if goes_on else ""
        laid_out = messages[:-1] if goes_on else messages
        plain = [_plain(message) for message in laid_out]
        try:
            text: str = self._tokenizer.apply_chat_template(
                json.dumps(plain), add_generation_prompt=True
            )
        except RuntimeError as error:
            text = f"The model's chat template refuses these messages: {error}"
            raise HeadraceError(Code.INVALID_REQUEST, text, param="messages") from None
        return text + begun

    def _ids(self, part: str | int) -> Iterable[int]:
        if isinstance(part, int):
            return (part,)
        return self._tokenizer.encode(part).tolist() if part else ()

    def said_ids(self, prefix: Prefix) -> Sequence[int]:
        """The token ids of what an answer has already."""
        return prefix.token_ids or list(self._ids(prefix.text))

    # Tokens.

    def text(self, tokens: Sequence[int]) -> str:
        """Of token ids, special ones left out."""
        found: str = self._tokenizer.decode(np.array(tokens, dtype=np.int32))
        return found

    def pieces(self, tokens: Sequence[int]) -> Iterator[str]:
        """The text of each token, as it comes after those before it."""
        return map(self.decoder(()), tokens)

    def decoder(self, before: Sequence[int]) -> Decode:
        """Makes text of the tokens that come after these."""
        stream = self._tokenizer.create_stream()
        for token in before[-TAIL:]:
            stream.decode(token)
        decode: Decode = stream.decode
        return decode


def search_options(start: Start, length: int) -> dict[str, Any]:
    """What is asked for in GenAI's words; what is not asked for is as the model's ``genai_config.json`` says."""
    sampling = start.sampling
    options: dict[str, Any] = {"max_length": length, "batch_size": 1, "num_beams": 1}
    if sampling.temperature == 0 or sampling.top_k == 1:
        options["do_sample"] = False
    else:
        options |= _sampled(sampling, start.seed)
    if sampling.repeat_penalty is not None:
        options["repetition_penalty"] = sampling.repeat_penalty
    if sampling.ignore_eos:
        options["min_length"] = length
    return options


def _sampled(sampling: Sampling, seed: int | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name in ("temperature", "top_p", "top_k"):
        value = getattr(sampling, name)
        if value is not None:
            options[name] = value
    if options:
        options["do_sample"] = True
    if seed is not None:
        options["random_seed"] = seed & 0x7FFFFFFF
    return options


def _plain(message: Message) -> dict[str, Any]:
    """A message as templates want it: its content is one text."""
    return {**msgspec.to_builtins(message), "content": message.text}

"""A text model for ONNX Runtime GenAI, made when a test needs it: a decoder whose next token follows from the last
one and its place, so that a token that is lost or comes twice changes all that follow.

Prompts that end with ``!`` are answered with ``ö.`` and an end, all others with letters for ever.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.onnx_models import tensor, write

END = 2
FIRST_LETTER = 4
LETTERS = 26
CONTEXT = 512
SPECIAL = ("<unk>", "<s>", "</s>")
ROLES = ("<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def _byte_letters() -> list[str]:
    """How byte-level BPE writes each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = iter(range(256, 512))
    return [chr(byte if byte in plain else next(other)) for byte in range(256)]


def _vocabulary() -> dict[str, int]:
    """Every byte, the letters first."""
    letters = [chr(ord("a") + at) for at in range(LETTERS)]
    rest = [char for char in _byte_letters() if char not in letters]
    return {
        text: at for at, text in enumerate((*SPECIAL, rest[32], *letters, *rest[:32], *rest[33:]))
    }


VOCABULARY = _vocabulary()
SIZE = len(VOCABULARY) + len(ROLES)


def tokens_of(text: str) -> list[int]:
    """The ids of a text without roles."""
    letters = _byte_letters()
    return [VOCABULARY[letters[byte]] for byte in text.encode()]


def said_after(prompt: Sequence[int], count: int) -> list[int]:
    """The ``count`` tokens that the model says after these."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(FIRST_LETTER + (ids[-1] + len(ids)) % LETTERS)
    return ids[len(prompt) :]


def letters_of(ids: Sequence[int]) -> str:
    return "".join(chr(ord("a") + one - FIRST_LETTER) for one in ids)


def model(folder: Path, *, template: str = TEMPLATE, search: dict[str, Any] | None = None) -> Path:
    """The folder with all its files."""
    folder.mkdir(parents=True, exist_ok=True)
    _decoder(folder / "model.onnx")
    _tokenizer(folder, template)
    (folder / "genai_config.json").write_text(json.dumps(_config(search or {})))
    return folder


def _decoder(path: Path) -> None:
    node = helper.make_node
    nodes = [
        node("Cast", ["input_ids"], ["floats"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["floats", "axes"], ["new"]),
        node("Concat", ["past_key_values.0.key", "new"], ["present.0.key"], axis=2),
        node("Concat", ["past_key_values.0.value", "new"], ["present.0.value"], axis=2),
        node("Shape", ["present.0.key"], ["whole"]),
        node("Gather", ["whole", "two"], ["total"]),
        node("Shape", ["input_ids"], ["shape"]),
        node("Gather", ["shape", "one"], ["count"]),
        node("Sub", ["total", "count"], ["past"]),
        node("Add", ["past", "one"], ["from"]),
        node("Add", ["total", "one"], ["to"]),
        node("Range", ["from", "to", "one"], ["places"]),
        node("Add", ["input_ids", "places"], ["sum"]),
        node("Mod", ["sum", "letters"], ["letter"]),
        node("Add", ["letter", "first"], ["next_0"]),
        *_exceptions(),
        node("OneHot", ["next_4", "size", "values"], ["logits"], axis=-1),
    ]
    numbers = {"two": 2, "one": 1, "letters": LETTERS, "first": FIRST_LETTER, "size": SIZE}
    for at, (last, then) in enumerate(_chain()):
        numbers |= {f"last_{at}": last, f"then_{at}": then}
    weights = [
        numpy_helper.from_array(np.array(value, np.int64), name) for name, value in numbers.items()
    ]
    weights.append(numpy_helper.from_array(np.array([1, 3], np.int64), "axes"))
    weights.append(numpy_helper.from_array(np.array([0, 10], np.float32), "values"))
    past, present = ["b", 1, "p", 1], ["b", 1, "t", 1]
    inputs = [
        tensor("input_ids", "INT64", ["b", "s"]),
        tensor("attention_mask", "INT64", ["b", "t"]),
    ]
    inputs += [tensor(f"past_key_values.0.{kind}", "FP32", past) for kind in ("key", "value")]
    outputs = [tensor("logits", "FP32", ["b", "s", SIZE])]
    outputs += [tensor(f"present.0.{kind}", "FP32", present) for kind in ("key", "value")]
    write(path, nodes, inputs, outputs, weights)


def _chain() -> list[tuple[int, int]]:
    """Tokens that others follow, whatever their place."""
    bang, one, two, dot = tokens_of("!ö.")
    return [(bang, one), (one, two), (two, dot), (dot, END)]


def _exceptions() -> list[Any]:
    nodes = []
    for at in range(len(_chain())):
        nodes.append(helper.make_node("Equal", ["input_ids", f"last_{at}"], [f"is_{at}"]))
        chosen = [f"is_{at}", f"then_{at}", f"next_{at}"]
        nodes.append(helper.make_node("Where", chosen, [f"next_{at + 1}"]))
    return nodes


def _tokenizer(folder: Path, template: str) -> None:
    special = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    ids = [*enumerate(SPECIAL), *enumerate(ROLES, len(VOCABULARY))]
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    said = {
        "version": "1.0",
        "added_tokens": [
            {"id": at, "content": text, "special": True, **special} for at, text in ids
        ],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": VOCABULARY, "merges": []},
    }
    (folder / "tokenizer.json").write_text(json.dumps(said))
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_prefix_space": False,
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _config(search: dict[str, Any]) -> dict[str, Any]:
    inputs = {
        "input_ids": "input_ids",
        "attention_mask": "attention_mask",
        "past_key_names": "past_key_values.%d.key",
        "past_value_names": "past_key_values.%d.value",
    }
    outputs = {
        "logits": "logits",
        "present_key_names": "present.%d.key",
        "present_value_names": "present.%d.value",
    }
    decoder = {
        "session_options": {"provider_options": [], "intra_op_num_threads": 1},
        "filename": "model.onnx",
        "head_size": 1,
        "hidden_size": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "num_hidden_layers": 1,
        "inputs": inputs,
        "outputs": outputs,
    }
    return {
        "model": {
            "type": "llama",
            "bos_token_id": 1,
            "eos_token_id": [END],
            "pad_token_id": END,
            "context_length": CONTEXT,
            "vocab_size": SIZE,
            "decoder": decoder,
        },
        "search": {"max_length": CONTEXT, "do_sample": False, **search},
    }

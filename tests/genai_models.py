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
BLOCKS = (256, 8, 1, 1)
"""Of a paged model's memory: how many, tokens of one, heads, their size."""
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


def model(folder: Path, *, paged: bool = False) -> Path:
    """The folder with all its files. ``paged``: many sequences at once, as models for GPUs have it."""
    folder.mkdir(parents=True, exist_ok=True)
    (_paged_decoder if paged else _decoder)(folder / "model.onnx")
    _tokenizer(folder)
    (folder / "genai_config.json").write_text(json.dumps(_config(paged)))
    return folder


def _decoder(path: Path) -> None:
    """One sequence, whose keys grow by a token each: their number is the place of the last."""
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
        *_next_tokens(),
        node("OneHot", ["next", "size", "values"], ["logits"], axis=-1),
    ]
    inputs = [
        tensor("input_ids", "INT64", ["b", "s"]),
        tensor("attention_mask", "INT64", ["b", "t"]),
    ]
    outputs = [tensor("logits", "FP32", ["b", "s", SIZE])]
    axes = numpy_helper.from_array(np.array([1, 3], np.int64), "axes")
    _write(path, nodes, inputs, outputs, ["b", 1, "p", 1], ["b", 1, "t", 1], axes)


def _paged_decoder(path: Path) -> None:
    """All tokens of all sequences behind each other; the places follow from what is said of the sequences."""
    node = helper.make_node
    as_int64 = {"to": TensorProto.INT64}
    nodes = [
        node("Cast", ["cumulative_sequence_lengths"], ["bounds"], **as_int64),
        node("Cast", ["past_sequence_lengths"], ["pasts"], **as_int64),
        node("Shape", ["input_ids"], ["shape"]),
        node("Squeeze", ["shape"], ["count"]),
        node("Range", ["zero", "count", "one"], ["token"]),
        node("Slice", ["bounds", "from_second", "to_end"], ["ends"]),
        node("Unsqueeze", ["token", "second_axis"], ["column"]),
        node("GreaterOrEqual", ["column", "ends"], ["behind"]),
        node("Cast", ["behind"], ["behind_count"], **as_int64),
        node("ReduceSum", ["behind_count", "second_axis"], ["row"], keepdims=0),
        node("Gather", ["bounds", "row"], ["row_start"]),
        node("Gather", ["pasts", "row"], ["row_past"]),
        node("Sub", ["token", "row_start"], ["in_row"]),
        node("Add", ["in_row", "row_past"], ["before"]),
        node("Add", ["before", "one"], ["places"]),
        *_next_tokens(),
        node("Sub", ["ends", "one"], ["lasts"]),
        node("Gather", ["next", "lasts"], ["last_next"]),
        node("OneHot", ["last_next", "size", "values"], ["logits"], axis=-1),
        node("Identity", ["past_key_values.0.key"], ["present.0.key"]),
        node("Identity", ["past_key_values.0.value"], ["present.0.value"]),
    ]
    inputs = [
        tensor("input_ids", "INT64", ["n"]),
        tensor("cumulative_sequence_lengths", "INT32", ["b1"]),
        tensor("past_sequence_lengths", "INT32", ["b"]),
        tensor("block_table", "INT32", ["b", "m"]),
        tensor("attention_metadata", "INT32", [3]),
    ]
    numbers = {"from_second": [1], "to_end": [2**31], "second_axis": [1], "zero": 0}
    more = [
        numpy_helper.from_array(np.array(value, np.int64), name) for name, value in numbers.items()
    ]
    outputs = [tensor("logits", "FP32", ["batch_size", SIZE])]  # GenAI goes by that name
    _write(path, nodes, inputs, outputs, BLOCKS, BLOCKS, *more)


def _next_tokens() -> list[Any]:
    """``next`` of ``input_ids`` and ``places``."""
    node = helper.make_node
    nodes = [
        node("Add", ["input_ids", "places"], ["sum"]),
        node("Mod", ["sum", "letters"], ["letter"]),
        node("Add", ["letter", "first"], ["next_0"]),
    ]
    for at in range(len(_chain())):
        nodes.append(node("Equal", ["input_ids", f"last_{at}"], [f"is_{at}"]))
        nodes.append(node("Where", [f"is_{at}", f"then_{at}", f"next_{at}"], [f"next_{at + 1}"]))
    return [*nodes, node("Identity", [f"next_{len(_chain())}"], ["next"])]


def _write(
    path: Path,
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    past: Sequence[int | str],
    present: Sequence[int | str],
    *more: Any,
) -> None:
    numbers = {"two": 2, "one": 1, "letters": LETTERS, "first": FIRST_LETTER, "size": SIZE}
    for at, (last, then) in enumerate(_chain()):
        numbers |= {f"last_{at}": last, f"then_{at}": then}
    weights = [
        numpy_helper.from_array(np.array(value, np.int64), name) for name, value in numbers.items()
    ]
    weights.append(numpy_helper.from_array(np.array([0, 10], np.float32), "values"))
    kinds = ("key", "value")
    inputs += [tensor(f"past_key_values.0.{kind}", "FP32", past) for kind in kinds]
    outputs += [tensor(f"present.0.{kind}", "FP32", present) for kind in kinds]
    write(path, nodes, inputs, outputs, [*weights, *more])


def _chain() -> list[tuple[int, int]]:
    """Tokens that others follow, whatever their place."""
    bang, one, two, dot = tokens_of("!ö.")
    return [(bang, one), (one, two), (two, dot), (dot, END)]


def _tokenizer(folder: Path) -> None:
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
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _config(paged: bool) -> dict[str, Any]:
    names = (
        "cumulative_sequence_lengths",
        "past_sequence_lengths",
        "block_table",
        "attention_metadata",
    )
    inputs = {name: name for name in ("input_ids", *(names if paged else ("attention_mask",)))}
    outputs = {"logits": "logits"}
    for kind in ("key", "value"):
        inputs[f"past_{kind}_names"] = f"past_key_values.%d.{kind}"
        outputs[f"present_{kind}_names"] = f"present.%d.{kind}"
    one = (
        "head_size",
        "hidden_size",
        "num_attention_heads",
        "num_key_value_heads",
        "num_hidden_layers",
    )
    decoder = {
        "session_options": {"provider_options": [], "intra_op_num_threads": 1},
        "filename": "model.onnx",
        **dict.fromkeys(one, 1),
        "inputs": inputs,
        "outputs": outputs,
    }
    said = {
        "model": {
            "type": "decoder" if paged else "llama",
            "bos_token_id": 1,
            "eos_token_id": [END],
            "pad_token_id": END,
            "context_length": CONTEXT,
            "vocab_size": SIZE,
            "decoder": decoder,
        },
        "search": {"max_length": CONTEXT, "do_sample": False},
    }
    if paged:
        blocks, block = BLOCKS[:2]
        batching = {"block_size": block, "num_blocks": blocks, "max_batch_size": 4}
        said["engine"] = {"dynamic_batching": batching}
    return said

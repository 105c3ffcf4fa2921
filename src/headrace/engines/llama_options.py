"""Settings of a llama.cpp engine, and what is chosen where they leave it open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from headrace.engines.limits import Limits
from headrace.engines.llama_child import ChildOptions, Pooling
from headrace.engines.process_engine import Life

SPARE_HTTP_THREADS = 4
"""Connections beside one a slot: templates, tokens, health."""


class LlamaOptions(Life, frozen=True, kw_only=True):
    """One model in one llama.cpp process. ``model_path`` of a GGUF file; ``partial_tokens``: bytes → id of
    its tokens that are not valid UTF-8 alone. 0 (or empty) means: chosen here. ``context``: tokens of
    one slot; ``batch``: tokens computed between two looks at whether a request was cancelled, and
    ``ubatch`` of them at once; ``cache_mib``: memory for prompts of earlier requests beside the slots'
    own; ``max_tokens``: of a request that names none (0: the rest of the context). ``embeds``: tokens of an input of
    which an embedding is wanted, at most; 0: none is. ``pooling``: how it is made of the tokens' (empty: the model
    says), ``normalize``: to length 1. ``spare``: its threads run where no others want to, and where memory is short the
    kernel ends it first."""

    model_path: str
    version: str = "1"
    device: Literal["auto", "cpu", "gpu"] = "auto"
    slots: int = 0
    context: int = 0
    threads: int = 0
    batch_threads: int = 0
    batch: int = 0
    ubatch: int = 0
    cache_mib: int = 0
    max_tokens: int = 0
    chat_template: str = ""
    mmproj: str = ""
    embeds: int = 0
    pooling: Pooling | Literal[""] = ""
    normalize: bool = True
    accepts: tuple[str, ...] = ()
    spare: bool = False
    partial_tokens: Mapping[bytes, int] = {}
    limits: Limits = Limits(first_byte_s=3600.0)


class Shape(msgspec.Struct, frozen=True):
    """What the process is started with, nothing left open."""

    slots: int
    early: int
    context: int
    threads: int
    batch_threads: int
    batch: int
    ubatch: int


def shape(options: LlamaOptions, cpus: int) -> Shape:
    """Settings, and for what they leave open a choice for ``cpus`` usable processors.

    ``batch`` and ``slots`` were measured as CPU time with SmolLM2-135M Q4_1 on two busy cores: prefill
    costs about 6.8 ms a token in batches of 512, 7.1 in 64, 8.2 in 32, and an abort waits for the batch
    under way: 64. A GPU is idle between small batches: 512. A decoded token costs 13.3 ms alone, 10.4
    beside three others, 8.2 beside seven: 8 slots. ``threads`` is a rule and not measured here: half
    the processors decode and all prefill; decode threads that wait for a busy core stall all others.
    Memory (``python -m benchmarks.shapes memory``, Q8_0): 915 MiB with 8 slots of 4,096 each. One cache
    for all slots needs as much for as many tokens (916); it saves only what it cannot hold (285 MiB
    with 4,096 for all), and a request would fail for what others took. So each slot has its own.
    Of an input of which an embedding is wanted, all tokens are computed at once, unless the last one's
    is the embedding: llama.cpp has it so.
    ``early``: requests that wait in the process, where a slot that is given back is filled without
    idling for a batch: one, and more where several are given back in one batch.
    """
    batch = options.batch or options.ubatch or (512 if options.device == "gpu" else 64)
    ubatch = min(batch, options.ubatch or batch)
    if options.embeds and options.pooling != "last":
        ubatch = max(ubatch, options.embeds)
    slots = options.slots or 8
    return Shape(
        slots=slots,
        early=1 + slots // 8,
        context=options.context or 4096,
        threads=options.threads or max(1, cpus // 2),
        batch_threads=options.batch_threads or max(1, cpus),
        batch=max(batch, ubatch),
        ubatch=ubatch,
    )


def child_options(options: LlamaOptions, chosen: Shape, parent: int, key: str) -> ChildOptions:
    """What the process is told. ``key``: what it wants to see before it computes for anybody."""
    layers = {"cpu": 0, "gpu": 9999, "auto": 9999}[options.device]
    # With a cache a slot, llama.cpp computes inputs of different lengths in steps of the shortest, and pools each step
    # by itself: the mean is then of an input's last tokens only. In one cache an input is never divided.
    unified = options.embeds > 0 and options.pooling != "last"
    return ChildOptions(
        model=options.model_path,
        parent=parent,
        key=key,
        context=chosen.context * chosen.slots if unified else chosen.context,
        unified=unified,
        slots=chosen.slots,
        batch=chosen.batch,
        ubatch=chosen.ubatch,
        threads=chosen.threads,
        batch_threads=chosen.batch_threads,
        gpu_layers=layers,
        http_threads=chosen.slots + chosen.early + SPARE_HTTP_THREADS,
        cache_mib=options.cache_mib,
        chat_template=options.chat_template,
        mmproj=options.mmproj,
        embedding=options.embeds > 0,
        pooling=options.pooling,
        spare=options.spare,
    )

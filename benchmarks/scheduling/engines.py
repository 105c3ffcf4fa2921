"""The engines that are modelled, and where their constants are from."""

from __future__ import annotations

from benchmarks.scheduling.engine import Engine

A10G = Engine(
    name="Llama-2-7B on an A10G",
    pool_tokens=10_000,
    prefill_tokens=2_048,
    admit_every=10,
    prefill_s=0.010,
    prefill_token_s=0.00025,
    step_s=0.030,
    step_sequence_s=0.00025,
    step_held_s=8e-7,
)
"""Fitted to what the authors of VTC measured (``Ying1123/VTC-artifact``, Apache-2.0); ``a10g --check`` compares."""

H100 = Engine(
    name="Llama-2-70B on 8 H100",
    pool_tokens=1_300_000,
    prefill_tokens=8_192,
    admit_every=1,
    prefill_s=0.010,
    prefill_token_s=0.00009,
    step_s=0.030,
    step_sequence_s=0.00030,
    step_held_s=2e-8,
    cached_blocks=100_000,
)
"""Times: rounded from ``splitwise_perf_model.csv`` (SageServe, MIT; h100-80gb, tensor parallelism 8). Pool: 90 % of
640 GB less 138 GB of weights, at 320 KiB a token; blocks: 50 million tokens in host memory, as Mooncake keeps them."""

"""How upstreams that all call themselves OpenAI-compatible differ, as data."""

from __future__ import annotations

import msgspec

EXTENSIONS = ("top_k", "min_p", "repeat_penalty", "ignore_eos")
"""Sampling options that OpenAI itself does not have."""


class Dialect(msgspec.Struct, frozen=True):
    """``extensions``: our name of an option and the upstream's. ``extra``: engine-specific options that
    are passed through. ``prefill``: goes on from an assistant's message that it is given unfinished, if asked to;
    ``goes_on``: from one that is the last, unasked.
    ``token_ids``: says the ids of its tokens when asked. ``progress``: how much of a prompt it has computed, too.
    ``priority``: how it orders requests by theirs: 1 if a lower one is sooner, -1 if a higher one is, 0 if it has none.
    ``tokenize``: the path that counts tokens and
    the field of its text; ``props``: the path that says its slots; empty where there is none."""

    name: str
    extensions: dict[str, str] = {}
    extra: frozenset[str] = frozenset()
    prefill: bool = False
    goes_on: bool = False
    stream_usage: bool = True
    token_ids: bool = False
    progress: bool = False
    priority: int = 0
    tokenize: tuple[str, str] = ("", "")
    props: str = ""


_OPENAI_EXTRA = frozenset(
    {
        *("reasoning_effort", "verbosity", "service_tier", "metadata", "store", "prediction"),
        *("modalities", "web_search_options", "prompt_cache_key", "safety_identifier"),
    }
)
_VLLM_EXTRA = frozenset(
    {
        *("chat_template_kwargs", "structured_outputs", "min_tokens", "stop_token_ids"),
        *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "reasoning_effort"),
        *("length_penalty", "skip_special_tokens", "spaces_between_special_tokens", "cache_salt"),
        *("truncate_prompt_tokens", "include_stop_str_in_output", "regex", "ebnf"),
    }
)
_LLAMA_EXTRA = frozenset(
    {
        *("grammar", "typical_p", "mirostat", "mirostat_tau", "mirostat_eta", "dry_multiplier"),
        *("xtc_probability", "xtc_threshold", "samplers", "chat_template_kwargs", "cache_prompt"),
    }
)

OPENAI = Dialect("openai", extra=_OPENAI_EXTRA)
VLLM = Dialect(
    "vllm",
    extensions={
        "top_k": "top_k",
        "min_p": "min_p",
        "repeat_penalty": "repetition_penalty",
        "ignore_eos": "ignore_eos",
    },
    extra=_VLLM_EXTRA,
    prefill=True,
    token_ids=True,
    priority=1,
    tokenize=("/tokenize", "prompt"),
)
SGLANG = msgspec.structs.replace(VLLM, name="sglang", token_ids=False, priority=-1)
LLAMA = Dialect(
    "llama",
    extensions={
        "top_k": "top_k",
        "min_p": "min_p",
        "repeat_penalty": "repeat_penalty",
        "ignore_eos": "ignore_eos",
    },
    extra=_LLAMA_EXTRA,
    goes_on=True,
    progress=True,
    tokenize=("/tokenize", "content"),
    props="/props",
)
DIALECTS = {dialect.name: dialect for dialect in (OPENAI, VLLM, SGLANG, LLAMA)}
"""What a replica's ``dialect`` may name; ``openai`` fits any upstream and refuses most."""

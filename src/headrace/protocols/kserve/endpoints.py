"""``/v2``: inference, and what is known of server and models."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.principal import Scope
from headrace.protocols.asking import caller_of
from headrace.protocols.body import Body, check_plain, coding_of
from headrace.protocols.call import Call
from headrace.protocols.inflating import ANY, inflated
from headrace.protocols.kserve import facts, gpu_memory
from headrace.protocols.kserve.errors import V2
from headrace.protocols.kserve.repeated import Repeated
from headrace.protocols.kserve.request import decode_infer, json_size
from headrace.protocols.kserve.response import LENGTH, respond
from headrace.protocols.kserve.running import answered
from headrace.protocols.memory_port import Memory
from headrace.protocols.port import Service
from headrace.protocols.router import Handler, Route
from headrace.protocols.tensor_port import Tensors

_MODEL = "/v2/models/{model:path}"
_REGION = "/v2/systemsharedmemory/region/{region:path}"
_GPU_REGION = "/v2/cudasharedmemory/region/{region:path}"
LEASE = b"x-shared-memory-lease"
"""``true``: the file of a region that is registered is removed when no process has it open any more."""
_COMPRESSED = frozenset((b"gzip", b"deflate"))
_FORMS = frozenset(
    (b"application/x-www-form-urlencoded", b"multipart/form-data", b"text/plain", b"")
)
"""What a page may send to anybody without being asked first."""


class IndexBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """``POST /v2/repository/index``."""

    ready: bool = False


class RegionBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """``POST /v2/systemsharedmemory/region/{region}/register``."""

    key: str
    byte_size: Annotated[int, Meta(ge=1, lt=2**62)]
    offset: Annotated[int, Meta(ge=0, lt=2**62)] = 0


_index_body = Body(IndexBody)
_region_body = Body(RegionBody)


class V2Endpoints:
    """``version``: the server's. ``body_bytes``: of a body that came compressed."""

    def __init__(
        self,
        service: Service,
        tensors: Tensors,
        memory: Memory,
        version: str,
        body_bytes: int = 32 * 1024 * 1024,
    ) -> None:
        self._service = service
        self._tensors = tensors
        self._memory = memory
        self._version = version
        self._body_bytes = body_bytes
        self._bodies = Repeated(decode_infer)

    def routes(self) -> Sequence[Route]:
        """Those with an end after the model's name come first."""

        def route(
            method: str, path: str, handler: Handler, scope: Scope = "infer", open: bool = False
        ) -> Route:
            return Route(method, path, handler, open=open, manner=V2, scope=scope)

        return (
            route("GET", "/v2", self.server),
            route("GET", "/v2/health/live", self.live, open=True),
            route("GET", "/v2/health/ready", self.ready, open=True),
            route("GET", "/v2/models/stats", self.all_statistics),
            route("POST", _MODEL + "/infer", self.infer),
            route("GET", _MODEL + "/ready", self.model_ready),
            route("GET", _MODEL + "/config", self.config),
            route("GET", _MODEL + "/stats", self.statistics),
            route("GET", _MODEL, self.metadata),
            route("POST", "/v2/repository/index", self.index),
            route("POST", "/v2/repository/models/{model:path}/load", self.load, "admin"),
            route("POST", "/v2/repository/models/{model:path}/unload", self.unload, "admin"),
            route("GET", "/v2/systemsharedmemory/status", self.regions),
            route("POST", "/v2/systemsharedmemory/unregister", self.unregister),
            route("GET", _REGION + "/status", self.regions),
            route("POST", _REGION + "/register", self.register),
            route("POST", _REGION + "/unregister", self.unregister),
            route("GET", "/v2/cudasharedmemory/status", self.gpu_regions),
            route("POST", "/v2/cudasharedmemory/unregister", self.unregister_gpu),
            route("GET", _GPU_REGION + "/status", self.gpu_regions),
            route("POST", _GPU_REGION + "/register", self.register_gpu),
            route("POST", _GPU_REGION + "/unregister", self.unregister_gpu),
        )

    async def infer(self, call: Call, path: str) -> None:
        model, version = _model(path)
        body = await self._inflated(call)
        size = json_size(call.header(LENGTH), body)
        asked = self._bodies.decode(body, size, model, version, self._memory, call.tenant)
        caller = caller_of(call)
        found = await answered(self._tensors, self._memory, asked, caller, call.span)
        await respond(call, found)

    def server(self, call: Call, _: str) -> None:
        call.json(facts.server(self._version))

    def live(self, call: Call, _: str) -> None:
        call.json({"live": True})

    def ready(self, call: Call, _: str) -> None:
        _say_ready(call, facts.is_ready(self._tensors))

    def model_ready(self, call: Call, path: str) -> None:
        _say_ready(call, facts.model_ready(self._tensors, *_model(path)))

    def metadata(self, call: Call, path: str) -> None:
        call.json(facts.metadata(self._tensors.model(*_model(path))))

    def config(self, call: Call, path: str) -> None:
        call.json(facts.config(self._tensors.model(*_model(path))))

    def statistics(self, call: Call, path: str) -> None:
        name, version = _model(path)
        call.json({"model_stats": facts.all_statistics(self._tensors, name, version)})

    def all_statistics(self, call: Call, _: str) -> None:
        call.json({"model_stats": facts.all_statistics(self._tensors)})

    def index(self, call: Call, _: str) -> None:
        body = _body(call)
        asked = _index_body.decode_closed(body) if body else IndexBody()
        call.json(facts.index(self._tensors.models(), asked.ready))

    async def load(self, call: Call, model: str) -> None:
        _check_page(call)
        await self._tensors.load(model)
        call.json({})

    async def unload(self, call: Call, model: str) -> None:
        _check_page(call)
        await self._tensors.unload(model)
        call.json({})

    def regions(self, call: Call, name: str) -> None:
        call.json([facts.region(each) for each in self._memory.listed(call.tenant, name)])

    def register(self, call: Call, name: str) -> None:
        asked = _region_body.decode_closed(_body(call))
        self._memory.register(
            call.tenant,
            name,
            asked.key,
            asked.offset,
            asked.byte_size,
            alone=self._service.open,
            leased=call.header(LEASE) == "true",
        )
        call.json({})

    def unregister(self, call: Call, name: str) -> None:
        _check_page(call)
        self._memory.unregister(call.tenant, name)
        call.json({})

    def gpu_regions(self, call: Call, name: str) -> None:
        call.json(gpu_memory.listed(name))

    def register_gpu(self, call: Call, name: str) -> None:
        _check_page(call)
        gpu_memory.register(name)

    def unregister_gpu(self, call: Call, _: str) -> None:
        _check_page(call)
        call.json({})

    async def _inflated(self, call: Call) -> bytes:
        """The body of an inference. Raises as :func:`_body`, ``INVALID_REQUEST`` and ``BODY_TOO_LARGE``."""
        if coding_of(call) not in _COMPRESSED:
            return _body(call)
        _check_page(call)
        body = call.exchange.body
        return await asyncio.to_thread(inflated, body, self._body_bytes, ANY, "The body")


def _model(path: str) -> tuple[str, str]:
    """Name and version of ``NAME`` or ``NAME/versions/VERSION``; the version is empty for the newest."""
    name, separator, version = path.rpartition("/versions/")
    return (name, version) if separator else (path, "")


def _say_ready(call: Call, ready: bool) -> None:
    call.json({"ready": ready}, status=200 if ready else 400)


def _body(call: Call) -> bytes:
    """Raises ``UNSUPPORTED_ENCODING`` and ``UNSUPPORTED_MEDIA_TYPE``."""
    _check_page(call)
    check_plain(call)
    return call.exchange.body


def _check_page(call: Call) -> None:
    """A page, which says its origin, may not do by a form what its visitor can. Raises ``UNSUPPORTED_MEDIA_TYPE``."""
    fields = call.terms.fields
    kind = fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if b"origin" in fields and kind in _FORMS:
        said = "The header Content-Type must be application/json or application/octet-stream."
        raise HeadraceError(Code.UNSUPPORTED_MEDIA_TYPE, said)

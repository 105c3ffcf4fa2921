"""``inference.GRPCInferenceService``: KServe V2 over gRPC, gRPC-Web and Connect."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import ClassVar

from google.protobuf.descriptor import ServiceDescriptor

from headrace.domain.errors import HeadraceError
from headrace.domain.principal import Scope
from headrace.protocols.asking import caller_of
from headrace.protocols.grpc import open_inference_pb2 as pb
from headrace.protocols.grpc.call import Reply, RpcCall
from headrace.protocols.grpc.open_inference_messages import infer_asked, infer_response
from headrace.protocols.grpc.open_inference_raw import RawRequest, RawResponse, read_request
from headrace.protocols.grpc.rpcs import Answer, Method, methods_of
from headrace.protocols.grpc.status import OK
from headrace.protocols.kserve import facts, gpu_memory
from headrace.protocols.kserve.endpoints import LEASE
from headrace.protocols.kserve.running import answered
from headrace.protocols.memory_port import Memory
from headrace.protocols.port import Service
from headrace.protocols.tensor_port import Tensors

_KEYLESS = frozenset(("ServerLive", "ServerReady"))
_SCOPES: dict[str, Scope] = {"RepositoryModelLoad": "admin", "RepositoryModelUnload": "admin"}


class OpenInference:
    """``version``: the server's."""

    service: ClassVar[ServiceDescriptor] = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]

    def __init__(self, service: Service, tensors: Tensors, memory: Memory, version: str) -> None:
        self._service = service
        self._tensors = tensors
        self._memory = memory
        self._version = version

    def methods(self) -> Sequence[Method]:
        answers: dict[str, Answer] = {
            "ServerLive": self.live,
            "ServerReady": self.ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server,
            "ModelMetadata": self.metadata,
            "ModelInfer": self.infer,
            "ModelConfig": self.config,
            "ModelStatistics": self.statistics,
            "RepositoryIndex": self.index,
            "RepositoryModelLoad": self.load,
            "RepositoryModelUnload": self.unload,
            "SystemSharedMemoryStatus": self.regions,
            "SystemSharedMemoryRegister": self.register,
            "SystemSharedMemoryUnregister": self.unregister,
            "CudaSharedMemoryStatus": self.gpu_regions,
            "CudaSharedMemoryRegister": self.register_gpu,
            "CudaSharedMemoryUnregister": self.unregister_gpu,
        }
        found = methods_of(self.service, answers, {"ModelStreamInfer": self.stream})
        return [_with_terms(method) for method in found]

    async def infer(self, call: RpcCall, said: RawRequest) -> None:
        _end_with(call.reply, None)
        call.answer(await self.run(call, said))

    def stream(self, call: RpcCall) -> InferStream:
        return InferStream(self, call)

    async def run(self, call: RpcCall, said: RawRequest) -> RawResponse:
        """The answer to one request. Raises what is wrong with it."""
        asked = infer_asked(said, self._memory, call.tenant)
        caller = caller_of(call)
        return infer_response(await answered(self._tensors, self._memory, asked, caller, call.span))

    def live(self, call: RpcCall, _: pb.ServerLiveRequest) -> None:
        call.answer(pb.ServerLiveResponse(live=True))

    def ready(self, call: RpcCall, _: pb.ServerReadyRequest) -> None:
        call.answer(pb.ServerReadyResponse(ready=facts.is_ready(self._tensors)))

    def model_ready(self, call: RpcCall, said: pb.ModelReadyRequest) -> None:
        """A model that is not there is not ready, and no error: as Triton has it."""
        call.answer(
            pb.ModelReadyResponse(ready=facts.model_ready(self._tensors, said.name, said.version))
        )

    def server(self, call: RpcCall, _: pb.ServerMetadataRequest) -> None:
        call.answer(pb.ServerMetadataResponse(**facts.server(self._version)))

    def metadata(self, call: RpcCall, said: pb.ModelMetadataRequest) -> None:
        model = self._tensors.model(said.name, said.version)
        call.answer(pb.ModelMetadataResponse(**facts.metadata(model)))

    def config(self, call: RpcCall, said: pb.ModelConfigRequest) -> None:
        model = self._tensors.model(said.name, said.version)
        call.answer(pb.ModelConfigResponse(config=pb.ModelConfig(**facts.config(model))))

    def statistics(self, call: RpcCall, said: pb.ModelStatisticsRequest) -> None:
        found = facts.all_statistics(self._tensors, said.name, said.version)
        call.answer(
            pb.ModelStatisticsResponse(model_stats=[pb.ModelStatistics(**one) for one in found])
        )

    def index(self, call: RpcCall, said: pb.RepositoryIndexRequest) -> None:
        models = facts.index(self._tensors.models(), said.ready)
        indexed = [pb.RepositoryIndexResponse.ModelIndex(**one) for one in models]
        call.answer(pb.RepositoryIndexResponse(models=indexed))

    async def load(self, call: RpcCall, said: pb.RepositoryModelLoadRequest) -> None:
        await self._tensors.load(said.model_name)
        call.answer(pb.RepositoryModelLoadResponse())

    async def unload(self, call: RpcCall, said: pb.RepositoryModelUnloadRequest) -> None:
        await self._tensors.unload(said.model_name)
        call.answer(pb.RepositoryModelUnloadResponse())

    def regions(self, call: RpcCall, said: pb.SystemSharedMemoryStatusRequest) -> None:
        made = pb.SystemSharedMemoryStatusResponse()
        for region in self._memory.listed(call.tenant, said.name):
            status = made.RegionStatus(**facts.region(region))
            made.regions[region.name].CopyFrom(status)
        call.answer(made)

    def register(self, call: RpcCall, said: pb.SystemSharedMemoryRegisterRequest) -> None:
        self._memory.register(
            call.tenant,
            said.name,
            said.key,
            said.offset,
            said.byte_size,
            alone=self._service.open,
            leased=call.header(LEASE) == "true",
        )
        call.answer(pb.SystemSharedMemoryRegisterResponse())

    def unregister(self, call: RpcCall, said: pb.SystemSharedMemoryUnregisterRequest) -> None:
        self._memory.unregister(call.tenant, said.name)
        call.answer(pb.SystemSharedMemoryUnregisterResponse())

    def gpu_regions(self, call: RpcCall, said: pb.CudaSharedMemoryStatusRequest) -> None:
        gpu_memory.listed(said.name)
        call.answer(pb.CudaSharedMemoryStatusResponse())

    def register_gpu(self, call: RpcCall, said: pb.CudaSharedMemoryRegisterRequest) -> None:
        gpu_memory.register(said.name)

    def unregister_gpu(self, call: RpcCall, _: pb.CudaSharedMemoryUnregisterRequest) -> None:
        call.answer(pb.CudaSharedMemoryUnregisterResponse())


class InferStream:
    """``ModelStreamInfer``: an answer to each request, in their order. Implements ``Inbox``."""

    def __init__(self, inference: OpenInference, call: RpcCall) -> None:
        self._inference = inference
        self._call = call
        self._room: asyncio.Future[None] | None = None
        """What is waited for while too much is unsent."""
        call.start()
        _end_with(call.reply, self._drained)

    async def received(self, said: RawRequest) -> None:
        try:
            response = await self._inference.run(self._call, said)
            response.message.parameters["triton_final_response"].bool_param = True
            answer = response.streamed()
        except HeadraceError as error:
            refused = pb.ModelStreamInferResponse(error_message=error.message)
            refused.infer_response.id = said.message.id
            answer = refused.SerializeToString()
        if not self._call.reply.send((answer,)):
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def half_closed(self) -> None:
        self._call.reply.end(OK)

    def _drained(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


def _end_with(reply: Reply, on_drain: Callable[[], None] | None) -> None:
    """Have the task that runs cancelled when its call is over, but by the task itself."""
    task = asyncio.current_task()

    def gone() -> None:
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    reply.watch(gone, on_drain)


def _with_terms(method: Method) -> Method:
    name = method.path.rpartition("/")[2]
    read = read_request if method.request is pb.ModelInferRequest else None
    scope = _SCOPES.get(name, "infer")
    return method._replace(keyless=name in _KEYLESS, scope=scope, read=read)

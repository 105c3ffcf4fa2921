"""The answer to a call in one message: what waits for the whole log of its generation."""

from __future__ import annotations

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.collector import Collector
from headrace.protocols.fold import Fold
from headrace.protocols.grpc.answers import infer_response
from headrace.protocols.grpc.call import RpcCall
from headrace.protocols.grpc.stream import EventStreams
from headrace.protocols.port import Generation


class WholeAnswer:
    """``streams``: what is under way, of which this is one until it is answered."""

    __slots__ = ("_call", "_collector", "_generation", "_streams")

    def __init__(self, call: RpcCall, generation: Generation, streams: EventStreams) -> None:
        self._call = call
        self._generation = generation
        self._streams = streams
        self._collector = Collector(done=self._done)

    def attach(self) -> None:
        """Begin to wait; a log that has ended is answered from before this returns."""
        call = self._call
        call.start(self._generation.id)
        self._streams.add(self)
        call.reply.watch(self._gone, None)
        self._collector.attach(self._generation, client=True)

    def interrupt(self) -> None:
        """The server stops before the log has ended: it goes on after the next start."""
        self._gone()
        said = "The server stops; the generation goes on when it is back. Read it with `resume`."
        self._call.fail(HeadraceError(Code.INTERRUPTED, said))

    def _gone(self) -> None:
        self._streams.discard(self)
        self._collector.close()

    def _done(self, result: Fold | HeadraceError) -> None:
        self._streams.discard(self)
        call = self._call
        if isinstance(result, HeadraceError):
            call.fail(result)
            return
        try:
            call.answer(infer_response(self._generation, result))
        except HeadraceError as error:
            call.fail(error)
        except Exception:  # noqa: BLE001 - a boundary: no client waits for what cannot be encoded
            call.crash()

"""What makes vectors of texts, with engines that say what they were asked."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from headrace.domain.embeddings import EmbeddingRequest, Embeddings
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.tokens import Tokens
from headrace.embedders import AT_ONCE, Dimensions, LlamaTexts, UpstreamTexts, in_pieces
from headrace.routing.model import Model, Replica
from headrace.scheduling.batcher import BatchOptions

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Engine:
    """A character is a token; the vector of tokens is how many they are, and the first. ``failure``: of every call."""

    def __init__(self, failure: HeadraceError | None = None) -> None:
        self.asked: list[EmbeddingRequest] = []
        self.failure = failure
        self.began = asyncio.Event()
        self.may = asyncio.Event()
        self.may.set()

    async def tokenize(self, text: str, *, special: bool) -> Tokens:
        return Tokens((1,) * special + tuple(map(ord, text)))

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        self.asked.append(request)
        self.began.set()
        await self.may.wait()
        if self.failure is not None:
            raise self.failure
        if any(66 in one for one in request.inputs if not isinstance(one, str)):
            raise HeadraceError(Code.INVALID_REQUEST, "B is no token.")
        vectors = [array("f", [len(one), float(one[0] != "a")]) for one in request.inputs]
        return Embeddings(vectors, 99)


def model_of(*engines: Any) -> Model[Any]:
    model: Model[Any] = Model("m", (), [Replica(str(at), one) for at, one in enumerate(engines)], 0)
    for replica in model.replicas:
        replica.ready = True
    return model


def llama(engine: Engine, size: int = 4, most: int = 10, **dimensions: Any) -> LlamaTexts:
    return LlamaTexts(model_of(engine), BatchOptions(size), most, Dimensions(**dimensions))


async def embed(texts: Any, *inputs: Any, dimensions: int | None = None) -> Embeddings:
    found: Embeddings = await texts.embed(EmbeddingRequest("m", inputs, dimensions))
    return found


def numbers(embeddings: Embeddings) -> list[list[float]]:
    return [vector.tolist() for vector in embeddings.vectors]


def test_pieces_come_back_in_order_and_few_are_under_way(run: Run) -> None:
    async def main() -> None:
        under_way: set[int] = set()
        most = 0

        async def do(piece: int) -> int:
            nonlocal most
            under_way.add(piece)
            most = max(most, len(under_way))
            for _ in range(1 + piece % 3):
                await asyncio.sleep(0)
            under_way.remove(piece)
            return -piece

        assert await in_pieces(range(10), do) == [-piece for piece in range(10)]
        assert most == AT_ONCE

    run(main())


def test_a_piece_that_fails_ends_the_others(run: Run) -> None:
    async def main() -> None:
        left = asyncio.Event()

        async def do(piece: int) -> int:
            if piece:
                raise HeadraceError(Code.ENGINE_FAILED, "bad")
            try:
                return await asyncio.get_running_loop().create_future()
            finally:
                left.set()

        with pytest.raises(HeadraceError, match="bad"):
            await in_pieces([0, 1, 2], do)
        assert left.is_set()

    run(main())


def test_requests_of_several_callers_are_one_call_of_llama(run: Run) -> None:
    async def main() -> None:
        engine = Engine()
        texts = llama(engine)
        engine.may.clear()
        before = asyncio.create_task(embed(texts, "z"))
        await engine.began.wait()
        asking = asyncio.gather(embed(texts, "ab"), embed(texts, (7, 8, 9), (5,)))
        for _ in range(10):  # until both wait
            await asyncio.sleep(0)
        engine.may.set()
        first, second = await asking
        await before
        assert (numbers(first), first.prompt_tokens) == ([[3, 1]], 3)
        assert (numbers(second), second.prompt_tokens) == ([[3, 1], [1, 1]], 4)
        assert [one.inputs for one in engine.asked] == [
            ((1, 122),),
            ((1, 97, 98), (7, 8, 9), (5,)),
        ]

    run(main())


def test_a_long_request_does_not_fill_the_line(run: Run) -> None:
    async def main() -> None:
        engine = Engine()
        texts = llama(engine, size=2)
        engine.may.clear()
        many = asyncio.create_task(embed(texts, *["x"] * 9))
        await engine.began.wait()
        one = asyncio.create_task(embed(texts, "yyyy"))
        await asyncio.sleep(0)
        engine.may.set()
        assert numbers(await one) == [[5, 1]]
        assert not many.done()
        assert (await many).prompt_tokens == 18
        assert all(len(asked.inputs) <= 2 for asked in engine.asked)

    run(main())


def test_one_bad_input_fails_its_own_request_only(run: Run) -> None:
    async def main() -> None:
        texts = llama(Engine())
        bad, good = await asyncio.gather(
            embed(texts, (66,)), embed(texts, "a"), return_exceptions=True
        )
        assert isinstance(bad, HeadraceError)
        assert isinstance(good, Embeddings)

    run(main())


def test_an_input_that_is_too_long_is_named(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(HeadraceError, match="is 11 tokens; this model takes 10") as refused:
            await embed(llama(Engine()), "a", "x" * 10)
        assert (refused.value.code, refused.value.param) == (Code.CONTEXT_LENGTH, "input[1]")

    run(main())


@pytest.mark.parametrize(
    ("may", "wanted", "length"),
    [({}, None, 2), ({}, 2, 2), ({"trained": (1,)}, 1, 1), ({"any": True}, 1, 1)],
)
def test_dimensions_that_a_model_has(run: Run, may: Any, wanted: int | None, length: int) -> None:
    found = run(embed(llama(Engine(), **may), "ab", dimensions=wanted))
    assert len(found.vectors[0]) == length


@pytest.mark.parametrize(
    ("may", "wanted"), [({}, 1), ({"trained": (1,)}, 3), ({"any": True}, 3), ({"trained": (2,)}, 1)]
)
def test_dimensions_that_it_has_not(run: Run, may: Any, wanted: int) -> None:
    with pytest.raises(HeadraceError, match="one of") as refused:
        run(embed(llama(Engine(), **may), "ab", dimensions=wanted))
    assert (refused.value.code, refused.value.param) == (Code.UNSUPPORTED, "dimensions")


def test_while_nothing_is_loaded_it_says_so(run: Run) -> None:
    class Loading(Engine):
        def health(self) -> tuple[str, str]:
            return "starting", "soon"

    for texts in (llama(Loading()), UpstreamTexts(model_of(Loading()))):
        texts._model.replicas[0].ready = False
        with pytest.raises(HeadraceError, match="soon") as refused:
            run(embed(texts, "a"))
        assert refused.value.code is Code.MODEL_LOADING


def test_an_upstream_is_told_the_whole_request(run: Run) -> None:
    engine = Engine()
    asked = EmbeddingRequest("m", ("a", "ab"), 5, "user", 3)
    found = run(UpstreamTexts(model_of(engine)).embed(asked))
    assert (engine.asked, found.prompt_tokens) == ([asked], 99)


def test_the_upstream_with_the_least_to_do_is_asked_and_then_the_next(run: Run) -> None:
    down = Engine(HeadraceError(Code.ENGINE_UNAVAILABLE, "down"))
    busy, other = Engine(), Engine()
    model = model_of(busy, down, other)
    model.replicas[0].in_use, model.replicas[2].in_use = 3, 1
    run(embed(UpstreamTexts(model), "a"))
    assert [len(one.asked) for one in (busy, down, other)] == [0, 1, 1]


@pytest.mark.parametrize("code", [Code.INVALID_REQUEST, Code.ENGINE_UNAVAILABLE])
def test_what_no_other_can_help_is_raised(run: Run, code: Code) -> None:
    engines: Sequence[Engine] = [Engine(HeadraceError(code, "no")) for _ in range(2)]
    with pytest.raises(HeadraceError, match="no"):
        run(embed(UpstreamTexts(model_of(*engines)), "a"))
    assert sum(len(one.asked) for one in engines) == (1 if code is Code.INVALID_REQUEST else 2)


def test_who_waits_when_it_closes_is_told(run: Run) -> None:
    async def main() -> None:
        engine = Engine()
        texts = llama(engine)
        engine.may.clear()
        running = asyncio.create_task(embed(texts, "a"))
        await engine.began.wait()
        waiting = asyncio.create_task(embed(texts, "b"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        closing = asyncio.create_task(texts.close())
        with pytest.raises(HeadraceError) as refused:
            await waiting
        assert refused.value.code is Code.SHUTTING_DOWN
        engine.may.set()
        await closing
        await running

    run(main())


def test_an_input_of_no_tokens_is_named_and_nothing_is_computed(run: Run) -> None:
    async def main() -> None:
        engine = Engine()
        with pytest.raises(HeadraceError, match="has no tokens") as refused:
            await embed(llama(engine), (1, 2), ())
        assert (refused.value.code, refused.value.param) == (Code.INVALID_REQUEST, "input[1]")
        assert not engine.asked

    run(main())

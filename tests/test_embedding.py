"""The way of an embedding request: limits, figures, and the end of the server."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from headrace.admission.day import DayBudgets
from headrace.admission.limiter import Rules
from headrace.admission.sizes import Sizes
from headrace.admission.tenants import Tenants
from headrace.domain.embeddings import EmbeddingRequest, Embeddings
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.limits import Limits
from headrace.domain.request import Caller
from headrace.domain.standing import Standing
from headrace.domain.tenant import Tenant
from headrace.embedding import EmbeddingModel, EmbeddingService
from headrace.limiting import Limiting
from headrace.protocols.port import ModelCard
from headrace.standings import Standings
from headrace.telemetry.metrics import Metrics

Run = Callable[[Coroutine[Any, Any, Any]], Any]
CALLER = Caller("shop", key_id="k")


class Texts:
    """``tokens``: that it counts, of any request."""

    def __init__(self, tokens: int = 10) -> None:
        self.tokens = tokens
        self.full = False
        self.failure: HeadraceError | None = None
        self.may = asyncio.Event()
        self.may.set()
        self.began = asyncio.Event()
        self.closed = False

    async def embed(self, request: EmbeddingRequest, standing: Standing) -> Embeddings:
        self.standing = standing
        self.began.set()
        await self.may.wait()
        if self.failure is not None:
            raise self.failure
        return Embeddings([array("f", [1.0])] * len(request.inputs), self.tokens)

    async def load(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def close(self) -> None:
        self.closed = True


class House:
    def __init__(self, texts: Texts, sizes: Sizes | None = None, **limits: Any) -> None:
        self.days = DayBudgets()
        rules = Rules(tenants={"shop": Limits(**limits)}) if limits else Rules()
        self.limiting = Limiting(rules, sizes, self.days)
        self.limiting.load(time.time())
        self.metrics = Metrics()
        self.meter = self.metrics.model("m").of("embeddings")
        self.other = Texts(1)
        models = {
            "m": EmbeddingModel(texts, self.meter, "spare"),
            "other": EmbeddingModel(self.other, self.metrics.model("other").of("embeddings")),
        }
        self.tenants = Tenants()
        stand = Standings(self.tenants.of).of
        self.service = EmbeddingService(models, self.find, stand, self.limiting)

    def find(self, name: str) -> ModelCard:
        known = {"m": "m", "alias": "m", "chat": "chat", "other": "other", "spare": "other"}
        if name not in known:
            raise HeadraceError(Code.MODEL_NOT_FOUND, "unknown", param="model")
        return ModelCard(known[name], (), 0, "t", "1", 0, 0, 0, 0, True)

    async def embed(self, *inputs: Any, model: str = "alias") -> Any:
        return await self.service.embed(EmbeddingRequest(model, inputs), CALLER)


def left(found: Any) -> int:
    allowance = found.reservation.allowance(time.monotonic(), time.time())
    return int(allowance.tokens.remaining)


def test_without_limits_there_is_nothing_to_tell(run: Run) -> None:
    async def main() -> None:
        house = House(Texts())
        found = await house.embed("a", "b")
        assert found.reservation is None
        assert len(found.embeddings.vectors) == 2
        assert house.meter.admitted_count == 1
        assert house.meter.reasons == {"stop": 1}

    run(main())


def test_the_tokens_that_it_had_are_charged_whatever_was_foreseen(run: Run) -> None:
    async def main() -> None:
        house = House(Texts(300), tokens_per_day=1000)
        assert left(await house.embed("a short text")) == 700
        assert left(await house.embed((1, 2, 3))) == 400

    run(main())


def test_who_has_too_little_left_is_refused_before_anything_is_computed(run: Run) -> None:
    async def main() -> None:
        texts = Texts()
        house = House(texts, tokens_per_day=100)
        await house.embed(tuple(range(50)))
        texts.began.clear()
        with pytest.raises(HeadraceError) as refused:
            await house.embed(tuple(range(95)))
        assert refused.value.code is Code.RATE_LIMITED
        assert refused.value.retry_after_s
        assert not texts.began.is_set()
        assert house.limiting.refused == 1

    run(main())


@pytest.mark.parametrize("leaves", [False, True])
def test_what_came_to_nothing_costs_nothing(run: Run, leaves: bool) -> None:
    async def main() -> None:
        texts = Texts()
        house = House(texts, tokens_per_day=1000, concurrent=1)
        texts.failure = HeadraceError(Code.ENGINE_FAILED, "bad")
        texts.may.clear()
        asking = asyncio.create_task(house.embed("a"))
        await texts.began.wait()
        with pytest.raises(HeadraceError) as refused:
            await house.embed("b")
        assert refused.value.code is Code.CONCURRENCY_LIMIT
        if leaves:
            asking.cancel()
        texts.may.set()
        with pytest.raises(asyncio.CancelledError if leaves else HeadraceError):
            await asking
        assert list(house.meter.failures) == ["client_gone" if leaves else "engine_failed"]
        texts.failure = None
        assert left(await house.embed("c")) == 990

    run(main())


def test_each_input_is_as_long_as_a_prompt_may_be(run: Run) -> None:
    async def main() -> None:
        house = House(Texts(), Sizes(max_prompt_tokens=10))
        await house.embed(*[tuple(range(10))] * 20)
        with pytest.raises(HeadraceError) as refused:
            await house.embed((1,), tuple(range(11)))
        assert refused.value.code is Code.CONTEXT_LENGTH

    run(main())


@pytest.mark.parametrize(
    ("model", "code"), [("chat", Code.UNSUPPORTED), ("none", Code.MODEL_NOT_FOUND)]
)
def test_a_model_that_gives_none_says_so(run: Run, model: str, code: Code) -> None:
    with pytest.raises(HeadraceError) as refused:
        run(House(Texts()).embed("a", model=model))
    assert (refused.value.code, refused.value.param) == (code, "model")


def test_who_is_there_at_the_end_has_its_answer_and_nobody_comes(run: Run) -> None:
    async def main() -> None:
        texts = Texts()
        house = House(texts)
        texts.may.clear()
        asking = asyncio.create_task(house.embed("a"))
        await texts.began.wait()
        assert house.service.busy
        closing = asyncio.create_task(house.service.close(30.0))
        await asyncio.sleep(0)
        with pytest.raises(HeadraceError) as refused:
            await house.embed("b")
        assert refused.value.code is Code.SHUTTING_DOWN
        assert not texts.closed
        texts.may.set()
        await closing
        assert texts.closed
        assert (await asking).embeddings.prompt_tokens == 10
        assert not house.service.busy

    run(main())


def test_the_end_waits_no_longer_than_it_may(run: Run) -> None:
    async def main() -> None:
        texts = Texts()
        house = House(texts)
        texts.may.clear()
        asking = asyncio.create_task(house.embed("a"))
        await texts.began.wait()
        await house.service.close(0.001)
        assert texts.closed
        asking.cancel()

    run(main())


def test_what_cannot_be_loaded_is_logged(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    texts = Texts()
    texts.failure = HeadraceError(Code.ENGINE_UNAVAILABLE, "no tokenizer")
    run(House(texts).service.load())
    assert "no tokenizer" in caplog.text


def test_what_computes_them_is_told_how_the_request_stands(run: Run) -> None:
    async def main() -> None:
        texts = Texts()
        house = House(texts)
        house.tenants.replace([Tenant(name="shop", level="batch", overflow="wait", sheddable=True)])
        await house.embed("a")
        assert texts.standing == Standing(6, overflow="wait", sheddable=True)

    run(main())


def test_who_finds_the_queue_full_and_spills_is_served_by_the_fallback(run: Run) -> None:
    async def main() -> None:
        texts = Texts()
        house = House(texts)
        house.tenants.replace([Tenant(name="shop", overflow="spill")])
        assert (await house.embed("a")).model == "alias"
        texts.full = True
        found = await house.embed("a")
        assert (found.model, found.embeddings.prompt_tokens) == ("other", 1)
        house.tenants.replace([Tenant(name="shop", overflow="wait")])
        assert (await house.embed("a")).model == "alias"

    run(main())

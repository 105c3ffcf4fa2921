"""The service of tensor models: versions, batches, loading when it is needed, leaving when it is not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import Caller
from headrace.domain.standing import USUAL
from headrace.domain.tenant import Tenant
from headrace.domain.tensors import TensorResponse
from headrace.engines.tensor_engine import TensorEngine
from headrace.engines.tensor_runs import Pending
from headrace.models.wanted import ModelFile
from headrace.scheduling.batcher import BatchQueue
from headrace.tensors import TensorService
from tests import onnx_models
from tests.tensor_house import (
    Gate,
    TensorHouse,
    ask,
    file_of,
    infer,
    open_onnx,
    refusal,
    tensor,
)

Run = Callable[[Any], Any]
MIB = 2**20


def x(*values: float) -> Any:
    """Rows of one number."""
    return tensor("x", [[value] for value in values])


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what it waits for tells nobody
        await asyncio.sleep(0)


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return onnx_models.identity(tmp_path / "one.onnx", shape=("batch", 1))


def test_a_request_is_answered_and_counted(run: Run, tmp_path: Path) -> None:
    house = TensorHouse().add("adds", onnx_models.add(tmp_path / "m.onnx"))
    service = house.build()

    async def main() -> None:
        a, b = tensor("a", [[5, 7]], "INT32"), tensor("b", [[1, 2]], "INT32")
        answer = await infer(service, ask("adds", a, b, id="7", outputs=("difference", "sum")))
        assert (answer.model, answer.version, answer.id) == ("adds", "1", "7")
        assert [(one.name, one.datatype, one.shape) for one in answer.outputs] == [
            ("difference", "INT32", (1, 2)),
            ("sum", "INT32", (1, 2)),
        ]
        assert [one.array.tolist() for one in answer.outputs] == [[[4, 5]], [[6, 9]]]
        everything = await infer(service, ask("adds", a, b))
        assert [one.name for one in everything.outputs] == ["sum", "difference"]
        counts = service.counts("adds")
        assert (counts.requests, counts.rows, counts.runs, counts.failed) == (2, 2, 2, 0)
        assert counts.runs_by_rows[1][0] == 2
        assert counts.run_s > 0 < counts.last_at
        await service.close(1)

    run(main())
    assert house.news == [("adds:1", "loaded"), ("adds:1", "unloaded")]


def test_requests_of_one_shape_run_together_and_each_has_its_own_rows(run: Run, one: Path) -> None:
    service = TensorHouse().add("m", one).build()

    async def main() -> None:
        await service.load("m")
        answers = await asyncio.gather(
            *(infer(service, ask("m", x(*range(n, 2 * n)))) for n in (1, 2, 3))
        )
        got = [answer.outputs[0].array.ravel().tolist() for answer in answers]
        assert got == [[1], [2, 3], [3, 4, 5]]
        assert service.counts("m").runs_by_rows.keys() == {6}
        await service.close(1)

    run(main())


def test_given_memory_is_written_alone_and_in_a_batch(run: Run, one: Path) -> None:
    service = TensorHouse().add("m", one).build()

    async def main() -> None:
        memories = [np.zeros(8, np.uint8) for _ in range(3)]
        asked = [ask("m", x(n), into={"y": memory}) for n, memory in enumerate(memories)]
        alone = await infer(service, asked[0])
        assert np.shares_memory(alone.outputs[0].array, memories[0])
        for answer, memory in zip(
            await asyncio.gather(*(infer(service, each) for each in asked)), memories, strict=True
        ):
            assert np.shares_memory(answer.outputs[0].array, memory)
        assert [memory[:4].view(np.float32).tolist() for memory in memories] == [
            [0.0],
            [1.0],
            [2.0],
        ]
        small = ask("m", x(1), into={"y": np.zeros(3, np.uint8)})
        good, bad = await asyncio.gather(infer(service, asked[1]), refusal(service, small))
        assert good.outputs[0].array.tolist() == [[1.0]]
        assert "has 4 bytes, and the memory for it only 3" in bad.message
        await service.close(1)

    run(main())


def test_a_bad_input_fails_alone(run: Run, tmp_path: Path) -> None:
    service = TensorHouse().add("m", onnx_models.look_up(tmp_path / "m.onnx")).build()

    async def main() -> None:
        await service.load("m")
        words = [tensor("word", [word], "INT64") for word in (1, 99, 3)]
        answers = await asyncio.gather(
            *(infer(service, ask("m", word)) for word in words), return_exceptions=True
        )
        assert [answers[i].outputs[0].array.tolist() for i in (0, 2)] == [[[10.0]], [[30.0]]]
        assert answers[1].code == Code.INVALID_REQUEST
        counts = service.counts("m")
        assert (counts.requests, counts.failed) == (2, 1)
        await service.close(1)

    run(main())


def test_a_first_dimension_that_is_no_batch_mixes_nobody_s_rows(run: Run, tmp_path: Path) -> None:
    """The model says that it is one, and gives back the first row alone."""
    node = onnx_models.helper.make_node("Compress", ["x", "first"], ["y"], axis=0)
    tensors = [onnx_models.tensor(name, "FP32", ("batch", 1)) for name in ("x", "y")]
    first = onnx_models.numpy_helper.from_array(np.array([True]), "first")
    path = onnx_models.write(tmp_path / "m.onnx", [node], tensors[:1], tensors[1:], [first])
    service = TensorHouse().add("m", path).build()

    async def main() -> None:
        await service.load("m")
        answers = await asyncio.gather(*(infer(service, ask("m", x(n))) for n in (1, 5)))
        assert [answer.outputs[0].array.item() for answer in answers] == [1.0, 5.0]
        await service.close(1)

    run(main())


def test_a_model_without_a_batch_runs_each_request_alone(run: Run, tmp_path: Path) -> None:
    path = onnx_models.identity(tmp_path / "m.onnx", shape=("any",))
    service = TensorHouse().add("m", path).build()

    async def main() -> None:
        asked = [ask("m", tensor("x", [1.0] * n)) for n in (1, 2, 50)]
        answers = await asyncio.gather(*(infer(service, each) for each in asked))
        assert [answer.outputs[0].shape for answer in answers] == [(1,), (2,), (50,)]
        assert service.counts("m").runs == 3
        assert service.model("m").max_batch_size == 0
        await service.close(1)

    run(main())


def test_a_batch_that_the_model_has_not_is_refused_at_the_load(run: Run, tmp_path: Path) -> None:
    path = onnx_models.identity(tmp_path / "m.onnx", shape=(1, 4))
    service = TensorHouse().add("m", path, max_batch_size=8).build()

    async def main() -> None:
        with pytest.raises(HeadraceError, match=r"max_batch_size is 8.*x \[1, 4\]") as caught:
            await service.load("m")
        assert caught.value.code == Code.ENGINE_UNAVAILABLE
        assert service.model("m").state == "failed"

    run(main())


def test_the_newest_version_answers_unless_another_is_asked_for(run: Run, tmp_path: Path) -> None:
    house = TensorHouse()
    house.add("m:1", onnx_models.identity(tmp_path / "1.onnx", shape=("batch", 1)))
    house.add("m:2", onnx_models.large(tmp_path / "2.onnx", 4))
    service = house.build()

    async def main() -> None:
        newest = await infer(service, ask("m", x(1)))
        older = await infer(service, ask("m", x(1), version="1"))
        assert [newest.version, older.version] == ["2", "1"]
        assert [newest.outputs[0].array.item(), older.outputs[0].array.item()] == [2.0, 1.0]
        unknown = await refusal(service, ask("m", x(1), version="3"))
        assert unknown.code == Code.MODEL_NOT_FOUND
        assert unknown.message == "The model m has no version '3'; it has 1, 2."
        assert (await refusal(service, ask("n", x(1)))).code == Code.MODEL_NOT_FOUND
        assert service.model("m").versions == ("1", "2")
        await service.close(1)

    run(main())


def test_a_model_is_loaded_at_its_first_request_by_one_for_all(run: Run, one: Path) -> None:
    house = TensorHouse().add("m", one)
    service = house.build()
    size = one.stat().st_size

    async def main() -> None:
        before = service.model("m")
        assert (before.state, before.inputs, before.loaded_at) == ("unloaded", (), 0.0)
        await asyncio.gather(*(infer(service, ask("m", x(n))) for n in range(5)))
        after = service.model("m")
        assert (after.state, after.size_bytes) == ("ready", size)
        assert after.inputs[0].name == "x"
        assert after.loaded_at > 0
        await service.close(1)

    run(main())
    assert house.fetched == ["m"]


def test_who_leaves_while_it_is_loaded_does_not_end_the_load(run: Run, one: Path) -> None:
    service = TensorHouse().add("m", one).build()

    async def main() -> None:
        impatient = asyncio.create_task(infer(service, ask("m", x(1))))
        patient = asyncio.create_task(infer(service, ask("m", x(2))))
        await asyncio.sleep(0)
        impatient.cancel()
        assert (await patient).outputs[0].array.item() == 2.0
        await service.close(1)

    run(main())


def test_what_shall_be_there_from_the_start_is(run: Run, tmp_path: Path, one: Path) -> None:
    house = (
        TensorHouse().add("lazy", one).add("m:1", one, load="start").add("m:2", one, load="start")
    )
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"junk")
    service = house.add("broken", broken, load="start").build()

    async def main() -> None:
        assert [card.ready for card in service.cards()] == [True, False, False]
        await service.load_first()
        assert sorted(house.fetched) == ["broken", "m:2"]
        lazy, m, bad = service.cards()
        assert (lazy.ready, m.ready, m.version, m.type) == (True, True, "2", "tensors")
        assert not bad.ready
        assert "rotobuf parsing failed" in bad.reason
        await service.close(1)

    run(main())


def test_what_could_not_be_loaded_is_not_tried_with_every_request(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"junk")
    house = TensorHouse().add("m", path)
    service = house.build()

    async def main() -> None:
        first = await refusal(service, ask("m", x(1)))
        second = await refusal(service, ask("m", x(1)))
        for error in (first, second):
            assert error.code == Code.ENGINE_UNAVAILABLE
            assert "rotobuf parsing failed" in error.message
            assert 0 < (error.retry_after_s or 0) <= 30
        assert len(house.fetched) == 1
        onnx_models.identity(path, shape=("batch", 1))
        await service.load("m")  # by hand it is tried at once
        assert (await infer(service, ask("m", x(1)))).outputs[0].array.item() == 1.0
        await service.close(1)

    run(main())


def test_unloaded_by_hand_it_stays_so_until_it_is_loaded_by_hand(run: Run, one: Path) -> None:
    house = TensorHouse().add("m:1", one).add("m:2", one)
    service = house.build()

    async def main() -> None:
        await infer(service, ask("m", x(1)))
        await infer(service, ask("m", x(1), version="1"))
        await service.unload("m")
        assert {model.state for model in service.models()} == {"unloaded"}
        error = await refusal(service, ask("m", x(1)))
        assert (error.code, error.retry_after_s) == (Code.ENGINE_UNAVAILABLE, None)
        assert "unloaded by hand" in error.message
        assert not service.cards()[0].ready
        assert service.model("m").inputs[0].name == "x"  # that is still known
        await service.load("m")
        assert (await infer(service, ask("m", x(3)))).outputs[0].array.item() == 3.0
        await service.close(1)

    run(main())
    assert house.news[:2] == [("m:2", "loaded"), ("m:1", "loaded")]
    assert sorted(house.news[2:4]) == [("m:1", "unloaded"), ("m:2", "unloaded")]


def test_unloading_waits_for_what_runs_and_refuses_what_comes(run: Run, one: Path) -> None:
    gate = Gate()
    service = TensorHouse().add("m", one, lambda file: gate).build()

    async def main() -> None:
        asked = asyncio.create_task(infer(service, ask("m", x(1))))
        await asyncio.to_thread(gate.begun.acquire)
        unloading = asyncio.create_task(service.unload("m"))
        await asyncio.sleep(0)
        assert (await refusal(service, ask("m", x(2)))).code == Code.ENGINE_UNAVAILABLE
        assert not gate.closed
        gate.through.release()
        assert (await asked).outputs[0].array.item() == 1.0
        await unloading
        assert gate.closed

    run(main())


def test_unloading_what_is_being_fetched_waits_for_that(run: Run, one: Path) -> None:
    service = TensorHouse().add("m", one).build()
    version = service._models["m"].newest
    arrived = asyncio.Event()

    async def fetch() -> ModelFile:
        await arrived.wait()
        return file_of(one)

    version.plan = type(version.plan)("m", "1", fetch, version.plan.open)

    async def main() -> None:
        loading = asyncio.create_task(service.load("m"))
        await until(lambda: service.model("m").state == "loading")
        unloading = asyncio.create_task(service.unload("m"))
        await until(lambda: version.held)
        arrived.set()
        await loading
        await unloading
        assert service.model("m").state == "unloaded"

    run(main())


def test_who_is_not_asked_for_long_enough_leaves(run: Run, one: Path) -> None:
    house = TensorHouse().add("m", one, idle_s=60.0)
    service = house.build()

    async def main() -> None:
        await infer(service, ask("m", x(1)))
        now = monotonic()
        service.tick(now + 59)
        assert service.model("m").state == "ready"
        service.tick(now + 61)
        assert service.model("m").state == "unloaded"
        assert service.model("m").reason == "nobody asked for 60 s"
        await until(lambda: len(house.news) == 2)
        assert service.cards()[0].ready  # the next one loads it
        await infer(service, ask("m", x(1)))
        await service.close(1)

    run(main())


def test_the_one_used_the_longest_ago_gives_its_memory_to_the_next(
    run: Run, tmp_path: Path
) -> None:
    house = TensorHouse(budget_bytes=5 * MIB)
    for name in ("a", "b", "c"):
        house.add(name, onnx_models.large(tmp_path / f"{name}.onnx", MIB // 2))  # 2 MiB
    service = house.build()

    async def main() -> None:
        for name in ("a", "b", "a", "c"):
            assert (await infer(service, ask(name, x(1)))).outputs[0].array.item() == 2.0
        states = {model.name: model.state for model in service.models()}
        assert states == {"a": "ready", "b": "unloaded", "c": "ready"}
        assert service.model("b").reason == "c:1 needed its memory"
        await service.close(1)

    run(main())


def test_a_model_in_use_is_waited_for(run: Run, tmp_path: Path) -> None:
    path = onnx_models.large(tmp_path / "m.onnx", MIB // 2)
    gate = Gate()
    house = TensorHouse(budget_bytes=3 * MIB)
    service = house.add("used", path, lambda file: gate).add("next", path).build()

    async def main() -> None:
        asked = asyncio.create_task(infer(service, ask("used", x(1))))
        await asyncio.to_thread(gate.begun.acquire)
        other = asyncio.create_task(infer(service, ask("next", x(1))))
        await until(lambda: service.model("next").reason == "it is being loaded")
        assert not gate.closed
        gate.through.release()
        assert (await asked).outputs[0].array.item() == 1.0
        assert (await other).outputs[0].array.item() == 2.0
        assert gate.closed
        await service.close(1)

    run(main())


def test_who_asks_for_one_that_is_leaving_gets_it_anew(run: Run, tmp_path: Path) -> None:
    """Two leave for a third. While the first is being closed the second must not be given to anybody."""
    may_close = threading.Event()

    class Slow(Gate):
        def close(self) -> None:
            assert may_close.wait(10)

    slow = Slow()
    slow.through.release()
    house = TensorHouse(budget_bytes=5 * MIB)
    two = onnx_models.large(tmp_path / "two.onnx", MIB // 2)
    four = onnx_models.large(tmp_path / "four.onnx", MIB)
    house.add("first", two, lambda file: slow).add("second", two).add("third", four)
    service = house.build()

    async def main() -> None:
        for name in ("first", "second"):
            await infer(service, ask(name, x(1)))
        third = asyncio.create_task(infer(service, ask("third", x(1))))
        await until(lambda: service.model("first").state == "unloaded")
        assert service.model("second").state == "unloaded"
        second = asyncio.create_task(infer(service, ask("second", x(1))))
        await asyncio.sleep(0)
        may_close.set()
        assert (await third).outputs[0].array.item() == 2.0
        assert (await second).outputs[0].array.item() == 2.0
        await service.close(1)

    run(main())


def test_one_that_is_being_loaded_is_not_taken_for_one_that_rests(run: Run, one: Path) -> None:
    may_open = threading.Event()

    def slowly(file: ModelFile) -> TensorEngine:
        assert may_open.wait(10)
        return open_onnx(file)

    service = TensorHouse().add("m", one, slowly, idle_s=1.0).build()

    async def main() -> None:
        asked = asyncio.create_task(infer(service, ask("m", x(1))))
        await until(lambda: service.model("m").reason == "it is being loaded")
        service.tick(monotonic() + 1000)
        assert service.model("m").state == "loading"
        may_open.set()
        assert (await asked).outputs[0].array.item() == 1.0
        await service.close(1)

    run(main())


def test_a_model_that_never_fits_says_which_setting(run: Run, tmp_path: Path) -> None:
    path = onnx_models.large(tmp_path / "m.onnx", MIB // 2)
    service = TensorHouse(budget_bytes=MIB).add("m", path).build()

    async def main() -> None:
        error = await refusal(service, ask("m", x(1)))
        assert error.code == Code.ENGINE_UNAVAILABLE
        assert "larger than 1 MiB, which server.tensor_memory_mib" in error.message

    run(main())


def test_a_request_that_is_refused_never_reaches_the_engine(run: Run, one: Path) -> None:
    service = TensorHouse().add("m", one, max_batch_size=2, forbid_nan=True).build()

    async def main() -> None:
        wrong = await refusal(service, ask("m", tensor("x", [[1, 2]])))
        assert (wrong.code, wrong.param) == (Code.INVALID_REQUEST, "inputs[0].shape")
        assert "a batch of 3" in (await refusal(service, ask("m", x(1, 2, 3)))).message
        assert "NaN" in (await refusal(service, ask("m", x(np.nan)))).message
        counts = service.counts("m")
        assert (counts.failed, counts.runs) == (3, 0)
        assert counts.failed_s > 0
        await service.close(1)

    run(main())


def test_labels_are_of_an_output_that_is_there(run: Run, one: Path) -> None:
    service = TensorHouse().add("m", one, labels={"y": ("a",)}).add("n", one, labels={"z": ("a",)})

    async def main() -> None:
        built = service.build()
        await built.infer(ask("m", x(1)), Caller())
        assert built.model("m").labels == {"y": ("a",)}
        wrong = await refusal(built, ask("n", x(1)))
        assert wrong.code == Code.ENGINE_UNAVAILABLE
        assert "labels.z: the model has no such output; it has y" in wrong.message
        await built.close(1)

    run(main())


def test_a_cancelled_request_leaves_its_batch(run: Run, one: Path) -> None:
    gate = Gate()
    service = TensorHouse().add("m", one, lambda file: gate).build()

    async def main() -> None:
        first = asyncio.create_task(infer(service, ask("m", x(1))))
        await asyncio.to_thread(gate.begun.acquire)
        left, stays = (asyncio.create_task(infer(service, ask("m", x(n)))) for n in (2, 3))
        await asyncio.sleep(0)
        left.cancel()
        gate.through.release(2)
        assert (await stays).outputs[0].array.item() == 3.0
        await first
        assert gate.rows == [1, 1]
        assert service.counts("m").cancelled == 1
        await service.close(1)

    run(main())


def test_a_request_that_cannot_run_in_its_time_is_refused(run: Run, one: Path) -> None:
    gate = Gate()
    service = TensorHouse().add("m", one, lambda file: gate).build()

    async def main() -> None:
        first = asyncio.create_task(infer(service, ask("m", x(1))))
        await asyncio.to_thread(gate.begun.acquire)
        late = await refusal(service, ask("m", x(2), timeout_s=0.01))
        assert late.code == Code.QUEUE_TIMEOUT
        gate.through.release()
        await first
        await service.close(1)

    run(main())


async def crowded(gate: Gate, service: TensorService) -> list[asyncio.Task[TensorResponse]]:
    """A run under way, and one request that waits: there is no room for another."""
    running = asyncio.create_task(infer(service, ask("m", x(1))))
    await asyncio.to_thread(gate.begun.acquire)
    waiting = asyncio.create_task(infer(service, ask("m", x(2), priority=1)))
    await asyncio.sleep(0)
    return [running, waiting]


@pytest.mark.parametrize("overflow", ["reject", "wait", "shed", "spill"])
def test_what_becomes_of_it_in_a_full_queue_is_its_tenants_choice(
    run: Run, one: Path, overflow: Any
) -> None:
    gate = Gate()
    house = TensorHouse().add("m", one, lambda file: gate, queue=BatchQueue(1), fallback="other")
    house.tenants.replace(
        [Tenant(name="default", sheddable=True), Tenant(name="shop", overflow=overflow)]
    )
    service = house.add("other", one).build()

    async def main() -> None:
        first, second = await crowded(gate, service)
        third = asyncio.create_task(service.infer(ask("m", x(3)), Caller("shop")))
        await asyncio.sleep(0)
        gate.through.release(3)
        found = await asyncio.gather(first, second, third, return_exceptions=True)
        said = [one.code if isinstance(one, HeadraceError) else one.model for one in found]
        full = Code.QUEUE_FULL
        assert (
            said
            == {
                "reject": ["m", "m", full],
                "wait": ["m", "m", "m"],
                "shed": ["m", full, "m"],
                "spill": ["m", "m", "other"],
            }[overflow]
        )
        await service.close(1)

    run(main())


def test_who_waits_outside_of_a_full_queue_is_refused_in_time(run: Run, one: Path) -> None:
    gate = Gate()
    house = TensorHouse().add("m", one, lambda file: gate, queue=BatchQueue(1))
    house.tenants.replace([Tenant(name="default", overflow="wait")])
    service = house.build()

    async def main() -> None:
        tasks = await crowded(gate, service)
        late = await refusal(service, ask("m", x(3), timeout_s=0.01))
        assert (late.code, late.meaning.http) == (Code.QUEUE_TIMEOUT, 408)
        gate.through.release(2)
        await asyncio.gather(*tasks)
        await service.close(1)

    run(main())


def test_limits_are_asked_before_anything_is_loaded(run: Run, one: Path) -> None:
    asked: list[tuple[str, str, str]] = []

    def take(tenant: str, key_id: str, model: str) -> None:
        asked.append((tenant, key_id, model))
        raise HeadraceError(Code.RATE_LIMITED, "too many")

    house = TensorHouse(take_request=take).add("m", one)
    service = house.build()
    error = run(refusal(service, ask("m", x(1))))
    assert error.code == Code.RATE_LIMITED
    assert asked == [("default", "", "m")]
    assert house.fetched == []


def test_closing_lets_what_runs_end_and_refuses_what_comes(run: Run, one: Path) -> None:
    gate = Gate()
    service = TensorHouse().add("m", one, lambda file: gate).build()

    async def main() -> None:
        running = asyncio.create_task(infer(service, ask("m", x(1))))
        await asyncio.to_thread(gate.begun.acquire)
        closing = asyncio.create_task(service.close(10))
        await asyncio.sleep(0)
        assert (await refusal(service, ask("m", x(2)))).code == Code.SHUTTING_DOWN
        gate.through.release()
        assert (await running).outputs[0].array.item() == 1.0
        await closing
        assert gate.closed

    run(main())


def test_a_load_under_way_ends_with_the_server(run: Run, one: Path) -> None:
    async def never() -> ModelFile:
        await asyncio.Event().wait()
        raise AssertionError

    service = TensorHouse().add("m", one).build()
    version = service._models["m"].newest
    version.plan = type(version.plan)("m", "1", never, version.plan.open)

    async def main() -> None:
        asked = asyncio.create_task(refusal(service, ask("m", x(1))))
        await until(lambda: service.model("m").state == "loading")
        await service.close(0)
        assert (await asked).code == Code.ENGINE_UNAVAILABLE
        assert service.model("m").state == "unloaded"

    run(main())


class Zeros:
    """Joins requests for a :class:`Gate`: each is answered its number of rows."""

    def kind(self, pending: Sequence[Pending], rows: int) -> Hashable:
        return rows

    def compute(self, engine: TensorEngine, pending: Sequence[Pending]) -> Sequence[Any]:
        rows = [one.rows for one in pending]
        engine.run({"x": np.zeros((sum(rows), 1), np.float32)}, ["x"], {})
        return rows


@pytest.mark.parametrize(("own_padding", "runs"), [(2, [4]), (3, [2, 2])])
def test_what_parts_of_requests_pad_themselves_counts_for_who_runs_together(
    run: Run, one: Path, own_padding: int, runs: list[int]
) -> None:
    """They are 80 elements together, of which 5 may be padding."""
    gate, joining = Gate(), Zeros()
    service = TensorHouse().add("m", one, lambda file: gate).build()

    async def part() -> Any:
        pending = Pending(
            joining=joining, rows=2, length=20, padding=0.0625, own_padding=own_padding
        )
        return await service.run_admitted("m", pending, joining, USUAL)

    async def main() -> None:
        first = asyncio.create_task(infer(service, ask("m", x(1))))
        await asyncio.to_thread(gate.begun.acquire)
        parts = [asyncio.create_task(part()) for _ in range(2)]
        await asyncio.sleep(0)
        gate.through.release(3)
        await asyncio.gather(first, *parts)
        assert gate.rows[1:] == runs
        await service.close(1)

    run(main())

"""Clients of all protocols begin, read, leave, come back over another one, prompt, abort and delete, in any order:
each has every token of the log once, in its order, and one end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
import uvloop
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, rule, run_state_machine_as_test

from headrace.domain.event import Finish, Token
from headrace.engines.script import Script
from tests.both_ports import GRPC, PROTOCOLS, BothPorts, until
from tests.fuzzing import calm, examples
from tests.legs import WEB, Leg, Seen
from tests.service.house import Witness

WORDS = tuple(f"{i}é " for i in range(40))
SCRIPTS = {
    "quick": Script(WORDS, when="quick"),
    "slow": Script(WORDS, when="slow", delay_ms=1),
    "stuck": Script(WORDS, when="stuck", hang_after=5),  # until a prompt comes, for five more
}
SHOW_ALL = {"native", "lines", *WEB, *GRPC}
"""Protocols that show every event of a log."""
ANY = st.sampled_from(PROTOCOLS)


class Told:
    """A generation. ``owner``: the client whose leaving ends it."""

    def __init__(self, how: str, id: str, token: str, seen: Witness, durable: bool) -> None:
        self.how, self.id, self.token, self.seen, self.durable = how, id, token, seen, durable
        self.prompts = 0
        self.deleted = False

    def tokens(self) -> list[tuple[int, str]]:
        return [(e.seq, e.text) for e in self.seen.events_seen if isinstance(e, Token)]


class Reader:
    """One client through all its lives: what it has up to its cursor. ``leg``: its connection, if it has one."""

    def __init__(self, told: Told, how: str, leg: Leg, owner: bool) -> None:
        self.told, self.how, self.owner = told, how, owner
        self.leg: Leg | None = leg
        self.after = 0
        self.kept: list[tuple[int, str]] = []
        self.ends = 0

    def take(self, units: list[Seen]) -> None:
        for seen in units:
            assert seen.seq == self.after + 1 if self.how in SHOW_ALL else seen.seq > self.after
            self.after = seen.seq
            self.ends += seen.ends
            if seen.text:
                self.kept.append((seen.seq, seen.text))

    async def read(self, count: int) -> None:
        """So many tokens, as far as there are so many; to the end of the connection if the log has ended."""
        there = [seq for seq, _ in self.told.tokens() if seq > self.after][:count]
        ended = self.told.seen.ended.is_set()
        while self.leg is not None and (ended or (there and self.after < there[-1])):
            units = await self.leg.more()
            if units is None:
                self.leg = None
            else:
                self.take(units)

    async def leave(self) -> None:
        leg, self.leg = self.leg, None
        if leg is not None:
            await leg.leave()
        if self.owner and not self.told.durable:
            await until(self.told.seen.ended.is_set)


class Machine(RuleBasedStateMachine):
    readers = Bundle("readers")

    def __init__(self, runner: asyncio.Runner, ports: BothPorts) -> None:
        super().__init__()
        self.runner, self.ports = runner, ports
        self.all: list[Reader] = []
        self.told: list[Told] = []

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        async def limited() -> Any:
            async with asyncio.timeout(30):
                return await coroutine

        with calm():
            return self.runner.run(limited())

    @rule(
        target=readers,
        how=ANY,
        script=st.sampled_from(list(SCRIPTS)),
        stays=st.booleans(),
        count=st.integers(0, 9),
    )
    def begin(self, how: str, script: str, stays: bool, count: int) -> Reader:
        token = f"t{len(self.told)}"
        fields = {"x-abort-token": token, "x-on-disconnect": "continue" if stays else "cancel"}
        leg = self.run(self.ports.begin(how, script, fields))
        seen = self.ports.witnesses[leg.generation]
        told = Told(how, leg.generation, token, seen, stays or how == "responses")
        reader = Reader(told, how, leg, owner=True)
        self.told.append(told)
        self.all.append(reader)
        self.run(reader.read(count))
        return reader

    @rule(target=readers, known=readers, how=ANY)
    def join(self, known: Reader, how: str) -> Reader:
        """A second client, from the beginning."""
        leg = None
        if not known.told.deleted:
            leg = self.run(self.ports.resume(how, known.told.id, 0))
        reader = Reader(known.told, how, leg, owner=False)
        self.all.append(reader)
        return reader

    @rule(reader=readers, count=st.integers(1, 12))
    def read(self, reader: Reader, count: int) -> None:
        self.run(reader.read(count))

    @rule(reader=readers)
    def leave(self, reader: Reader) -> None:
        self.run(reader.leave())

    @rule(reader=readers, how=ANY, count=st.integers(0, 9))
    def come_back(self, reader: Reader, how: str, count: int) -> None:
        self.run(self.coming_back(reader, how, count))

    async def coming_back(self, reader: Reader, how: str, count: int) -> None:
        await reader.leave()
        if not reader.ends and not reader.told.deleted:
            reader.how = how
            reader.leg = await self.ports.resume(how, reader.told.id, reader.after)
            await reader.read(count)

    @rule(reader=readers, how=st.sampled_from(["http", "converse", *WEB]))
    def prompt(self, reader: Reader, how: str) -> None:
        told = reader.told
        if not told.deleted and not told.seen.ended.is_set():
            told.prompts += 1
            self.run(self.ports.prompt(how, told.id, f"p{told.prompts}"))

    @rule(reader=readers, how=st.sampled_from(["http", "grpc", "connect"]))
    def abort(self, reader: Reader, how: str) -> None:
        aborted = self.run(self.ports.abort(how, reader.told.token))
        assert aborted <= 1
        self.run(until(reader.told.seen.ended.is_set))

    @rule(reader=readers)
    def delete(self, reader: Reader) -> None:
        told = reader.told
        if told.how == "responses" and not told.deleted:
            path = f"/v1/responses/resp_{told.id[4:]}"
            status, _ = self.run(self.ports.http("DELETE", path))
            assert status == 200
            told.deleted = True
            assert self.run(self.ports.http("GET", f"/v1/generations/{told.id}"))[0] == 404

    def teardown(self) -> None:
        """Everybody reads to the end, over one protocol after the other."""
        self.run(self.judge())

    async def judge(self) -> None:
        for told in self.told:
            if not told.seen.ended.is_set():
                await self.ports.abort("http", told.token)
            whole = await told.seen.whole()  # numbers without holes, one end
            if isinstance(told.seen.end, Finish):
                assert whole == "".join(WORDS)
        for at, reader in enumerate(self.all):
            tokens = reader.told.tokens()
            if reader.told.deleted:
                assert reader.kept == tokens[: len(reader.kept)]
            elif not reader.ends:
                await self.coming_back(reader, PROTOCOLS[at % len(PROTOCOLS)], 0)
                assert (reader.kept, reader.ends) == (tokens, 1)
            await reader.leave()
        await until(lambda: not len(self.ports.streams))
        assert not self.ports.house.service.busy
        assert self.ports.house.in_use == 0


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


@pytest.fixture(scope="module")
def ports(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BothPorts]:
    ports = BothPorts(tmp_path_factory.mktemp("store"), *SCRIPTS.values())
    runner.run(ports.open())
    yield ports
    runner.run(ports.close())


def test_over_whatever_protocol_it_is_read_it_is_the_same(
    runner: asyncio.Runner, ports: BothPorts
) -> None:
    run_state_machine_as_test(
        lambda: Machine(runner, ports), settings=examples(60, stateful_step_count=25)
    )

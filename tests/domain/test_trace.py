from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.domain.request import Caller
from headrace.domain.trace import Trace, read_trace

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_what_came_goes_on_as_it_was() -> None:
    trace = read_trace(PARENT, "congo=t61rcWkgMzE", "user=7")
    assert trace is not None
    assert (
        trace.lines
        == (
            f"traceparent: {PARENT}\r\ntracestate: congo=t61rcWkgMzE\r\nbaggage: user=7\r\n"
        ).encode()
    )
    assert (trace.trace_id, trace.span_id) == (
        0x0AF7651916CD43DD8448EB211C80319C,
        0xB7AD6B7169203331,
    )


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False)])
def test_the_flag_says_whether_it_is_sampled(flags: str, sampled: bool) -> None:
    trace = read_trace(PARENT[:-2] + flags)
    assert trace is not None
    assert trace.sampled is sampled


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "00",
        "ff" + PARENT[2:],
        PARENT.upper(),
        PARENT + "-more",
        PARENT.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        PARENT.replace("b7ad6b7169203331", "0" * 16),
        PARENT[:-1],
        PARENT + "," + PARENT,
    ],
)
def test_a_malformed_parent_is_none_and_takes_its_state_with_it(bad: str) -> None:
    assert read_trace(bad, "a=b") is None
    assert read_trace(bad, "a=b", "c=d") == Trace("", "", "c=d")


def test_a_later_version_is_read_as_the_one_that_is_known() -> None:
    trace = read_trace("cc" + PARENT[2:] + "-what-the-future-brings")
    assert trace is not None
    assert trace.traceparent == PARENT


def test_too_long_lists_are_left_out() -> None:
    assert read_trace(PARENT, "a=" + "b" * 511, "c=" + "d" * 8191) == Trace(PARENT)


@given(st.text(), st.text(), st.text())
def test_no_header_line_can_be_smuggled_in(parent: str, state: str, baggage: str) -> None:
    for said in (parent, PARENT):
        trace = read_trace(said, state, baggage)
        if trace is not None:
            fields = [trace.traceparent, trace.tracestate, trace.baggage]
            assert trace.lines.count(b"\n") == trace.lines.count(b"\r") == sum(map(bool, fields))


def test_a_caller_that_was_stored_before_there_were_traces_is_read() -> None:
    old = msgspec.msgpack.encode({"tenant": "t", "request_id": "r", "leaving": [None]})
    caller = msgspec.msgpack.decode(old, type=Caller)
    assert (caller.tenant, caller.trace) == ("t", None)
    new = msgspec.structs.replace(caller, trace=Trace(PARENT, "a=b"))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(new), type=Caller) == new

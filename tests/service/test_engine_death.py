"""The real model in a real process that is killed in the middle of answers that have a form."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time

import pytest
from tests.service.house import Witness

from headrace.admission.keys import Keys
from headrace.admission.read_tokens import ReadTokens
from headrace.domain.event import Finish, Token
from headrace.domain.request import CONTINUE, Caller, Message, Request, Sampling
from headrace.engines.llama import LlamaEngine
from headrace.engines.llama_options import LlamaOptions
from headrace.engines.restarts import RestartRules
from headrace.flow import Flow
from headrace.routing.model import Model, Replica
from headrace.scheduling.queue import Queue
from headrace.service import Limits, Service
from headrace.streams.hub import Hub
from headrace.streams.memory import MemoryStore
from headrace.streams.topics import Topics
from headrace.telemetry.metrics import Metrics

NOTE = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 30},
        "text": {"type": "string", "minLength": 30, "maxLength": 60},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["title", "text", "stars"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "note", "schema": NOTE}}
TOOL = {"type": "function", "function": {"name": "note", "parameters": NOTE}}
FORMS = {
    "a schema": {"response_format": FORMAT},
    "a forced tool call": {"tools": [TOOL], "tool_choice": "required"},
}


@pytest.fixture
def engine(embedded_model, tmp_path):
    options = LlamaOptions(
        name="m",
        model_path=embedded_model.path,
        state=str(tmp_path),
        partial_tokens=embedded_model.partial_tokens,
        slots=2,
        context=1024,
        rules=RestartRules(first_s=0.01),
    )
    return LlamaEngine(options, dict(os.environ), 2)


async def serve(engine):
    model = Model("m", (), [Replica("0", engine)], 0)
    flow = Flow(model, Queue(9, 60.0), Metrics().model("m").by_kind(), None)
    store = MemoryStore()
    service = Service(
        [flow],
        Hub(store),
        keys=Keys({}),
        read_tokens=ReadTokens(b"secret"),
        chain=None,
        topics=Topics(),
        limits=Limits(),
    )
    await store.open()
    await engine.load()
    service.tick(0.0)
    return service


def told(witness):
    """Text, arguments of the call, and how often a call was begun."""
    tokens = [event for event in witness.events_seen if isinstance(event, Token)]
    calls = [call for event in tokens for call in event.tool_calls or ()]
    text = "".join(event.text for event in tokens)
    return text, "".join(call.arguments for call in calls), sum(1 for call in calls if call.name)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_an_answer_with_a_form_outlives_its_engine(run, engine, form, temperature):
    async def main():
        service = await serve(engine)
        try:
            messages = (Message("user", "Review a water mill."),)
            # A seed: some random ones fill the form with white space up to the limit.
            sampling = Sampling(max_tokens=200, temperature=temperature, seed=7)
            request = Request("m", "chat", messages, sampling=sampling, stream=True, **form)
            generation = service.submit(request, Caller(leaving=CONTINUE), "native", {})
            witness = Witness(generation)
            await witness.token(5)
            first = engine.pid
            os.kill(first, signal.SIGKILL)
            while not witness.ended.is_set():
                service.tick(time.monotonic())  # as the app does
                await asyncio.sleep(0.02)
            assert engine.pid not in (0, first)
            assert isinstance(witness.end, Finish), witness.end
            seqs = [event.seq for event in witness.events_seen]
            assert seqs == list(range(1, len(seqs) + 1))
            text, arguments, begun = told(witness)
            assert begun == (1 if "tools" in form else 0)
            assert set(json.loads(arguments or text)) == {"title", "text", "stars"}
            reason = "tool_calls" if "tools" in form else "stop"
            assert witness.end.reasons == (reason,)
        finally:
            await service.close(0)
            await engine.close()

    run(main())

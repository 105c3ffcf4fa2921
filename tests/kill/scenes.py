"""What is answered in the kill test: by a scripted engine, or by the embedded model in its real process.

Both say the same kind of text: characters of several bytes and of several tokens, and card numbers that
span tokens and must leave as ``[redacted]``.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from headrace.settings.model import EMBEDDED
from tests.kill.arena import Answer, Server, Witness, log_faults, log_text

PATIENT = """
[limits]
queue_timeout_s = 600
"""
"""Where the machine is busy, an answer may stand in line behind two others for longer than users would wait."""
HOOKS = """
[[hooks]]
class = "tests.kill.moments:Moments"
orders = "{folder}"
[[hooks]]
class = "headrace.streams.redact:Redact"
patterns = ["card"]
"""


class Scene(Protocol):
    """``weights``: how often who is killed. ``moments``: from how many moments of a state one is drawn.
    ``patience_s``: how long at most a kill waits after its state was seen."""

    name: str
    weights: Mapping[str, float]
    moments: Mapping[str, int]
    patience_s: float

    def config(self, folder: Path) -> str: ...

    def body(self, form: str, state: str, chance: random.Random) -> dict[str, Any]:
        """A request whose answer is likely to come by that state."""

    def expected(self, server: Server) -> Answer:
        """What every answer has to be."""

    def kill_engine(self, pid: int) -> None: ...


class Scripted:
    """A script in the server process: exact, fast, and without an engine process to kill."""

    name = "scripted"
    weights: Mapping[str, float] = {"server": 1.0, "client": 1.0}
    moments: Mapping[str, int] = {"decode": 30, "utf8": 10, "redaction": 12, "append": 40}
    patience_s = 0.02

    # An empty token begins a character that the next one ends, as engines report it.
    words = ("The ", "mill", " wheel ", "turns: ", "日", "", "本", "語 ", "", "", "🦜", " é", "ä; ")
    card = ("card ", "4111", " 1111", " 1111", " 11", "11", ". ")
    times = 6

    def config(self, folder: Path) -> str:
        script = {
            "tokens": (self.words + self.card) * self.times,
            "delay_ms": 6,
            "prefill": [4, 8, 12],
            "prefill_ms": 40,
            "prompt_tokens": 12,
        }
        file = folder / "script.json"
        file.write_text(json.dumps({"slots": 2, "scripts": [script]}), encoding="utf-8")
        model = f'[[models]]\nname = "m"\nengine = "scripted"\nslots = 2\nscript = "{file}"\n'
        return model + PATIENT + HOOKS.format(folder=folder)

    def body(self, form: str, state: str, chance: random.Random) -> dict[str, Any]:
        body: dict[str, Any] = {"model": "m", "stream": True, "max_tokens": 1000}
        if form == "native":
            return body | {"prompt": "mill"}
        return body | {"messages": [{"role": "user", "content": "mill"}]}

    def expected(self, server: Server) -> Answer:
        said = self.words + self.card
        return Answer(
            ("".join(self.words) + "card [redacted]. ") * self.times, len(said) * self.times
        )

    def kill_engine(self, pid: int) -> None:
        raise NotImplementedError("it has none")


class Embedded:
    """The embedded model, which repeats what its prompt repeats: so its text is known and a lost or
    repeated token shows. The undisturbed answer is asked for once."""

    name = "embedded"
    weights: Mapping[str, float] = {"server": 1.0, "engine": 4.0, "client": 1.0}
    moments: Mapping[str, int] = {"decode": 30, "utf8": 2, "redaction": 20, "append": 30}
    patience_s = 0.1

    line = "The mill wheel turns: 日本語🦜🦉🦆 é, card 4111 1111 1111 1111. "
    max_tokens = 112
    _undisturbed: Answer | None = None

    def config(self, folder: Path) -> str:
        model = (
            f'[[models]]\nname = "{EMBEDDED.name}"\nsource = "{EMBEDDED.source}"\n'
            f'sha256 = "{EMBEDDED.sha256}"\nformat = "{EMBEDDED.format}"\nslots = 2\n'
        )
        return model + PATIENT + HOOKS.format(folder=folder)

    def body(self, form: str, state: str, chance: random.Random) -> dict[str, Any]:
        times = 12 if state == "prefill" else 4
        prompt = f"{chance.randint(1000, 9999)}: {self.line * times}".rstrip()
        body = {"prompt": prompt, "max_tokens": self.max_tokens, "temperature": 0, "stream": True}
        return body if form == "native" else body | {"model": EMBEDDED.name}

    def expected(self, server: Server) -> Answer:
        if Embedded._undisturbed is None:
            body = self.body("native", "", random.Random(1))
            witness = Witness(server, "undisturbed", "native", body)
            try:
                witness.wait(600.0)
            finally:
                witness.kill()
            log = server.log_of(witness.generation or "")
            answer = Answer(log_text(log), self.max_tokens)
            whole = (" " + self.line * 9).replace("4111 1111 1111 1111", "[redacted]")
            wrong = log_faults(log, answer._replace(text=whole[: len(answer.text)]))
            if wrong:
                raise RuntimeError(f"the undisturbed answer is of no use: {wrong}")
            Embedded._undisturbed = answer
        return Embedded._undisturbed

    def kill_engine(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

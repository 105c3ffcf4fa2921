"""An independent client of the kill test: standard library only, a process of its own.

It posts one streaming request, writes every event that it received to a file (a JSON line each, flushed at
once), and whenever the connection breaks reads on from the last event it has, until the log's end. If the
file has a generation already, it is the successor of a client that was killed: it only reads on.
usage: client.py URL FORMAT OUT_FILE BODY_JSON SEED   (FORMAT: openai | native)
With SEED > 0 it also pulls its own plug at random points. After SIGUSR1 it stops for ever as soon as it
has a part of a character and not the rest, and says so by a file OUT_FILE.torn.
"""

from __future__ import annotations

import http.client
import json
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

GIVE_UP_S = 600.0
PATHS = {"native": "/v1/stream_infer", "openai": "/v1/chat/completions"}


class Client:
    def __init__(self, url: str, form: str, out: str, body: dict[str, Any], seed: int) -> None:
        self.address = urlsplit(url)
        self.form = form
        self.body = body
        self.plug = random.Random(seed) if seed else None
        self.generation: str | None = None
        self.last_id = 0
        self.done = False
        self.tears = False
        self.deadline = time.monotonic() + GIVE_UP_S
        self.path = Path(out)
        self.inherit()
        self.out = self.path.open("a", encoding="utf-8")
        signal.signal(signal.SIGUSR1, self.tear)

    def inherit(self) -> None:
        """Take over from who wrote the file before; a last line that was cut off never was."""
        if not self.path.exists():
            return
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        self.path.write_bytes(whole)
        for line in whole.decode().splitlines():
            row = json.loads(line)
            self.generation = row.get("generation", self.generation)
            self.last_id = int(row.get("id", self.last_id))
            self.done = self.done or ("data" in row and self.is_end(row))

    def tear(self, *_: object) -> None:
        self.tears = True

    def run(self) -> int:
        while not self.done:
            if time.monotonic() > self.deadline:
                self.note({"gave_up": True})
                return 1
            try:
                self.once()
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)
        return 0

    def note(self, row: dict[str, Any]) -> None:
        self.out.write(json.dumps(row) + "\n")
        self.out.flush()

    def once(self) -> None:
        connection = http.client.HTTPConnection(self.address.hostname or "", self.address.port, 60)
        try:
            response = self.ask(connection)
            if response.status == 204:
                self.done = True
            elif response.status == 200:
                self.read(response)
            elif response.status in (503, 408):
                time.sleep(0.05)
            else:
                self.note({"status": response.status, "body": response.read().decode()})
                self.done = True
        finally:
            connection.close()

    def ask(self, connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
        if self.generation is None:
            path = PATHS[self.form]
            if self.form == "openai" and "prompt" in self.body:
                path = "/v1/completions"
            headers = {"Content-Type": "application/json", "X-On-Disconnect": "continue"}
            connection.request("POST", path, json.dumps(self.body), headers)
            response = connection.getresponse()
            if response.status == 200:
                self.generation = response.headers["x-generation-id"]
                self.note({"generation": self.generation})
            return response
        path = f"/v1/generations/{self.generation}/events?format={self.form}"
        connection.request("GET", path, headers={"Last-Event-ID": str(self.last_id)})
        return connection.getresponse()

    def read(self, response: http.client.HTTPResponse) -> None:
        stop_after = self.plug.randint(1, 12) if self.plug else 0
        seen = 0
        fields: dict[str, str] = {}
        unread = b""
        while piece := response.read1(1 if self.tears else 65536):
            unread += piece
            if self.tears and in_character(unread):
                Path(f"{self.path}.torn").touch()
                while True:
                    signal.pause()
            while b"\n" in unread:
                line, _, unread = unread.partition(b"\n")
                if line:
                    name, _, value = line.decode("utf-8").partition(":")
                    fields[name] = value.removeprefix(" ")
                    continue
                if self.message(fields):
                    return
                fields = {}
                seen += 1
                if stop_after and seen >= stop_after:
                    return

    def message(self, fields: dict[str, str]) -> bool:
        """Take one complete SSE message; True at the end of the stream."""
        if "data" in fields:
            row = {"data": fields["data"], "event": fields.get("event", "message")}
            if "id" in fields:
                self.last_id = int(fields["id"])
                row["id"] = fields["id"]
            self.note(row)
            self.done = self.is_end(fields)
        return self.done

    def is_end(self, fields: dict[str, str]) -> bool:
        if self.form == "native":
            return fields.get("event") in ("finish", "error")
        return fields["data"] == "[DONE]" or fields["data"].startswith('{"error"')


def in_character(data: bytes) -> bool:
    """Whether the bytes end in the middle of a character."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return False


if __name__ == "__main__":
    url, form, out, body, seed = sys.argv[1:6]
    sys.exit(Client(url, form, out, json.loads(body), int(seed)).run())

"""A server that works for nobody but one job, on a socket that nobody else finds.

Run as ``python -m headrace.cli.own_server`` it is a process that ends with whoever started it: when its standard input
does. It is told what it is on its first line.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from headrace.cli.connection import Server
from headrace.cli.errors import Mistake
from headrace.cli.options import loaded
from headrace.domain.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.settings import Settings

LOOK_S = 0.1


class Told(msgspec.Struct):
    """``config``: a settings file; None: the embedded model. ``folder``: of its state; ``uds``: where it listens."""

    config: str | None
    folder: str
    uds: str


def own_settings(settings: Settings, folder: Path, uds: str) -> Settings:
    """The settings of a server that does nothing else: its state is the job's."""
    replace = msgspec.structs.replace
    server = replace(
        settings.server,
        uds=uds,
        ops_port=None,
        grpc_port=None,
        grpc_uds=None,
        grpc_web=False,
        api_key=(),
        ssl_certfile=None,
        ssl_keyfile=None,
        ssl_client_ca=None,
        state_dir=str(folder / "state"),
        log_level="warning",
        shutdown_grace_s=0.0,
    )
    store = replace(settings.store, url="sqlite:")
    models = tuple([replace(model, jobs_apart=False, express=False) for model in settings.models])
    return replace(settings, server=server, store=store, models=models, tenants=())


class OwnServer:
    """Such a process, from when it is made to :meth:`stop`; it serves when that returns. Raises :class:`Mistake` if it
    cannot."""

    def __init__(self, config: str | None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="headrace-")
        told = Told(config, self._folder.name, f"{self._folder.name}/socket")
        command = [sys.executable, "-m", "headrace.cli.own_server"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(told) + b"\n")
        self._process.stdin.flush()
        self.server = Server("http://localhost", None, told.uds)
        self._await()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def _await(self) -> None:
        while self.runs:
            try:
                self.server.request("GET", "/readyz").close()
            except (OSError, HTTPException, HeadraceError):
                time.sleep(LOOK_S)
            else:
                return
        raise Mistake(f"its server ended with status {self._process.returncode}")


def main() -> None:
    from headrace.app import serve

    told = msgspec.json.decode(sys.stdin.buffer.readline(), type=Told)
    threading.Thread(target=_end_at_eof, daemon=True).start()
    settings = loaded(told.config, {}).settings
    sys.exit(serve(own_settings(settings, Path(told.folder), told.uds)))


def _end_at_eof() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()

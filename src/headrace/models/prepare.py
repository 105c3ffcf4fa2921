"""From a wanted file to one that an engine can load: fetch, check, repack, read the vocabulary.

Blocks and needs numpy: runs in the child process of :mod:`headrace.models.pull`.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.models.cache import Manifest, ModelCache, Variant
from headrace.models.source import parse
from headrace.models.staging import locked, publish, staging
from headrace.models.wanted import Format, ModelFile, Report, Step, Wanted

_PIECE_BYTES = 4 * 1024 * 1024
NO_VOCABULARY = (".onnx", ".ort", ".json", ".txt")
"""Files of other engines than llama.cpp, and what stands beside them. All others must be GGUF files."""


def prepare(cache: ModelCache, wanted: Wanted, report: Report) -> ModelFile:
    """The file, from the cache if it is there. Of several processes that want it one fetches, the
    others wait for it. Raises :class:`HeadraceError` in one line."""
    try:
        with locked(cache.lock_file(wanted.source), report):
            found = cache.find(wanted)
            if found:
                return found
            with staging(cache.staging_root) as folder:
                return _Preparation(cache, wanted, folder, report).run()
    except OSError as error:
        text = f"cannot write the model cache {cache.root}: {error.strerror or error}"
        raise HeadraceError(Code.ENGINE_UNAVAILABLE, text) from error


class _Preparation:
    """What is missing of one entry, made in ``folder`` and then published."""

    def __init__(self, cache: ModelCache, wanted: Wanted, folder: Path, report: Report) -> None:
        self._cache = cache
        self._wanted = wanted
        self._folder = folder
        self._report = report

    def run(self) -> ModelFile:
        manifest = self._usable() or self._fetch()
        self._cache.save(manifest, self._folder)
        if self._wanted.format != "keep":
            manifest = self._repack(manifest, self._wanted.format)
            self._cache.save(manifest, self._folder)
        return self._cache.model_file(manifest, self._wanted.format)

    def _usable(self) -> Manifest | None:
        """The entry as far as it is there: fetched earlier, but not in this format."""
        manifest = self._cache.manifest(self._wanted.source)
        if manifest is None or not self._cache.intact(manifest, manifest.original):
            return None
        pinned = self._wanted.sha256 or manifest.original.sha256
        return manifest if pinned == manifest.original.sha256 else None

    def _fetch(self) -> Manifest:
        source = parse(self._wanted.source)
        file = source.fetch(self._folder, self._report)
        digest = self._verified(file)
        partial_tokens: dict[bytes, int] = {}
        if Path(source.file_name).suffix not in NO_VOCABULARY:
            self._report(Step("vocabulary"))
            partial_tokens = _partial_tokens(file)
        if self._folder in file.parents:
            target = self._cache.folder(self._wanted.source) / source.file_name
            publish(file, target)
            original = _variant(target, target.name, digest)
        else:
            original = _variant(file, str(file), digest)
        return Manifest(
            source=self._wanted.source,
            fetched_at=time.time(),
            original=original,
            repacked={},
            partial_tokens=partial_tokens,
        )

    def _verified(self, file: Path) -> str:
        digest = hashlib.sha256()
        total = file.stat().st_size
        with file.open("rb") as data:
            while piece := data.read(_PIECE_BYTES):
                digest.update(piece)
                self._report(Step("verify", data.tell(), total))
        pinned = self._wanted.sha256
        if pinned and digest.hexdigest() != pinned:
            raise HeadraceError(
                Code.ENGINE_UNAVAILABLE,
                f"{self._wanted.source} is not the file that was pinned: "
                f"its sha256 is {digest.hexdigest()}, not {pinned}",
            )
        return digest.hexdigest()

    def _repack(self, manifest: Manifest, format: Format) -> Manifest:
        from headrace.models.repack import repack

        original = self._cache.path(manifest, manifest.original)
        name = f"{original.stem}.{format}.gguf"
        repack(original, self._folder / name, format, self._report)
        digest = hashlib.sha256((self._folder / name).read_bytes()).hexdigest()
        target = self._cache.folder(manifest.source) / name
        publish(self._folder / name, target)
        variants = {**manifest.repacked, format: _variant(target, name, digest)}
        return msgspec.structs.replace(manifest, repacked=variants)


def _partial_tokens(file: Path) -> dict[bytes, int]:
    from headrace.models.vocabulary import partial_tokens

    return partial_tokens(file)


def _variant(file: Path, path: str, digest: str) -> Variant:
    found = file.stat()
    return Variant(path, digest, found.st_size, found.st_mtime_ns)

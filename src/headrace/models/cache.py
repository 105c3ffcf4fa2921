"""The model cache: one folder per source, described by its manifest.

``models/ENTRY/manifest.json`` is written last, so what it names is there and was checked. The folder
may be shared by several servers.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.models.local import LocalSource
from headrace.models.source import parse
from headrace.models.staging import locked, publish
from headrace.models.wanted import Format, ModelFile, Wanted


class Variant(msgspec.Struct, frozen=True):
    """One file: ``path`` is inside the entry's folder, or absolute for a file of the user's.
    ``modified_ns`` tells whether the user changed it since."""

    path: str
    sha256: str
    size_bytes: int
    modified_ns: int


class Manifest(msgspec.Struct, frozen=True):
    """What an entry holds. ``original`` came from the source; ``repacked`` was made from it.
    ``fetched_at``: float Unix seconds."""

    source: str
    fetched_at: float
    original: Variant
    repacked: dict[Format, Variant]
    partial_tokens: dict[bytes, int]


class ModelCache:
    """Finds what is there; :mod:`headrace.models.prepare` brings what is not."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.staging_root = root / "staging"
        self._models = root / "models"

    def folder(self, source: str) -> Path:
        """Of one source."""
        name = re.sub(r"[^a-z0-9.]+", "-", Path(parse(source).file_name).stem.lower()).strip("-.")
        return self._models / f"{name}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"

    def lock_file(self, source: str) -> Path:
        folder = self.folder(source)
        return folder.parent / f"{folder.name}.lock"

    def manifest(self, source: str) -> Manifest | None:
        """Of one source; None if it was never fetched."""
        return self._read(self.folder(source))

    def save(self, manifest: Manifest, staging: Path) -> None:
        """Make an entry's files known."""
        file = staging / "manifest.json"
        file.write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        publish(file, self.folder(manifest.source) / "manifest.json")

    def find(self, wanted: Wanted) -> ModelFile | None:
        """The file, if it is here, unchanged, and what was pinned. Raises ``INVALID_REQUEST``."""
        manifest = self.manifest(wanted.source)
        if (
            manifest is None
            or (wanted.sha256 or manifest.original.sha256) != manifest.original.sha256
        ):
            return None
        if isinstance(parse(wanted.source), LocalSource) and not self.intact(
            manifest, manifest.original
        ):
            return None
        variant = (
            manifest.original if wanted.format == "keep" else manifest.repacked.get(wanted.format)
        )
        if variant is None or not self.intact(manifest, variant):
            return None
        return self.model_file(manifest, wanted.format)

    def model_file(self, manifest: Manifest, format: Format) -> ModelFile:
        """An entry's file in one format, which it has."""
        variant = manifest.original if format == "keep" else manifest.repacked[format]
        return ModelFile(
            path=str(self.path(manifest, variant)),
            source=manifest.source,
            format=format,
            sha256=variant.sha256,
            size_bytes=variant.size_bytes,
            partial_tokens=manifest.partial_tokens,
        )

    def path(self, manifest: Manifest, variant: Variant) -> Path:
        return self.folder(manifest.source) / variant.path

    def intact(self, manifest: Manifest, variant: Variant) -> bool:
        """Whether the file is there as it was when it was checked."""
        try:
            found = self.path(manifest, variant).stat()
        except OSError:
            return False
        return (found.st_size, found.st_mtime_ns) == (variant.size_bytes, variant.modified_ns)

    def entries(self) -> list[Manifest]:
        """Everything that was fetched, the oldest first."""
        found = [self._read(folder) for folder in self._models.glob("*/")]
        return sorted((entry for entry in found if entry), key=lambda entry: entry.fetched_at)

    def remove(self, source: str) -> int:
        """Delete one source's files; returns the bytes that became free. A file of the user's stays.

        Raises ``NOT_FOUND``; ``INVALID_REQUEST`` for what is no source.
        """
        folder = self.folder(source)
        with locked(self.lock_file(source)):
            if not folder.is_dir():
                raise HeadraceError(Code.NOT_FOUND, f"{source} is not in the model cache")
            freed = sum(file.stat().st_size for file in folder.iterdir())
            (folder / "manifest.json").unlink(missing_ok=True)
            shutil.rmtree(folder)
        return freed

    def _read(self, folder: Path) -> Manifest | None:
        try:
            return msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
        except (OSError, msgspec.DecodeError):
            return None

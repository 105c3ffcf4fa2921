"""``hf:ORG/REPO/FILE``: a file of the Hugging Face hub, through its own library (extra ``hf``).

The library reads the user's token, endpoint and proxies as it always does.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.models.wanted import Report
from headrace.models.watch import watched


class HubSource(msgspec.Struct, frozen=True):
    """``repo`` is ``ORG/REPO``; ``file`` may be in a folder of it."""

    repo: str
    file: str

    @classmethod
    def parse(cls, text: str) -> HubSource | None:
        organisation, _, rest = text.partition("/")
        repo, _, file = rest.partition("/")
        if not organisation or not repo or not file or ".." in PurePosixPath(file).parts:
            return None
        return cls(f"{organisation}/{repo}", file)

    @property
    def file_name(self) -> str:
        return PurePosixPath(self.file).name

    def fetch(self, folder: Path, report: Report) -> Path:
        hub = _library()
        hub.utils.disable_progress_bars()
        try:
            url = hub.hf_hub_url(self.repo, self.file)
            total = hub.get_hf_file_metadata(url).size or 0
            with watched(folder, total, report):
                return Path(hub.hf_hub_download(self.repo, self.file, local_dir=folder))
        except Exception as error:
            raise HeadraceError(Code.ENGINE_UNAVAILABLE, self._why(hub, error)) from error

    def _why(self, hub: Any, error: Exception) -> str:
        what = f"cannot fetch {self.file} of {self.repo}"
        known = {
            "RepositoryNotFoundError": "the hub has no such repository, or it needs a token (HF_TOKEN)",
            "GatedRepoError": "its owner wants you to accept terms on the hub first (then HF_TOKEN)",
            "RemoteEntryNotFoundError": "the repository has no such file",
            "EntryNotFoundError": "the repository has no such file",
        }
        for kind in type(error).__mro__:
            if kind.__name__ in known:
                return f"{what}: {known[kind.__name__]}"
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        return f"{what} from {hub.constants.ENDPOINT}: {first}"


def _library() -> Any:
    try:
        import huggingface_hub.constants
        import huggingface_hub.utils
    except ImportError:
        raise HeadraceError(
            Code.ENGINE_UNAVAILABLE,
            "models of the Hugging Face hub need its library: pip install 'headrace[hf]'",
        ) from None
    return huggingface_hub

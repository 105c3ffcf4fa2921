"""No garbage collection while a CUDA graph is captured.

An object of CUDA that is freed in the middle of a capture makes it invalid, and the collector may free one in whatever
thread it happens to run. So garbage is collected before, what lives is frozen, and the collector rests until the
capture is over, as vLLM does it (``vllm/v1/worker/gpu_model_runner.py``, ``freeze_gc``).
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class QuietCollector:
    """One a process: captures come one after the other."""

    def __init__(self) -> None:
        self._alone = threading.Lock()

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """The collector does not run in the body, in no thread; afterwards it does if it did before. Blocks
        while another thread captures."""
        with self._alone:
            gc.collect()
            gc.freeze()
            was_enabled = gc.isenabled()
            gc.disable()
            try:
                yield
            finally:
                if was_enabled:
                    gc.enable()

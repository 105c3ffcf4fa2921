"""Headrace: one server that carries requests to language models and never loses a stream."""

import os

__version__ = "0.1.0"

# The wheels of ONNX Runtime tell their makers what runs, and keep an id of the machine for that, unless they are told
# before they are imported. Whoever wants that says ORT_DISABLE_TELEMETRY=0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

"""``/v2`` in ``/openapi.json``: bodies from the types that decode them, answers as the protocol has them.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_rest.yaml
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from headrace.protocols.kserve.asked import (
    MAX_ID,
    MAX_TENSORS,
    RequestParameters,
    TensorParameters,
)
from headrace.protocols.kserve.datatypes import DTYPES
from headrace.protocols.kserve.endpoints import LEASE, IndexBody, RegionBody
from headrace.protocols.kserve.request import InferBody, OutputBody
from headrace.protocols.kserve.response import LENGTH
from headrace.protocols.openapi.document import Described
from headrace.protocols.openapi.operation import Json

_REF = "#/components/schemas/{name}"
_JSON, _BYTES = "application/json", "application/octet-stream"
_TEXT: Json = {"type": "string"}
_WHOLE: Json = {"type": "integer"}
_TRUTH: Json = {"type": "boolean"}


def _object(**properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": sorted(properties)}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


_TENSOR = _object(name=_TEXT, datatype={"enum": list(DTYPES)}, shape=_list(_WHOLE))
_STATISTICS = _object(model_stats=_list({"type": "object"}))
_REGION = _object(name=_TEXT, key=_TEXT, offset=_WHOLE, byte_size=_WHOLE)
_ANSWER = _object(model_name=_TEXT, model_version=_TEXT, outputs=_list(_TENSOR))
_METADATA = _object(
    name=_TEXT,
    versions=_list(_TEXT),
    platform=_TEXT,
    inputs=_list(_TENSOR),
    outputs=_list(_TENSOR),
)
_INDEXED = _object(
    name=_TEXT, version=_TEXT, state={"enum": ["READY", "LOADING", "UNAVAILABLE"]}, reason=_TEXT
)


def _ref(name: str) -> Json:
    return {"$ref": _REF.format(name=name)}


_INPUT = _object(name=_TEXT, shape=_list(_WHOLE), datatype={"enum": list(DTYPES)})
_INPUT["properties"] |= {
    "parameters": _ref("TensorParameters"),
    "data": {"type": "array", "description": "Flat, or nested as the shape is."},
}
_INFER_BODY = _object(inputs=_list(_INPUT) | {"minItems": 1, "maxItems": MAX_TENSORS})
_INFER_BODY["properties"] |= {
    "id": {"type": "string", "maxLength": MAX_ID},
    "parameters": _ref("RequestParameters"),
    "outputs": _list(_ref("OutputBody")) | {"maxItems": MAX_TENSORS},
}
"""``InferBody``, whose undecoded data has no schema."""
_ERROR = _ref("V2Error")
_EXAMPLES: dict[str, Json] = {
    "InferBody": {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 2]}],
        "outputs": [{"name": "y"}],
    },
    "RegionBody": {"key": "/my-frames", "byte_size": 4096},
    "IndexBody": {"ready": True},
}
_PARAMETERS: dict[str, Json] = {
    "model": {
        "name": "model",
        "in": "path",
        "required": True,
        "description": "Its name, or `NAME/versions/VERSION`.",
        "schema": {"type": "string", "minLength": 1},
    },
    "region": {
        "name": "region",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
    },
    "length": {
        "name": LENGTH.decode(),
        "in": "header",
        "description": "How long the JSON is that the body begins with; tensors are behind it.",
        "schema": {"type": "string", "pattern": "^[0-9]{1,15}$"},
    },
    "lease": {
        "name": LEASE.decode(),
        "in": "header",
        "description": "`true`: the file is removed when no process has it open any more.",
        "schema": {"enum": ["true", "false"]},
    },
}


class _Operation(NamedTuple):
    method: str
    path: str
    summary: str
    answer: Json
    parameters: tuple[str, ...] = ()
    body: type[Any] | None = None
    errors: tuple[int, ...] = (401, 403)
    or_error: int = 0
    """A status that has the answer or an error."""


_MODEL, _REGIONS = "/v2/models/{model}", "/v2/systemsharedmemory"
_OF_MODEL = (401, 403, 404)
_CHANGE = (400, 401, 403, 404, 409, 413, 415)
_LOAD = (401, 403, 404, 415, 503)
_INFER = (400, 401, 403, 404, 408, 413, 415, 422, 429, 499, 502, 503, 504)

_OPERATIONS: tuple[_Operation, ...] = (
    _Operation(
        "get",
        "/v2",
        "The server and its extensions",
        _object(name=_TEXT, version=_TEXT, extensions=_list(_TEXT)),
    ),
    _Operation("get", "/v2/health/live", "Is the process up?", _object(live=_TRUTH), errors=()),
    _Operation(
        "get",
        "/v2/health/ready",
        "Can a model serve?",
        _object(ready=_TRUTH),
        errors=(),
        or_error=400,
    ),
    _Operation("get", "/v2/models/stats", "What all models did", _STATISTICS),
    _Operation(
        "post", _MODEL + "/infer", "Run tensors", _ANSWER, ("model", "length"), InferBody, _INFER
    ),
    _Operation(
        "get",
        _MODEL + "/ready",
        "Is it in memory?",
        _object(ready=_TRUTH),
        ("model",),
        or_error=400,
    ),
    _Operation(
        "get",
        _MODEL + "/config",
        "A model's configuration, as Triton has it",
        {"type": "object"},
        ("model",),
        errors=_OF_MODEL,
    ),
    _Operation(
        "get", _MODEL + "/stats", "What a model did", _STATISTICS, ("model",), errors=_OF_MODEL
    ),
    _Operation(
        "get", _MODEL, "What a model takes and gives", _METADATA, ("model",), errors=_OF_MODEL
    ),
    _Operation(
        "post",
        "/v2/repository/index",
        "All versions of all models",
        _list(_INDEXED),
        body=IndexBody,
        errors=(400, 401, 403, 413, 415),
    ),
    _Operation(
        "post",
        "/v2/repository/models/{model}/load",
        "Load a model",
        {"type": "object"},
        ("model",),
        errors=_LOAD,
    ),
    _Operation(
        "post",
        "/v2/repository/models/{model}/unload",
        "Unload it, until it is loaded again",
        {"type": "object"},
        ("model",),
        errors=_LOAD,
    ),
    _Operation("get", _REGIONS + "/status", "All regions of shared memory", _list(_REGION)),
    _Operation(
        "post",
        _REGIONS + "/unregister",
        "Forget all regions",
        {"type": "object"},
        errors=(401, 403, 415),
    ),
    _Operation(
        "get",
        _REGIONS + "/region/{region}/status",
        "A region",
        _list(_REGION),
        ("region",),
        errors=_OF_MODEL,
    ),
    _Operation(
        "post",
        _REGIONS + "/region/{region}/register",
        "Share memory",
        {"type": "object"},
        ("region", "lease"),
        RegionBody,
        _CHANGE,
    ),
    _Operation(
        "post",
        _REGIONS + "/region/{region}/unregister",
        "Forget a region",
        {"type": "object"},
        ("region",),
        errors=(401, 403, 415),
    ),
)
_GPU = "/v2/cudasharedmemory"
_OPERATIONS += (
    _Operation("get", _GPU + "/status", "No regions of GPUs", _list({"type": "object"})),
    _Operation(
        "post",
        _GPU + "/unregister",
        "Nothing: there are none",
        {"type": "object"},
        errors=(401, 403, 415),
    ),
    _Operation(
        "get",
        _GPU + "/region/{region}/status",
        "None is there",
        _list({"type": "object"}),
        ("region",),
        errors=_OF_MODEL,
    ),
    _Operation(
        "post",
        _GPU + "/region/{region}/register",
        "Refused: memory of GPUs is not shared",
        {"type": "object"},
        ("region",),
        errors=(400, 401, 403, 415),
    ),
    _Operation(
        "post",
        _GPU + "/region/{region}/unregister",
        "Nothing: there are none",
        {"type": "object"},
        ("region",),
        errors=(401, 403, 415),
    ),
)


def described() -> Described:
    """All routes of :class:`~headrace.protocols.kserve.endpoints.V2Endpoints`."""
    types = [IndexBody, RegionBody, OutputBody, TensorParameters, RequestParameters]
    _, schemas = msgspec.json.schema_components(types, ref_template=_REF)
    schemas["V2InferBody"] = _INFER_BODY
    schemas["V2Error"] = _object(error=_TEXT)
    paths: dict[str, Json] = {}
    for one in _OPERATIONS:
        paths.setdefault(one.path, {})[one.method] = _operation(one)
    return Described(paths, schemas)


def _operation(one: _Operation) -> Json:
    made: Json = {
        "operationId": "_".join([one.method, *one.path.strip("/").split("/")])
        .replace("{", "")
        .replace("}", ""),
        "summary": one.summary,
        "parameters": [_PARAMETERS[name] for name in one.parameters],
        "responses": {"200": {"description": "The answer", "content": _answer(one)}}
        | {
            str(status): {"description": "See `error`", "content": {_JSON: {"schema": _ERROR}}}
            for status in (*one.errors, 500)
        },
    }
    if one.or_error:
        schema = {"anyOf": [one.answer, _ERROR]}
        said = {"description": "The answer, or `error`", "content": {_JSON: {"schema": schema}}}
        made["responses"][str(one.or_error)] = said
    if one.body is not None:
        made["requestBody"] = _body(one.body)
    if not one.path.startswith("/v2/health"):
        made["security"] = [{"key": []}, {}]
    return made


def _body(kind: type[Any]) -> Json:
    schema = _ref("V2InferBody" if kind is InferBody else kind.__name__)
    content: Json = {_JSON: {"schema": schema, "example": _EXAMPLES[kind.__name__]}}
    if kind is InferBody:
        content[_BYTES] = {"schema": {"type": "string", "format": "binary"}}
    return {"required": kind is not IndexBody, "content": content}


def _answer(one: _Operation) -> Json:
    content: Json = {_JSON: {"schema": one.answer}}
    if one.body is InferBody:
        content[_BYTES] = {"schema": {"type": "string", "format": "binary"}}
    return content

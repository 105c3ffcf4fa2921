"""Raw contents beside a message are what protobuf's own library would have had in it."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzzing import examples

from headrace.protocols.grpc import open_inference_pb2 as pb
from headrace.protocols.grpc.open_inference_raw import RawResponse, read_request

RAW = st.lists(st.binary(max_size=300), max_size=4)


@examples(100)
@given(st.text(max_size=20), RAW, st.integers(0, 5))
def test_a_request_is_read_as_protobuf_reads_it(id: str, raw: list[bytes], inputs: int) -> None:
    tensors = [pb.ModelInferRequest.InferInputTensor(name=str(n)) for n in range(inputs)]
    asked = pb.ModelInferRequest(model_name="m", id=id, inputs=tensors, raw_input_contents=raw)
    asked.parameters["p"].int64_param = -1
    read = read_request(asked.SerializeToString())
    assert [bytes(data) for data in read.raw] == raw
    del asked.raw_input_contents[:]
    assert read.message == asked


@examples(100)
@given(st.text(max_size=20), RAW)
def test_a_response_is_written_as_protobuf_writes_it(id: str, raw: list[bytes]) -> None:
    message = pb.ModelInferResponse(model_name="m", id=id)
    written = RawResponse(message, [memoryview(data) for data in raw])
    whole = pb.ModelInferResponse.FromString(written.SerializeToString())
    assert list(whole.raw_output_contents) == raw
    streamed = pb.ModelStreamInferResponse.FromString(written.streamed())
    assert streamed.infer_response == whole
    del whole.raw_output_contents[:]
    assert whole == message


@examples(100)
@given(st.binary(max_size=60))
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    try:
        read_request(data)
    except DecodeError:
        pass


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_message_that_is_cut_off_is_refused(cut: int) -> None:
    whole = pb.ModelInferRequest(raw_input_contents=[bytes(300)]).SerializeToString()
    with pytest.raises(DecodeError):
        read_request(whole[:-cut])


def test_raw_contents_are_views_of_what_came() -> None:
    data = pb.ModelInferRequest(raw_input_contents=[bytes(300)]).SerializeToString()
    (view,) = read_request(data).raw
    assert view.obj is data

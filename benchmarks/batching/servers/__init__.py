"""The MiniLM file behind each peer, as its documentation says for batches. Each runs in an environment of its own,
which has the peer, numpy and ONNX Runtime, and nothing of Headrace."""

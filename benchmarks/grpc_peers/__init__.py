"""Python gRPC servers that Headrace is measured beside: each reads the same engine's stream and answers with a
message a token, on ``grpc.aio`` and uvloop. None keeps a log, asks for a key or runs hooks.

``plain``   the plainest servicer there can be, with the messages of ``headrace.v1``
``vllm``    as vLLM's: its own messages, and a collector a request between the engine's task and the servicer
``triton``  as Triton's decoupled models: ``ModelStreamInfer``, a queue of responses a stream

They run in an environment of their own (``benchmarks.peers.GRPC``):

    python -m benchmarks.grpc_peers NAME serve PORT ENGINE_PORT
    python -m benchmarks.grpc_peers NAME message TOKENS < PROMPT > MESSAGE
"""

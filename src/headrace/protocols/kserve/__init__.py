"""KServe V2, the Open Inference Protocol, with the extensions of Triton: tensors by name over HTTP, gRPC and shared
memory. https://github.com/kserve/open-inference-protocol"""

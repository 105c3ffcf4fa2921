"""``headrace.v1`` over gRPC, gRPC-Web and Connect. Needs ``headrace[grpc]``; imported only where it is asked for."""

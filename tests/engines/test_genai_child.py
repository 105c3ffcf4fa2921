from __future__ import annotations

import socket
import threading

from headrace.engines.genai_child import accepted


def test_only_who_knows_the_key_gives_orders() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    place = listening.getsockname()
    found: list[socket.socket] = []
    waiting = threading.Thread(target=lambda: found.append(accepted(listening, "key")))
    waiting.start()
    for wrong in (b"kex\n", b"key ", b""):
        with socket.create_connection(place) as stranger:
            stranger.sendall(wrong)
            stranger.shutdown(socket.SHUT_WR)
            assert stranger.recv(1) == b""
    with socket.create_connection(place) as server:
        server.sendall(b"key\nmore")
        waiting.join(5)
        (connection,) = found
        assert connection.recv(9) == b"more"
        connection.close()
    assert listening.fileno() == -1  # nobody else is listened to

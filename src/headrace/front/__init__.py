"""How do bytes get in and out? HTTP/1.1 and HTTP/2 servers behind one port, :class:`Exchange`.
Knows no protocol above HTTP."""

"""The server as users start it, but for one thing: it carries out the kills that the campaign orders at
exact moments (see ``moments.py``).

usage: python -m tests.kill.falling_server ORDERS_FOLDER headrace-arguments…
"""

from __future__ import annotations

import sys
from pathlib import Path

from headrace.cli.main import main
from tests.kill.moments import watch_appends

if __name__ == "__main__":
    watch_appends(Path(sys.argv.pop(1)))
    main()

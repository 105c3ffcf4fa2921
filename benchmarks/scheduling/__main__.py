"""``python -m benchmarks.scheduling COMMAND``: who runs when, simulated.

check        does the model agree with what was measured on a GPU? Ends with 1 if not
a10g         the policies on the measured trace
overload     the policies on traces of Azure, Mooncake and ServeGen at 1, 1.5 and 3 times the capacity
isolation    what one tenant's load does to the others
sensitivity  fair-headroom with other settings, and with predictions that are wrong
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.scheduling import a10g, isolation, overload, sensitivity


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.scheduling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "command", choices=("check", "a10g", "overload", "isolation", "sensitivity")
    )
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="the traces' folder"
    )
    parser.add_argument(
        "--traces", nargs="+", choices=tuple(overload.TRACES), default=tuple(overload.TRACES)
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    data: Path = args.data
    if args.command == "check":
        sys.exit(0 if a10g.check(data) else 1)
    elif args.command == "a10g":
        a10g.compare(data)
    elif args.command == "overload":
        overload.compare(data, args.traces)
    elif args.command == "isolation":
        isolation.compare(data)
    else:
        sensitivity.compare(data)


if __name__ == "__main__":
    main()

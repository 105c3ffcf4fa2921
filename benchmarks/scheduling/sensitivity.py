from pathlib import Path


def compare(data: Path) -> None: ...

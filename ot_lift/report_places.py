"""Where results may go, checked before long work: nobody's files are replaced, and nothing fails at the end."""

from __future__ import annotations

import json
from pathlib import Path

from ot_lift.brenier import BrenierMap
from ot_lift.errors import DataError

__all__ = ["REPORT_FILES", "REPORT_FORMAT", "check_map_folder", "check_report_folder"]

REPORT_FORMAT = "ot-lift report"
REPORT_FILES = {"csv": "methods.csv", "json": "report.json", "markdown": "report.md", "page": "report.html"}


def check_map_folder(folder: str | Path) -> Path:
    """Refuse a place that `BrenierMap.save` would refuse.

    Args:
        folder: may exist or not.

    Returns:
        Its absolute path.

    Raises:
        DataError: It is a file, or a folder that holds something else than an earlier map.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     _ = Path(place, "letter.txt").write_text("Dear all")
        ...     try:
        ...         check_map_folder(place)
        ...     except DataError as error:
        ...         print(str(error).split(": ")[-1])
        choose another place
    """
    place = Path(folder).resolve()
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return place
    try:
        BrenierMap.load(place)
    except DataError as error:
        raise DataError(
            f"expected nothing or an earlier map at {place}, got something else: choose another place"
        ) from error
    return place


def check_report_folder(folder: str | Path) -> Path:
    """Refuse a folder in which a report would replace files that are not a report's.

    Args:
        folder: may exist or not; other files in it are left alone.

    Returns:
        Its absolute path.

    Raises:
        DataError: It is a file, or files of a report's names in it are not a report's.
    """
    place = Path(folder).resolve()
    if place.exists() and not place.is_dir():
        raise DataError(f"expected a folder or nothing at {place}, got a file: choose another place")
    taken = [name for name in REPORT_FILES.values() if (place / name).exists()]
    if taken and not _is_report(place / REPORT_FILES["json"]):
        raise DataError(
            f"expected an empty folder or an earlier report at {place}, got a {taken[0]} of something else: choose "
            "another place"
        )
    return place


def _is_report(path: Path) -> bool:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("format") == REPORT_FORMAT

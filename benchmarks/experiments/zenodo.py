"""Fetch the published tabular sets once: `python -m benchmarks.experiments.zenodo FOLDER`, then `run tabular --data`.

They are one archive of 817 MB, Zenodo's record 1161203 (Papamakarios 2018). It is checked against the MD5 that the
record states. Its pickle is left in it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tarfile
import urllib.request
from pathlib import Path

from benchmarks.experiments.published import PUBLISHED
from ot_lift.errors import DataError

RECORD = "https://zenodo.org/api/records/1161203"
ARCHIVE = "data.tar.gz"
_CHUNK, _TIMEOUT = 1 << 20, 60.0


def fetch(folder: Path, *, record: str = RECORD) -> list[str]:
    """Download what the folder lacks and unpack it.

    Args:
        folder: Created if need be; an archive that is there already and has the right sum is not fetched again.
        record: Address of the record's description.

    Returns:
        The files of sets that the folder has then, below it.

    Raises:
        DataError: There is no network, or what came is something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with urllib.request.urlopen(record, timeout=_TIMEOUT) as answer:
            entry = next(one for one in json.load(answer)["files"] if one["key"] == ARCHIVE)
        address, (kind, _, expected) = entry["links"]["self"], entry["checksum"].partition(":")
        if not (folder / ARCHIVE).exists() or checksum(folder / ARCHIVE, kind) != expected:
            _download(address, folder / ARCHIVE)
    except OSError as error:
        raise DataError(
            f"cannot reach {record} ({error}): fetch {ARCHIVE} where there is a network, and unpack it in {folder}"
        ) from error
    except (KeyError, StopIteration, ValueError) as error:
        raise DataError(f"expected a record with {ARCHIVE} and its checksum at {record}, got something else") from error
    if (found := checksum(folder / ARCHIVE, kind)) != expected:
        raise DataError(f"expected {kind} {expected} of {folder / ARCHIVE}, got {found}: remove it and try again")
    unpack(folder / ARCHIVE, folder)
    return [file for one in PUBLISHED.values() for file in one.files if (folder / file).exists()]


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the files of the sets, and no others, without the archive's own top folder."""
    wanted = {file for one in PUBLISHED.values() for file in one.files}
    with tarfile.open(archive) as packed:
        for member in packed:
            place = member.name.removeprefix("./").removeprefix("data/")
            if member.isfile() and place in wanted:
                packed.extract(member.replace(name=place), folder, filter="data")


def checksum(path: Path, kind: str) -> str:
    """Of a file, in hexadecimal digits.

    Args:
        path: Of the file.
        kind: "md5", "sha256" or another that `hashlib` knows.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def _download(address: str, path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    with urllib.request.urlopen(address, timeout=_TIMEOUT) as answer, part.open("wb") as file:
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
    part.replace(path)


def main() -> None:
    """Fetch into the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    try:
        for file in fetch(parser.parse_args().folder):
            print(file)
    except DataError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()

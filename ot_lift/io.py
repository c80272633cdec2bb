"""Files that are complete or absent: a saved folder of tensors and settings, and atomic single files.

A saved folder holds `config.json`, `tensors.safetensors` and `manifest.json`, which names the format version,
the kind of object, and the size and SHA-256 of the other two. Nothing in it is a pickle or a zip.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import safetensors.torch
from torch import Tensor

from ot_lift.errors import DataError

__all__ = ["FORMAT_VERSION", "atomic_file", "is_saved", "joined", "load_folder", "part", "save_folder"]

FORMAT_VERSION = 1
_FORMAT = "ot-lift"
_MANIFEST, _CONFIG, _TENSORS = "manifest.json", "config.json", "tensors.safetensors"
_STALE_SECONDS = 3600.0  # a temporary folder this old was left by a killed process


# ------------------------------------------------------------------------------------------ saving
def save_folder(
    path: str | os.PathLike[str], *, kind: str, config: dict[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write settings and tensors as a folder, all of it or nothing.

    The files are written and flushed to disk in a temporary folder beside `path`, which then takes its
    place. A process killed at any moment leaves the earlier folder or the new one (`load_folder` finds
    the earlier one even between the two renames). One process at a time may save to a path.

    Args:
        path: The folder; missing parents are created. An existing one is replaced only if it is empty
            or holds nothing but an earlier save.
        kind: What the folder holds, as `load_folder` will ask for it.
        config: JSON values: dicts with string keys, lists, strings, numbers (also NaN and infinities),
            booleans, None. Tuples become lists, NumPy scalars numbers.
        tensors: Named tensors of any dtype and device; they come back on the CPU.

    Raises:
        DataError: Something else is in the way, or the place cannot be written.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as place:
        ...     save_folder(f"{place}/map", kind="demo", config={"steps": 3}, tensors={"w": torch.eye(2)})
        ...     config, tensors = load_folder(f"{place}/map", kind="demo")
        >>> config, tensors["w"].sum().item()
        ({'steps': 3}, 2.0)
    """
    target = Path(path).resolve()
    contents = {
        _CONFIG: _json_bytes(_encode(config)),
        _TENSORS: safetensors.torch.save(
            {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        ),
    }
    contents[_MANIFEST] = _json_bytes(_sealed_manifest(kind, contents))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _tidy(target)
        _refuse_foreign(target)
        partial = target.parent / f".{target.name}.{secrets.token_hex(8)}.partial"
        try:
            partial.mkdir()
            for name, content in contents.items():
                with open(partial / name, "xb") as file:
                    file.write(content)
                    _flush(file)
            _flush_folder(partial)
            _swap_in(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise _unwritable(target, error) from error


def _encode(value: Any) -> Any:
    """JSON has no NaN and no infinity: {"$float": "nan"} stands for them."""
    if isinstance(value, dict):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    if hasattr(value, "dtype") and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    return value


def _decode(pairs: dict[str, Any]) -> Any:
    return float(pairs["$float"]) if pairs.keys() == {"$float"} else pairs


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _sealed_manifest(kind: str, contents: Mapping[str, bytes]) -> dict[str, Any]:
    files = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }
    manifest = {"format": _FORMAT, "version": FORMAT_VERSION, "kind": kind, "files": files}
    return manifest | {"seal": _seal(manifest)}


def _seal(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of everything in the manifest but the seal itself."""
    body = {key: value for key, value in manifest.items() if key != "seal"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _replaced(target: Path) -> Path:
    """Where the earlier folder waits between the two renames of a save."""
    return target.parent / f".{target.name}.replaced"


def _tidy(target: Path) -> None:
    """Finish or undo what a killed save of the same path has left."""
    replaced = _replaced(target)
    if replaced.exists() and not target.exists():
        os.rename(replaced, target)
    shutil.rmtree(replaced, ignore_errors=True)
    for partial in target.parent.glob(f".{_literal(target.name)}.*.partial"):
        with suppress(OSError):
            if time.time() - partial.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(partial, ignore_errors=True)


def _literal(name: str) -> str:
    """`name` for a glob that matches nothing else."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _refuse_foreign(target: Path) -> None:
    """Raise unless `target` is absent, empty, or nothing but an earlier folder of ours."""
    if not target.exists():
        return
    if not target.is_dir():
        raise DataError(f"expected a folder or nothing at {target}, got a file: choose another path")
    names = {entry.name for entry in target.iterdir()}
    if not names:
        return
    foreign = sorted(names - {_MANIFEST, _CONFIG, _TENSORS})
    if foreign or _MANIFEST not in names or not _is_ours(target):
        got = f"other files ({', '.join(foreign[:3])})" if foreign else "files that ot-lift did not write"
        raise DataError(f"expected an empty folder or an earlier save at {target}, got {got}: choose another path")


def _is_ours(target: Path) -> bool:
    try:
        manifest = json.loads((target / _MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("format") == _FORMAT


def _swap_in(partial: Path, target: Path) -> None:
    """Put the finished folder in place; the earlier one comes back if that fails."""
    replaced = _replaced(target)
    if target.exists():
        os.rename(target, replaced)
    try:
        os.rename(partial, target)
    except BaseException:
        if replaced.exists():
            os.rename(replaced, target)
        raise
    _flush_folder(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _unwritable(target: Path, error: OSError) -> DataError:
    reason = error.strerror or str(error)
    return DataError(f"expected to be able to write {target}, got {reason!r}: choose another path or make room there")


# ------------------------------------------------------------------------------------------ loading
def is_saved(path: str | os.PathLike[str]) -> bool:
    """Whether `load_folder` has something to read at a path: also where a save was killed between its two renames."""
    target = Path(path).resolve()
    return target.exists() or _replaced(target).is_dir()


def load_folder(path: str | os.PathLike[str], *, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a folder that `save_folder` wrote, after checking every byte of it.

    Args:
        path: The folder.
        kind: What it must hold.

    Returns:
        The settings and the tensors, on the CPU.

    Raises:
        DataError: The folder is missing, foreign, damaged, of another kind, or of a newer format.
    """
    target = Path(path).resolve()
    if not target.exists() and _replaced(target).is_dir():
        target = _replaced(target)  # a save was killed between its two renames
    if not target.is_dir():
        got = "a file" if target.exists() else "nothing"
        raise DataError(f"expected a saved {kind} folder at {target}, got {got} there: check the path")
    manifest = _read_manifest(target, kind)
    contents = {name: _read_checked(target, name, manifest["files"][name]) for name in (_CONFIG, _TENSORS)}
    try:
        config = json.loads(contents[_CONFIG], object_hook=_decode)
        tensors = safetensors.torch.load(contents[_TENSORS])
    except (ValueError, safetensors.SafetensorError) as error:
        raise _damaged(target, f"contents that cannot be read ({error})") from error
    return config, tensors


def _read_manifest(target: Path, kind: str) -> dict[str, Any]:
    """The manifest, once it is known to be whole, of this format and of this kind."""
    try:
        content = (target / _MANIFEST).read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            f"expected a folder saved by ot-lift at {target}, got one without {_MANIFEST}: check the path"
        ) from error
    except OSError as error:
        raise _damaged(target, f"a {_MANIFEST} that cannot be read ({error.strerror})") from error
    try:
        manifest = json.loads(content)
    except ValueError as error:
        raise _damaged(target, f"a {_MANIFEST} that is not JSON") from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise DataError(
            f"expected a folder saved by ot-lift at {target}, got a {_MANIFEST} of something else: check the path"
        )
    version = manifest.get("version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise DataError(
            f"expected format version {FORMAT_VERSION} or older at {target}, got {version}: it was written "
            "by a newer ot-lift; upgrade with pip install -U ot-lift"
        )
    if manifest.get("seal") != _seal(manifest) or version != FORMAT_VERSION:
        raise _damaged(target, f"a {_MANIFEST} that has been changed")
    if manifest["kind"] != kind:
        raise DataError(
            f"expected a saved {kind} at {target}, got a saved {manifest['kind']}: load it with the class that saved it"
        )
    return manifest


def _read_checked(target: Path, name: str, record: Mapping[str, Any]) -> bytes:
    try:
        content = (target / name).read_bytes()
    except OSError as error:
        raise _damaged(target, f"no readable {name}") from error
    if len(content) != record["bytes"]:
        raise _damaged(target, f"a {name} of {len(content)} bytes instead of {record['bytes']}")
    if hashlib.sha256(content).hexdigest() != record["sha256"]:
        raise _damaged(target, f"a {name} that differs from its checksum")
    return content


def _damaged(target: Path, got: str) -> DataError:
    return DataError(
        f"expected a whole folder saved by ot-lift at {target}, got {got}: it is damaged or was copied "
        "incompletely; copy or save it again"
    )


# ------------------------------------------------------------------------------------- single files
@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a binary file that appears at `path` only when the block ends without an exception.

    Args:
        path: The file; missing parents are created, an existing file is replaced.

    Yields:
        A temporary file in the same folder, open for writing and reading.

    Raises:
        DataError: The place cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     with atomic_file(f"{place}/note.txt") as file:
        ...         _ = file.write(b"whole")
        ...     print(Path(place, "note.txt").read_text())
        whole
    """
    target = Path(path).resolve()
    partial = target.parent / f".{target.name}.{secrets.token_hex(8)}.partial"
    try:
        if target.is_dir():
            raise IsADirectoryError(None, "there is a folder of that name")
        target.parent.mkdir(parents=True, exist_ok=True)
        file = open(partial, "x+b")  # noqa: SIM115 — closed below, before the rename
    except OSError as error:
        raise _unwritable(target, error) from error
    try:
        with file:
            yield file
            with writing(target):
                _flush(file)
        with writing(target):
            os.replace(partial, target)
        _flush_folder(target.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def writing(target: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an `OSError` of the block, such as a full disk, into a `DataError` that names `target`."""
    try:
        yield
    except OSError as error:
        raise _unwritable(Path(target), error) from error


def joined(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Named tensors of several owners as one mapping, names prefixed by the owner's and a dot.

    Example:
        >>> import torch
        >>> list(joined({"a": {"x": torch.zeros(1)}, "b": {"x": torch.zeros(1)}}))
        ['a.x', 'b.x']
    """
    return {f"{owner}.{name}": tensor for owner, tensors in parts.items() for name, tensor in tensors.items()}


def part(tensors: Mapping[str, Tensor], owner: str) -> dict[str, Tensor]:
    """The tensors of one owner of :func:`joined`, by their own names.

    Example:
        >>> import torch
        >>> list(part({"a.x": torch.zeros(1), "b.x": torch.zeros(1)}, "a"))
        ['x']
    """
    prefix = f"{owner}."
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

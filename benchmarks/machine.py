"""What the machine was doing while something was timed: a core waited for, and other programs beside it."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.record import machine, revision

WAITED_SHARE = 0.05  # of the wall time, for a core that others had; more than that is contention
OTHERS_SHARE = 0.10  # of all cores, by other programs; more than that is contention
_PEERS = ("scikit-learn", "zuko", "jax", "numpyro", "ott-jax")  # whose versions records have, where they are installed
_LEAST_SECONDS = 0.2  # the machine's clock ticks every hundredth: shares of less time say nothing


@dataclass(frozen=True)
class Usage:
    """Time of this process and of the machine between two moments.

    Attributes:
        wall_seconds: by the clock.
        cpu_seconds: of this process, all threads.
        waited_share: time its threads stood ready without a core, over the wall time; None where that is under 0.2 s,
            and without Linux.
        others_share: cores that other programs kept busy, over all cores; None likewise.
    """

    wall_seconds: float
    cpu_seconds: float
    waited_share: float | None
    others_share: float | None

    @property
    def contended(self) -> bool:
        """Whether something else slowed this process down, as far as the system tells.

        Its own threads wait for one another where they are more than the cores: waiting counts no further than other
        programs were at work.

        Example:
            >>> Usage(2.0, 1.9, 0.01, 0.5).contended, Usage(2.0, 1.9, 0.3, 0.01).contended
            (True, False)
        """
        others, waited = self.others_share, self.waited_share or 0.0
        if others is None:
            return waited > WAITED_SHARE
        return others > OTHERS_SHARE or min(waited, others * (os.cpu_count() or 1)) > WAITED_SHARE


@dataclass(frozen=True)
class Moment:
    """The clocks at one moment.

    Example:
        >>> usage = Moment.now().until_now()
        >>> usage.wall_seconds >= 0 and usage.cpu_seconds >= 0
        True
    """

    wall: float
    cpu: float
    waited: float | None
    busy: float | None

    @classmethod
    def now(cls) -> Moment:
        """Read the clocks."""
        return cls(time.perf_counter(), time.process_time(), _waited_seconds(), _busy_seconds())

    def until_now(self, child_cpu: float | None = None) -> Usage:
        """What has passed since.

        Args:
            child_cpu: CPU seconds of a child that did the work, where this process only waited for it.
        """
        now = Moment.now()
        wall, cpu = now.wall - self.wall, now.cpu - self.cpu + (child_cpu or 0.0)
        waited = others = None
        if child_cpu is None and wall >= _LEAST_SECONDS and now.waited is not None and self.waited is not None:
            waited = max(0.0, now.waited - self.waited) / wall
        if wall >= _LEAST_SECONDS and now.busy is not None and self.busy is not None:
            others = max(0.0, now.busy - self.busy - cpu) / (wall * (os.cpu_count() or 1))
        return Usage(wall, cpu, waited, others)


def _waited_seconds() -> float | None:
    """Seconds that this process' living threads were ready to run and had no core."""
    waited = []
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            waited.append(int(path.read_text(encoding="ascii").split()[1]) / 1e9)
    return sum(waited) if waited else None


def cpu_seconds_of(process: int) -> float | None:
    """CPU seconds of another process, by its id; None where the system does not tell.

    Example:
        >>> cpu_seconds_of(-1) is None
        True
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        words = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    return None


def _busy_seconds() -> float | None:
    """Seconds that all cores together have been at work."""
    with contextlib.suppress(OSError, ValueError):
        numbers = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
        user, nice, system, _idle, _waiting_for_disks, *interrupts = numbers
        return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
    return None


@functools.cache
def here() -> dict[str, Any]:
    """Machine and versions as records have them, with the code's revision; read once in a process."""
    return {"machine": machine() | {"peers": _peer_versions()}, "revision": revision()}


def _peer_versions() -> dict[str, str]:
    found = {}
    for name in _PEERS:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found

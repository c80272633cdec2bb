"""Seconds that JAX compiles for, as JAX itself tells them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_EVENTS = ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration")


class CompileClock:
    """Counts while a block of `counting` runs.

    Attributes:
        seconds: so far; tracing of Python functions is not among them.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def heard(self, event: str, duration: float, **_: Any) -> None:
        """Called by JAX.

        Example:
            >>> clock = CompileClock()
            >>> clock.heard(_EVENTS[0], 0.5)
            >>> clock.heard("/jax/another", 9.0)
            >>> clock.seconds
            0.5
        """
        if event in _EVENTS:
            self.seconds += duration


@contextmanager
def counting() -> Iterator[CompileClock]:
    """A clock of what is compiled in the block, in float64; JAX's global settings stay as they are."""
    jax: Any = importlib.import_module("jax")
    monitoring: Any = importlib.import_module("jax.monitoring")
    clock = CompileClock()
    monitoring.register_event_duration_secs_listener(clock.heard)
    try:
        with jax.enable_x64(True):
            yield clock
    finally:
        monitoring.unregister_event_duration_listener(clock.heard)

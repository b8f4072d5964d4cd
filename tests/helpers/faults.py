"""A machine that refuses: the n-th call of the system that touches some folder fails with an error of one's choice."""

import builtins
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CALLS = ("open", "replace", "rename", "mkdir", "unlink", "scandir", "stat")


class Machine:
    """Counts the calls that touch `folder`, and fails the one with the number `at` (0: none)."""

    def __init__(self, folder: Path, at: int, number: int, calls: tuple[str, ...] = CALLS) -> None:
        self.folder, self.at, self.number, self.calls = str(folder), at, number, calls
        self.count = 0

    def run(self, monkeypatch: pytest.MonkeyPatch, work: Callable[[], Any]) -> Any:
        """What `work` gives on this machine."""
        with monkeypatch.context() as patch:
            for name in self.calls:
                patch.setattr(os, name, self._wrapped(getattr(os, name)))
            if "open" in self.calls:
                for module in (builtins, io):
                    patch.setattr(module, "open", self._wrapped(open))
            return work()

    def _wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(path: Any, *rest: Any, **named: Any) -> Any:
            if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.folder):
                self.count += 1
                if self.count == self.at:
                    raise OSError(self.number, os.strerror(self.number), os.fspath(path))
            return call(path, *rest, **named)

        return wrapped

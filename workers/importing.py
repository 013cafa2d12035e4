"""Modules and workers: what a worker can import, and what must not happen while it does."""

from __future__ import annotations

import functools
import os
import sys
from types import FrameType
from typing import Any

from workers.errors import PoolError

worker_name: str | None = None
"""Name of the worker that this process is."""


def check_no_import() -> None:
    """Pass unless a process that was started to work is importing a module that makes a pool.

    Raises:
        PoolError: it is; each worker of that pool would import the module again.
    """
    advice = (
        "make the pool in a function, or under if __name__ == '__main__', or keep what is imported"
        " in a module of its own"
    )
    for library in ("multiprocessing.process", "multiprocess.process"):
        process = sys.modules.get(library)
        if process and getattr(process.current_process(), "_inheriting", False):
            raise PoolError(f"the script makes a pool, and multiprocessing imports it: {advice}")
    if worker_name is not None and (module := _module_being_imported()):
        raise PoolError(
            f"the module {module} makes a pool when it is imported, and the worker {worker_name}"
            f" imports it for its handler: {advice}"
        )


def _module_being_imported() -> str | None:
    module = None
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and module is None:
            module = frame.f_globals.get("__name__")
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return module
        frame = frame.f_back
    return None


def is_named(obj: Any) -> bool:
    """Whether a worker finds this very object under its module and name."""
    module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    if name is None:
        name = getattr(obj, "__name__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        return False
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is obj and is_importable(module)


def is_importable(name: str) -> bool:
    """Whether a worker can import the module, which this process has imported."""
    top = name.partition(".")[0]
    if top == "__main__":
        return False
    return name in sys.modules and _is_found(top, id(sys.modules.get(top)))


@functools.lru_cache(maxsize=4096)
def _is_found(top: str, _: int) -> bool:
    """Whether the finders, which workers have too, find the module that is loaded here."""
    loaded = sys.modules.get(top)
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(top, None)
        except Exception:  # noqa: BLE001 - somebody's finder; the worker will see
            return True
        if spec is not None:
            return _is_same_file(getattr(loaded, "__file__", None), spec.origin)
    return False


def _is_same_file(loaded: str | None, found: str | None) -> bool:
    """Whether both are one file; what is no file is what it says."""
    if loaded is None or (found is not None and not os.path.isabs(found)):  # such as "frozen"
        return True
    try:
        return found is not None and os.path.samefile(loaded, found)
    except OSError:  # in an archive, or deleted
        return True

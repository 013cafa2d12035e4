"""CRC-32C, the checksum of all stored formats.

The compiled module of the package `crc32c` is loaded alone: the package itself imports what its
command line needs (`argparse`, `importlib.metadata`), a sixth of what a process pays to open a log.
"""

from __future__ import annotations

from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from typing import TYPE_CHECKING, Any

__all__ = ["crc32c"]


def _compiled_module() -> ModuleSpec | None:
    """The compiled module of the package, if both lie in folders, as they usually do."""
    package = PathFinder.find_spec("crc32c")
    if package is None or package.submodule_search_locations is None:
        return None
    return PathFinder.find_spec("crc32c._crc32c", package.submodule_search_locations)


def _load() -> Any:
    spec = _compiled_module()
    if spec is None or spec.loader is None:
        from crc32c import crc32c

        return crc32c
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.crc32c


if TYPE_CHECKING:
    from crc32c import crc32c
else:
    crc32c = _load()

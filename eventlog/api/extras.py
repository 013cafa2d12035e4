"""Extras: what they bring, and what says how to install one that is missing."""

from __future__ import annotations

from typing import Final

from eventlog.errors import NotSupported

_ARROW: Final = {"pyarrow": "pyarrow", "numpy": "numpy"}
EXTRAS: Final[dict[str, dict[str, str]]] = {
    "arrow": _ARROW,
    "eventsourcing": {"eventsourcing": "eventsourcing"},
    "jetstream": {"nats": "nats-py"},
    "kafka": {"confluent_kafka": "confluent-kafka"},
    "metrics": {"prometheus_client": "prometheus-client"},
    "opentelemetry": {"opentelemetry.trace": "opentelemetry-api"},
    "pandas": {"pandas": "pandas", **_ARROW},
    "polars": {"polars": "polars", **_ARROW},
    "query": {"duckdb": "duckdb", **_ARROW},
    "redis": {"coredis": "coredis", "hiredis": "hiredis"},
    "top": {"textual": "textual"},
    "ui": {"starlette": "starlette", "anycorn": "anycorn"},
}
"""The modules of each extra that are imported, and the package that each of them comes with."""


def check_extra(extra: str, purpose: str, engine: str | None = None) -> None:
    """Pass if all that an extra brings is installed; the purpose is said as "tables need".

    Raises:
        NotSupported: some of it is not; it says how to install it.
    """
    for module, package in EXTRAS[extra].items():
        if not _is_installed(module):
            raise NotSupported(
                f"{purpose} {package}: pip install 'eventlog[{extra}]'", engine=engine, option=extra
            )


def _is_installed(module: str) -> bool:
    from importlib.util import find_spec  # importing eventlog loads little

    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package around it is
        return False

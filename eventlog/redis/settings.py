"""What the server is set to, and what of it no log can live with."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from eventlog.config import AskedOptions, Durability, LogOptions
from eventlog.errors import NotSupported, PermissionDenied, StorageFailed
from eventlog.redis.link import Link

ENGINE: Final = "redis"
VERSION_MIN: Final = (7, 0)
_LEVELS: Final[tuple[Durability, ...]] = ("memory", "disk", "sync")


async def options_on(link: Link, asked: AskedOptions, path: str) -> LogOptions:
    """The options of a log on this server; its durability is the server's, unless less was asked.

    Raises:
        NotSupported: the server is too old, or deletes events of its own, or is less durable than
            was asked for; naming the setting.
    """
    facts = _facts_of(await link.call(b"INFO"))
    version = facts.get("redis_version", "0.0")
    if tuple(map(int, version.split(".")[:2])) < VERSION_MIN:
        raise NotSupported(
            f"the server of {path} is of version {version}; {'.'.join(map(str, VERSION_MIN))} or"
            " newer is needed",
            path=path,
            engine=ENGINE,
        )
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and facts.get("maxmemory", "0") != "0":
        raise NotSupported(
            f"the server of {path} deletes keys when its memory is full (maxmemory-policy"
            f" {policy}); set maxmemory-policy noeviction",
            path=path,
            engine=ENGINE,
        )
    durability = await _durability(link, facts)
    if asked.durability and _LEVELS.index(asked.durability) > _LEVELS.index(durability):
        raise NotSupported(
            f"durability={asked.durability!r} is more than the server of {path} is set to: it needs"
            f" appendonly yes{' and appendfsync always' if asked.durability == 'sync' else ''}",
            path=path,
            engine=ENGINE,
            option="durability",
        )
    return replace(LogOptions.of(asked), durability=asked.durability or durability)


async def _durability(link: Link, facts: dict[str, str]) -> Durability:
    if facts.get("aof_enabled") != "1":
        return "memory"
    try:
        answer = await link.call(b"CONFIG", b"GET", b"appendfsync")
    except (PermissionDenied, StorageFailed):
        return "disk"  # not ours to ask; "everysec" is what a server has by itself
    setting = dict(answer).get(b"appendfsync", b"everysec")
    return {b"always": "sync", b"everysec": "disk"}.get(setting, "memory")  # type: ignore[return-value]


def _facts_of(info: bytes) -> dict[str, str]:
    lines = info.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)

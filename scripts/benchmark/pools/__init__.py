"""Pools that hand work to processes: one module for each."""

from __future__ import annotations

from benchmark.pools.base import PoolSystem
from benchmark.pools.executor import Executor
from benchmark.pools.log_pool import LogPool
from benchmark.pools.loky_executor import LokyExecutor
from benchmark.pools.multiprocessing_pool import MultiprocessingPool, MultiprocessPool
from benchmark.pools.redis_group import RedisGroup
from benchmark.pools.trio_parallel_pool import TrioParallelPool

ONE_AT_A_TIME: tuple[type[PoolSystem], ...] = (
    Executor,
    MultiprocessingPool,
    MultiprocessPool,
    LokyExecutor,
    TrioParallelPool,
)
"""Peers that are handed one event at a time, and store nothing."""
ALL: tuple[type[PoolSystem], ...] = (LogPool, *ONE_AT_A_TIME, RedisGroup)

"""The demonstration: real files through a log to CPU-bound consumers and a pool; some are killed.

=============  ==========================================================
`parser`       what runs in a consumer process: light, no trio
`shared`       the pool, and what runs in its workers
`main_job`     the job: files in, processes, the kills, the checks
`measure`      the figures of `eventlog bench`
=============  ==========================================================

The one part of this package that uses `workers`.
"""

"""The demonstration: real files through a log to CPU-bound consumers, one of which is killed.

=============  ==========================================================
`parser`       what runs in a consumer process: light, no trio
`main_job`     the job: files in, processes, the kill, the checks
=============  ==========================================================
"""

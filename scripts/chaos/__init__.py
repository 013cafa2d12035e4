"""`scripts/soak`: everything fails at once, and an auditor proves that nothing came of it.

=============  ====================================================================
`cli`          the command line
`keeping`      keeps the roles running, and has the pools handle what is left
`engine_soak`  the same over a server, which is killed, stopped and cut off
`soak`         starts the roles, lets faults happen, and audits at the end
`roles`        what runs in processes of its own: producers, consumers, pools
`records`      what each role writes down of what it saw, beside the log
`faults`       kills, stops, garbage, clients that do not read, full file systems
`flatness`     memory, descriptors, maps and processes, looked at now and then
`audit`        the log against the records: lost, doubled, reordered, skipped
=============  ====================================================================
"""

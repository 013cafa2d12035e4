"""Any bytes at all, for everything that reads bytes: pipes, files of a log, imported files.

==============  ===================================================================
`targets`       what is given bytes, and what must hold whatever they are
`seeds`         the bytes to begin with: every message, every file of the kept logs
`corpus`        inputs kept for good, a file in `corpus/` for each target: small ones that together
                reach all the code that fuzzing found a way into, and any that broke a promise
`one`           fuzzes one target with atheris, in a process of its own
`long`          all targets in turn, and keeps what is new (`scripts/fuzz`)
`test_corpus`   in the gate: the whole corpus, and each input changed at random
==============  ===================================================================
"""

"""What is checked before a release: what is in the packages, and that the wheel works.

===========  =================================================================
`cli`        the steps, one after the other
`contents`   what has to be in wheel and sdist, and what must not; pure
`pythons`    which Pythons are there
`tryout`     the wheel in an environment of its own: programs, commands, suite
===========  =================================================================
"""

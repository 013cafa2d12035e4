"""What every engine over a server has in common: a log over a driver.

::

    program -> RemoteEventLog (this package) -> Driver (one folder for each engine) -> server

The shell checks arguments, packs and unpacks events, repeats calls while nobody answers, and makes
batches for publishers. The driver speaks with the server: each stored message is one event, and its
number is the server's own.
"""

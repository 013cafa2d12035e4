"""Statements of SQL about the events of a log, by DuckDB, which only reads.

==========  ==================================================================
`database`  a database whose only table is `events`; it touches nothing else
`limits`    the range of events that a statement can need at most; pure
==========  ==================================================================

It needs duckdb and pyarrow, and so is imported only by what uses it.
"""

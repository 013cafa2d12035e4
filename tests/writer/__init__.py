"""Tests of the writer: its process, its end by force, and what clients do to it."""

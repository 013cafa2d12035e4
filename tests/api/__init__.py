"""Tests of what a log is to its users, and of what stands on that."""

"""Tests of what is said on a pipe."""

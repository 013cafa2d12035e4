"""Tests of a client's part of a log."""

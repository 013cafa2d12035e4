"""Tests of the commands `eventlog` and `workers`."""

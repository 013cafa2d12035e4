"""Tests of events and their bytes."""

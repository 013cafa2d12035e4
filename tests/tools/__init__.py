"""Tests of backup, repair, export and the like."""

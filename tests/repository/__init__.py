"""Tests of the repository itself: its layers, prose, examples, scripts and benchmark."""

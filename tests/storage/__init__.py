"""Tests of what lies in a log's directory."""

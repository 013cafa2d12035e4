"""Pools of real worker processes, with handlers that leave a record of what they did."""

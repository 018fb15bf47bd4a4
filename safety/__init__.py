"""Limits, filter, watchdogs and stop states: the last thing before the motors."""

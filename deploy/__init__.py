"""Starts, supervises and drives the parts: embedded stores, worker processes, command line."""

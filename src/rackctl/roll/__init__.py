"""Rolls: every old instance of a rack replaced, whatever makes it old."""

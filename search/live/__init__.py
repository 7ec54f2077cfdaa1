"""Watching a search in a terminal."""

"""Searchers: what is tried next."""

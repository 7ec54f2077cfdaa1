"""Schedulers: when a trial stops, pauses or goes on."""

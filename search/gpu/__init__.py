"""Measures a GPU: its limits, the memory that a trial takes, and each task on it. No module here imports Ray."""

"""The configuration of a search: its settings, its space, what YAML files and `--set` may say.

Nothing here knows what a search does with it.
"""

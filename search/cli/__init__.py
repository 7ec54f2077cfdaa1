"""The command line: commands, flags, exit codes.

What a command sets in motion is in `session.py` and the rooms below it.
"""

from search.cli.app import main as main

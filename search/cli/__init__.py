"""The command line: commands, options, exit codes. A command calls the library and prints what it returns."""

from search.cli.app import main as main

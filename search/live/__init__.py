"""What a terminal or a notebook shows: the live table, lines of a log, tables that fit the width."""

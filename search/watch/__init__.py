"""The live page of a search, served on this machine alone."""

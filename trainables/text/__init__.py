"""Code that the text tasks share: tables, duplicates, encoders, networks, scores, reports."""

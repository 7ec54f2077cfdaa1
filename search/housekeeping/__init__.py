"""Keeps a store in order: lists, deletes and renames searches, frees disk space. No function prints."""

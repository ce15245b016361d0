"""Codes images as bytes, and decodes them."""

SUFFIX = ".fahj"
"""Suffix of the names of compressed files."""

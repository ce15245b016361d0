"""Codes images as bytes, and decodes them."""

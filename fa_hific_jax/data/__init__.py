"""Reads images from files, packed shards and procedures, and makes training batches with Grain."""

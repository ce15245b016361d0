"""Images from files, packages and procedures to batches, through Grain."""

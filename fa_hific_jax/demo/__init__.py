"""A page in the browser on which a model codes dropped images."""

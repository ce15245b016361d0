"""A model at work on a user's own images: a web page, and a comparison with other codecs."""

"""Rate and quality of a trained model, beside classical codecs, as JSON and as a page."""

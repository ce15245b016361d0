"""A web page on which a model codes the images that a visitor drops."""

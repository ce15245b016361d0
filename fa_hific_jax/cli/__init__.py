"""The commands of `fa-hific`: one module for each, and `main`, which runs them."""

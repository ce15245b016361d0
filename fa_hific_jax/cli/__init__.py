"""The commands of `fa-hific`, one module each, and `main` which dispatches to them."""

"""The files an instance gets, and the templates they are rendered from."""

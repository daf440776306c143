"""Throw-away Debian hosts to test on; the way in is `bed.py`."""

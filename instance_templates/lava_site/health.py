"""The health page that releases before 2024 lack: `/v1/healthz/`, open to all as LAVA's own is."""

from django.contrib.auth.models import User
from django.db import Error, close_old_connections
from django.urls import Resolver404, resolve


def is_missing(path):
    """Whether this release has no page there."""
    try:
        resolve(path)
    except Resolver404:
        return True
    return False


def answer(start_response):
    """Say what LAVA's own page says: whether the database answers."""
    close_old_connections()
    try:
        User.objects.first()
        status, body = "200 OK", b'{"health": "good"}'
    except Error:
        status, body = "500 Internal Server Error", b'{"health": "bad"}'
    start_response(status, [("Content-Type", "application/json")])
    return [body]

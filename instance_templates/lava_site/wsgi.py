"""LAVA's application, with the path normalised and the permanent worker location in front."""

from django.conf import settings
from lava_server.wsgi import application as lava
from lava_site import health

INTERNAL = "/scheduler/internal/v1/"
MOUNT = "/" + settings.MOUNT_POINT.strip("/") if settings.MOUNT_POINT.strip("/") else ""
PREFIX = settings.LAVA_SITE_PREFIX
WORKERS = settings.LAVA_SITE_WORKER_LOCATION
HEALTH = f"{MOUNT}/v1/healthz/"
LACKS_HEALTH = health.is_missing(HEALTH)


def application(environ, start_response):
    """Serve a request by its whole path, whatever a client says about SCRIPT_NAME.

    LAVA decides by the whole path whether a login is required but dispatches by PATH_INFO, and old
    gunicorns take SCRIPT_NAME from a header of the request. So nothing may be left in SCRIPT_NAME.

    The prefix of a location is taken off whatever the kind of route, and the mount point put in
    front: while a route is toggled, the code behind it is the former or the new one.
    """
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    if _is_below(WORKERS, path):
        path = path[len(WORKERS) :]
        if not path.startswith(INTERNAL):
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"Only the interface for workers is here.\n"]
    elif PREFIX and _is_below(PREFIX, path):
        path = path[len(PREFIX) :]
    path = MOUNT + (path or "/")
    environ["SCRIPT_NAME"] = ""
    environ["PATH_INFO"] = path
    if path == HEALTH and LACKS_HEALTH:
        return health.answer(start_response)
    return lava(environ, start_response)


def _is_below(place, path):
    return path == place or path.startswith(place + "/")

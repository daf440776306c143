"""The web server of an instance; only in a file gunicorn ignores names it does not know."""

import os
from pathlib import Path

import yaml

_etc = Path(os.environ["LAVA_SITE_ETC"])
_service = os.environ["LAVA_SITE_SERVICE"]
_runs = _etc.parent / "run"

worker_class = "gthread"
globals().update(yaml.safe_load((_etc / "gunicorn.yaml").read_text(encoding="utf-8")))
backlog = 2048  # gunicorn 20 sets the queue of the socket it is handed
timeout = 120
graceful_timeout = 30
preload_app = False  # each worker loads LAVA itself, so that HUP reads the settings anew
proc_name = f"{_etc.parent.name} {_service}"
accesslog = None
errorlog = "-"
control_socket_disable = True  # gunicorn 25 and later: a file in $HOME
secure_scheme_headers = {"X-FORWARDED-PROTO": "https"}  # the one that our web server sets
forwarder_headers = ""  # else a client's SCRIPT_NAME header walks around REQUIRE_LOGIN


def _mark(worker):
    return _runs / f"{_service}.{worker.ppid}.{worker.pid}.ready"


def on_starting(server):
    for mark in _runs.glob(f"{_service}.*.ready"):
        mark.unlink(missing_ok=True)


def post_worker_init(worker):
    """LAVA is loaded: this worker serves."""
    _mark(worker).touch()


def child_exit(server, worker):
    _mark(worker).unlink(missing_ok=True)

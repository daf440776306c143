"""A mail server that delivers nothing: it keeps each message as a file; for throw-away hosts.

Arguments: the port on this machine, and the directory of the messages, named 1, 2 and so on.
"""

import itertools
import socketserver
import sys
from pathlib import Path

PORT, DIRECTORY = int(sys.argv[1]), Path(sys.argv[2])
NUMBERS = itertools.count(1)


class Delivery(socketserver.StreamRequestHandler):
    """One connection, by the little of RFC 5321 that Python's smtplib asks for."""

    def handle(self) -> None:
        self._say("220 localhost")
        for line in self.rfile:
            verb = line[:4].upper()
            if verb == b"DATA":
                self._say("354 end with a dot")
                self._keep(iter(self.rfile.readline, b".\r\n"))
            self._say("221 bye" if verb == b"QUIT" else "250 done")

    def _keep(self, lines) -> None:
        """Write beside, then rename: who looks finds whole messages only."""
        number = str(next(NUMBERS))
        written = DIRECTORY / f".{number}"
        written.write_bytes(b"".join(lines))
        written.rename(DIRECTORY / number)

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


if __name__ == "__main__":
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    socketserver.ThreadingTCPServer(("127.0.0.1", PORT), Delivery).serve_forever()

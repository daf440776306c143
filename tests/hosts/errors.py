"""What can go wrong with the test hosts."""


class HostsUnavailable(Exception):
    """This machine cannot run test hosts at all; the message names every reason."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__(
            "this machine cannot run test hosts:\n"
            + "".join(f"  - {reason}\n" for reason in reasons)
            + "On a disposable machine, --here runs the tests on the machine itself."
        )


class BedInUse(Exception):
    """Another living process owns the bed of this identity."""


class BootFailed(Exception):
    """A host did not come up; the message ends with what its console said."""


class CommandFailed(Exception):
    """A command ended with another status than 0."""

    def __init__(self, where: str, command: object, status: int, stdout: str, stderr: str) -> None:
        self.status, self.stdout, self.stderr = status, stdout, stderr
        super().__init__(
            f"{where}: {command} ended with status {status}\n"
            f"--- stdout\n{stdout[-4000:]}\n--- stderr\n{stderr[-4000:]}"
        )

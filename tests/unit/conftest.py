"""What tests of packs begin with."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from lava_deploy.packs import Packs, workers
from tests.fakes.media import DAY, ODD, write


@pytest.fixture
def packs() -> Packs:
    """The door to packs, as it is."""
    return Packs()


@pytest.fixture
def quick_packs(packs: Packs, monkeypatch: pytest.MonkeyPatch) -> Packs:
    """The door to packs, with all work done in this process."""

    def each(work: Callable, tasks: Sequence) -> Iterator:
        return map(work, tasks)

    monkeypatch.setattr(workers, "each", each)
    return packs


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Two days, jobs of old, and what belongs to no job."""
    media = tmp_path / "media"
    for path, text in {
        f"{DAY}/7/output.yaml": "- one\n" * 1000,
        f"{DAY}/7/output.idx": "0 1\n",
        f"{DAY}/7/metadata/a.yaml": "a: 1\n",
        f"{DAY}/8/output.yaml": "",
        "job-output/2026/11/21/9/output.yaml": "- two\n",
        "job-output/job-12/output.yaml": "- old\n",
        "job-output/job-999/output.yaml": "- old\n",
        "job-output/job-1000/output.yaml": "- old\n",
        "export/results.csv": "x\n",
        f"export/{ODD}": "odd\n",
        f"export/{'long/' * 30}{'name' * 30}": "long\n",
    }.items():
        write(media / path, text)
    (media / "export/link").symlink_to("/etc/passwd")
    (media / "export/results.csv").chmod(0o640)
    (media / DAY).chmod(0o750)
    yesterday = time.time() - 86400
    for path in [*media.rglob("*"), media]:
        os.utime(path, (yesterday, yesterday), follow_symlinks=False)
    return media


@pytest.fixture
def to(tmp_path: Path) -> Path:
    to = tmp_path / "to"
    to.mkdir()
    return to

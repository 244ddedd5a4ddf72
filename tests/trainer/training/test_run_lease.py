"""Of several commands one trains a run; a lease whose holder has ended can be taken over."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from contract.errors import TrainingError
from contract.storage import Storage, open_storage
from trainer.training import run_lease as module
from trainer.training.run_lease import Lease, run_lease

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    root = str(tmp_path) if request.param == "folder" else request.getfixturevalue("s3")
    return open_storage(root)


def lease(host: str, pid: int, age_s: float) -> bytes:
    time = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat(timespec="seconds")
    return (
        Lease(token="t", host=host, pid=pid, started=time, renewed=time).model_dump_json().encode()
    )


def test_a_second_command_names_the_holder(storage: Storage) -> None:
    with run_lease(storage, "run", "demo"):
        message = rf"run 'demo' in .* is being trained by process {os.getpid()} on "
        with pytest.raises(TrainingError, match=message), run_lease(storage, "run", "demo"):
            pass
        with run_lease(storage, "sweep", "demo"), run_lease(storage, "run", "other"):
            pass
    with run_lease(storage, "run", "demo"):
        pass
    assert storage.list_objects() == []


def test_a_lease_of_an_ended_process_is_taken_over(storage: Storage) -> None:
    script = (
        "import os, sys\n"
        "from contract.storage import open_storage\n"
        "from trainer.training.run_lease import run_lease\n"
        "with run_lease(open_storage(sys.argv[1]), 'run', 'demo'): os._exit(9)"
    )
    process = subprocess.run([sys.executable, "-c", script, storage.url], cwd=ROOT, check=False)
    assert process.returncode == 9
    assert len(storage.list_objects()) == 1
    with run_lease(storage, "run", "demo"):
        assert [info.key for info in storage.list_objects()] == ["leases/runs/demo/000002.json"]
    assert storage.list_objects() == []


def test_a_lease_of_another_machine_expires_if_it_is_not_renewed(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEWAL_S", 0.05)
    storage.write("leases/runs/demo/000007.json", lease("another", 1, age_s=5))
    with (
        pytest.raises(TrainingError, match="by process 1 on another"),
        run_lease(storage, "run", "demo"),
    ):
        pass
    storage.write("leases/runs/demo/000007.json", lease("another", 1, age_s=100))
    with run_lease(storage, "run", "demo"):
        assert [info.key for info in storage.list_objects()] == ["leases/runs/demo/000008.json"]


def test_a_lease_is_renewed(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEWAL_S", 0.05)
    monkeypatch.setattr(module, "utc_now", lambda: datetime.now(UTC).isoformat())
    with run_lease(storage, "run", "demo"):
        first = Lease.model_validate_json(storage.read("leases/runs/demo/000001.json"))
        while (
            Lease.model_validate_json(storage.read("leases/runs/demo/000001.json")).renewed
            == first.renewed
        ):
            pass


def test_a_damaged_lease_is_replaced(storage: Storage) -> None:
    storage.write("leases/runs/demo/000001.json", b"{")
    with run_lease(storage, "run", "demo"):
        pass
    assert storage.list_objects() == []

"""What is kept of a job: its log in parts, its state, the wish to stop it."""

import pytest

from cluster.jobs import job_store
from cluster.jobs.job_store import JobRecord, LogUploader
from contract.storage import Storage, open_storage


@pytest.fixture
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return open_storage(str(tmp_path_factory.mktemp("store")))


def a_record(job: str, began: str) -> JobRecord:
    return JobRecord(
        job=job, command=("trainer",), status="running", started_at=began, last_seen=began
    )


def test_a_log_kept_again_and_again_reads_as_one(
    jobs: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_store, "PART_BYTES", 10)
    keeper, whole = LogUploader(jobs, "job"), b""
    for count in (0, 3, 7, 1, 25, 10, 4):
        text = bytes([65 + count]) * count
        keeper.add(text)
        whole += text
        keeper.upload()
        assert job_store.read_log(jobs, "job") == whole
    assert len(jobs.list_objects("job/log")) == 5


def test_jobs_are_listed_by_age_and_damaged_ones_left_out(jobs: Storage) -> None:
    job_store.write_job(jobs, a_record("b", "2026-01-02T00:00:00+00:00"))
    job_store.write_job(jobs, a_record("a", "2026-01-03T00:00:00+00:00"))
    jobs.write("c/job.json", b"{")
    assert [one.job for one in job_store.list_jobs(jobs)] == ["b", "a"]
    assert job_store.read_job(jobs, "b") == a_record("b", "2026-01-02T00:00:00+00:00")
    assert job_store.read_job(jobs, "no one") is None


def test_the_wish_to_stop_is_kept(jobs: Storage) -> None:
    assert job_store.read_stop_request(jobs, "job") is None
    job_store.request_stop(jobs, "job", 30.0)
    asked = job_store.read_stop_request(jobs, "job")
    assert asked is not None
    assert asked.timeout_s == 30.0

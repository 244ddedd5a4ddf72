"""Volumes are imported by the tasks of a Ray cluster, as by the processes of one machine."""

from pathlib import Path

from cluster.connection import Connection
from contract.config import Cluster
from contract.storage import LocalStorage
from tests.volumes import reorder, standard_labels, standard_volume, write_nifti, write_series
from trainer.data.importers.dataset_import import (
    ImportResult,
    plan_import,
    read_volume_records,
    run_import,
)
from trainer.data.importers.patients import PatientRule
from trainer.data.importers.slice_files import ImportOptions


def import_volumes(source: Path, output: Path, cluster: Cluster | None) -> ImportResult:
    storage = LocalStorage(output)
    tasks, result = plan_import(
        [source / "CT"], [source / "labels"], storage, PatientRule(), ImportOptions()
    )
    run_import(tasks, result, storage, cluster=cluster)
    return result


def test_a_cluster_imports_what_a_machine_does(ray_cluster: Connection, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        name = f"PANCREAS_{number:04d}"
        series = write_series(tmp_path / f"CT/{name}/series", standard_volume(seed=number))
        labels = reorder(standard_labels(), (0, 1, 2), (False, True, False))
        write_nifti(tmp_path / f"labels/label{number:04d}.nii.gz", labels)
    series[0].write_bytes(series[0].read_bytes()[:-50])
    results = {
        folder: import_volumes(tmp_path, tmp_path / folder, cluster)
        for folder, cluster in (("remote", Cluster()), ("local", None))
    }
    remote, local = results["remote"], results["local"]
    assert [record.name for record in remote.records] == ["PANCREAS_0001", "PANCREAS_0002"]
    assert remote.records == local.records
    assert remote.failures == local.failures
    assert "cannot be decoded" in " ".join(remote.failures.values())
    files = {
        folder: {
            path.relative_to(tmp_path / folder): path.read_bytes()
            for path in (tmp_path / folder).rglob("*")
            if path.is_file()
        }
        for folder in results
    }
    assert files["remote"] == files["local"]
    again = import_volumes(tmp_path, tmp_path / "remote", Cluster())
    assert again.skipped == 2
    assert len(read_volume_records(LocalStorage(tmp_path / "remote"))) == 2

"""`segfleet import`: volumes with labels become an unsplit dataset.

Output files below OUTPUT, for slice 7 of a patient P1:

    images/P1-0007.tif     intensities as int16, lossless
    masks/P1-0007.png      label values, 0 for background
    volumes/P1.json        the record of the volume; written after its slices
    volumes.json           the records of all volumes

A volume whose slices exist with the digests of its record is skipped, so that an interrupted import
can be resumed. volumes.json exists from the start, and contains the finished volumes at the end,
also after an error or Ctrl-C.
"""

import logging
import math
import os
import signal
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process, resource_tracker
from pathlib import Path
from threading import Thread
from typing import Final, Literal

from pydantic import BaseModel

from contract.config import Cluster
from contract.errors import DataError, UserError, first_line
from contract.host_info import cpu_count
from contract.imaging.volume_files import VolumeFile, VolumeFolder, find_volumes
from contract.progress import ProgressCallback, no_progress
from contract.state_files import read_json
from contract.storage import LocalStorage, Storage
from trainer.data.importers.existing_volumes import list_records, match_records
from trainer.data.importers.labels import (
    LabeledVolume,
    LabelFile,
    Pairing,
    check_value_names,
    pair_labels,
    segmentation_file,
)
from trainer.data.importers.patients import PatientRule, check_names, name_volumes
from trainer.data.importers.slice_files import (
    IMAGES,
    MANIFEST,
    MASKS,
    RECORDS,
    ImportOptions,
    VolumeRecord,
    VolumeTask,
    import_volume,
    volume_of_file,
)

SCHEMA_VERSION: Final = 1

log = logging.getLogger(__name__)

# A process starts in about the time that it takes to import a volume. Each of them encodes slices
# in threads, so that one process can use two cores; parsing DICOM headers holds Python's lock.
_VOLUMES_PER_PROCESS = 4


class _Manifest(BaseModel):
    """The content of volumes.json."""

    schema_version: Literal[1]
    volumes: list[VolumeRecord]


@dataclass
class ImportResult:
    """What an import has done."""

    records: list[VolumeRecord] = field(default_factory=list)
    """The volumes of this import, also those that existed already."""
    skipped: int = 0
    """How many of them existed already."""
    unlabeled: list[str] = field(default_factory=list)
    """Volumes without labels, which are not imported."""
    failures: dict[str, str] = field(default_factory=dict)
    """Volumes and labels that could not be imported, and why."""


def plan_import(
    sources: Sequence[Path],
    labels: Sequence[Path],
    output: Storage,
    rule: PatientRule,
    options: ImportOptions,
    on_progress: ProgressCallback = no_progress,
) -> tuple[list[VolumeTask], ImportResult]:
    """Find the volumes and their labels, and name them.

    Args:
        sources: Files and folders with DICOM series, DICOM segmentations and NIfTI images.
        labels: Files and folders with NIfTI labels and DICOM segmentations.
        output: Where the dataset is written.
        rule: How the patient of a volume is found.
        options: What is written.
        on_progress: Called after the header of each file.

    Returns:
        The volumes to import, and a result with the failures so far.

    Raises:
        DataError: There is no volume with labels, or two patients would have one name.
    """
    _check_output(sources, labels, output)
    folders = [find_volumes(source, on_progress) for source in sources]
    label_folders = [find_volumes(source, on_progress) for source in labels]
    label_files = list(_label_files([*folders, *label_folders], label_folders))
    volumes = _unique_volumes([each for folder in folders for each in folder.volumes], label_files)
    pairing = pair_labels(volumes, label_files, ignore_origin=options.ignore_origin)
    result = ImportResult(
        unlabeled=[volume.label for volume in pairing.unlabeled], failures=pairing.failures
    )
    tasks = _create_tasks(pairing, output, rule, options, result)
    if not tasks and not result.failures:
        raise DataError(_no_pairs_error(sources, volumes, label_files))
    return tasks, result


def run_import(
    tasks: Sequence[VolumeTask],
    result: ImportResult,
    output: Storage,
    on_progress: ProgressCallback = no_progress,
    cluster: Cluster | None = None,
) -> None:
    """Import volumes in parallel processes, and write the manifest.

    Args:
        tasks: The volumes.
        result: Records, skipped volumes and failures are added to it.
        output: Where the dataset is written.
        on_progress: Called after each volume.
        cluster: The Ray cluster whose free CPUs import the volumes; None: the cores of this
            machine.
    """
    if not output.exists(MANIFEST):
        _write_manifest(output)
    try:
        for done, (task, future) in enumerate(_run(tasks, cluster), start=1):
            _collect(task, future, result)
            on_progress(done, len(tasks), task.name)
    finally:
        _write_manifest(output)
    result.records.sort(key=lambda record: record.name)


def read_volume_records(dataset: Storage) -> dict[str, VolumeRecord]:
    """The volumes of an imported dataset by name; none if it was not imported.

    Raises StorageError if the manifest is damaged.
    """
    if not dataset.exists(MANIFEST):
        return {}
    manifest = read_json(dataset, MANIFEST, _Manifest, "run `segfleet import` again")
    return {record.name: record for record in manifest.volumes}


def _collect(
    task: VolumeTask, future: "Future[tuple[VolumeRecord, bool]]", result: ImportResult
) -> None:
    """Add the record of a volume, or the reason why there is none, to the result."""
    label = task.source.volume.label
    try:
        record, existed = future.result()
    except UserError as error:
        result.failures[label] = str(error)
    except BrokenProcessPool as error:
        raise UserError(
            "a process of the import was killed, probably because the memory was full: run "
            "the command again, which continues with the volumes that are missing."
        ) from error
    except Exception as error:
        # Whatever one volume contains, the others are imported.
        log.debug("the import of %s failed", label, exc_info=error)
        result.failures[label] = (
            f"{label} cannot be imported ({type(error).__name__}: {first_line(error)}): --verbose "
            "shows where."
        )
    else:
        result.records.append(record)
        result.skipped += existed


def _run(
    tasks: Sequence[VolumeTask], cluster: Cluster | None
) -> Iterator[tuple[VolumeTask, "Future[tuple[VolumeRecord, bool]]"]]:
    if cluster is None:
        return _run_tasks(tasks)
    # Imports Ray.
    from trainer.data.importers.cluster_import import run_on_cluster

    return run_on_cluster(tasks, cluster)


def _run_tasks(
    tasks: Sequence[VolumeTask],
) -> Iterator[tuple[VolumeTask, "Future[tuple[VolumeRecord, bool]]"]]:
    """Each volume with its finished future; few of them are imported in this process."""
    workers = min(cpu_count(), math.ceil(len(tasks) / _VOLUMES_PER_PROCESS))
    if workers < 2:
        for task in tasks:
            future: Future[tuple[VolumeRecord, bool]] = Future()
            try:
                future.set_result(import_volume(task))
            except Exception as error:
                future.set_exception(error)
            yield task, future
        return
    # A forked process could inherit locks of the threads of this one.
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_exit_with_parent) as pool:
        try:
            with _block_interrupts():
                futures = {pool.submit(import_volume, task): task for task in tasks}
            for future in as_completed(futures):
                yield futures[future], future
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _block_interrupts() -> Iterator[None]:
    """Processes that are started here never get Ctrl-C; this one gets it afterwards.

    Ctrl-C is for this process, which lets the others finish their volumes.
    """
    resource_tracker.ensure_running()  # its start would unblock the signal
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _exit_with_parent() -> None:
    """End this process as soon as the main process has been killed."""
    parent = parent_process()
    assert parent is not None

    def exit_after_parent() -> None:
        parent.join()
        os._exit(1)

    Thread(target=exit_after_parent, name="parent", daemon=True).start()


def _check_output(sources: Sequence[Path], labels: Sequence[Path], output: Storage) -> None:
    if not isinstance(output, LocalStorage):
        return
    for source in (*sources, *labels):
        if output.path.resolve().is_relative_to(source.resolve()):
            raise DataError(f"OUTPUT {output.url} is inside {source}: name a folder outside of it.")


def _unique_volumes(volumes: Sequence[VolumeFile], labels: Sequence[LabelFile]) -> list[VolumeFile]:
    """The volumes that are not labels; those that two sources contain once."""
    unique = {volume.files[0].resolve(): volume for volume in volumes}
    label_paths = {each.path.resolve() for each in labels}
    return [volume for path, volume in unique.items() if path not in label_paths]


def _label_files(
    folders: Sequence[VolumeFolder], label_folders: Sequence[VolumeFolder]
) -> Iterator[LabelFile]:
    """Segmentations of all folders, and NIfTI files of the folders of labels."""
    segmentations = {
        header.path.resolve(): header for folder in folders for header in folder.segmentations
    }
    yield from map(segmentation_file, segmentations.values())
    for folder in label_folders:
        for volume in folder.volumes:
            if volume.nifti:
                yield LabelFile(volume.nifti, folder=volume.path.rpartition("/")[0])


def _create_tasks(
    pairing: Pairing,
    output: Storage,
    rule: PatientRule,
    options: ImportOptions,
    result: ImportResult,
) -> list[VolumeTask]:
    named: list[tuple[LabeledVolume, str]] = []
    value_names: dict[Path, dict[int, str]] = {}
    for pair in pairing.pairs:
        try:
            patient = rule.patient(pair.volume)
            value_names[pair.labels.path] = pair.labels.value_names()
            check_names(value_names[pair.labels.path].values(), pair.volume)
            named.append((pair, patient))
        except DataError as error:
            result.failures[pair.volume.label] = str(error)
    named.sort(key=lambda item: (item[1], item[0].volume.path))
    records = list_records(output)
    volumes = [(pair.volume, patient) for pair, patient in named]
    existing_names, failures = match_records(volumes, records, output.url)
    result.failures |= failures
    named = [item for item in named if item[0].volume.label not in failures]
    volumes = [(pair.volume, patient) for pair, patient in named]
    names = name_volumes(volumes, rule, existing_names)
    kept = [record for record in records if record.name not in names]
    labels = [pair.labels.path for pair, _ in named]
    check_value_names(
        [
            *((f"{output.url}/{RECORDS}/{each.name}.json", each.label_names) for each in kept),
            *((str(path), value_names[path]) for path in labels),
        ]
    )
    existing = _existing_files(output)
    return [
        VolumeTask(
            *(name, patient, pair, options, output, frozenset(existing[name])),
            label_names=value_names[pair.labels.path],
        )
        for (pair, patient), name in zip(named, names, strict=True)
    ]


def _existing_files(output: Storage) -> defaultdict[str, set[str]]:
    """The files of slices in the output by the name of their volume."""
    files: defaultdict[str, set[str]] = defaultdict(set)
    for folder in (IMAGES, MASKS):
        for info in output.list_objects(folder):
            if name := volume_of_file(info.key):
                files[name].add(info.key)
    return files


def _no_pairs_error(
    sources: Sequence[Path], volumes: Sequence[VolumeFile], labels: Sequence[LabelFile]
) -> str:
    listed = ", ".join(map(str, sources))
    if not volumes:
        return f"there is no DICOM series and no NIfTI file (.nii, .nii.gz) in {listed}."
    if not labels:
        return (
            f"{len(volumes)} volumes in {listed}, such as {volumes[0].label}, have no labels: name "
            "the folder of the label files with --labels."
        )
    return f"no volume in {listed} has labels: check the names of the label files."


def _write_manifest(output: Storage) -> None:
    """Write the records of all volumes in the output, also those of earlier imports."""
    records = [
        read_json(output, info.key, VolumeRecord, "delete it and run the command again")
        for info in output.list_objects(RECORDS)
    ]
    manifest = _Manifest(schema_version=SCHEMA_VERSION, volumes=records)
    output.write(MANIFEST, manifest.model_dump_json(indent=1).encode())

"""Volumes that a dataset has already: they keep their names, and no other takes these.

A volume is recognized by the digest of its files. The labels of a volume may be replaced; another
volume never replaces it.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from pydantic import ValidationError

from contract.errors import DataError
from contract.imaging.volume_files import VolumeFile
from contract.storage import Storage
from trainer.data.importers.slice_files import MANIFEST, RECORDS, VolumeRecord, volume_of_file

_READERS = 4


def list_records(dataset: Storage) -> list[VolumeRecord]:
    """The records of the finished volumes; a damaged one is not a record."""
    records = []
    for info in dataset.list_objects(RECORDS):
        try:
            records.append(VolumeRecord.model_validate_json(dataset.read(info.key)))
        except ValidationError:
            continue
    return records


def match_records(
    volumes: Sequence[tuple[VolumeFile, str]], records: Sequence[VolumeRecord], url: str
) -> tuple[dict[VolumeFile, str], dict[str, str]]:
    """Find the volumes that a dataset has already.

    Args:
        volumes: Each volume and its patient.
        records: The records of the dataset.
        url: What an error calls the dataset.

    Returns:
        The names of these volumes, and the reasons why volumes cannot be imported: the dataset has
        them under another patient, or has other volumes of a patient of this name.
    """
    if not records:
        return {}, {}
    by_digest: defaultdict[str, list[VolumeRecord]] = defaultdict(list)
    for record in records:
        by_digest[record.volume_digest].append(record)
    names: dict[VolumeFile, str] = {}
    failures: dict[str, str] = {}
    with ThreadPoolExecutor(_READERS, "digests") as pool:
        digests = pool.map(_digest_or_error, (volume for volume, _ in volumes))
        for (volume, patient), digest in zip(volumes, digests, strict=True):
            if isinstance(digest, DataError):
                failures[volume.label] = str(digest)
                continue
            same = by_digest[digest]
            mine = [each for each in same if each.patient == patient]
            if mine:
                names[volume] = mine[0].name
                same.remove(mine[0])
            elif same:
                failures[volume.label] = (
                    f"{url} has {volume.label} already, as the patient {same[0].patient} and not "
                    f"{patient}: choose --patient-from and --patient-id-regex as before, or "
                    "another OUTPUT."
                )
    return names, failures | _other_patients(volumes, records, names, failures, url)


def check_records(dataset: Storage, keys: Iterable[str]) -> None:
    """DataError if an imported dataset has slices of a volume that is not finished.

    keys: the files of slices. A dataset without volumes.json and records was not imported.
    """
    records = {info.key.rpartition("/")[2] for info in dataset.list_objects(RECORDS)}
    if not records and not dataset.exists(MANIFEST):
        return
    volumes = ((key, volume_of_file(key)) for key in keys if key.endswith(".tif"))
    if incomplete := [key for key, name in volumes if name and f"{name}.json" not in records]:
        raise DataError(
            f"{dataset.url} has {len(incomplete)} slices, such as {incomplete[0]}, of volumes "
            "without a record: their import was interrupted or has failed; run `segfleet import` "
            "again, or delete them."
        )


def _digest_or_error(volume: VolumeFile) -> str | DataError:
    try:
        return volume.digest()
    except DataError as error:
        return error


def _other_patients(
    volumes: Sequence[tuple[VolumeFile, str]],
    records: Sequence[VolumeRecord],
    names: dict[VolumeFile, str],
    failures: dict[str, str],
    url: str,
) -> dict[str, str]:
    """Volumes of patients of whose volumes in the dataset none is given: it may be another one."""
    existing = {record.patient.casefold(): record for record in reversed(records)}
    known = {patient.casefold() for volume, patient in volumes if volume in names}
    return {
        volume.label: (
            f"{url} has a patient {record.patient} already, whose volume is not {volume.label}: "
            "choose another OUTPUT, or other names with --patient-id-regex; if it replaces that "
            f"volume, delete {url}/{RECORDS}/{record.name}.json first."
        )
        for volume, patient in volumes
        if patient.casefold() not in known
        and volume.label not in failures
        and (record := existing.get(patient.casefold()))
    }

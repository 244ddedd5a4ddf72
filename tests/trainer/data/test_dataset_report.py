import csv
import dataclasses
import io

import pytest

from contract.errors import StorageError
from contract.imaging.encode import decode_png
from contract.imaging.mask_encoding import threshold_encoding
from contract.storage import LocalStorage
from trainer.data.dataset_index import Dataset
from trainer.data.dataset_report import DatasetReport, create_report


@dataclasses.dataclass(frozen=True)
class Result:
    """A report, its files, and how many slices it reported."""

    report: DatasetReport
    destination: LocalStorage
    advanced: int


@pytest.fixture(scope="module")
def done(prepared, tmp_path_factory) -> Result:
    destination = LocalStorage(tmp_path_factory.mktemp("inspection"))
    steps: list[tuple[object, ...]] = []
    report = create_report(
        prepared.dataset,
        prepared.config.data,
        prepared.config.network,
        7,
        destination,
        lambda *progress: steps.append(progress),
    )
    return Result(report, destination, len(steps))


def test_every_split_has_statistics_and_every_slice_is_reported(done, prepared):
    assert [stats.split for stats in done.report.splits] == ["train", "valid", "test"]
    assert done.advanced == len(prepared.dataset.slices)


def test_the_table_has_a_row_for_each_patient_of_a_split(done):
    text = done.destination.read("dataset_report.csv").decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["split"], row["patient"]) for row in rows] == [
        ("train", "a"),
        ("train", "b"),
        ("train", "c$"),
        ("valid", "d"),
        ("test", "half"),
        ("test", "invented"),
        ("test", "missed"),
        ("test", "quiet"),
        ("test", "wide"),
    ]
    assert (rows[0]["slices"], rows[0]["empty_slices"]) == ("2", "0")
    assert float(rows[1]["foreground_mean"]) == pytest.approx(100 / 2400, rel=1e-5)


def test_the_pictures_are_written(done):
    for name in ("counts", "foreground", "intensity", "overlays", "augmentation"):
        assert decode_png(done.destination.read(f"{name}.png")).shape[2] == 3


def test_the_page_holds_all_of_it(done, prepared):
    html = done.destination.read("index.html").decode()
    assert done.report.page == f"{done.destination.url}/index.html"
    assert html.count('src="data:image/png;base64,') == html.count("<img") == 5
    assert "http://" not in html
    assert "https://" not in html
    assert prepared.dataset.fingerprint in html
    assert "60 × 50 grey int32" in html
    assert "60 × 40 RGB uint8" in html
    assert "built-in phantom" not in html


def test_a_phantom_is_called_one(prepared, tmp_path):
    data = prepared.config.with_values({"data.source": "phantom", "data.root": None}).data
    destination = LocalStorage(tmp_path)
    create_report(prepared.dataset, data, prepared.config.network, 7, destination)
    assert "built-in phantom" in destination.read("index.html").decode()


def test_the_window_of_the_foreground_is_shown(prepared, tmp_path):
    data = prepared.config.with_values({"data.normalize": "foreground"}).data
    dataset = dataclasses.replace(
        prepared.dataset, foreground_intensities=((80, 100), (120, 100), (160, 100))
    )
    destination = LocalStorage(tmp_path)
    create_report(dataset, data, prepared.config.network, 7, destination)
    html = destination.read("index.html").decode()
    assert "from 80 to 160 (data.normalize: percentiles of the training foreground" in html
    assert "mean is then 120 and whose standard deviation is 32.66" in html


def test_a_missing_slice_is_named(prepared, tmp_path):
    gone = dataclasses.replace(prepared.dataset.slices[0], image="train/images/gone.png")
    dataset = Dataset(prepared.dataset.root, (gone,), "f", threshold_encoding(127))
    config = prepared.config
    with pytest.raises(StorageError, match=r"gone\.png"):
        create_report(dataset, config.data, config.network, 7, LocalStorage(tmp_path))
    assert not LocalStorage(tmp_path).exists("index.html")

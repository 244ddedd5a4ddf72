import csv
import dataclasses
import io

import pytest

from contract.errors import StorageError
from contract.imaging.encode import decode_png
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


def test_splits_are_counted(done, prepared):
    train, valid, test = done.report.splits
    assert (train.split, train.patients, train.slices, train.empty) == ("train", 3, 4, 1)
    assert (valid.split, valid.patients, valid.slices, valid.empty) == ("valid", 1, 1, 0)
    assert (test.split, test.patients, test.slices, test.empty) == ("test", 5, 6, 2)
    area = 40 * 60
    assert train.foreground == pytest.approx((200 + 200 + 100 + 0) / area / 4)
    assert done.advanced == len(prepared.dataset.slices)


def test_pixels_outside_the_window_are_reported(done):
    train, _, test = done.report.splits
    assert (train.below, train.above) == (0.0, 0.0)
    # The 16-bit slice is 50 x 60, and its 200 pixels of foreground are at 1000.
    assert test.above == pytest.approx(200 / (5 * 40 * 60 + 50 * 60))


def test_a_narrow_window_clips_on_both_sides(prepared, tmp_path):
    data = prepared.config.with_values(
        {"data.intensity_low": 40.5, "data.intensity_high": 199.5}
    ).data
    train, _, _ = create_report(
        prepared.dataset, data, prepared.config.network, 7, LocalStorage(tmp_path)
    ).splits
    bright = 200 / 2400
    assert train.above == pytest.approx(bright)
    assert train.below == pytest.approx(1 - bright)


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


def test_a_missing_slice_is_named(prepared, tmp_path):
    gone = dataclasses.replace(prepared.dataset.slices[0], image="train/images/gone.png")
    dataset = Dataset(prepared.dataset.root, (gone,), "f", 127)
    config = prepared.config
    with pytest.raises(StorageError, match=r"gone\.png"):
        create_report(dataset, config.data, config.network, 7, LocalStorage(tmp_path))
    assert not LocalStorage(tmp_path).exists("index.html")

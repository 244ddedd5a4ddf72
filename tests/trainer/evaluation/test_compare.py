"""Two bundles on the same patients, and bundles that cannot be compared."""

import csv
import dataclasses
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from contract import bundle
from contract.errors import DataError
from contract.imaging.encode import decode_png
from contract.imaging.segmentation_class import SegmentationClass
from contract.storage import LocalStorage
from tests.trainer.conftest import Prepared
from trainer.__main__ import app
from trainer.evaluation.compare import ComparedBundle, check_comparable, compare
from trainer.evaluation.comparison import Comparison
from trainer.evaluation.comparison_files import comparison_summary, render_comparison
from trainer.evaluation.comparison_images import select_slices

CopyBundle = Callable[..., Path]


@pytest.fixture(scope="module")
def copy_bundle(thresholding: Path, tmp_path_factory: pytest.TempPathFactory) -> CopyBundle:
    """Writes a copy of the bundle with other metadata."""

    def copy(**metadata: Any) -> Path:
        folder = tmp_path_factory.mktemp("copy")
        shutil.copytree(thresholding, folder, dirs_exist_ok=True)
        changed = bundle.read_manifest(LocalStorage(folder)).model_copy(update=metadata)
        fields = {name: getattr(changed, name) for name in bundle.BundleMetadata.model_fields}
        bundle.write_bundle(folder, LocalStorage(folder), bundle.BundleMetadata(**fields))
        return folder

    return copy


class EmptyMasks(tf.Module):
    """A network that predicts no foreground."""

    def segment(self, slices: tf.Tensor) -> dict[str, tf.Tensor]:
        """The signatures of a bundle."""
        empty = tf.zeros_like(tf.reduce_max(slices, axis=-1, keepdims=True))
        return {
            "probability": tf.cast(empty, tf.float32),
            "mask": tf.cast(tf.squeeze(empty, -1), tf.uint8),
        }


@pytest.fixture(scope="module")
def silent(copy_bundle: CopyBundle) -> Path:
    """A bundle that predicts no foreground."""
    folder = copy_bundle(name="silent")
    network = EmptyMasks()
    segment = tf.function(network.segment)
    signatures = {
        name: segment.get_concrete_function(
            tf.TensorSpec((None, None, None, None), dtype, name="slices")
        )
        for name, dtype in (("serving_default", tf.uint8), ("int32", tf.int32))
    }
    shutil.rmtree(folder / "saved_model")
    tf.saved_model.save(network, str(folder / "saved_model"), signatures=signatures)
    manifest = bundle.read_manifest(LocalStorage(folder))
    fields = {name: getattr(manifest, name) for name in bundle.BundleMetadata.model_fields}
    bundle.write_bundle(folder, LocalStorage(folder), bundle.BundleMetadata(**fields))
    return folder


@pytest.fixture(scope="module")
def compared(
    prepared: Prepared,
    silent: Path,
    thresholding: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Comparison:
    """A predicts nothing, B what is bright; B was trained on the phantom."""
    phantom = prepared.config.with_values({"data.source": "phantom", "data.root": None})
    a, b = (
        ComparedBundle(str(folder), LocalStorage(folder), config)
        for folder, config in ((silent, prepared.config), (thresholding, phantom))
    )
    out = LocalStorage(tmp_path_factory.mktemp("compared"))
    return compare(a, b, prepared.dataset, "test", out)


def test_patients_are_compared_in_pairs(compared: Comparison) -> None:
    dice = {row["patient"]: (row["dice_a"], row["dice_b"]) for row in compared.table()}
    assert dice == {
        "half": (0.0, 0.75),
        "invented": (1.0, 0.0),
        "missed": (0.0, 0.0),
        "quiet": (1.0, 1.0),
        "wide": (0.0, 1.0),
    }
    dice = compared.summary_of("dice")
    differences = np.array([0.75, -1.0, 0.0, 0.0, 1.0])
    assert dice.difference.summary.mean == pytest.approx(differences.mean())
    assert dice.difference.interval is not None
    assert dice.difference.interval[0] < 0.15 < dice.difference.interval[1]
    # Ranks 1, -2.5 and 2.5: the sum 3.5 is in the middle of the sums of all 8 signs.
    assert (dice.test.pairs, dice.test.zeros) == (3, 2)
    assert dice.test.p_value == pytest.approx(1.0)
    # The distance of an empty prediction is undefined for A.
    hd95 = compared.summary_of("hd95")
    assert (hd95.a.defined, hd95.difference.summary.undefined) == (1, 4)


def test_the_files(compared: Comparison) -> None:
    out = LocalStorage(Path(compared.output))
    rows = list(csv.DictReader(io.StringIO(out.read("compare.csv").decode())))
    assert [row["dice_difference"] for row in rows] == ["0.75", "-1", "0", "0", "1"]
    assert rows[0]["hd95_a"] == ""
    summary = json.loads(out.read("compare.json"))
    assert (summary["patients"], summary["slices"], summary["split"]) == (5, 6, "test")
    assert summary["dice"]["difference"]["summary"]["mean"] == pytest.approx(0.15)
    assert (summary["a"]["name"], summary["b"]["name"]) == ("silent", "thresholding")
    assert summary["a"]["reference"] == compared.references[0]
    page = out.read("compare.html").decode()
    assert "5 patients and 6 slices of the test split" in page.replace("\u202f", " ")
    assert "not a medical device" in page
    for name in ("a/report.html", "b/summary.json", "pairs.png"):
        assert out.exists(name)
    # The slices are those of A's settings.
    assert "built-in phantom" not in out.read("b/report.html").decode()
    # Three patients differ, and one of them has two slices: four tiles each.
    sheet = decode_png(out.read("differences.png"))
    assert sheet.shape[1] == 4 * (256 + 6) + 6
    names = [a.slice.name for a, _ in select_slices(compared)]
    assert names == ["invented-1", "wide-1", "half-1", "half-2"]


def test_limits_of_both_are_shown_once_and_others_with_their_bundle(compared: Comparison) -> None:
    (common,) = compared.b.limits
    b = dataclasses.replace(compared.b, limits=("chosen on them", common))
    tuned = dataclasses.replace(compared, b=b)
    expected = {"both": [common], "a": [], "b": ["chosen on them"]}
    assert comparison_summary(tuned)["limits"] == expected
    page = render_comparison(tuned, b"", None, is_phantom=False)
    assert page.count(common) == 1
    assert "<li>B: chosen on them</li>" in page


@pytest.mark.usefixtures("unchanged_process")
def test_the_command_of_equal_bundles(
    prepared: Prepared, thresholding: Path, copy_bundle: CopyBundle
) -> None:
    second = copy_bundle(name="second")
    result = CliRunner().invoke(
        app,
        [
            "compare",
            str(thresholding),
            str(second),
            "data.source=folder",
            f"data.root={prepared.config.data.root}",
            f"storage.root={prepared.config.storage.root}",
        ],
    )
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:2] == [f"A: {thresholding}", f"B: {second}"]
    assert lines[2].split() == ["patient", "slices", "A", "B", "B", "-", "A"]
    assert lines[3].split() == ["half", "2", "0.750", "0.750", "0.000"]
    assert "p = undefined, 0 patients with a difference, 5 without (with so few" in lines[-2]
    folder = Path(lines[-1].removeprefix("report: ")).parent
    assert folder.parent == Path(prepared.config.storage.root) / "comparisons"
    assert folder.name.startswith("thresholding-second-test-")
    assert "No patient has another Dice" in (folder / "compare.html").read_text()
    assert not (folder / "differences.png").exists()


def test_bundles_that_cannot_be_compared_are_named(
    prepared: Prepared,
    thresholding: Path,
    copy_bundle: CopyBundle,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def compared_bundle(reference: str, folder: Path) -> ComparedBundle:
        return ComparedBundle(reference, LocalStorage(folder), prepared.config)

    first = compared_bundle("demo@1", thresholding)
    liver = SegmentationClass(name="liver", value=1, color=(1, 2, 3))
    other = compared_bundle("other@1", copy_bundle(classes=(liver,)))
    with pytest.raises(DataError, match=r"demo@1 has .* foreground, but other@1 has liver"):
        check_comparable(first, other, prepared.dataset, "test")
    leaked = compared_bundle("leaked@1", copy_bundle(patients={"train": ("half",), "valid": ()}))
    with pytest.raises(DataError, match=r"^leaked@1: data leakage: .* \(half\)"):
        check_comparable(first, leaked, prepared.dataset, "test")
    empty = dataclasses.replace(prepared.dataset, slices=prepared.dataset.select("train"))
    with pytest.raises(DataError, match=r"^the test split of .* is empty"):
        compare(first, first, empty, "test", LocalStorage(tmp_path))
    assert not list(tmp_path.iterdir())
    # The slices are not those of the training, which evaluate reports.
    check_comparable(first, first, prepared.dataset, "test")
    assert caplog.text == ""

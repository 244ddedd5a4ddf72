"""Files of DICOM: damaged ones are named, and headers list what identifies a patient."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from contract.errors import DataError
from contract.imaging.dicom_files import is_dicom, read_header, read_pixels
from tests.volumes import BIRTH_DATE, edit_file, standard_volume, write_series
from tests.waiting import HANG_TIMEOUT_S

STANDARD = standard_volume()


def test_truncated_and_foreign_files_are_errors(tmp_path: Path) -> None:
    (path, *_) = write_series(tmp_path, STANDARD)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"cannot be decoded \(Explicit VR Little Endian\)"):
        read_pixels(path)
    (tmp_path / "notes.txt").write_text("not DICOM")
    assert not is_dicom(tmp_path / "notes.txt")
    assert is_dicom(path)
    with pytest.raises(DataError, match=r"notes\.txt is not a DICOM file"):
        read_header(tmp_path / "notes.txt")


def test_identifiers_are_words_of_the_name_and_the_birth_date(tmp_path: Path) -> None:
    (path, *_) = write_series(tmp_path, STANDARD)
    assert read_header(path).identifiers == ("Doe", "Jane", BIRTH_DATE)
    edit_file(path, PatientName="Li^Casey^A")
    assert read_header(path).identifiers == ("Li", "Casey", BIRTH_DATE)
    for name in ("COLLECTION_7", "Collection^7", "Anonymized", "Anonymous^Patient12", "Case-7"):
        edit_file(path, PatientName=name, PatientID="COLLECTION_7", PatientBirthDate="")
        assert read_header(path).identifiers == ()
    edit_file(path, PatientName="Doe", PatientIdentityRemoved="YES")
    assert read_header(path).identifiers == ()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("JPGExtended.dcm", r"compressed with JPEG Extended .*, which needs python-gdcm: pip inst"),
        ("SC_rgb_jpeg_gdcm.dcm", r"compressed with JPEG Lossless.*, which needs python-gdcm: pip"),
        ("JPEG2000-embedded-sequence-delimiter.dcm", r"cannot be decoded \(JPEG 2000 Image"),
        ("MR_truncated.dcm", r"cannot be decoded \(Explicit VR Little Endian\): The number of"),
    ],
)
def test_real_files_that_cannot_be_decoded(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_pixels(Path(str(get_testdata_file(name))))


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("MR_small_jp2klossless.dcm", "pylibjpeg and pylibjpeg-openjpeg"),
        ("MR_small_jpeg_ls_lossless.dcm", "pyjpegls"),
    ],
)
def test_a_missing_decoder_is_named(name: str, package: str) -> None:
    code = f"""
import sys
for module in ("PIL", "openjpeg", "pylibjpeg", "jpeg_ls", "gdcm"):
    sys.modules[module] = None
from pathlib import Path
from contract.errors import DataError
from contract.imaging.dicom_files import read_pixels
try:
    read_pixels(Path({str(get_testdata_file(name))!r}))
except DataError as error:
    print(error)
"""
    completed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=HANG_TIMEOUT_S,
        check=True,
    )
    assert (
        f"which needs {package}: pip install {package.replace(' and ', ' ')}." in completed.stdout
    )

"""The reference in train.start_from: a bundle or a run, optionally with the digest of the bundle.

A digest follows the reference as in container images: "pancreas@production@sha256:<64 hex digits>".
"""

import re

_PINNED = re.compile(r"(?P<reference>.+)@sha256:(?P<digest>[0-9a-f]{64})")


def split_digest(reference: str) -> tuple[str, str | None]:
    """The reference without its digest, and the digest (SHA-256 of the bundle's manifest)."""
    match = _PINNED.fullmatch(reference)
    return (match["reference"], match["digest"]) if match else (reference, None)


def add_digest(reference: str, digest: str) -> str:
    """A reference that means the bundle with this digest only."""
    return f"{reference}@sha256:{digest}"


def local_folder(reference: str | None) -> str | None:
    """A reference that is the path of a folder; None for a name or an address.

    A name has no slash, and an address has ://.
    """
    if reference is None or "://" in reference:
        return None
    return reference if "/" in reference or reference.startswith((".", "~")) else None

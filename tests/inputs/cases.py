"""What several test files of this folder need."""

from __future__ import annotations

from pathlib import Path

import pytest

from probekit.errors import ProbekitError
from probekit.inputs.examples import make_examples
from probekit.inputs.hub import tables_from_dataset_dict
from probekit.inputs.read import read_examples

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real data (../shared/data) are not beside this checkout")


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def error_of(*sources, **options) -> str:
    """The message that reading these gives, with the name of the error's class."""
    with pytest.raises(ProbekitError) as caught:
        read_examples([str(source) for source in sources], **options)
    assert "\n" not in str(caught.value)
    return f"{type(caught.value).__name__}: {caught.value}"


def examples_from_dataset_dict(dataset_dict, name, *, text=None, split=None, id_column=None):
    """What is read of a dataset of the hub called ``name`` once it is loaded."""
    return make_examples(
        tables_from_dataset_dict(dataset_dict, name, split=split), name, text=text, id_column=id_column
    )

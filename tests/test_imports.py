"""What is loaded when: the command line answers at once, and the CPU stage knows no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from probekit import extract

HEAVY = "{'torch', 'transformers', 'datasets', 'sklearn', 'pandas', 'h5py', 'matplotlib', 'numpy'}"


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "code",
    [
        "import probekit",
        "from probekit.cli import run; run(['--help'])",
        "from probekit.cli import run; run(['extract', '-h'])",
        "from probekit.cli import run; run(['nonsense'])",
    ],
)
def test_help_and_import_load_nothing_heavy(code):
    done = run_python(f"{code}\nimport sys; assert not {HEAVY} & set(sys.modules), {HEAVY} & set(sys.modules)")
    assert done.returncode == 0, done.stderr


def test_the_cpu_stage_loads_no_torch():
    done = run_python(
        "from probekit import probe_layers, open_cache\n"
        "import probekit.report, sys; assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    assert done.returncode == 0, done.stderr


def test_probing_loads_no_torch(tmp_path, tiny_model, tiny_data):
    """Importing it takes two seconds and 200 MB."""
    extract(tiny_model, tiny_data, out=tmp_path / "c.h5").close()
    arguments = ["probe", str(tmp_path / "c.h5"), "--target", "label", "--jobs", "1", "--out", str(tmp_path / "l.csv")]
    done = run_python(
        f"from probekit.cli import run; assert run({arguments}) == 0; import sys; assert 'torch' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there():
    import probekit

    for name in probekit.__all__:
        assert getattr(probekit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = probekit.nothing


def test_pooling_names_known_without_torch_are_the_poolings():
    from probekit.pooling import POOLINGS
    from probekit.spec import POOLING_NAMES

    assert set(POOLING_NAMES) == set(POOLINGS)

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # the suite never asks the network, whatever the machine has

import pytest

from tests.tiny import save_tiny_bert, save_tiny_data


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("tiny") / "tiny-bert")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    return save_tiny_data(tmp_path_factory.mktemp("data") / "train.tsv")

import subprocess
import sys

import pytest

from crossroads.errors import BackboneError
from crossroads.networks.catalog import CATALOG, backbone

every_backbone = pytest.mark.parametrize("record", CATALOG, ids=lambda b: b.name)


def test_names_are_unique():
    assert len({record.name for record in CATALOG}) == len(CATALOG)


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(BackboneError, match="received 'quizcnn'; did you mean 'quiz-cnn'"):
        backbone("quizcnn")


@every_backbone
def test_an_image_out_of_bounds_is_refused_before_anything_is_built(record):
    low, high = record.limits
    for size in (low - 1, high + 1):
        with pytest.raises(BackboneError, match=f"takes images of {low} to {high} px; received {size} px"):
            record.build(size)


@every_backbone
def test_an_image_size_is_chosen_near_the_images_own(record):
    assert record.size_for(1) == record.sizes[0]
    assert record.size_for(10_000) == record.sizes[-1]
    assert all(record.size_for(size) == size for size in record.sizes)


def test_the_catalog_is_read_without_keras():
    code = "import sys, crossroads.networks.catalog; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

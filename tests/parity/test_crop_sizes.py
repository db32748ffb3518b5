"""Sizes of training pictures are those of the original release, in its order."""

import json

from lumina.training.data.buckets import crop_sizes


def test_every_list_of_sizes_is_that_of_the_original_release(golden):
    lists = json.loads((golden / "crop_sizes.json").read_text())["lists"]
    assert [recorded["image_size"] for recorded in lists] == [256, 512, 1024]
    for recorded in lists:
        sizes = crop_sizes(
            recorded["image_size"],
            multiple=recorded["patch_size"],
            max_ratio=recorded["max_ratio"],
        )
        assert [list(size) for size in sizes] == recorded["sizes_wh"]

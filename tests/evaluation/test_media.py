import json

import pytest
from PIL import Image

from lumina.cli import main
from lumina.evaluation import clouds
from lumina.evaluation.results import GRID, RESULT
from lumina.media import read_record


@pytest.fixture
def _few_clouds(monkeypatch):
    pytest.importorskip("trimesh")
    monkeypatch.setattr(clouds, "SIDE", 2)
    monkeypatch.setattr(clouds, "QUICK", {256: 2})
    clouds._true_clouds.cache_clear()


@pytest.mark.usefixtures("_few_clouds")
def test_a_model_of_points_is_measured_from_the_command_line(points_folder, tmp_path, capsys):
    output = tmp_path / "out"
    words = ["evaluate", str(points_folder), "--languages", "fr", "--steps", "1", "-o", str(output)]
    assert main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert json.loads((output / RESULT).read_text())["lines"] == result["lines"]
    measured = {(line["section"], line["what"]) for line in result["lines"]}
    assert ("256 points", "1-NNA (0.5 is best)") in measured
    assert ("languages", "kind, fr") in measured
    assert {line["section"] for line in result["beside"]["true examples"]} == {"256 points"}
    assert "round trips" not in result["beside"]
    assert {"prompt", "seed", "found", "right"} <= result["samples"][0].keys()
    assert Image.open(output / GRID).width > 128
    record = read_record(output / "000-256-points.ply")
    assert record["sample"] == result["samples"][0]

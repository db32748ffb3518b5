"""Compare ways to decode a large picture: whole, in diffusers' tiles, and in ours.

Run `python benchmarks/tiling.py`. Decodes the latents of a picture full of drawings, and noise as
latents, with a shipped autoencoder, each way in a process of its own. Writes `results/tiling.json`
and `results/tiling.md`: how far each way is from the whole (mean and largest difference of pixel
values, of 255 levels), how steep the picture is across the borders of tiles and elsewhere, and what
it takes of time and memory.

Memory is the peak of what is resident (`VmHWM`) above what the process held before it decoded, when
all weights were loaded and read, so this runs on Linux alone.
"""

import argparse
import json
import math
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL
from jaxtyping import Float
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import lumina
from lumina.catalog import find
from lumina.pipelines.tiling import enable_tiling
from lumina.types import Size
from lumina.worlds.drawings import fit, sprite
from lumina.worlds.vocabulary import shipped_things

RESULTS = Path(__file__).parent / "results"
CEILINGS = {"mean_difference": 1.0, "seams": 1.1, "memory": 0.3}
PICTURE_SEED, NOISE_SEED = 0, 1
DRAWINGS = 120  # of which about half are seen whole
WAYS = {
    "whole": {},
    "diffusers, tiles of 128 px": {"tile": 128},
    "diffusers, tiles of 512 px": {"tile": 512},
    "ours": {"memory_gb": None},
    "ours, 0.25 GB": {"memory_gb": 0.25},
    "ours, 0.05 GB": {"memory_gb": 0.05},
}


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="lumina-mini", help="a name of the catalog")
    parser.add_argument("--side", type=int, default=1024, help="of the pictures, in pixels")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--output", type=Path, default=RESULTS / "tiling.json")
    parser.add_argument("--pictures", type=Path, help="a folder for pictures and differences")
    parser.add_argument("--decode", nargs=3, help="a way, latents and where to save: once, to stop")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = Path(find(options.model).folder) / "vae"
    if options.decode:
        way, latents, picture = options.decode
        print(json.dumps(decode(folder, WAYS[way], Path(latents), Path(picture))))
        return
    result = {
        "command": " ".join(["python", *sys.argv]),
        "model": options.model,
        "side": options.side,
        "threads": options.threads,
        "rows": compare(folder, options),
        "versions": {
            "lumina": lumina.__version__,
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "python": platform.python_version(),
        },
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    options.output.with_suffix(".md").write_text(write_table(result))
    print(write_table(result))


def compare(folder: Path, options: argparse.Namespace) -> list[dict]:
    """Decode both latents in all ways."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        latents, decoded = Path(temporary) / "latents", Path(temporary) / "decoded"
        for name, tensor in make_latents(folder, options.side).items():
            save_file({"latents": tensor.contiguous()}, latents)
            whole = None
            for way, settings in WAYS.items():
                cost = decode_alone(way, latents, decoded, options)
                picture = load_file(decoded)["picture"]
                whole = picture if whole is None else whole
                step = border_distance(settings, cost["tiles"], options.side)
                rows.append({"latents": name, "way": way, **cost, **judge(picture, whole, step)})
                if options.pictures:
                    save_pictures(options.pictures, f"{name} {way}", picture, whole)
    for row in rows:
        first = next(other for other in rows if other["latents"] == row["latents"])
        row["memory"] = row["memory_gb"] / first["memory_gb"]
    return rows


def make_latents(folder: Path, side: int) -> dict[str, Float[Tensor, "1 c rows cols"]]:
    """Latents of a detailed picture, and noise."""
    vae: Any = AutoencoderKL.from_pretrained(folder)
    pixels = torch.from_numpy(np.array(draw_crowd(Size(side, side)))).permute(2, 0, 1)[None]
    with torch.inference_mode():
        latents = vae.encode(pixels / 127.5 - 1).latent_dist.mode()
    generator = torch.Generator().manual_seed(NOISE_SEED)
    return {"picture": latents, "noise": torch.randn(latents.shape, generator=generator)}


def draw_crowd(size: Size) -> Image.Image:
    """Drawings of all sizes all over a background that turns from color to color."""
    rng = np.random.default_rng(PICTURE_SEED)
    corners = Image.fromarray(rng.integers(0, 256, (2, 2, 3), dtype=np.uint8))
    canvas = corners.resize(size, Image.Resampling.BILINEAR)
    things = shipped_things()
    for _ in range(DRAWINGS):
        drawing = fit(sprite(things[rng.integers(len(things))]), int(rng.integers(24, 200)))
        left, top = (int(rng.integers(-20, length - 20)) for length in size)
        canvas.paste(drawing, (left, top), drawing)
    return canvas


def decode_alone(
    way: str, latents: Path, picture: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Decode in a process of its own, and give what it cost."""
    command = [sys.executable, __file__, "--decode", way, str(latents), str(picture)]
    command += ["--model", options.model, "--threads", str(options.threads)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


@torch.inference_mode()
def decode(folder: Path, way: dict, latents: Path, picture: Path) -> dict[str, float]:
    """Decode in one way, save the picture, and give seconds, memory and the number of tiles."""
    vae: Any = AutoencoderKL.from_pretrained(folder)
    if "tile" in way:
        vae.enable_tiling()
        vae.tile_sample_min_size, vae.tile_latent_min_size = way["tile"], way["tile"] // 8
    elif way:
        enable_tiling(vae, memory_gb=way["memory_gb"])
    tiles = []
    vae.decoder.conv_out.register_forward_hook(lambda *_: tiles.append(1))
    x = load_file(latents)["latents"]
    for weight in vae.parameters():
        weight.sum().item()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, begun, used = status_gb("VmHWM"), time.perf_counter(), time.process_time()
    decoded = vae.decode(x).sample
    cost = {
        "memory_gb": status_gb("VmHWM") - before,
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": time.process_time() - used,
        "tiles": len(tiles),
    }
    save_file({"picture": (decoded / 2 + 0.5).clamp(0, 1).contiguous()}, picture)
    return cost


def status_gb(field: str) -> float:
    """Read a field of this process's memory status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e9


def border_distance(settings: dict, tiles: int, side: int) -> int:
    """How far the borders of tiles are apart."""
    if "tile" in settings:
        return settings["tile"] * 3 // 4  # the rest is the overlap
    return side // math.isqrt(tiles)


def judge(
    picture: Float[Tensor, "1 3 side side"], whole: Float[Tensor, "1 3 side side"], step: int
) -> dict[str, float]:
    """How far a picture is from the whole, and how steep across its borders for elsewhere.

    Borders lie between latents, where decoders make even a whole picture of noise steeper. So the
    steepness is also told of the whole picture at the same places, and for that.
    """
    difference = (picture - whole).abs() * 255
    return {
        "mean_difference": difference.mean().item(),
        "largest_difference": difference.max().item(),
        "steepness": steepness(picture, step),
        "steepness_of_whole": steepness(whole, step),
        "seams": steepness(picture, step) / steepness(whole, step),
    }


def steepness(picture: Float[Tensor, "1 3 side side"], step: int) -> float:
    """Mean gradient across lines that are a step apart, for that across all others."""
    gradients = torch.stack(
        [picture.diff(dim=dim).abs().mean((0, 1, 5 - dim)) for dim in (2, 3)]
    ).mean(0)
    is_border = (torch.arange(len(gradients)) + 1) % step == 0
    if not is_border.any():
        return 1.0
    return (gradients[is_border].mean() / gradients[~is_border].mean()).item()


def save_pictures(
    folder: Path,
    name: str,
    picture: Float[Tensor, "1 3 side side"],
    whole: Float[Tensor, "1 3 side side"],
) -> None:
    """Save a picture, and its difference from the whole, 16 times as large."""
    folder.mkdir(exist_ok=True, parents=True)
    as_image(picture).save(folder / f"{name}.png")
    as_image(0.5 + 16 * (picture - whole)).save(folder / f"{name}, difference.png")


def as_image(picture: Float[Tensor, "1 3 side side"]) -> Image.Image:
    """An image of values from 0 to 1."""
    pixels = (picture[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(pixels.numpy())


def write_table(result: dict) -> str:
    """All ways as Markdown, and whether ours is near, smooth and small enough."""
    lines = [
        "| latents | way | mean difference | largest | steepness across borders |"
        " of the whole there | seams | peak memory, GB | of the whole's | tiles | CPU seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['latents']} | {row['way']} | {row['mean_difference']:.4f} |"
            f" {row['largest_difference']:.4f} | {row['steepness']:.3f} |"
            f" {row['steepness_of_whole']:.3f} | {row['seams']:.3f} |"
            f" {row['memory_gb']:.3f} | {row['memory']:.2f} | {row['tiles']} |"
            f" {row['cpu_seconds']:.1f} |"
        )
    ours = [row for row in result["rows"] if row["way"] == "ours"]
    missed = [
        f"{row['latents']}: {name}"
        for row in ours
        for name, ceiling in CEILINGS.items()
        if row[name] > ceiling
    ]
    verdict = f"Ours misses: {', '.join(missed)}." if missed else "Ours is within all ceilings."
    return "\n".join(
        [
            *lines,
            "",
            f"The autoencoder of {result['model']}, {result['side']}x{result['side']} pixels,"
            f" float32, CPU, {result['threads']} threads, torch {result['versions']['torch']},"
            f" diffusers {result['versions']['diffusers']}. Differences are of 255 levels;"
            " steepness is the mean gradient there for that elsewhere, and seams is that for the"
            " whole's; memory is above what was there before decoding."
            f" `{result['command']}`",
            "",
            f"Ceilings: mean difference {CEILINGS['mean_difference']:g}, seams"
            f" {CEILINGS['seams']:g}, memory {CEILINGS['memory']:g} of the whole's. {verdict}",
            "",
        ]
    )


if __name__ == "__main__":
    main()

"""Check shapes and types wherever there are tensors, while tests run.

Settings (`lumina.requests`) are left out: they refuse wrong types by themselves, which is tested.
"""

import gc

from jaxtyping import config, install_import_hook

CHECKED = (
    "backbones",
    "encoders",
    "evaluation",
    "flow",
    "modalities",
    "nn",
    "pipelines",
    "training",
    "worlds",
)

# `make test` runs what it compiles without checks: a compiler does not see through them.
if not config.jaxtyping_disable:
    install_import_hook(
        [f"lumina.{package}" for package in CHECKED],
        "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
    )

gc.set_threshold(10_000)


def pytest_collection_finish():
    """Search for garbage among what tests make alone, and not in all that was imported."""
    gc.freeze()

"""One trainer, driven by one commented file per run."""

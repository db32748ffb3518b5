"""Checkpoints on disk: what a folder holds, before any weight is read."""

"""Lumina-T2X and Lumina-Next: text to images and more."""

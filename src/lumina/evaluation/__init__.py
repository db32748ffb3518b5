"""Measurements of what models make, by rules that anyone can check."""

"""Layers, attention and rotary positions that every backbone builds on."""

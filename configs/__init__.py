"""Schemas of everything configurable, and the presets; imports nothing of ours."""

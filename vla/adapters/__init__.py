"""Checkpoints of others as policies of ours: their conventions end here."""

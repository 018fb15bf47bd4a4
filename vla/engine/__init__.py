"""Inference: a decoder with packed weights and a fixed cache, graphs of its passes, weights in fewer bits."""

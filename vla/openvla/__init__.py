"""OpenVLA and OpenVLA-OFT (Kim et al. 2024, arXiv:2406.09246; Kim et al. 2025, arXiv:2502.19645) from their published
folders.

The architecture and every convention were read off the published code (github.com/openvla/openvla,
modeling_prismatic.py and processing_prismatic.py at c8f03f4; github.com/moojink/openvla-oft at 213c5ff); the tests
compare with its output.
"""

"""The robot host, its servo law, and drivers."""

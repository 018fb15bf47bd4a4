"""Serving a policy to many robots: queue, batches, metrics, console, replicas."""

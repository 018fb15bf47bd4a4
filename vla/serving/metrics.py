"""What a policy server tells of itself: counters for Prometheus, and whether it is well, over HTTP on loopback.

`/metrics` is in Prometheus' text format; `/healthz` answers 200 while the server answers robots, else 503 and why.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from reflexarc.configs.errors import PolicyError
from reflexarc.wire.clock import monotonic_ns

STALLED_NS = 10_000_000_000
"""A server whose loop has not come round for so long is not well."""

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one server, and its state of health."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.state = "loading"
        self._seen_ns = monotonic_ns()
        self._requests = Counter(
            "reflexarc_policy_observations",
            "Observations by what became of them",
            ["outcome"],
            registry=self.registry,
        )
        self._batch = Histogram(
            "reflexarc_policy_batch_size",
            "Observations answered together",
            buckets=_BATCHES,
            registry=self.registry,
        )
        self._wait = Histogram(
            "reflexarc_policy_wait_seconds",
            "Time an observation waited for its turn",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._stages = Histogram(
            "reflexarc_policy_stage_seconds",
            "Time of an answer by stage",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._clients = Gauge(
            "reflexarc_policy_clients", "Robots that count towards max_clients", registry=self.registry
        )
        self._waiting = Gauge("reflexarc_policy_waiting", "Robots waiting", registry=self.registry)

    def beat(self, clients: int, waiting: int) -> None:
        """The loop has come round."""
        self._seen_ns = monotonic_ns()
        self._clients.set(clients)
        self._waiting.set(waiting)

    def outcome(self, name: str, count: int = 1) -> None:
        """`answered`, `refused`, `superseded`, `late` or `malformed`."""
        self._requests.labels(name).inc(count)

    def batch(self, size: int, waited_ns: list[int], stages_ns: Mapping[str, int]) -> None:
        """One batch was answered; `stages_ns` as in ActionChunk.latency_ns."""
        self._batch.observe(size)
        for waited in waited_ns:
            self._wait.observe(waited * 1e-9)
        for stage, duration in stages_ns.items():
            self._stages.labels(stage).observe(duration * 1e-9)

    def health(self) -> tuple[bool, dict[str, object]]:
        """Whether it answers robots, and what it does."""
        silent_ns = monotonic_ns() - self._seen_ns
        stalled = silent_ns > STALLED_NS and self.state != "loading"
        state = f"stalled for {silent_ns * 1e-9:.0f} s" if stalled else self.state
        return state == "serving", {"state": state}

    def text(self) -> bytes:
        """All of it for Prometheus."""
        return generate_latest(self.registry)


@contextlib.contextmanager
def serve_http(metrics: Metrics, port: int) -> Iterator[int]:
    """Answer `/metrics` and `/healthz` on 127.0.0.1 while the block runs; yields the port (0 asks for a free one).

    Raises PolicyError if the port is occupied.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            well, health = metrics.health()
            if self.path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, metrics.text())
            elif self.path == "/healthz":
                self._answer(200 if well else 503, "application/json", json.dumps(health).encode() + b"\n")
            else:
                self._answer(404, "text/plain", b"there are /metrics and /healthz\n")

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads a line for every scrape."""

    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise PolicyError(
            f"cannot serve metrics on port {port}: {error.strerror}; name another --http-port"
        ) from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

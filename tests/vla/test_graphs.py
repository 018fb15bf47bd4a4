"""When a pass is recorded, what is forgotten, and that threads leave each other's recordings alone. Without a GPU."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from reflexarc.vla.engine import graphs
from reflexarc.vla.engine.graphs import CudaGraph, Graphs, Pass
from reflexarc.vla.placement import wait

Does = Callable[[Tensor], tuple[Tensor]]


class Recorder:
    """Records nothing and says what it was asked; what it makes runs the pass and is told from it by `replays`."""

    def __init__(self) -> None:
        self.recorded: list[int] = []
        self.besides: list[Any] = []
        self.replays = 0

    def __call__(self, run: Pass, inputs: tuple[Tensor, ...], beside: Any) -> Any:
        self.recorded.append(len(inputs[0]))
        self.besides.append(beside)

        def replay(fresh: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            self.replays += 1
            return run(*fresh)

        return SimpleNamespace(replay=replay)


def doubled(x: Tensor) -> tuple[Tensor]:
    return (2 * x,)


def ask(made: Graphs, length: int, run: Does = doubled) -> None:
    """A pass over `length` numbers, whose answer is right."""
    x = torch.rand(length)
    assert torch.equal(made.run("pass", run, x)[0], 2 * x)


def test_a_pass_that_comes_again_is_recorded_and_then_replayed() -> None:
    recorder = Recorder()
    made = Graphs(recorder=recorder)
    for recorded, replays in ((0, 0), (1, 1), (1, 2)):
        ask(made, 3)
        assert (len(recorder.recorded), recorder.replays) == (recorded, replays)
    ask(made, 4)
    made.run("another pass", doubled, torch.rand(3))
    assert recorder.recorded == [3]  # another shape and another key: their first
    ask(made, 4)
    assert recorder.recorded == [3, 4]
    assert recorder.besides[0] is None
    assert recorder.besides[1] is not None  # it may use the memory of the one before
    made.clear()
    ask(made, 3)
    assert recorder.replays == 3


def test_a_warm_up_leaves_the_first_answer_to_be_replayed() -> None:
    recorder = Recorder()
    made = Graphs(recorder=recorder)
    for _ in range(made.until_ready(cuda=True)):
        ask(made, 3)
    assert recorder.recorded == [3]
    assert Graphs(compiled=True).until_ready(cuda=True) == 3
    assert Graphs(compiled=True).until_ready(cuda=False) == 2
    assert Graphs(enabled=False).until_ready(cuda=True) == Graphs().until_ready(cuda=False) == 1


def test_what_was_not_asked_for_the_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "KEPT", 2)
    recorder = Recorder()
    made = Graphs(recorder=recorder)
    for length in (1, 1, 2, 2, 1, 3, 1):  # 3 takes the place of 2
        ask(made, length)
    assert recorder.recorded == [1, 2]
    ask(made, 2)
    assert recorder.recorded == [1, 2]
    ask(made, 2)
    assert recorder.recorded == [1, 2, 2]


def test_more_keys_in_rotation_than_are_kept_are_never_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "KEPT", 3)
    recorder = Recorder()
    made = Graphs(recorder=recorder)
    for _ in range(5):
        for length in (1, 2, 3, 4):
            ask(made, length)
    assert recorder.recorded == []


def test_nobody_waits_for_a_recording_nor_records_beside_it() -> None:
    inner, outer = Recorder(), Recorder()
    other = Graphs(recorder=inner)
    ask(other, 3)

    def meanwhile(run: Pass, inputs: tuple[Tensor, ...], beside: Any) -> Any:
        ask(other, 3)  # what another thread would do: its second use, which would be recorded
        assert inner.recorded == []
        return outer(run, inputs, beside)

    made = Graphs(recorder=meanwhile)
    ask(made, 3)
    ask(made, 3)
    assert outer.recorded == [3]
    ask(other, 3)
    assert inner.recorded == [3]


def test_a_recording_that_fails_leaves_the_next_one_possible() -> None:
    recorder = Recorder()

    def failing(run: Pass, inputs: tuple[Tensor, ...], beside: Any) -> Any:
        raise RuntimeError("no memory left")

    broken, made = Graphs(recorder=failing), Graphs(recorder=recorder)
    ask(broken, 3)
    with pytest.raises(RuntimeError, match="no memory left"):
        ask(broken, 3)
    ask(made, 3)
    ask(made, 3)
    assert recorder.recorded == [3]


def test_more_shapes_than_torch_compiles_of_one_function_are_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counter, recorder = CompileCounter(), Recorder()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    made = Graphs(compiled=True, recorder=recorder)
    shapes = torch._dynamo.config.recompile_limit + 2
    for use, (compiled, recorded) in enumerate([(0, 0), (shapes, 0), (shapes, shapes), (shapes, shapes)]):
        for length in range(1, shapes + 1):
            ask(made, length)
        assert (counter.frame_count, len(recorder.recorded)) == (compiled, recorded), use


def test_a_graph_is_recorded_so_that_other_threads_do_not_break_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the streams of a device that is not there: only what torch is told."""
    told: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def graph(made: Any, **how: Any) -> Iterator[None]:
        told.append(how)
        yield

    stream = SimpleNamespace(wait_stream=lambda other: None)
    pools = iter(["first", "second"])
    fakes = {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda each: contextlib.nullcontext(),
        "CUDAGraph": lambda: SimpleNamespace(pool=functools.partial(str, next(pools)), replay=lambda: None),
        "graph": graph,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    inputs = (torch.rand(3),)
    first = CudaGraph(doubled, inputs, None)
    CudaGraph(doubled, inputs, first)
    assert [each["capture_error_mode"] for each in told] == ["thread_local"] * 2
    assert [each["pool"] for each in told] == [None, "first"]
    answers = first.replay(inputs)
    assert (
        answers[0].data_ptr() != first.replay(inputs)[0].data_ptr()
    )  # copies: the graph's own are overwritten


def test_waiting_for_a_stage_waits_for_nothing_of_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []

    def stream(device: torch.device) -> Any:
        return SimpleNamespace(synchronize=lambda: waited.append(device))

    monkeypatch.setattr(torch.cuda, "current_stream", stream)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: pytest.fail("the whole device was waited for"))
    wait(torch.device("cpu"))
    assert waited == []
    wait(torch.device("cuda"))
    assert waited == [torch.device("cuda")]

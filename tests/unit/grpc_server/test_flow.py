"""Flow control in both directions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_router.grpc_server import frames
from lora_router.grpc_server.flow import Flow, Outbox, ReceiveWindow
from lora_router.grpc_server.frames import FrameReader
from lora_router.grpc_server.violations import PeerError, StreamError


def take(window: ReceiveWindow, size: int) -> int:
    """Receive bytes as a connection does; return the increment that it sends."""
    window.taken += size
    return window.due() if window.taken >= window.top_up else 0


ENDING = frames.frame(frames.HEADERS, frames.END_STREAM, 1)


def sent(outbox: Outbox) -> list[tuple[int, int, bytes]]:
    """Return type, stream and payload of the frames sent since the last call."""
    reader = FrameReader()
    list(reader.feed(frames.PREFACE))
    got = [
        (kind, number, bytes(payload))
        for kind, _, number, payload in reader.feed(b"".join(outbox.chunks))
    ]
    outbox.chunks.clear()
    return got


def test_what_fits_goes_out_at_once() -> None:
    outbox, flow = Outbox(), Flow(1, 100, 0)
    outbox.send(flow, b"abc")
    outbox.end(flow, ENDING)

    assert sent(outbox) == [(frames.DATA, 1, b"abc"), (frames.HEADERS, 1, b"")]
    assert (flow.send_window, outbox.window, outbox.queued) == (97, 65532, 0)


def test_what_does_not_fit_waits_and_leaves_in_order_as_the_stream_opens() -> None:
    outbox, flow = Outbox(), Flow(1, 4, 0)
    outbox.send(flow, b"abc")
    outbox.send(flow, b"defgh")
    outbox.end(flow, ENDING)
    assert sent(outbox) == [(0, 1, b"abc"), (0, 1, b"d")]
    assert outbox.queued == 4

    outbox.stream_opened(flow, 1)
    assert sent(outbox) == [(0, 1, b"e")]
    outbox.stream_opened(flow, 100)
    assert sent(outbox) == [(0, 1, b"fgh"), (1, 1, b"")]
    assert outbox.queued == 0


def test_the_connections_window_is_shared() -> None:
    outbox = Outbox()
    outbox.window = 3
    first, second = Flow(1, 100, 0), Flow(3, 100, 0)
    outbox.send(first, b"abcde")
    outbox.send(second, b"xyz")
    assert sent(outbox) == [(0, 1, b"abc")]

    outbox.opened(3)
    assert sent(outbox) == [(0, 1, b"de"), (0, 3, b"x")]


def test_a_window_can_become_negative_and_opens_again() -> None:
    outbox, flow = Outbox(), Flow(1, frames.DEFAULT_WINDOW, 0)
    outbox.send(flow, b"x" * 65000)
    sent(outbox)

    outbox.resize([flow], 1000)
    assert flow.send_window == 535 - 64535
    outbox.send(flow, b"abc")
    assert sent(outbox) == []
    outbox.stream_opened(flow, 64000)
    assert sent(outbox) == []
    outbox.resize([flow], 1002)
    assert sent(outbox) == [(0, 1, b"ab")]


def test_frames_are_as_long_as_the_peer_takes_them() -> None:
    outbox, flow = Outbox(), Flow(1, 50_000, 0)
    outbox.send(flow, b"x" * 40_000)
    assert [len(payload) for _, _, payload in sent(outbox)] == [16384, 16384, 7232]
    outbox.max_frame = 2**20
    outbox.send(flow, b"x" * 10_000)
    assert [len(payload) for _, _, payload in sent(outbox)] == [10_000]


@given(
    st.integers(1, 200),
    st.integers(0, 50_000),
    st.integers(0, 60_000),
    st.integers(0, 60_000),
    st.booleans(),
)
def test_a_message_in_two_parts_is_sent_as_one(
    start: int, rest: int, stream: int, connection: int, waits: bool
) -> None:
    outbox, flow = Outbox(), Flow(1, stream, 0)
    outbox.window = connection
    before = b"-" * 60_001 if waits else b""
    if waits:
        outbox.send(flow, before)
    message = bytes(number % 251 for number in range(start + rest))

    outbox.send_parts(flow, message[:start], memoryview(message)[start:])
    got = sent(outbox)
    outbox.stream_opened(flow, 200_000)
    outbox.opened(200_000)
    got += sent(outbox)

    assert b"".join(payload for _, _, payload in got) == before + message
    assert all(len(payload) <= outbox.max_frame for _, _, payload in got)
    assert outbox.queued == 0
    assert flow.send_window == stream + 200_000 - len(before + message)
    assert outbox.window == connection + 200_000 - len(before + message)


def test_a_stream_that_is_gone_waits_no_more() -> None:
    outbox, flow = Outbox(), Flow(1, 0, 0)
    outbox.send(flow, b"abc")
    outbox.end(flow, ENDING)

    outbox.drop(flow)

    assert outbox.queued == 0
    outbox.opened(10)
    assert sent(outbox) == []


def test_streams_that_wait_for_their_own_windows_do_not_wait_for_the_connections() -> None:
    outbox = Outbox()
    for number in range(1, 2001, 2):
        outbox.send(Flow(number, 0, 0), b"abc")

    outbox.opened(10)

    assert not outbox.lags
    assert sent(outbox) == []


def test_many_streams_that_wait_are_served_in_parts_in_order() -> None:
    outbox = Outbox()
    outbox.window = 0
    numbers = list(range(1, 401, 2))
    for number in numbers:
        outbox.send(Flow(number, 10, 0), b"abc")

    outbox.opened(10_000)
    parts = [[number for _, number, _ in sent(outbox)]]
    while outbox.lags:
        outbox.pump()
        parts.append([number for _, number, _ in sent(outbox)])

    assert [len(part) for part in parts] == [64, 64, 64, 8]
    assert [number for part in parts for number in part] == numbers
    assert outbox.queued == 0


def test_one_byte_of_window_serves_one_stream_and_the_next_byte_the_next() -> None:
    outbox = Outbox()
    outbox.window = 0
    for number in (1, 3):
        outbox.send(Flow(number, 10, 0), b"ab")
    served = []
    for _ in range(4):
        outbox.opened(1)
        served += [(number, payload) for _, number, payload in sent(outbox)]
    assert served == [(1, b"a"), (3, b"a"), (1, b"b"), (3, b"b")]


def test_windows_have_a_largest_size() -> None:
    outbox, flow = Outbox(), Flow(1, 1, 0)
    with pytest.raises(StreamError):
        outbox.stream_opened(flow, frames.MAX_WINDOW)
    with pytest.raises(PeerError):
        outbox.opened(frames.MAX_WINDOW)
    with pytest.raises(PeerError):
        outbox.resize([Flow(3, frames.MAX_WINDOW, 0)], frames.MAX_WINDOW)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 2), st.integers(1, 300)),
        st.tuples(st.just("open"), st.integers(0, 2), st.integers(1, 200)),
        st.tuples(st.just("open all"), st.just(0), st.integers(1, 300)),
        st.tuples(st.just("resize"), st.just(0), st.integers(0, 300)),
        st.tuples(st.just("drop"), st.integers(0, 2), st.just(0)),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(STEPS)
def test_no_window_is_overrun_and_nothing_is_lost(steps: list[tuple[str, int, int]]) -> None:
    outbox = Outbox()
    outbox.window, outbox.initial_window, outbox.max_frame = 100, 50, 70
    flows = [Flow(number, 50, 0) for number in (1, 3, 5)]
    wanted = {flow.id: b"" for flow in flows}
    got = {flow.id: b"" for flow in flows}
    allowed, allowed_all = {flow.id: 50 for flow in flows}, 100
    dropped = set()
    initial = 50
    for count, (what, which, size) in enumerate(steps):
        flow = flows[which]
        if what == "send" and flow.id not in dropped:
            data = bytes((count % 256,)) * size
            wanted[flow.id] += data
            outbox.send(flow, data)
        elif what == "open":
            allowed[flow.id] += size
            outbox.stream_opened(flow, size)
        elif what == "open all":
            allowed_all += size
            outbox.opened(size)
        elif what == "resize":
            for each in allowed:
                allowed[each] += size - initial
            initial = size
            outbox.resize(flows, size)
        elif what == "drop":
            dropped.add(flow.id)
            outbox.drop(flow)
        for _, number, payload in sent(outbox):
            assert len(payload) <= 70
            got[number] += payload
            allowed[number] -= len(payload)
            allowed_all -= len(payload)
            assert allowed[number] >= 0
            assert allowed_all >= 0
            assert number not in dropped
        for number, data in wanted.items():
            assert data.startswith(got[number])
            if number not in dropped and got[number] != data:
                # Bytes wait only for a closed window.
                assert allowed[number] <= 0 or allowed_all <= 0
    waiting = sum(
        len(data) - len(got[number]) for number, data in wanted.items() if number not in dropped
    )
    assert outbox.queued == waiting


def test_what_was_taken_is_given_back_at_a_quarter() -> None:
    window = ReceiveWindow(100_000)

    assert take(window, 24_999) == 0
    assert take(window, 1) == 25_000
    assert take(window, 24_999) == 0
    assert take(window, 75_000) == 99_999


def test_more_than_the_window_is_a_violation() -> None:
    window = ReceiveWindow(100_000)

    with pytest.raises(PeerError):
        take(window, 100_001)


def test_what_waits_is_reported_until_it_has_left() -> None:
    waiting: list[int] = []
    outbox, flow = Outbox(waiting.append), Flow(1, 3, 0)
    outbox.send(flow, b"abc")
    assert waiting == []

    outbox.send(flow, b"defgh")
    outbox.stream_opened(flow, 2)
    outbox.opened(1)
    outbox.drop(flow)
    assert waiting == [5, -2, -3]


def test_short_messages_that_wait_leave_together() -> None:
    """Each with a frame of its own, thousands would take long to leave in one go."""
    outbox, flow = Outbox(), Flow(1, 0, 0)
    for number in range(5000):
        outbox.send(flow, b"%04d" % number)
    outbox.send(flow, b"x" * 2000)
    outbox.send(flow, b"end")
    assert (len(flow.queue or ()), outbox.queued) == (4, 22_003)

    outbox.stream_opened(flow, 10)
    outbox.send(flow, b"!")
    outbox.stream_opened(flow, 100_000)

    frames_sent = sent(outbox)
    everything = b"".join(payload for _, _, payload in frames_sent)
    assert (
        everything == b"".join(b"%04d" % number for number in range(5000)) + b"x" * 2000 + b"end!"
    )
    assert len(frames_sent) == 5
    assert outbox.queued == 0

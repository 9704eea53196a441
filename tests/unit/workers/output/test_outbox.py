"""Lines wait in bounded memory and in their order; what had to go is counted and told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rayline.printed import PrintedLine, Printer, Stream, encode_printed
from workers.output.outbox import RECORD_BYTES, Outbox

PRINTERS = [Printer("c1", "p1", "app", "v1", f"actor-{number}", f"i{number}") for number in range(3)]


def line(number: int, text: str = "x") -> PrintedLine:
    return PrintedLine(number, Stream.STDOUT, text)


def drain(outbox: Outbox) -> list[tuple[Printer, PrintedLine]]:
    taken = []
    while parcels := outbox.take():
        taken += [(parcel.printer, line) for parcel in parcels for line in parcel.lines]
    return taken


@given(st.lists(st.sampled_from(PRINTERS), max_size=50), st.integers(0, 3))
def test_each_printers_lines_come_out_once_and_in_order(printers: list[Printer], refusals: int) -> None:
    outbox = Outbox(on_news=lambda: None)
    for number, printer in enumerate(printers):
        outbox.put(printer, line(number))
    for _ in range(refusals):
        outbox.put_back(outbox.take())
    taken = drain(outbox)
    for one in PRINTERS:
        assert [line.at_ms for printer, line in taken if printer is one] == [n for n, p in enumerate(printers) if p is one]
    assert outbox.kept == len(printers)


@given(st.lists(st.tuples(st.sampled_from(PRINTERS), st.integers(0, 400)), max_size=60))
def test_while_nobody_takes_them_the_oldest_make_room_and_are_told(puts: list[tuple[Printer, int]]) -> None:
    outbox = Outbox(on_news=lambda: None, max_held_bytes=3_000)
    for number, (printer, size) in enumerate(puts):
        outbox.put(printer, line(number, "x" * size))
    for printer in PRINTERS:
        outbox.put(printer, line(1_000))
    taken = drain(outbox)
    kept = [line for _, line in taken if not line.dropped]
    told = sum(line.dropped for _, line in taken)
    assert len(kept) + told == len(puts) + len(PRINTERS)
    assert outbox.dropped == told
    assert sum(len(line.text) for line in kept) <= 3_000


def test_a_record_is_bounded_whatever_its_text() -> None:
    outbox = Outbox(on_news=lambda: None)
    for number in range(200):
        outbox.put(PRINTERS[0], line(number, "日" * 5_000))
    sizes = []
    while parcels := outbox.take():
        sizes += [len(encode_printed(parcel.printer, parcel.lines)) for parcel in parcels]
    assert max(sizes) < RECORD_BYTES + 20_000


def test_news_are_told_when_something_comes_into_an_empty_outbox() -> None:
    told: list[int] = []
    outbox = Outbox(on_news=lambda: told.append(1))
    outbox.put(PRINTERS[0], line(1))
    outbox.put(PRINTERS[0], line(2))
    assert told == [1]
    outbox.take()
    outbox.put(PRINTERS[0], line(3))
    assert told == [1, 1]

"""Hidden states on disk: what is written is read, up to a limit, and damage is noticed."""

import json
import zlib

import pytest
import torch

from weightlora.errors import DataError
from weightlora.prefix.rows import Rows
from weightlora.prefix.store import Store, check_identity

IDENTITY = {"format": 1, "model": "BertModel", "weights": "abc"}
KEYS = [bytes([number] * 16) for number in range(4)]


def states(number: int, tokens: int = 3, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(tokens, 8, generator=torch.Generator().manual_seed(number)).to(dtype)


def read(store: Store, key: bytes, tokens: int = 3) -> torch.Tensor | None:
    found = store.read(Rows([key], [tokens], tokens, None))
    return None if found is None else found[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_what_is_written_is_read_bit_for_bit_also_by_the_next_one(tmp_path, dtype):
    store = Store(tmp_path, IDENTITY, 10**6)
    store.add({KEYS[0]: states(0, 3, dtype), KEYS[1]: states(1, 5, dtype)})
    store.add({KEYS[2]: states(2, 1, dtype)})
    store.close()
    again = Store(tmp_path, IDENTITY, 10**6)
    assert len(again) == 3 and KEYS[3] not in again and again.nbytes == 9 * 8 * dtype.itemsize
    for number, tokens in enumerate((3, 5, 1)):
        assert torch.equal(read(again, KEYS[number], tokens), states(number, tokens, dtype))


def test_a_default_device_of_the_user_changes_nothing(tmp_path):
    store = Store(tmp_path, IDENTITY, 10**6)
    store.add({KEYS[0]: states(0)})
    with torch.device("meta"):  # stands for an accelerator
        found = read(store, KEYS[0])
    assert torch.equal(found, states(0))


@pytest.mark.parametrize("room", [192, 287])
def test_it_keeps_to_its_room(tmp_path, room):
    store = Store(tmp_path, IDENTITY, room)  # an example has 96 bytes
    store.add({KEYS[0]: states(0)})
    assert not store.full
    store.add({KEYS[1]: states(1), KEYS[2]: states(2)})
    assert store.full and len(store) == 2 and store.nbytes == 192
    assert (tmp_path / "process-0/states.bin").stat().st_size == 192


def test_what_is_there_is_no_part_of_its_room(tmp_path):
    for number in range(2):
        store = Store(tmp_path, IDENTITY, 96)
        store.add({KEYS[number]: states(number), KEYS[3]: states(3)})
        assert store.full and store.nbytes == 96 * (number + 1)
        store.close()


@pytest.mark.parametrize("place", [0, 95, 100])
def test_a_changed_byte_is_noticed_and_the_example_is_forgotten_once(tmp_path, place):
    store = Store(tmp_path, IDENTITY, 10**6)
    store.add({key: states(number) for number, key in enumerate(KEYS[:2])})
    path = tmp_path / "process-0/states.bin"
    bits = bytearray(path.read_bytes())
    bits[place] ^= 16
    path.write_bytes(bits)
    bad, good = (KEYS[0], KEYS[1]) if place < 96 else (KEYS[1], KEYS[0])
    with pytest.warns(UserWarning, match=r"states\.bin is damaged: what is not whole is computed again") as told:
        assert read(store, bad) is None
    assert bad not in store and read(store, good) is not None and len(told) == 1
    store.add({bad: states(7)})
    assert torch.equal(read(store, bad), states(7))


def test_a_file_that_was_cut_short_is_noticed(tmp_path):
    store = Store(tmp_path, IDENTITY, 10**6)
    store.add({KEYS[0]: states(0)})
    with (tmp_path / "process-0/states.bin").open("r+b") as file:
        file.truncate(90)
    with pytest.warns(UserWarning, match="is damaged"):
        assert read(store, KEYS[0]) is None


def test_what_a_killed_process_left_half_written_is_written_over(tmp_path):
    store = Store(tmp_path, IDENTITY, 10**6)
    store.add({KEYS[0]: states(0)})
    store.close()
    index = tmp_path / "process-0/index.jsonl"
    with (tmp_path / "process-0/states.bin").open("ab") as file:
        file.write(b"half of an example")
    with index.open("a") as file:
        file.write('{"key": "0101')
    again = Store(tmp_path, IDENTITY, 10**6)
    assert len(again) == 1 and again.nbytes == 96
    again.add({KEYS[1]: states(1)})
    again.close()
    last = Store(tmp_path, IDENTITY, 10**6)
    assert torch.equal(read(last, KEYS[1]), states(1)) and index.read_text().count("\n") == 2


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[]",
        '{"key": "zz"}',
        json.dumps({"key": "00" * 16, "offset": -1, "tokens": 1, "width": 8, "dtype": "float32", "crc": 0}),
        json.dumps({"key": "00" * 16, "offset": 0, "tokens": 1, "width": 8, "dtype": "int3", "crc": 0}),
        "[" * 100_000,
    ],
)
def test_a_damaged_line_of_the_index_is_left_out(tmp_path, line):
    store = Store(tmp_path, IDENTITY, 10**6)
    store.add({KEYS[1]: states(1)})
    store.close()
    with (tmp_path / "process-0/index.jsonl").open("a") as file:
        file.write(f"{line}\n")
    with pytest.warns(UserWarning, match=r"index\.jsonl is damaged"):
        again = Store(tmp_path, IDENTITY, 10**6)
    assert len(again) == 1 and torch.equal(read(again, KEYS[1]), states(1))


def test_a_line_that_points_to_other_bytes_gives_nothing(tmp_path):
    store = Store(tmp_path, IDENTITY, 10**6)
    store.add({KEYS[0]: states(0), KEYS[1]: states(1)})
    store.close()
    index = tmp_path / "process-0/index.jsonl"
    index.write_text(index.read_text().replace('"offset": 96', '"offset": 0'))
    with pytest.warns(UserWarning, match="is damaged"):
        assert read(Store(tmp_path, IDENTITY, 10**6), KEYS[1]) is None


def test_processes_read_what_the_others_have_written(tmp_path):
    one, two = (Store(tmp_path, IDENTITY, 10**6, process) for process in (0, 1))
    one.add({KEYS[0]: states(0)})
    two.add({KEYS[1]: states(1)})
    assert KEYS[1] not in one
    one.refresh(), two.refresh()
    assert torch.equal(read(one, KEYS[1]), states(1)) and torch.equal(read(two, KEYS[0]), states(0))
    assert one.nbytes == two.nbytes == 96


def test_a_disk_that_takes_no_more_is_a_warning(tmp_path, monkeypatch):
    store = Store(tmp_path, IDENTITY, 10**6)
    store.add({KEYS[0]: states(0)})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("weightlora.prefix.store._write_all", full)
    with pytest.warns(UserWarning, match=r"process-0 takes no more hidden states \(.*No space left on device\)"):
        store.add({KEYS[1]: states(1)})
    assert store.full and KEYS[1] not in store and read(store, KEYS[0]) is not None


def test_another_identity_is_refused_by_what_differs(tmp_path):
    Store(tmp_path, IDENTITY, 10**6).close()
    check_identity(tmp_path, IDENTITY)
    check_identity(tmp_path / "new", IDENTITY)
    with pytest.raises(
        DataError, match=r"has hidden states of another model \(its model and weights differ\): give an"
    ):
        Store(tmp_path, IDENTITY | {"model": "LlamaModel", "weights": "d"}, 10**6)
    (tmp_path / "process-0/identity.json").write_text("[]")
    with pytest.raises(DataError, match="its format and model and weights differ"):
        check_identity(tmp_path, IDENTITY)
    (tmp_path / "process-0/identity.json").write_text("{")
    with pytest.raises(DataError, match="is not whole JSON"):
        check_identity(tmp_path, IDENTITY)


def test_the_index_is_plain_json(tmp_path):
    store = Store(tmp_path, IDENTITY, 10**6)
    store.add({KEYS[0]: states(0)})
    [line] = (tmp_path / "process-0/index.jsonl").read_text().splitlines()
    crc = zlib.crc32(states(0).numpy().tobytes())
    expected = {"key": KEYS[0].hex(), "offset": 0, "tokens": 3, "width": 8, "dtype": "float32", "crc": crc}
    assert json.loads(line) == expected

"""Bad input is one sentence before any work."""

import pytest
from prefixes import upper_bert

from weightlora.errors import ConfigError, DataError
from weightlora.prefix.checks import check_prefix, room_in


def test_a_directory_without_room(tmp_path):
    message = (
        r"^max_bytes=1,000,000,000,000,000,000 is more than the [\d,]+ bytes that .* has room for: give fewer byte"
    )
    with pytest.raises(DataError, match=message):
        check_prefix(upper_bert(), tmp_path / "new", 10**18)
    assert not (tmp_path / "new").exists()


def test_data_that_may_not_fit(tmp_path):
    message = (
        r"^the hidden states of 1,000 tokens take up to 64,000 bytes, and .* may take 63,999: give a larger max_b"
    )
    with pytest.raises(DataError, match=message):
        check_prefix(upper_bert(), tmp_path, 63_999, tokens=1000)
    assert check_prefix(upper_bert(), tmp_path, 64_000, tokens=1000).first == 2


def test_an_unknown_word_for_dropout(tmp_path):
    with pytest.raises(ConfigError, match=r"^prefix_dropout='on' is not known: choose one of 'refuse', 'off'\.$"):
        check_prefix(upper_bert(), tmp_path, prefix_dropout="on")


def test_a_directory_that_is_a_file(tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(DataError, match="is not a directory that you may write to"):
        check_prefix(upper_bert(), tmp_path / "taken")


def test_what_is_there_already_counts_as_room(tmp_path):
    free = room_in(tmp_path, None)
    (tmp_path / "block-2/process-0").mkdir(parents=True)
    (tmp_path / "block-2/process-0/states.bin").write_bytes(bytes(10**7))
    assert room_in(tmp_path, None) - free == pytest.approx(10**6, abs=5 * 10**7)  # the disk is shared
    assert room_in(tmp_path, 5) == 5
    (tmp_path / "checkpoint-8").mkdir()
    (tmp_path / "checkpoint-8/pytorch_model.bin").write_bytes(bytes(100))  # is no cache
    assert room_in(tmp_path, 10**7 + 5, tmp_path / "block-2") == 5

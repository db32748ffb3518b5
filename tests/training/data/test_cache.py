import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from lumina import LuminaError
from lumina.training.data.cache import ABANDONED_SECONDS, Cache

KEYS = [f"{number:040x}" for number in range(6)]


def entry(key, dtype=torch.float16):
    generator = torch.Generator().manual_seed(int(key, 16))
    return {
        "mean": torch.randn(4, 3, 5, generator=generator).to(dtype),
        "std": torch.randn(4, 3, 5, generator=generator).to(dtype),
    }


def holds(cache, key, dtype=torch.float16):
    found, expected = cache.read(key), entry(key, dtype)
    return found is not None and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.fixture
def filled(tmp_path):
    cache = Cache(tmp_path)
    cache.write({key: entry(key) for key in KEYS[:3]})
    cache.write({key: entry(key) for key in KEYS[3:5]})
    return tmp_path


def shard_of(folder, keys):
    """The shard that holds exactly these keys."""
    shards = [
        s for s in folder.glob("*.safetensors") if all(k.encode() in s.read_bytes() for k in keys)
    ]
    (shard,) = shards
    return shard


def damage(shard):
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_what_was_written_is_read_again_by_any_process(tmp_path, dtype):
    early = Cache(tmp_path)
    Cache(tmp_path).write({key: entry(key, dtype) for key in KEYS})
    assert holds(early, KEYS[0], dtype)
    assert all(holds(Cache(tmp_path), key, dtype) for key in KEYS)
    assert early.read("0" * 39 + "f") is None
    assert len(early) == 6


def test_one_changed_bit_makes_one_entry_as_if_it_were_not_there(filled):
    damage(shard_of(filled, KEYS[:3]))
    cache = Cache(filled)
    found = [holds(cache, key) for key in KEYS[:5]]
    assert sorted(found) == [False, True, True, True, True]
    assert [cache.read(key) is None for key in KEYS[:5]] == [not one for one in found]
    assert cache.damaged == 1


def test_a_damaged_entry_is_written_again_and_its_neighbours_stay(filled):
    damage(shard_of(filled, KEYS[:3]))
    cache = Cache(filled)
    (lost,) = [key for key in KEYS[:5] if cache.read(key) is None]
    cache.write({lost: entry(lost)})
    cache.tidy()
    for reader in (cache, Cache(filled)):
        assert all(holds(reader, key) for key in KEYS[:5])
    assert Cache(filled).damaged == 0


def test_a_reader_follows_when_another_process_tidies(filled):
    reader = Cache(filled)
    damage(shard_of(filled, KEYS[:3]))
    writer = Cache(filled)
    lost = [key for key in KEYS[:5] if writer.read(key) is None]
    writer.write({key: entry(key) for key in lost})
    writer.tidy()
    assert all(holds(reader, key) for key in KEYS[:5])


@pytest.mark.parametrize("length", [0, 4, 100, -40])
def test_a_shard_that_is_cut_off_loses_only_what_it_held(filled, length):
    shard = shard_of(filled, KEYS[:3])
    shard.write_bytes(shard.read_bytes()[:length])
    cache = Cache(filled)
    assert all(holds(cache, key) for key in KEYS[3:5])
    lost = [key for key in KEYS[:3] if cache.read(key) is None]
    assert lost
    assert cache.damaged == 1
    cache.write({key: entry(key) for key in lost})
    cache.tidy()
    assert all(holds(Cache(filled), key) for key in KEYS[:5])
    assert Cache(filled).damaged == 0


def test_a_writer_that_is_killed_leaves_a_cache_that_is_whole(tmp_path):
    code = (
        "import sys, torch; from pathlib import Path\n"
        "from lumina.training.data.cache import Cache\n"
        "cache = Cache(Path(sys.argv[1])); print('ready', flush=True)\n"
        "for n in range(10**6):\n"
        "    cache.write({f'{n}-{i}': {'mean': torch.full((4, 64, 64), n)} for i in range(8)})\n"
    ).replace("torch.full((4, 64, 64), n)", "torch.full((4, 64, 64), float(n))")
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("*.safetensors"))) < 5 and time.monotonic() < deadline:
            os.sched_yield()
        writer.send_signal(signal.SIGKILL)
    cache = Cache(tmp_path)
    assert len(cache) >= 40
    for key in list(cache._places):
        number = float(key.partition("-")[0])
        assert (cache.read(key)["mean"] == number).all()
    assert cache.damaged == 0


def test_what_a_killed_writer_left_is_removed_when_it_is_old(filled):
    old, new = filled / "a.part", filled / "b.part"
    old.touch()
    new.touch()
    past = time.time() - ABANDONED_SECONDS - 1
    os.utime(old, (past, past))
    Cache(filled).tidy()
    assert not old.exists()
    assert new.exists()


def test_a_full_disk_is_an_error_that_leaves_the_cache_as_it_was(filled, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    cache = Cache(filled)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LuminaError, match="No space left"):
        cache.write({KEYS[5]: entry(KEYS[5])})
    assert cache.read(KEYS[5]) is None
    assert not list(filled.glob("*.part"))
    assert all(holds(cache, key) for key in KEYS[:5])

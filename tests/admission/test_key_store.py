"""A real file, shared by several programs."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from headrace.admission.key_store import KeyStore, Stored
from headrace.admission.key_text import digest, new_key
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.key import Key
from headrace.domain.limits import Limits
from headrace.domain.tenant import Tenant


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "keys.db"


def key(id: str, at: float = 1.0, **fields) -> Key:
    return Key(id, "alpha", created_at=at, **fields)


def test_nothing_is_made_before_something_is_kept(path: Path) -> None:
    store = KeyStore(path)
    assert not store.changed()
    assert store.load() == Stored({}, ())
    assert not path.parent.exists()


def test_what_is_kept_comes_back_the_newest_first(path: Path) -> None:
    store = KeyStore(path)
    one = key("one", name="Ärger 🦜", expires_at=9.5)
    two = Key("two", "b", ("infer", "admin"), created_at=2.0)
    store.add(b"1" * 32, one)
    store.add(b"2" * 32, two)
    store.put(Tenant(name="alpha", weight=2.0, ttft_ms=5))
    expected = Stored(
        {b"2" * 32: two, b"1" * 32: one}, (Tenant(name="alpha", weight=2, ttft_ms=5),)
    )
    assert store.load() == KeyStore(path).load() == expected
    assert list(store.load().keys.values()) == [two, one]


def test_only_the_sha_256_of_a_key_is_on_the_disk(path: Path) -> None:
    made = new_key()
    store = KeyStore(path)
    store.add(digest(made.text), key(made.id))
    store.close()
    kept = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert digest(made.text) in kept
    assert made.text[-43:].encode() not in kept
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_change_by_another_is_seen_once(path: Path) -> None:
    mine, theirs = KeyStore(path), KeyStore(path)
    theirs.add(b"1" * 32, key("one"))
    assert mine.changed()
    assert len(mine.load().keys) == 1
    assert not mine.changed()
    assert theirs.revoke("one", 5.0) == key("one", revoked_at=5.0)
    assert mine.changed()
    assert mine.load().keys[b"1" * 32].revoked_at == 5.0
    assert not mine.changed()


def test_a_change_of_ones_own_is_one_until_it_is_read(path: Path) -> None:
    store = KeyStore(path)
    store.add(b"1" * 32, key("one"))
    assert store.changed()
    store.load()
    assert not store.changed()


def test_a_key_is_revoked_once(path: Path) -> None:
    store = KeyStore(path)
    store.add(b"1" * 32, key("one"))
    store.revoke("one", 5.0)
    assert store.revoke("one", 6.0) == key("one", revoked_at=5.0)
    assert store.revoke("two", 6.0) is None


def test_a_file_that_was_deleted_changes_nothing_and_one_that_was_replaced_does(path: Path) -> None:
    store = KeyStore(path)
    store.add(b"1" * 32, key("one"))
    store.load()
    path.unlink()
    assert not store.changed()
    assert len(store.load().keys) == 1, "what was known"
    KeyStore(path).add(b"2" * 32, key("two"))
    assert store.changed()
    assert list(store.load().keys) == [b"2" * 32]


def test_terms_are_replaced_and_forgotten(path: Path) -> None:
    store = KeyStore(path)
    store.put(Tenant(name="a", weight=2.0))
    store.put(Tenant(name="a", weight=3.0))
    assert store.load().tenants == (Tenant(name="a", weight=3.0),)
    assert store.forget("a")
    assert not store.forget("a")
    assert store.load().tenants == ()


def test_limits_of_models_are_replaced_and_forgotten(path: Path) -> None:
    store = KeyStore(path)
    store.limit("m", Limits(concurrent=2))
    store.limit("m", Limits(pace=3.0, burst_s=5.0))
    assert KeyStore(path).load().models == {"m": Limits(pace=3.0, burst_s=5.0)}
    assert store.forget_limits("m")
    assert not store.forget_limits("m")
    assert store.load().models == {}


def test_a_file_from_before_models_had_limits_is_read_as_it_is(path: Path) -> None:
    before = KeyStore(path)
    before.put(Tenant(name="a", weight=2.0))
    before.put(Tenant(name="b"))
    before.close()
    with sqlite3.connect(path) as older:
        old = b'{"name":"a","weight":2.0}'
        older.execute("UPDATE tenants SET terms = ? WHERE name = 'a'", (old,))
    terms = Tenant(name="a", weight=2.0), Tenant(name="b")
    store = KeyStore(path)
    assert store.load() == Stored({}, terms, {}, ("a",))
    assert not store.forget_limits("m")
    store.limit("m", Limits(concurrent=2))
    assert KeyStore(path).load() == Stored({}, terms, {"m": Limits(concurrent=2)}, ("a",))


def test_there_is_a_bound_and_spent_keys_make_room(path: Path) -> None:
    store = KeyStore(path, max_keys=3, max_tenants=1)
    store.add(b"1" * 32, key("revoked", 1.0))
    store.add(b"2" * 32, key("expired", 2.0, expires_at=3.0))
    store.add(b"3" * 32, key("good", 3.0))
    store.revoke("revoked", 4.0)
    for number in (4, 5):
        store.add(str(number).encode() * 32, key(f"new{number}", float(number)))
    with pytest.raises(HeadraceError) as full:
        store.add(b"6" * 32, key("new6", 6.0))
    assert full.value.code is Code.CONFLICT
    assert {one.id for one in store.load().keys.values()} == {"good", "new4", "new5"}
    store.put(Tenant(name="a"))
    store.put(Tenant(name="a", weight=2.0))
    with pytest.raises(HeadraceError):
        store.put(Tenant(name="b"))
    assert [one.name for one in store.load().tenants] == ["a"]


@pytest.mark.parametrize("what", ["junk", "later", "folder"])
def test_a_file_that_cannot_be_used_is_said_in_one_line(path: Path, what: str) -> None:
    path.parent.mkdir()
    if what == "junk":
        path.write_bytes(b"x" * 4096)
    elif what == "folder":
        path.mkdir()
    else:
        made = sqlite3.connect(path)
        made.execute("PRAGMA user_version = 99")
        made.close()
    for use in (KeyStore(path).load, lambda: KeyStore(path).add(b"1" * 32, key("one"))):
        with pytest.raises(HeadraceError, match=str(path)) as failed:
            use()
        assert failed.value.code is Code.STORE_FAILED
        assert "\n" not in failed.value.message


MAKE = """
import sys
from pathlib import Path
from headrace.admission.key_store import KeyStore
from headrace.domain.key import Key
store = KeyStore(Path(sys.argv[1]))
for number in range(5):
    id = sys.argv[2] + str(number)
    store.add(id.encode() * 16, Key(id, "t", created_at=1.0))
"""


def test_programs_that_begin_together_all_get_in(path: Path) -> None:
    words = [sys.executable, "-c", MAKE, str(path)]
    programs = [subprocess.Popen([*words, letter]) for letter in "abc"]
    assert [program.wait(50) for program in programs] == [0, 0, 0]
    assert len(KeyStore(path).load().keys) == 15


def test_threads_take_turns(path: Path) -> None:
    store = KeyStore(path)

    def add(letter: str) -> None:
        for number in range(5):
            id = f"{letter}{number}"
            store.add(id.encode() * 16, key(id))

    threads = [threading.Thread(target=add, args=(letter,)) for letter in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.load().keys) == 15

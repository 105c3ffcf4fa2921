from __future__ import annotations

import os
import subprocess
import sys

import pytest

from headrace.engines.orphans import TAG, Owner, end_orphans, owner_of, started_at

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
SLEEP = (sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()")


@pytest.fixture
def engine():
    """Start a process that carries a tag; it is gone after the test."""
    started = []

    def start(tag):
        child = subprocess.Popen(
            SLEEP, env={TAG: tag}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(child)
        child.stdout.readline()
        return child

    yield start
    for child in started:
        child.stdin.close()
        child.stdout.close()
        child.wait()


def dead_owner(state):
    """An owner whose process was there and is gone."""
    with subprocess.Popen(SLEEP, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        ours = Owner.this_process(state)
        return Owner(ours.state, other.pid, started_at(other.pid), ours.namespace)


def test_the_engine_of_a_dead_server_is_ended(engine, tmp_path):
    state = str(tmp_path)
    left = engine(dead_owner(state).tag)
    assert end_orphans(state) == [left.pid]
    assert left.wait(10) == -9


def test_a_process_id_that_was_used_again_is_not_taken_for_the_owner(engine, tmp_path):
    state = str(tmp_path)
    ours = Owner.this_process(state)
    left = engine(Owner(ours.state, ours.pid, ours.started - 1, ours.namespace).tag)
    assert end_orphans(state) == [left.pid]


def test_the_engine_of_a_living_server_is_left_alone(engine, tmp_path):
    state = str(tmp_path)
    child = engine(Owner.this_process(state).tag)
    assert owner_of(child.pid) == Owner.this_process(state)
    assert end_orphans(state) == []
    assert child.poll() is None


def test_engines_of_other_state_folders_and_namespaces_are_left_alone(engine, tmp_path):
    state = str(tmp_path)
    dead = dead_owner(state)
    other = engine(dead_owner(state + "-other").tag)
    elsewhere = engine(Owner(dead.state, dead.pid, dead.started, "pid:[1]").tag)
    assert end_orphans(state) == []
    assert other.poll() is None
    assert elsewhere.poll() is None


@pytest.mark.parametrize("tag", ["", "x", "a/b/c/d", "a/b/1", "a/b/1/2/3"])
def test_a_tag_that_is_none_of_ours_is_ignored(engine, tag):
    assert owner_of(engine(tag).pid) is None


def test_a_zombie_is_no_living_owner():
    with subprocess.Popen((sys.executable, "-c", "")) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert started_at(child.pid) is None

"""A log that is shared with a group of users: real users, each in processes of its own."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from typing import Final

import pytest

from eventlog import InvalidArgument
from eventlog.local.rendezvous import SOCKET_NAME
from eventlog.local.storage.sharing import gid_of
from tests.commands import run
from tests.storage.test_locks import HANGS_S, first_line
from tests.users import User

GROUP: Final = 54321
OWNER: Final = User(50001, [GROUP])
MEMBER: Final = User(50002, [GROUP])
STRANGER: Final = User(50003)

pytestmark = [
    pytest.mark.slow,  # each process imports all that there is, as root
    pytest.mark.real_starts,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users"),
]

PROGRAM: Final = """
import sys
from eventlog import blocking

def work(log):
    print(log.append({"by": sys.argv[2]}))
    print([envelope.event for envelope in log.read(0)])
    log.ack("reader", 1)
    with log.subscribe("reader") as stream:
        print(next(stream).seq_no)
    with log.member("pool") as member:
        lease = member.lease(10)
        for attempt, envelope in lease:
            if lease.begin(envelope):
                lease.done(envelope)
        member.flush()
    print(log.groups()[0].position, log.status().connections > 0)

with blocking.open(sys.argv[1]) as log:
    work(log)
"""


@pytest.fixture
def path() -> Iterator[str]:
    """Where the owner makes a shared log; everybody may get to the folder that it is in."""
    place = tempfile.mkdtemp(prefix="shared-")
    os.chown(place, OWNER.uid, OWNER.uid)
    os.chmod(place, 0o755)
    yield os.path.join(place, "log")
    shutil.rmtree(place)


@pytest.fixture
def shared(path: str) -> str:
    """The shared log, without a writer."""
    OWNER.out("create", path, "--group", str(GROUP))
    return path


@pytest.fixture
def served(shared: str) -> Iterator[str]:
    """The shared log, whose owner serves it."""
    server = OWNER.start("serve", shared, umask=0o077)
    first_line(server, ", epoch")
    yield shared
    server.terminate()
    assert server.wait(HANGS_S) == 0
    assert server.stderr is not None
    server.stderr.close()


def test_users_of_the_group_use_the_log_and_others_do_not(served: str) -> None:
    assert OWNER.out("append", served, '{"by": "owner"}') == "1\n"
    said = MEMBER.run_code(PROGRAM, served, "member")
    assert said.stderr == ""
    assert said.stdout.splitlines() == ["2", "[{'by': 'owner'}, {'by': 'member'}]", "2", "2 True"]
    refused = STRANGER.run_code(PROGRAM, served, "stranger")
    assert refused.returncode == 1
    assert "PermissionDenied" in refused.stderr
    for command in ("tail", "status"):  # both said that it is a directory without a log
        assert "may not look into it" in STRANGER.run(command, served).stderr
    assert "chown" not in MEMBER.run("doctor", served).stdout  # it would end the sharing
    as_root = run("append", served, "3")  # whom the socket lets in, as all users
    assert as_root.returncode == 1
    assert "belongs to the user with id 50001" in as_root.stderr
    assert OWNER.out("tail", served, "--from", "beginning", "--json").count("\n") == 2


def test_the_files_belong_to_the_owner_and_the_group_whatever_the_umask_of_the_service(
    served: str,
) -> None:
    OWNER.out("append", served, "1")
    assert MEMBER.run_code(PROGRAM, served, "member").stderr == ""
    place = os.stat(served)
    assert (place.st_uid, place.st_gid) == (OWNER.uid, GROUP)
    assert stat.S_IMODE(place.st_mode) == 0o2750
    for name in os.listdir(served):
        found = os.stat(os.path.join(served, name))
        assert found.st_uid == OWNER.uid, name
        if name != "writer.lock":
            assert found.st_gid == GROUP, name
            written_by_members = name in ("members", SOCKET_NAME)
            assert stat.S_IMODE(found.st_mode) == (0o660 if written_by_members else 0o640), name


def test_a_user_of_the_group_reads_without_a_writer_and_is_told_who_may_start_one(
    shared: str,
) -> None:
    for who in (MEMBER, OWNER):
        assert who.out("tail", shared) == ""
        refused = who.run("append", shared, "1")
        assert refused.returncode == 1
        assert f"shared with the group with id {GROUP}" in refused.stderr
        assert "only its owner, the user with id 50001, runs one" in refused.stderr
        assert "run: eventlog serve" in refused.stderr
    refused = MEMBER.run("serve", shared)
    assert refused.returncode == 1
    assert "belongs to the user with id 50001" in refused.stderr
    refused = OWNER.run("restart", shared)
    assert refused.returncode == 2
    assert "`eventlog serve` alone" in refused.stderr


def test_a_user_of_the_group_does_not_stop_or_delete_the_log(served: str) -> None:
    for command in (["stop"], ["delete", "--yes", "--force"]):
        refused = MEMBER.run(*command, served)
        assert refused.returncode == 1
        assert "belongs to the user with id 50001" in refused.stderr
    assert MEMBER.out("append", served, "1") == "1\n"


def test_a_group_that_is_not_there_is_refused_and_nothing_is_made(path: str) -> None:
    refused = OWNER.run("create", path, "--group", "no[/red]")
    assert refused.returncode == 2
    assert "there is no group 'no[/red]'" in refused.stderr
    assert not os.path.exists(path)
    with pytest.raises(InvalidArgument, match="there is no group"):
        gid_of("")


def test_a_user_shares_no_log_with_a_group_that_he_is_not_in(path: str) -> None:
    refused = STRANGER.run("create", path, "--group", str(GROUP))
    assert refused.returncode == 1
    assert "Error" not in refused.stderr


def test_what_cannot_be_shared_is_not_made(path: str) -> None:
    # It was made and said to be shared, with nobody, so that even its owner could not append.
    refused = OWNER.run("create", path, "--group", str(GROUP + 1))
    assert refused.returncode == 1
    assert "has to log in again" in refused.stderr
    assert not os.path.exists(path)
    OWNER.out("create", path)  # the path is free


def test_a_repair_leaves_the_log_to_its_group_and_doctor_sees_what_keeps_the_group_out(
    shared: str,
) -> None:
    # Files that a repair made anew were the owner's alone, and nobody said so.
    os.unlink(os.path.join(shared, "offsets"))
    OWNER.run("verify", "--repair", shared)
    assert stat.S_IMODE(os.stat(os.path.join(shared, "offsets")).st_mode) == 0o640
    os.chmod(os.path.join(shared, "offsets"), 0o600)
    assert "offsets cannot be used by the group" in OWNER.run("doctor", shared).stdout
    OWNER.run("doctor", "--fix", shared)
    assert stat.S_IMODE(os.stat(os.path.join(shared, "offsets")).st_mode) == 0o640

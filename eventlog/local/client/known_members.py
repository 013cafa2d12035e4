"""What is known of a group's members without asking the writer: their pages, and the journal."""

from __future__ import annotations

from eventlog.api.group import MemberReport
from eventlog.local.groups.stored import read_states
from eventlog.local.storage.members import MemberPages, PageView, pool_of


class KnownMembers:
    """The members of one group of the log in that directory."""

    def __init__(self, directory: str, group: str) -> None:
        self._directory = directory
        self._group = group
        self._pages: MemberPages | None = None
        self._places: dict[int, tuple[int, int]] = {}
        """Slot and process of each member that was seen, by its id."""

    def reports(self) -> list[MemberReport]:
        """The members that the group has now.

        Raises:
            LogNotFound, CorruptLog: the log cannot be read.
        """
        self._look()
        reports = (self._report_of(member_id) for member_id in self._places)
        return [one for one in reports if one is not None]

    def report(self, member_id: int) -> MemberReport | None:
        """One member; after its end as long as its page is nobody else's."""
        if member_id not in self._places:
            gone = dict(self._places)
            self._look()
            self._places = gone | self._places
        if member_id not in self._places:
            self._find_page(member_id)
        return self._report_of(member_id)

    def _find_page(self, member_id: int) -> None:
        """Look for the page of a member that left before it was asked for; its process is gone."""
        pages = self._pages_read()
        for slot in range(pages.count):
            if pages.read(slot).member_id == member_id:
                self._places[member_id] = (slot, 0)

    def _look(self) -> None:
        for state in read_states(self._directory):
            if state.name == self._group:
                self._places = {m.member_id: (m.slot, m.pid) for m in state.members.values()}
                return
        self._places = {}

    def _report_of(self, member_id: int) -> MemberReport | None:
        if member_id not in self._places:
            return None
        slot, pid = self._places[member_id]
        page = self._pages_read().read(slot)
        return _report(page, pid) if page.member_id == member_id else None

    def _pages_read(self) -> MemberPages:
        if self._pages is None:
            self._pages = MemberPages(self._directory)
        return self._pages

    def close(self) -> None:
        """Give the descriptor back; may be called twice."""
        if self._pages is not None:
            self._pages.close()
            self._pages = None


def _report(page: PageView, pid: int) -> MemberReport:
    return MemberReport(
        member_id=page.member_id,
        owner=pool_of(page.member_id),
        pid=pid,
        handled=page.handled,
        failed=page.failed,
        retried=page.retried,
        in_flight=max(page.in_flight, 1) if page.started_ns else 0,
        busy_since_ns=page.started_ns or None,
    )

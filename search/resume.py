"""Continues a search from its journal. See docs/explanation/journal.md.

No function prints. A function returns an object or raises an error. Its observer receives lines and progress.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from search.core.changes import after_requests
from search.core.journal import Journal
from search.core.limits import in_force
from search.core.replay import extend, open_to_run, replay
from search.core.requests import Mailbox
from search.core.store import Store
from search.observer import Observer
from search.outcome import SearchOutcome
from search.preparation import connect_again, prepare_data_again
from search.runs import addresses_again, replace_addresses, reports_full_disk, run_session, warm_start_of
from trainables import InputError, get_task

if TYPE_CHECKING:
    from search.runtime.search import Listener


def resume(
    store: Store, name: str, changes: Mapping[str, str | None], observer: Observer, *, address: str | None = None,
    data: str | None = None, journal: Journal | None = None, listeners: Sequence[Listener] = (),
    notify: Sequence[str] = (),
) -> SearchOutcome:  # fmt: skip
    """Continues a search. A finished search whose events MLflow has stays as it is.

    Args:
        changes: new values of `trials`, `epochs`, `time_budget` or `audit_stopping`. `+N` adds to a number; None keeps
            it.
        address: another cluster than before; `local` starts a cluster on this machine.
        data: the address of the same data, needed if the store keeps the address without its secret.
        journal: the journal of the search, if the caller holds it (`SearchFolder.hold`).
        notify: addresses in place of those of `search.notify`.

    Raises:
        InputError: there is no such search, its data changed, a change is wrong, or another process runs it.
    """
    with reports_full_disk(store), journal or store.search(name).hold(store) as held:
        if store.search(name).read(store).elsewhere:
            held.close()  # programs that ask a study do not wait for MLflow
            return _deliver(store, name, any(changes.values()), observer)
        folder, record, config = open_to_run(store, name)
        state, events = replay(folder)
        # A kill may have come between a change in the journal and `search.json`. A command that gave the search more
        # wrote only the file: then it is the newer one.
        if record.extended_after != state.sessions:
            before, config = config, after_requests(config, events)
            record = record if config is before else replace(record, config=config.raw)
        if any(changes.values()):
            config = extend(config, dict(changes))
            record = replace(record, config=config.raw, extended_after=state.sessions)
        if notify:
            config = replace_addresses(config, notify)
            record = replace(record, config=config.raw)
        task = get_task(config.task)
        # A command that gave the search more may have been killed before its session began.
        extended = record.extended_after == state.sessions
        asked = state.has_requested_work or bool(Mailbox.of(folder).waiting())
        limit = in_force(config, state)
        trained = limit is not None or not state.unfinished()
        over = state.status == "finished" and trained and not extended and not asked
        if over:
            from search.tracking.results import has_whole

            if has_whole(store, record.id, len(events)):
                note = f"search {name} is finished"
                if limit is not None:
                    note += f", ended by its {limit['why']}: {limit['reason']}; `set` can change it"
                return SearchOutcome(store, folder, config, record, task, state, events, "", trained=False, note=note)
        addresses = addresses_again(config, notify, observer)
        splits = prepare_data_again(observer, store, config, task, name, record, data)
        warm, has_begun = None, any(event["event"] in ("warm_start", "trial") for event in events)
        if record.start_from and not has_begun:  # a kill came before the event
            warm = warm_start_of(store, config, record.start_from, splits, observer)
        with observer.progress("starting Ray"):
            cluster, record = connect_again(config, record, address)
        folder.write(record)
        from search.session import PreparedSearch

        prepared = PreparedSearch(
            store, folder, config, record, splits, cluster, held, warm, listeners=listeners, notify=addresses
        )
        return run_session(prepared, observer)


def _deliver(store: Store, name: str, extended: bool, observer: Observer) -> SearchOutcome:
    """Sends the events that MLflow lacks of a search that this program does not train."""
    from search.tracking.tracker import deliver_stored

    folder, record, config = open_to_run(store, name)
    if extended:
        more = "ask for more by search.open(..., trials=N)" if record.asked else f"begin with it: run --from {name}"
        raise InputError(f"{name}: {record.elsewhere}; {more}")
    undelivered = deliver_stored(store, folder, observer.say)
    state, events = replay(folder)
    note = f"search {name} {record.elsewhere}; MLflow has {len(events) - undelivered} of its {len(events)} events"
    task = get_task(config.task)
    return SearchOutcome(
        store, folder, config, record, task, state, events, "", trained=False, note=note, undelivered=undelivered
    )

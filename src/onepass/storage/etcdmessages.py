"""The storage contract in etcd's own messages: values in, values out.

Everything of one store lies under its prefix: PREFIX/data followed by each key, and PREFIX/tip, which every commit
writes as well. So the tip's revision is that of the newest change, deletions too, which no other read of etcd tells.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aetcd.rpc import kv_pb2, rpc_pb2

from onepass.storage.interface import Change, Compacted, Op, Record

FORMAT = b"1"  # the value of the tip


@dataclass(frozen=True, slots=True)
class Keyspace:
    """The keys of one store. `root` is what all of them begin with: /onepass/, or / for a whole etcd."""

    root: bytes

    @classmethod
    def under(cls, prefix: str) -> "Keyspace":
        return cls(f"/{prefix.strip('/')}/".replace("//", "/").encode())

    @property
    def tip(self) -> bytes:
        return self.root + b"tip"

    @property
    def data(self) -> bytes:
        return self.root + b"data"

    def page(self, prefix: bytes, after: bytes, limit: int, revision: int) -> rpc_pb2.RangeRequest:
        """At most `limit` records under `prefix` that lie after `after`."""
        begin = self.data + (after + b"\0" if after >= prefix and after else prefix)
        return rpc_pb2.RangeRequest(key=begin, range_end=beyond(self.data + prefix), limit=limit, revision=revision)

    def watch(self, revision: int) -> rpc_pb2.WatchRequest:
        """Every change of the store from `revision` on, which tells Compacted when that is forgotten."""
        create = rpc_pb2.WatchCreateRequest(
            key=self.root, range_end=beyond(self.root), start_revision=max(revision, 1), prev_kv=True
        )
        return rpc_pb2.WatchRequest(create_request=create)

    def touch(self) -> rpc_pb2.RequestOp:
        return rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=self.tip, value=FORMAT))

    def transaction(self, ops: Sequence[Op]) -> rpc_pb2.TxnRequest:
        """Every write and the tip, or where an expectation fails a read of what is there instead."""
        return rpc_pb2.TxnRequest(
            compare=[
                rpc_pb2.Compare(
                    target=rpc_pb2.Compare.MOD,
                    result=rpc_pb2.Compare.EQUAL,
                    key=self.data + op.key,
                    mod_revision=op.expected,
                )
                for op in ops
                if op.expected is not None
            ],
            success=[*(self._write(op) for op in ops), self.touch()],
            failure=self.look(ops).success,
        )

    def look(self, ops: Sequence[Op]) -> rpc_pb2.TxnRequest:
        """At which revision each key of `ops` is."""
        reads = [rpc_pb2.RangeRequest(key=self.data + op.key, keys_only=True) for op in ops]
        return rpc_pb2.TxnRequest(success=[rpc_pb2.RequestOp(request_range=read) for read in reads])

    def _write(self, op: Op) -> rpc_pb2.RequestOp:
        key = self.data + op.key
        if op.value is None:
            return rpc_pb2.RequestOp(request_delete_range=rpc_pb2.DeleteRangeRequest(key=key))
        return rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=key, value=op.value))

    def record(self, found: kv_pb2.KeyValue) -> Record:
        return Record(found.key[len(self.data) :], found.value, found.create_revision, found.mod_revision)

    def commits(self, response: rpc_pb2.WatchResponse, after: int) -> Iterator[tuple[int, Sequence[Change]]]:
        """The changes in a response by revision, as they came, after revision `after`; it ends where a revision does.

        Raises Compacted where etcd has forgotten what was there before a change.
        """
        revision, changes = 0, list[Change]()
        for event in response.events:
            if event.kv.mod_revision <= after:
                continue
            if event.kv.mod_revision != revision:
                if revision:
                    yield revision, changes
                revision, changes = event.kv.mod_revision, []
            if event.kv.key.startswith(self.data):
                changes.append(self._change(event))
        if revision:
            yield revision, changes

    def _change(self, event: kv_pb2.Event) -> Change:
        now = event.kv
        created = event.type == kv_pb2.Event.PUT and now.create_revision == now.mod_revision
        if not created and not event.HasField("prev_kv"):
            raise Compacted(0)
        return Change(
            revision=now.mod_revision,
            key=now.key[len(self.data) :],
            record=self.record(now) if event.type == kv_pb2.Event.PUT else None,
            previous=None if created else self.record(event.prev_kv),
        )


def revisions(answer: rpc_pb2.TxnResponse) -> Sequence[int]:
    """What `look` has found, 0 for a key that is not there."""
    found = [each.response_range.kvs for each in answer.responses]
    return [kvs[0].mod_revision if kvs else 0 for kvs in found]


def beyond(prefix: bytes) -> bytes:
    """The first key after all that begin with `prefix`; etcd's word for no end is a zero byte."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"

"""The audit log's side in every service: what is told of a call, how it is masked, and how none of it is lost.

A change is written into the outbox with the transaction that makes it, held back until the call has ended, then
released with its result; a process that dies in between leaves a held event, which goes out as it is after two minutes.
Refusals and changes without a transaction are written right after the call. `espalier_common.rpc.edge` tells of every
call; a service adds nothing, but `recording.note_before` where it changes rows behind the ORM's back.
"""

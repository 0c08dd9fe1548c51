"""The audit log: an append-only table, chained by hashes in the order of arrival."""

"""Rules for sub-programs: calls, branches, scans, custom rules, callbacks, objects, shard_map."""

from admodes.subprograms import callbacks, control, custom, hijax, lent, scan, shard_map  # noqa: F401

"""The zoo that these tests read, serve and break."""

from records import audited, own, quick_probes, released, runs, served  # noqa: F401

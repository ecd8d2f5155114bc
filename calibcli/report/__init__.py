"""What a person or a CI system reads: tables, diagrams, JSON, Markdown, CSV.

Everything is rendered from one plain dictionary, the document of `calibcli.report.document`, so
that all formats say the same. Nothing here computes a metric or opens a file.
"""

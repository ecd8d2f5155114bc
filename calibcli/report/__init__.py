"""What a person or a CI system reads: tables, diagrams, JSON, Markdown, CSV.

Everything is rendered from one document, whose types are in `calibcli.schema` and which `document`
makes, so that all formats say the same. Each table is built once, in `tables`, of what `table`
holds. Nothing here computes a metric or opens a file.
"""

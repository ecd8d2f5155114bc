"""What a person or a CI system reads: tables, diagrams, JSON, Markdown, CSV.

Everything is rendered from one plain dictionary, the document of `calibcli.report.document`, so
that all formats say the same. Nothing here computes a metric or opens a file.

Formats
    `terminal` (with `tables`, `reliability`, `layout` and `glyphs`), `formats` (JSON, CSV, and all
    others by name), `markdown`, `github`, `junit`, `openmetrics`; `html` (with `html_parts` and
    `html_data`) and `plot` (with `plot_data`, `plot_panels`, `plot_sheet` and `plot_style`).
Parts of a document, and how they are shown in every format
    `summary`, `comparison` (metrics side by side), `verdict`, `leaderboard`, `groups`, `slices`,
    `diagnostics` and `diagnostic_tables` (what was looked at more closely), `gates` (with
    `baseline`).
Texts
    `texts`: numbers and names.
"""

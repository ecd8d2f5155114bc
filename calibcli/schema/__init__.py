"""The JSON that calib prints: which keys an object has, what they hold, and what that means.

A class is an object. The annotation of a key says what it means, in Markdown, and of a key that can
be absent also when it is there. The tables of ``docs/json.md`` are made from them.
"""

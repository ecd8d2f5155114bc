"""Fitted calibrators as programs for other places: ONNX, torch, Python, JavaScript and C.

`graph` records the arithmetic of the stages themselves, as they do it on arrays, in a list of a few
kinds of operations. So no stage has a second description that could say something else, and a stage
of a plugin can be exported as soon as it computes by the array API standard. A target is a file
here that writes these operations down in its language; `targets` has them all.
"""

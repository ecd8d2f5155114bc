"""The command line: a file for each command; they parse, call and print.

`app` puts the commands together and turns errors into exit codes. Options that several commands
have are dataclasses in `shared_options`, `gate_options`, `diagnostic_options` and `pictures`;
`configuration` and `config_file` hold what files and variables set them to, and `configured` hands
that to the parser. `reading` opens inputs, `console` prints. Whatever takes long to import is
imported by the function that needs it, so that ``calib --help`` is there at once.
"""

from __future__ import annotations

import codecs
import gc
import io
import os
import signal
import sys
import warnings

_NEW_OBJECTS = 20_000
"""So many new containers before those that refer to each other are looked for."""


def main() -> None:
    """Run ``calib``; every error that a user can mend is one line on stderr."""
    # An interrupt during the imports has nothing to clean up.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _mend_streams()
    # Imports make objects by the ten thousand, of which none is garbage: to look for some among
    # them is a twentieth of the time of a command on little data.
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])
    if not sys.warnoptions:
        # Warnings of libraries are for programmers; what a user should know is said.
        warnings.simplefilter("ignore")
    # Blocks go to threads of our own; a second layer of threads under each would only get in the
    # way. The libraries read this when they are loaded.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    # The pool that Arrow takes otherwise keeps a quarter as much again of what was freed.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    from calibcli.cli.app import INTERRUPTED, execute
    from calibcli.interrupts import taken_over

    with taken_over():
        code = execute(sys.argv[1:])
        if code == INTERRUPTED:
            # Everything is cleaned up; threads that still read or compute are not waited for. No
            # signal that comes now makes another exit of it.
            os._exit(code)
    sys.exit(code)


def _mend_streams() -> None:
    """Standard streams that are open, and able to show any name of a file.

    Where the caller closed a stream, Python has None for it. It is opened to nowhere, or else the
    next file that is opened would get its number, and with it what is meant for the stream.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123
    codecs.register_error(_ERRORS, _plainly)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


_ERRORS = "calib.plainly"
_PLAIN = {"…": "~", "·": "*", "×": "x", "–": "-", "−": "-"}  # noqa: RUF001
"""What stands for our own punctuation where an encoding lacks it, as wide as that."""


def _plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    """What an encoding lacks, in plain characters: our punctuation by others, names by codes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    plain = _PLAIN.get(error.object[error.start])
    if plain is not None:
        return plain, error.start + 1
    return codecs.backslashreplace_errors(
        UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1, error.reason)
    )

"""Opens a core in a 3D view in the browser, to look at, to play, and to edit by hand.

    python -m launch.view IN [flags]

IN  is a core (.json, of one instant or over time), the folder or URL of a WSV dataset (--clip chooses), or any scene that
    launch.convert reads, approximated by waves. The extra `wsm_jax[view]` brings what it needs.
"""

import socket
from pathlib import Path

from absl import flags

from launch.command import Usage, parse, run

COMMAND = "python -m launch.view IN"


def _values() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_integer("clip", None, "clip of a dataset; without it the first", lower_bound=0, flag_values=values)
    flags.DEFINE_string("out", None, "core JSON that Save writes; without it, beside IN: IN.edited.json", flag_values=values)
    flags.DEFINE_string("host", "localhost", "name or address to serve at", flag_values=values)
    flags.DEFINE_integer(
        "port", 8080, "port to serve at; 0: any free one", lower_bound=0, upper_bound=65535, flag_values=values
    )
    return values


def main(arguments: list[str]) -> int | None:
    """Serves one core until it is interrupted. Raises Usage, ValueError or FileNotFoundError before anything is served."""
    values = _values()
    rest = parse(COMMAND, values, arguments, positional=True)
    if len(rest) != 1:
        raise Usage(f"{COMMAND}: got {rest}; needed one core, dataset or scene")

    from launch.files import output
    from launch.view.source import read
    from wsm_jax.extras import extra

    try:
        extra("viser", "view")
        source = read(rest[0], values.clip)
    except ModuleNotFoundError as error:
        if error.name is None or "wsm_jax[" not in str(error):
            raise
        raise Usage(str(error)) from error
    out = output(values.out or str(source.default_out), ".json", "--out")
    if values.out is None and out.exists() and Path(rest[0]).exists() and out.samefile(rest[0]):
        raise Usage(f"{out}: is the core that is looked at; name where Save writes with --out=...")
    check_free(values.host, values.port)

    from launch.view.viewer import Viewer

    viewer = Viewer(source, values.host, values.port, out)
    core = viewer.core
    print(f"{viewer.url}: {source.name}, {core.ticks} ticks, {core.count} waves; Save writes {out}; Ctrl-C ends", flush=True)
    try:
        viewer.wait()
    except KeyboardInterrupt:
        pass
    finally:
        viewer.close()
    return None


def check_free(host: str, port: int) -> None:
    """Raises Usage for a host that is not this machine, or a port that is taken."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise Usage(f"--host={host} --port={port}: {error.strerror or error}; needed an own address and a free port") from error


def cli() -> None:
    """Run the command line. Entry point of `wsm-view`."""
    run(main)


if __name__ == "__main__":
    cli()

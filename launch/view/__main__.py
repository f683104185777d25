"""Open a core in a 3D view in the browser, to play and edit it.

    python -m launch.view IN [flags]

IN  is a core (.json, of one instant or over time), the folder or URL of a WSV dataset (--clip chooses), or any scene that
    launch.convert reads, approximated by waves. Needs the extra `wsm_jax[view]`.
"""

import socket
from pathlib import Path

from absl import flags

from launch.command import Usage, parse, run

COMMAND = "python -m launch.view IN"


def _values() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_integer("clip", None, "clip of a dataset; default: the first", lower_bound=0, flag_values=values)
    flags.DEFINE_string("out", None, "core JSON that Save writes; default: IN.edited.json beside IN", flag_values=values)
    flags.DEFINE_string("host", "localhost", "host name or address to serve at", flag_values=values)
    flags.DEFINE_integer(
        "port", 8080, "port to serve at; 0: any free port", lower_bound=0, upper_bound=65535, flag_values=values
    )
    flags.DEFINE_integer("max_waves", 512, "maximum number of waves of a converted scene", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("snapshot_height", 192, "initial height of the snapshot, pixels", lower_bound=8, flag_values=values)
    flags.DEFINE_float("play_fps", 20.0, "frame rate of playing, Hz", lower_bound=0.1, upper_bound=1000, flag_values=values)
    return values


def main(arguments: list[str]) -> int | None:
    """Serve one core until interrupted. Raises Usage, ValueError or FileNotFoundError, all before anything is served."""
    values = _values()
    rest = parse(COMMAND, values, arguments, positional=True)
    if len(rest) != 1:
        raise Usage(f"{COMMAND}: got {rest}; needed one core, dataset or scene")

    from launch.files import output
    from launch.view.viewer_input import read_input
    from wsm_jax.extras import extra

    try:
        extra("viser", "view")
        source = read_input(rest[0], values.clip, values.max_waves)
    except ModuleNotFoundError as error:
        if error.name is None or "wsm_jax[" not in str(error):
            raise
        raise Usage(str(error)) from error
    out = output(values.out or str(source.default_out), ".json", "--out")
    if values.out is None and out.exists() and Path(rest[0]).exists() and out.samefile(rest[0]):
        raise Usage(f"{out}: is the core to view; choose another file for Save with --out=...")
    check_free(values.host, values.port)

    from launch.view.viewer import Viewer

    viewer = Viewer(source, values.host, values.port, out, values.snapshot_height, values.play_fps)
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
    """Raise Usage for a host that is not this machine, or a port in use."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        reason = error.strerror or error
        raise Usage(f"--host={host} --port={port}: {reason}; needed an address of this machine and a free port") from error


def cli() -> None:
    """Run the command line. Entry point of `wsm-view`."""
    run(main)


if __name__ == "__main__":
    cli()

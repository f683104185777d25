"""Advice on a layout as text: the choices, the best of them, what a host will do, and what is assumed."""

from data_pipelines.loading.advice import Costs, Use, best, candidates, clips_per_shard, load


def table(use: Use, stored_frames: int, clips_s: float, latency_ms: float, bandwidth_mib_s: float) -> str:
    """The choices of chunks for clips of `stored_frames`, read at `clips_s` clips a second by each host."""
    costs = Costs()
    found = candidates(use, stored_frames, costs)
    chosen = best(found, latency_ms, bandwidth_mib_s)
    shard = clips_per_shard(use, stored_frames, chosen.chunk, costs)
    lines = [
        f"windows of {use.frames} frames of {use.height} x {use.width}, {use.channels} bytes a pixel in {use.arrays} arrays, "
        f"{use.codec}, of clips of {stored_frames} frames",
        "",
        "frames_per_chunk  read/used  chunks  KiB a clip  CPU ms a clip",
    ]
    for one in found:
        mark = "  <- best" if one is chosen else ""
        numbers = f"{one.amplification:9.2f}  {one.chunks:6.1f}  {one.kib:10.1f}  {one.cpu_ms:13.2f}"
        lines.append(f"{one.chunk:16d}  {numbers}{mark}")
    need = load(chosen, clips_s, latency_ms, bandwidth_mib_s)
    threads = max(1, round(need.cores + 0.5))
    lines += [
        "",
        f"--frames_per_chunk={chosen.chunk}; shards of {shard} clips",
        f"each host: {need.clips_s:.4g} clips/s, {need.requests_s:.4g} requests/s, {need.mib_s:.4g} MiB/s, "
        f"{need.cores:.2g} cores, {need.in_flight:.3g} reads in flight (threads={threads})",
        "",
        "assumed: " + _assumed(use, costs, latency_ms, bandwidth_mib_s),
    ]
    if chosen.amplification > 1.1:
        lines.append("more than 1.1 times what is used is read: --aligned windows, or shorter chunks, read less")
    if need.mib_s > bandwidth_mib_s:
        lines.append(f"{need.mib_s:.4g} MiB/s are more than the {bandwidth_mib_s:g} of a host: another codec, or more hosts")
    return "\n".join(lines)


def _assumed(use: Use, costs: Costs, latency_ms: float, bandwidth_mib_s: float) -> str:
    return (
        f"{costs.clip_ms:g} ms of a core a clip, {costs.chunk_ms[use.codec]:g} ms a chunk, {costs.mib_ms[use.codec]:g} ms a "
        f"MiB of pixels; stored bytes are 1/{costs.ratio[use.codec]:g} of raw, and the first frame of a chunk takes "
        f"{costs.first[use.codec]:g} more; a read takes {latency_ms:g} ms and its bytes at "
        f"{bandwidth_mib_s:g} MiB/s; indices of shards are kept. launch.bench loader measures the costs of a machine"
    )

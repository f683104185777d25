"""Layout advice as text: the candidates, the best of them, the load of a host, and the assumptions."""

from data_pipelines.loading.advice import Access, Costs, best, candidates, clips_per_shard, load


def table(use: Access, stored_frames: int, clips_s: float, latency_ms: float, bandwidth_mib_s: float) -> str:
    """Candidate chunk lengths for clips of `stored_frames` frames, of which each host reads `clips_s` per second."""
    costs = Costs()
    options = candidates(use, stored_frames, costs)
    chosen = best(options, latency_ms, bandwidth_mib_s)
    shard = clips_per_shard(use, stored_frames, chosen.chunk, costs)
    lines = [
        f"windows of {use.frames} frames of {use.height} x {use.width}, {use.channels} bytes per pixel in {use.arrays} arrays, "
        f"{use.codec}, of clips of {stored_frames} frames",
        "",
        "frames_per_chunk  read/used  chunks  KiB a clip  CPU ms a clip",
    ]
    for one in options:
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
        lines.append("more than 1.1 times the needed bytes are read: --aligned windows or shorter chunks read less")
    if need.mib_s > bandwidth_mib_s:
        lines.append(f"{need.mib_s:.4g} MiB/s exceed the {bandwidth_mib_s:g} MiB/s of a host: use another codec or more hosts")
    return "\n".join(lines)


def _assumed(use: Access, costs: Costs, latency_ms: float, bandwidth_mib_s: float) -> str:
    return (
        f"{costs.clip_ms:g} ms of a core per clip, {costs.chunk_ms[use.codec]:g} ms per chunk, {costs.mib_ms[use.codec]:g} ms "
        f"per MiB of pixels; stored bytes are 1/{costs.ratio[use.codec]:g} of raw, and the first frame of a chunk takes "
        f"{costs.first[use.codec]:g} more; a read takes {latency_ms:g} ms and its bytes at "
        f"{bandwidth_mib_s:g} MiB/s; shard indices are cached. launch.bench loader measures the costs of a machine"
    )

"""Other engines on our shapes, by turns with ours, and the ratios.

    python3 tools/bench/peers.py --pali build/release/tools/pali --quick
    python3 tools/bench/peers.py --pali build/release/tools/pali -o peers.json --markdown peers.md

Runs what is installed in this Python of torch (with transformers), openvino (with nncf for int8),
ctranslate2, llama_cpp (with gguf) and numpy's OpenBLAS; says what is missing. One process and one model in
memory at a time: a round is ours, then each peer, and rounds repeat. What a round says of an engine is the
median of its runs; times and shares of the peak are medians of the rounds, [least-most] the spread over them.

With -o an existing file is added to, so that rounds may be run apart from each other, and `--only` picks
lines. One of another machine, --threads or --runs is refused; that program and peers are the same is for the
caller to see to. Full: 12 GB of memory, some hours; --quick: 6 GB, some minutes."""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

import engines

# The words of `pali bench` for a type: weights, and "x int8" where activations are int8 too; without, they
# are what --compute auto makes of them (int16 on AVX2). Peers know the weights alone.
WORDS = {f"{weights} x int8": ["--dtype", weights, "--compute", "int8"] for weights in ("int8", "int4")}
INT8 = ["int8", "int8 x int8"]
INTEGERS = [*INT8, "int4", "int4 x int8"]
MATMUL = ["256x8192x1664", "256x1664x8192", "272x5120x2048", "3364x8192x1664"]
FEW_ROWS = ["1x5120x2048", "4x5120x2048", "1x250112x2048"]
# kind, work, the types of weights (of attention: of all) that are compared, and whether --quick has it.
LINES = [("matmul", shape, ["f32", "bf16", *INT8], not shape.startswith("3364")) for shape in MATMUL]
LINES += [("matmul", shape, ["f32", "bf16", *INTEGERS], True) for shape in FEW_ROWS]
LINES += [("attention", "256x16x104", ["f32", "bf16"], True),
          ("attention", "3364x16x104", ["f32", "bf16"], False),
          ("attention", "5776x16x104", ["f32", "bf16"], False),
          ("vision", "so400m@224", ["f32", "bf16", *INT8], True),
          ("vision", "so400m@448", ["f32", "bf16", *INT8], False),
          ("vision", "vit-g@224", ["f32", "bf16", *INT8], False),
          ("vision", "vit-g@812", ["bf16", *INT8], False),
          ("language", "encode", ["f32", "bf16", *INTEGERS], True),
          ("language", "greedy", ["f32", "bf16", *INTEGERS], True),
          ("language", "beams4", ["f32", "bf16", *INTEGERS], False),
          ("paligemma", "first", ["bf16", *INT8], False),
          ("paligemma", "token", ["bf16", "int8"], False)]
# The rows of `pali bench` whose sum a piece of work is; of other work the one of its kind's name.
ROWS = {"encode": ["encode"], "greedy": ["decode_step"], "beams4": ["decode_step"],
        "first": ["vision", "prefill"], "token": ["decode_step"]}


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def amx():
    return " amx_tile" in pathlib.Path("/proc/cpuinfo").read_text()


def run_ours(pali, kind, work, dtype, runs, threads):
    if kind in ("matmul", "attention"):
        words = [kind, "--shape", work, "--runs", str(runs)]
    elif kind == "vision":
        name, side = work.split("@")
        words = ["vision", "--config", engines.VISION[name], "--resolution", side, "--runs", str(runs)]
    elif kind == "paligemma":
        words = ["model", "--config", engines.PALIGEMMA, "--tokens", "8", "--runs", str(runs)]
    else:
        words = ["encode" if work == "encode" else "decode", "--config", engines.LANGUAGE,
                 "--prompt-tokens", str(engines.PROMPT_TOKENS), "--tokens", "8", "--runs", str(runs)]
        words += ["--beams", "4"] if work == "beams4" else []
    done = subprocess.run([pali, "bench", *words, *WORDS.get(dtype, ["--dtype", dtype]), "-t",
                           str(threads), "--json", "-q"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{pali} bench: {done.stderr.strip()}")
    rows = json.loads(done.stdout)[:-1]
    if kind == "matmul":
        return {"pali " + row["backend"]: {"times_ms": [row["median_ms"]], "share": row["share"]}
                for row in rows}
    parts = [row for row in rows if row["name"] in ROWS.get(work, [kind])]
    total = sum(row["median_ms"] for row in parts)
    share = sum(row["share"] * row["median_ms"] for row in parts) / total
    result = {"times_ms": [total], "share": share}
    if kind == "attention":
        result["compute"] = parts[0]["dtype"]  # f32 where the CPU has no tiles, whatever was asked
    return {"pali": result}


def run_peer(engine, kind, work, dtype, runs, threads):
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), PEER_THREADS=str(threads))
    done = subprocess.run([sys.executable, engines.__file__, engine, kind, work,
                           dtype.split()[0], str(runs)], capture_output=True, text=True, env=environment)
    lines = done.stdout.strip().splitlines()
    try:
        return json.loads(lines[-1])
    except (IndexError, ValueError):
        why = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return {"skipped": why[:200]}


def add(results, kind, work, dtype, engine, result):
    key = f"{kind} {work} {dtype} {engine}"
    entry = results.setdefault(key, {"kind": kind, "work": work, "dtype": dtype, "engine": engine,
                                     "rounds_ms": []})
    if "skipped" in result:
        entry["skipped"] = result["skipped"]
        return
    entry.pop("skipped", None)
    entry["rounds_ms"].append(statistics.median(result["times_ms"]))
    if "share" in result:
        entry.setdefault("shares", []).append(result["share"])
    entry.update({k: result[k] for k in ("compute", "version") if k in result})


def median(entry):
    return statistics.median(entry["rounds_ms"]) if entry["rounds_ms"] else None


def told(entry):
    """Milliseconds, their spread over the rounds, and the type computed in where the line says another."""
    times = entry["rounds_ms"]
    spread = f" [{min(times):.3g}-{max(times):.3g}]" if len(times) > 1 else ""
    compute = entry.get("compute", entry["dtype"])
    return f"{median(entry):.3g}{spread}" + (f" in {compute}" if compute != entry["dtype"] else "")


def table(results):
    """A line a piece of work and type of weights: ours, our other backends, every peer, and other / ours."""
    lines = ["| work | weights | ours, ms | share of the peak | others, ms (other / ours) |",
             "|---|---|---|---|---|"]
    groups = {}
    for entry in results.values():
        groups.setdefault((entry["kind"], entry["work"], entry["dtype"]), []).append(entry)
    for (kind, work, dtype), entries in groups.items():
        auto = [e for e in entries if e["engine"] in ("pali", "pali auto")]
        ours = median(auto[0]) if auto else None
        if ours is None:
            continue
        peers = []
        for entry in entries:
            time = median(entry)
            if entry is not auto[0] and time is not None:
                peers.append(f"{entry['engine']} {told(entry)} ({time / ours:.2f})")
        for entry in groups.get((kind, work, "bf16"), []) if dtype in INTEGERS else []:
            if not entry["engine"].startswith("pali") and median(entry) is not None:
                peers.append(f"{entry['engine']} bf16 {told(entry)} ({median(entry) / ours:.2f})")
        lines.append(f"| {kind} {work} | {dtype} | {told(auto[0])} | "
                     f"{100 * statistics.median(auto[0]['shares']):.0f} % | {', '.join(peers) or '-'} |")
    reasons = {f"{e['engine']}: {e['skipped']}" for e in results.values() if "skipped" in e}
    return "\n".join(lines + [""] + ["Left out: " + "; ".join(sorted(reasons)) + "."] * bool(reasons)) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pali", required=True, help="the program")
    parser.add_argument("--quick", action="store_true", help="the smaller pieces of work")
    parser.add_argument("--only", action="append", metavar="WORDS",
                        help="lines whose 'kind work dtype' contains this; repeatable")
    parser.add_argument("--engine", action="append", help="only these peers; repeatable")
    parser.add_argument("--rounds", type=int, help="else 9, with --quick 3")
    parser.add_argument("--runs", type=int, default=3, help="of a round")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=pathlib.Path, help="JSON; added to where it exists")
    parser.add_argument("--markdown", type=pathlib.Path)
    arguments = parser.parse_args()

    rounds = arguments.rounds or (3 if arguments.quick else 9)
    measured = {"cpu": cpu_name(), "amx": amx(), "threads": arguments.threads, "runs": arguments.runs}
    report = {**measured, "results": {}}
    if arguments.output and arguments.output.exists():
        report = json.loads(arguments.output.read_text())
        other = [name for name, value in measured.items() if report.get(name) != value]
        if other:
            sys.exit(f"{arguments.output} was measured with other {', '.join(other)}; name another file")
    results = report["results"]
    for kind, work, dtypes, quick in LINES:
        for dtype in dtypes:
            name = f"{kind} {work} {dtype}"
            if arguments.quick and not quick:
                continue
            if arguments.only and not any(words in name for words in arguments.only):
                continue
            for _ in range(rounds):
                for engine, result in run_ours(arguments.pali, kind, work, dtype, arguments.runs,
                                               arguments.threads).items():
                    add(results, kind, work, dtype, engine, result)
                for engine in engines.KINDS[kind]:
                    known = results.get(f"{name} {engine}", {})
                    if "skipped" in known or arguments.engine and engine not in arguments.engine:
                        continue
                    add(results, kind, work, dtype, engine,
                        run_peer(engine, kind, work, dtype, arguments.runs, arguments.threads))
            print(f"{name}, ms",
                  {e["engine"]: e.get("skipped") or told(e)
                   for e in results.values() if f"{e['kind']} {e['work']} {e['dtype']}" == name},
                  file=sys.stderr)
            if arguments.output:
                arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    text = (f"{report['cpu']}{' with AMX' if report['amx'] else ''}, {report['threads']} threads, "
            f"batch 1; medians [least-most] of rounds of {report['runs']}.\n\n" + table(results))
    print(text, end="")
    if arguments.markdown:
        arguments.markdown.write_text(text)


if __name__ == "__main__":
    main()

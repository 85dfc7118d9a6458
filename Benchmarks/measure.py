"""Builds the benchmark and its C forwarders, and counts their instructions or takes their times."""
import os
import pathlib
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
BUILD = HERE / ".build"


def build():
    """The benchmark without debug information, which older valgrinds cannot read (DWARF 5)."""
    subprocess.run(["swift", "build", "-c", "release", "--package-path", HERE], check=True, stdout=2)
    binary = BUILD / "release" / "Benchmark"
    stripped = BUILD / "Benchmark.stripped"
    subprocess.run(["strip", "-g", "-o", stripped, binary], check=True)
    return stripped


def libraries():
    """The C forwarders, as arguments: compiler=path, for each compiler that is here."""
    found = []
    sources = [*sorted((HERE / "C").glob("*.c")), HERE / "Sources/StandIns/memory.c"]
    for compiler in ("gcc", "clang"):
        path = BUILD / f"forwarder-{compiler}.so"
        command = [compiler, "-O3", "-std=gnu11", "-Wall", "-Wextra", "-fPIC", "-shared", "-I",
                   HERE / "Sources/StandIns/include", "-o", path, *sources]
        try:
            subprocess.run(command, check=True)
        except FileNotFoundError:
            print(f"measure: there is no {compiler} here, so no column for it")
            continue
        found.append(f"{compiler}={path}")
    return found


def lines(output):
    """card, design, language, batch and nanoseconds of each case."""
    return [line.split() for line in output.splitlines()]


def times(binary, arguments):
    output = subprocess.run([binary, "time", *arguments], check=True, text=True, stdout=subprocess.PIPE).stdout
    return {(a, b, c, int(d)): float(e) for a, b, c, d, e in lines(output)}


def counts(binary, arguments):
    """Instructions per packet of each case, the stand-in's own subtracted."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "valgrind", "--tool=callgrind", "--dump-before=standin_mark", "--compress-strings=no",
            "--compress-pos=no", f"--callgrind-out-file={folder}/out", binary, "count", *arguments]
        run = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if run.returncode != 0:
            raise SystemExit(f"measure: valgrind failed:\n{run.stderr}")
        result = {}
        for i, (card, design, language, batch, _) in enumerate(lines(run.stdout)):
            # The mark before a case ends dump 2i + 1, the one behind it ends dump 2i + 2.
            packets, total = (1 << 14), own_cost(f"{folder}/out.{2 * i + 2}")
            result[card, design, language, int(batch)] = total / packets
        return result


def own_cost(path):
    """All instructions of a dump but those of the stand-in.

    Where the benchmark calls a function measured..., only what that costs, less the copying and its own wire.
    """
    total, measured, others, function, callee, is_call = 0, 0, 0, "", "", False
    with open(path, encoding="utf-8") as dump:
        for line in dump:
            if line.startswith("fn="):
                function = line[3:].split()[-1]
            elif line.startswith("cfn="):
                callee = line[4:].split()[-1]
            elif line.startswith("calls="):
                is_call = True  # the next line is what the callee costs, which is listed on its own
            elif line[:1].isdigit() or line[:1] in "+-*":
                cost = int(line.split()[1])
                if is_call:
                    measured += cost if "measured" in callee else 0
                elif not function.startswith("standin_"):
                    total += cost
                    others += cost if any(name in function for name in ("memcpy", "memmove", "BenchWire")) else 0
                is_call = False
    return measured - others if measured else total

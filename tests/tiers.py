"""Says which kernel tiers were tested natively, emulated, or not at all; with --strict it fails where a
tier was not tested and is not excused. Usage: tiers.py [--strict] PALI_BINARY EMULATOR_OR_EMPTY

PALI_ABSENT_TIERS (comma separated) excuses tiers by name. avx_vnni, avx512_bf16 and amx are always
excused: most machines lack them, and so do some emulators."""
import json
import os
import shlex
import subprocess
import sys


def tiers(*command):
    return json.loads(subprocess.check_output([*command, "doctor", "--json"], text=True))["tiers"]


def main():
    strict = sys.argv[1] == "--strict"
    binary, emulator = sys.argv[-2:]
    excused = {"avx_vnni", "avx512_bf16", "amx"}
    excused |= set(filter(None, os.environ.get("PALI_ABSENT_TIERS", "").split(",")))
    emulated = set()
    if emulator:  # runs the tests of the tiers above avx2 (unit/kernels/CMakeLists.txt)
        emulated = {tier["name"] for tier in tiers(*shlex.split(emulator), binary) if tier["available"]}
        emulated -= {"scalar", "avx2"}
    failed = False
    for tier in tiers(binary):
        name = tier["name"]
        if tier["available"]:
            state = "native"
        elif name in emulated:
            state = "emulated"
        elif name in excused:
            state = "absent, excused: " + tier["reason"]
        else:
            state = "ABSENT: " + tier["reason"] + "; set PALI_ISA_EMULATOR or PALI_ABSENT_TIERS"
            failed = True
        print(f"tier {name}: {state}")
    return 1 if failed and strict else 0


if __name__ == "__main__":
    sys.exit(main())

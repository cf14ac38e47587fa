"""Says which kernel tiers were tested natively, emulated, or not at all; with --strict it fails where a
tier was not tested and is not excused. Usage: tiers.py [--strict] PALI_BINARY EMULATOR_OR_EMPTY

PALI_ABSENT_TIERS (comma separated) excuses tiers by name. avx_vnni, avx512_bf16 and amx are always
excused: most machines and emulators lack them."""
import json
import os
import subprocess
import sys

EMULATED = {"avx512", "avx512_vnni"}  # what an emulator of an Ice Lake CPU covers


def main():
    strict = sys.argv[1] == "--strict"
    binary, emulator = sys.argv[-2:]
    excused = {"avx_vnni", "avx512_bf16", "amx"} | set(filter(None, os.environ.get("PALI_ABSENT_TIERS", "").split(",")))
    report = json.loads(subprocess.check_output([binary, "doctor", "--json"], text=True))
    failed = False
    for tier in report["tiers"]:
        name = tier["name"]
        if tier["available"]:
            state = "native"
        elif emulator and name in EMULATED:
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

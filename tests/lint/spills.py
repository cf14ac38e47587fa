"""Fails where an innermost loop that multiplies and adds keeps sums on the stack: gcc puts them
there where it cannot see that they are registers' (simd_common.hpp, unroll), or has too few.

spills.py OBJDUMP OBJECT...   of the vector tiers; exit status 77 (skipped) without either
"""
import pathlib
import re
import shutil
import subprocess
import sys

SKIPPED = 77  # SKIP_RETURN_CODE in CMakeLists.txt
FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
CODE = re.compile(r"^\s*([0-9a-f]+):\s+((?:notrack |bnd )?\S+)\s*(.*)$")
TARGET = re.compile(r"([0-9a-f]+)( <|$)")
FUSED = re.compile(r"vfn?m(add|sub)|vpmadd(wd|ubsw)|vpdp|vdpbf16ps")
SUM = re.compile(FUSED.pattern + r"|vaddp|vpadd[dw]")
# At a constant distance from the frame: what has an index too is an array that is meant.
STORE = re.compile(r"%[yz]mm(\d+)(?:\{%k\d\})?,-?(?:0x[0-9a-f]+)?\(%(rsp|rbp)\)$")
WRITTEN = re.compile(r"%[xyz]mm(\d+)(?:\{.*)?$")

# Functions as readable() has them (KernelType: 3 int8, 4 int4), and why they may.
ALLOWED = {
    r"IntegerProduct<\w+, \w+, 4, .*>::multiply":
        "parts of int4's groups lie in memory on purpose, so that the products need not",
    r"IntegerProduct<Avx2, Avx2Pairs, 3, 4, 2>::multiply_rows<4>":
        "one of eight sums, beside the signs and halves of VPMADDUBSW",
    r"IntegerProduct<Avx2, Avx2Words, 4, 4, 2>::pack_activations":
        "one sum a group of x, not of a product",
    r"gemv_int4_block<Avx2, ":
        "sums of a group of x beside totals, in 16 registers",
    r"gemv_integer_multiply<Avx2, ":
        "gemv_int4_block, inlined",
    r"gemv_(block|as)<Avx2, 4\b":
        "products of a line beside sums, up to nine of either in 16 registers",
    r"gemv_block<Avx2, 3, 4, 3>":
        "12 sums, three weights on their way from bytes, and x",
    r"gemv_block<Avx512, 4, 4, 4>":
        "16 products of a line beside 16 sums",
    r"sum_exp<Avx2>":
        "four sums beside the constants of e^x; once a row of logits",
}

# A sum that is stored and one that stays; an operand that is stored; a sum stored behind its loop.
SELF_TEST = """
0000000000000000 <spilled(float const*)>:
   0:	vxorps %xmm1,%xmm1,%xmm1
   4:	vmovups (%rdi),%zmm0
   8:	vmovaps 0x40(%rsp),%zmm2
   c:	vfmadd231ps (%rsi),%zmm0,%zmm2
  10:	vfmadd231ps 0x40(%rsi),%zmm0,%zmm1
  14:	vmovaps %zmm2,0x40(%rsp)
  18:	add    $0x40,%rdi
  1c:	cmp    %rax,%rdi
  20:	jne    4 <spilled(float const*)+0x4>
  24:	vaddps %zmm1,%zmm2,%zmm3
  28:	vmovaps %zmm3,0x80(%rsp)
  2c:	dec    %rcx
  30:	jne    0 <spilled(float const*)>
  34:	ret
0000000000000040 <clean(float const*)>:
  40:	vmovups (%rdi),%ymm0
  44:	vmovaps %ymm0,(%rsp)
  48:	vfmadd231ps (%rsp),%ymm0,%ymm1
  4c:	vfmadd231ps (%rsi),%ymm0,%ymm4
  50:	vmovups %ymm4,(%rdx)
  54:	vmovups %ymm4,(%rsp,%rdx,1)
  58:	vmovups %ymm4,0x20(%rbp)
  5c:	jne    40 <clean(float const*)>
  60:	vmovaps %ymm1,(%rsp)
  64:	ret
"""


def functions(lines):
    """(name, [(address, mnemonic, operands)]) of each."""
    name, code = None, []
    for line in lines:
        if match := FUNCTION.match(line):
            if code:
                yield name, code
            name, code = match[1], []
        elif match := CODE.match(line):
            code.append((int(match[1], 16), match[2].split()[-1], match[3]))
    if code:
        yield name, code


def flow(code):
    """For each instruction those that may come next. A switch's cases are what nothing else leads
    to; they are taken to come next of every indirect jump."""
    place = {address: i for i, (address, _, _) in enumerate(code)}
    following, indirect, led_to = [[] for _ in code], [], {0}
    for i, (_, mnemonic, operands) in enumerate(code):
        target = TARGET.match(operands)
        if mnemonic[0] == "j" and target and int(target[1], 16) in place:
            following[i].append(place[int(target[1], 16)])
        elif mnemonic == "jmp" and operands.startswith("*"):
            indirect.append(i)
        if mnemonic not in ("jmp", "ret", "ud2") and i + 1 < len(code):
            following[i].append(i + 1)
        led_to.update(following[i])
    cases = [i for i in range(len(code)) if i not in led_to]
    for i in indirect:
        following[i] = cases
    return following


def innermost_loops(code):
    """The instructions of each loop that has none inside, in the order of their addresses."""
    following = flow(code)
    leading = [[] for _ in code]
    for i, some in enumerate(following):
        for j in some:
            leading[j].append(i)
    # Depth first: an edge to where the walk stands ends a loop that begins there.
    ends, seen, standing = {}, {0}, {0}
    stack = [(0, iter(following[0]))]
    while stack:
        i, rest = stack[-1]
        for j in rest:
            if j in standing:
                ends.setdefault(j, []).append(i)
            elif j not in seen:
                seen.add(j), standing.add(j)
                stack.append((j, iter(following[j])))
                break
        else:
            standing.remove(i)
            stack.pop()
    bodies = {}
    for first, sources in ends.items():
        body, places = {first}, list(sources)
        while places:
            i = places.pop()
            if i not in body:
                body.add(i)
                places.extend(leading[i])
        bodies[first] = body
    for first, body in bodies.items():
        if not any(other in body for other in bodies if other != first):
            yield [code[i] for i in sorted(body)]


def is_sum(loop, place, register):
    """Whether what last wrote to the register, before `place` of the loop, adds."""
    for back in range(1, len(loop)):
        _, mnemonic, operands = loop[place - back]
        match = WRITTEN.search(operands)
        if match and match[1] == register:
            return SUM.match(mnemonic) is not None
    return False


def spills(lines):
    """(function, loop's address, stores of sums) of each innermost loop that has some."""
    for name, code in functions(lines):
        framed = any(one[1:] == ("mov", "%rsp,%rbp") for one in code)  # else rbp is like any other
        for loop in innermost_loops(code):
            if not any(FUSED.match(mnemonic) for _, mnemonic, _ in loop):
                continue
            stores = []
            for place, (_, mnemonic, operands) in enumerate(loop):
                match = STORE.match(operands) if mnemonic.startswith("vmov") else None
                if match and (match[2] == "rsp" or framed) and is_sum(loop, place, match[1]):
                    stores.append(f"{mnemonic} {operands}")
            if stores:
                yield name, loop[0][0], stores


def readable(name):
    return re.sub(r"pali::|\(anonymous namespace\)::|\((pali::)?KernelType\)", "", name)


def main():
    found = list(spills(SELF_TEST.splitlines()))
    assert found == [("spilled(float const*)", 4, ["vmovaps %zmm2,0x40(%rsp)"])], found
    objdump, *objects = sys.argv[1:]
    objects = [one for one in objects if re.match(r"(avx|amx)", pathlib.Path(one).name)]
    if not shutil.which(objdump) or not objects:
        print("spills: no objdump, no vector tier, or another build than gcc 12's Release")
        return SKIPPED
    problems, used = [], set()
    for path in objects:
        command = [objdump, "-d", "-C", "--no-show-raw-insn", path]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for name, address, stores in spills(text.splitlines()):
            name = readable(name)
            allowed = {one for one in ALLOWED if re.search(one, name)}
            used |= allowed
            if not allowed:
                problems.append(f"{pathlib.Path(path).name}: {name}, loop at {address:#x}: "
                                f"{len(stores)} stores of sums, {stores[0]}")
    tiers = {re.match(r"(avx512_bf16|avx2|amx)?", pathlib.Path(one).name)[0] for one in objects}
    if {"avx2", "avx512_bf16", "amx"} <= tiers:  # all are built
        problems += [f"nothing needs to be allowed: {one}" for one in ALLOWED if one not in used]
    print("\n".join(problems) or f"spills: none in {len(objects)} objects")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

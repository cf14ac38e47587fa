// Written in assembly: what is measured must be the instruction named, and neither flags of this
// file nor a compiler's choice of registers may stand between. The operands 0x3f3f... are ordinary
// numbers in every type (0.747 in f32 and bf16, 63 in int8): zeros would flatter the clock.
#include "bench_loops.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "kernels/isa.hpp"

namespace pali::bench {

const char* unit_name(Unit unit) {
  constexpr const char* kNames[] = {"baseline",    "avx2",        "avx_vnni", "avx512",
                                    "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"};
  return kNames[static_cast<int>(unit)];
}

#if defined(__x86_64__)
namespace {

// Bits: Intel SDM volume 2A, CPUID; XCR0: volume 1, chapter 13.
bool detect(Unit unit) {
  unsigned a = 0, b = 0, c = 0, d = 0, a1 = 0, ignored = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c >> 27 & 1) == 0) return unit == Unit::baseline;
  const bool fma = (c >> 12 & 1) != 0;
  uint32_t saved = 0, saved_high = 0;
  __asm__ volatile("xgetbv" : "=a"(saved), "=d"(saved_high) : "c"(0));
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return unit == Unit::baseline;
  if (a >= 1) __get_cpuid_count(7, 1, &a1, &ignored, &ignored, &ignored);
  const bool avx2 = (saved & 0x6) == 0x6 && fma && (b >> 5 & 1) != 0;
  // f, bw, dq, vl: the tier's own, so that a loop's name is a tier's name.
  constexpr unsigned kAvx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
  const bool avx512 = avx2 && (saved & 0xe6) == 0xe6 && (b & kAvx512) == kAvx512;
  const bool tiles = avx512 && (saved & 0x60000) == 0x60000 && (d >> 24 & 1) != 0;
  switch (unit) {
    case Unit::baseline:
      return true;
    case Unit::avx2:
      return avx2;
    case Unit::avx_vnni:
      return avx2 && (a1 >> 4 & 1) != 0;
    case Unit::avx512:
      return avx512;
    case Unit::avx512_vnni:
      return avx512 && (c >> 11 & 1) != 0;
    case Unit::avx512_bf16:
      return avx512 && (a1 >> 5 & 1) != 0;
    case Unit::amx_bf16:
      return tiles && (d >> 22 & 1) != 0 && tiles_permitted();
    case Unit::amx_int8:
      return tiles && (d >> 25 & 1) != 0 && tiles_permitted();
  }
  return false;
}

constexpr uint32_t kOperand = 0x3f3f3f3f;

// Twelve sums cover FMA's latency of four or five at two a cycle; more do no harm.
#define PALI_YMM_SUMS ".irp i,0,1,2,3,4,5,6,7,8,9,10,11\n"
#define PALI_ZMM_SUMS ".irp i,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23\n"
#define PALI_XMM_CLOBBERS                                                                  \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
      "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc", "memory"
// Registers 16 to 31 are not this file's to use, so nobody needs to be told that they change.
#define PALI_PRODUCT_LOOP(name, sums, zero, first, second, body)            \
  void name(int64_t turns) {                                                \
    __asm__ volatile(sums zero                                              \
                     "\n.endr\n"                                            \
                     "vbroadcastss %1, " first "\nvbroadcastss %1, " second \
                     "\n"                                                   \
                     "1:\n" sums body                                       \
                     "\n.endr\n"                                            \
                     "dec %0\n jnz 1b\n vzeroupper\n"                       \
                     : "+r"(turns)                                          \
                     : "m"(kOperand)                                        \
                     : PALI_XMM_CLOBBERS);                                  \
  }
#define PALI_YMM_LOOP(name, body)                                                         \
  PALI_PRODUCT_LOOP(name, PALI_YMM_SUMS, "vpxor %%ymm\\i, %%ymm\\i, %%ymm\\i", "%%ymm13", \
                    "%%ymm14", body)
#define PALI_ZMM_LOOP(name, body)                                                          \
  PALI_PRODUCT_LOOP(name, PALI_ZMM_SUMS, "vpxord %%zmm\\i, %%zmm\\i, %%zmm\\i", "%%zmm30", \
                    "%%zmm31", body)

// What the scalar tier's code can be compiled to anywhere: the two halves of a multiply-add.
void pairs_xmm(int64_t turns) {
  __asm__ volatile(
      PALI_YMM_SUMS
      "xorps %%xmm\\i, %%xmm\\i\n.endr\n"
      "movss %1, %%xmm13\n shufps $0, %%xmm13, %%xmm13\n movaps %%xmm13, %%xmm14\n"
      "1:\n" PALI_YMM_SUMS
      "movaps %%xmm13, %%xmm15\n mulps %%xmm14, %%xmm15\n addps %%xmm15, %%xmm\\i\n.endr\n"
      "dec %0\n jnz 1b\n"
      : "+r"(turns)
      : "m"(kOperand)
      : PALI_XMM_CLOBBERS);
}

PALI_YMM_LOOP(fma_ymm, "vfmadd231ps %%ymm13, %%ymm14, %%ymm\\i")
PALI_YMM_LOOP(vnni_ymm, "%{vex%} vpdpbusd %%ymm13, %%ymm14, %%ymm\\i")
PALI_YMM_LOOP(words_ymm, "%{vex%} vpdpwssd %%ymm13, %%ymm14, %%ymm\\i")
// Without VNNI: 16-bit pairs, then a sum.
PALI_YMM_LOOP(pairs_ymm, "vpmaddwd %%ymm13, %%ymm14, %%ymm15\n vpaddd %%ymm15, %%ymm\\i, %%ymm\\i")
// Products of a byte by at most 15 add up in 16 bits for a while.
PALI_YMM_LOOP(nibbles_ymm,
              "vpmaddubsw %%ymm13, %%ymm14, %%ymm15\n vpaddw %%ymm15, %%ymm\\i, %%ymm\\i")
PALI_ZMM_LOOP(fma_zmm, "vfmadd231ps %%zmm30, %%zmm31, %%zmm\\i")
PALI_ZMM_LOOP(pairs_zmm, "vpmaddwd %%zmm30, %%zmm31, %%zmm29\n vpaddd %%zmm29, %%zmm\\i, %%zmm\\i")
PALI_ZMM_LOOP(nibbles_zmm,
              "vpmaddubsw %%zmm30, %%zmm31, %%zmm29\n vpaddw %%zmm29, %%zmm\\i, %%zmm\\i")
PALI_ZMM_LOOP(vnni_zmm, "vpdpbusd %%zmm30, %%zmm31, %%zmm\\i")
PALI_ZMM_LOOP(words_zmm, "vpdpwssd %%zmm30, %%zmm31, %%zmm\\i")
PALI_ZMM_LOOP(bf16_zmm, "vdpbf16ps %%zmm30, %%zmm31, %%zmm\\i")

// All eight tiles of 16 rows of 64 bytes (palette 1). Ref: Intel SDM volume 1, chapter 18.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
struct alignas(64) TileData {
  uint32_t words[256];
};
constexpr TileData tile_data() {
  TileData data = {};
  for (uint32_t& word : data.words) word = kOperand;
  return data;
}
constexpr TileConfig kTileConfig = {};
constexpr TileData kTileData = tile_data();

// A product takes 52 cycles and one begins every 16: six sums.
#define PALI_TILE_LOOP(name, instruction)                             \
  void name(int64_t turns) {                                          \
    __asm__ volatile(                                                 \
        "ldtilecfg %1\n"                                              \
        ".irp i,0,1,2,3,4,5\n tilezero %%tmm\\i\n.endr\n"             \
        "tileloadd (%2,%3,1), %%tmm6\n tileloadd (%2,%3,1), %%tmm7\n" \
        "1:\n.irp i,0,1,2,3,4,5\n" instruction                        \
        " %%tmm7, %%tmm6, %%tmm\\i\n.endr\n"                          \
        "dec %0\n jnz 1b\n tilerelease\n"                             \
        : "+r"(turns)                                                 \
        : "m"(kTileConfig), "r"(kTileData.words), "r"(int64_t{64})    \
        : "cc", "memory");                                            \
  }
PALI_TILE_LOOP(bf16_tile, "tdpbf16ps")
PALI_TILE_LOOP(int8_tile, "tdpbusd")

// One stream, eight lines a turn.
#define PALI_READ_LOOP(name, load, after)                             \
  void name(const std::byte* data, int64_t bytes) {                   \
    const std::byte* end = data + bytes;                              \
    __asm__ volatile("1:\n.irp i,0,64,128,192,256,320,384,448\n" load \
                     "\n.endr\n"                                      \
                     "add $512, %0\n cmp %1, %0\n jb 1b\n" after      \
                     : "+r"(data)                                     \
                     : "r"(end)                                       \
                     : "rax", "xmm0", "xmm1", "cc", "memory");        \
  }
PALI_READ_LOOP(read_words, "mov \\i(%0), %%rax", "")
PALI_READ_LOOP(read_ymm, "vmovups \\i(%0), %%ymm0\n vmovups \\i+32(%0), %%ymm1", "vzeroupper\n")
PALI_READ_LOOP(read_zmm, "vmovups \\i(%0), %%zmm0", "vzeroupper\n")
PALI_READ_LOOP(read_ahead, "vmovups \\i(%0), %%zmm0\n prefetcht0 \\i+2048(%0)", "vzeroupper\n")

// Four streams, a page's worth apart at least: as four rows of a weight.
#define PALI_READ_STREAMS(name, offsets, vector)                                            \
  void name(const std::byte* data, int64_t bytes) {                                         \
    const int64_t quarter = bytes / 4;                                                      \
    const std::byte* end = data + quarter;                                                  \
    __asm__ volatile("1:\n.irp i," offsets                                                  \
                     "\n"                                                                   \
                     "vmovups \\i(%0), %%" vector "\n vmovups \\i(%0,%2,1), %%" vector      \
                     "\n"                                                                   \
                     "vmovups \\i(%0,%2,2), %%" vector "\n vmovups \\i(%0,%3,1), %%" vector \
                     "\n.endr\n"                                                            \
                     "add $256, %0\n cmp %1, %0\n jb 1b\n vzeroupper\n"                     \
                     : "+r"(data)                                                           \
                     : "r"(end), "r"(quarter), "r"(3 * quarter)                             \
                     : "xmm0", "cc", "memory");                                             \
  }
PALI_READ_STREAMS(read_ymm_streams, "0,32,64,96,128,160,192,224", "ymm0")
PALI_READ_STREAMS(read_zmm_streams, "0,64,128,192", "zmm0")

// Sums a turn, times operations of an instruction.
constexpr double kYmm = 12, kZmm = 24, kTiles = 6;
constexpr ProductLoop kProductLoops[] = {
    {Unit::baseline, Operands::f32, "mulps+addps xmm", kYmm * 8, pairs_xmm},
    {Unit::avx2, Operands::f32, "vfmadd231ps ymm", kYmm * 16, fma_ymm},
    {Unit::avx2, Operands::int16, "vpmaddwd+vpaddd ymm", kYmm * 32, pairs_ymm},
    {Unit::avx2, Operands::int4, "vpmaddubsw+vpaddw ymm", kYmm * 64, nibbles_ymm},
    {Unit::avx_vnni, Operands::int16, "vpdpwssd ymm", kYmm * 32, words_ymm},
    {Unit::avx_vnni, Operands::int8, "vpdpbusd ymm", kYmm * 64, vnni_ymm},
    {Unit::avx512, Operands::f32, "vfmadd231ps zmm", kZmm * 32, fma_zmm},
    {Unit::avx512, Operands::int16, "vpmaddwd+vpaddd zmm", kZmm * 64, pairs_zmm},
    {Unit::avx512, Operands::int4, "vpmaddubsw+vpaddw zmm", kZmm * 128, nibbles_zmm},
    {Unit::avx512_vnni, Operands::int16, "vpdpwssd zmm", kZmm * 64, words_zmm},
    {Unit::avx512_vnni, Operands::int8, "vpdpbusd zmm", kZmm * 128, vnni_zmm},
    {Unit::avx512_bf16, Operands::bf16, "vdpbf16ps zmm", kZmm * 64, bf16_zmm},
    {Unit::amx_bf16, Operands::bf16, "tdpbf16ps tmm", kTiles * 16384, bf16_tile},
    {Unit::amx_int8, Operands::int8, "tdpbusd tmm", kTiles * 32768, int8_tile},
};
constexpr ReadLoop kReadLoops[] = {
    {Unit::baseline, "words", read_words},
    {Unit::avx2, "ymm", read_ymm},
    {Unit::avx2, "ymm, 4 streams", read_ymm_streams},
    {Unit::avx512, "zmm", read_zmm},
    // prefetchnta reads at half of it, distances of 1 to 8 KB differ by 3 % (Xeon with AMX).
    {Unit::avx512, "zmm + prefetch", read_ahead},
    {Unit::avx512, "zmm, 4 streams", read_zmm_streams},
};

}  // namespace

std::span<const ProductLoop> product_loops() { return kProductLoops; }
std::span<const ReadLoop> read_loops() { return kReadLoops; }

#else
namespace {

bool detect(Unit unit) { return unit == Unit::baseline; }

void read_words(const std::byte* data, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) (void)*static_cast<const volatile std::byte*>(data + i);
}
constexpr ReadLoop kReadLoops[] = {{Unit::baseline, "words", read_words}};

}  // namespace

std::span<const ProductLoop> product_loops() { return {}; }
std::span<const ReadLoop> read_loops() { return kReadLoops; }

#endif

bool has_unit(Unit unit) { return detect(unit); }

}  // namespace pali::bench

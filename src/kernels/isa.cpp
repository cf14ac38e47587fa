// Tiers of this CPU, and its cache: CPUID says what the cores execute, XCR0 which registers the
// operating system saves. Both are needed: AVX-512 code on a kernel that does not save zmm ends in
// SIGILL.
#include "kernels/isa.hpp"

#include <array>
#include <cstdlib>
#include <cstring>

#include "pali/error.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace pali {
namespace {

// Of one core. More than any core has is made up by a hypervisor, or shared between cores: then,
// and where the system does not say, a size that is too small for some and too large for few.
int64_t l2_bytes() {
  constexpr int64_t kUnknown = int64_t{512} << 10;
#if defined(_SC_LEVEL2_CACHE_SIZE)
  const int64_t bytes = ::sysconf(_SC_LEVEL2_CACHE_SIZE);
  if (bytes >= int64_t{128} << 10 && bytes <= int64_t{3} << 20) return bytes;
#endif
  return kUnknown;
}

struct Feature {
  const char* name;
  bool present;
};

const char* first_missing(std::initializer_list<Feature> features) {
  for (const Feature& feature : features) {
    if (!feature.present) return feature.name;
  }
  return "";
}

#if defined(PALI_TIER_AVX2)
constexpr bool kBuiltAvx2 = true;
#else
constexpr bool kBuiltAvx2 = false;
#endif
#if defined(PALI_TIER_AVX_VNNI)
constexpr bool kBuiltAvxVnni = true;
#else
constexpr bool kBuiltAvxVnni = false;
#endif
#if defined(PALI_TIER_AVX512)
constexpr bool kBuiltAvx512 = true;
#else
constexpr bool kBuiltAvx512 = false;
#endif
#if defined(PALI_TIER_AVX512_VNNI)
constexpr bool kBuiltAvx512Vnni = true;
#else
constexpr bool kBuiltAvx512Vnni = false;
#endif
#if defined(PALI_TIER_AVX512_BF16)
constexpr bool kBuiltAvx512Bf16 = true;
#else
constexpr bool kBuiltAvx512Bf16 = false;
#endif
#if defined(PALI_TIER_AMX)
constexpr bool kBuiltAmx = true;
#else
constexpr bool kBuiltAmx = false;
#endif

#if defined(__x86_64__)

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf = 0) {
  Registers r;
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}

// The register states that the operating system saves; 0 where it has not said (no OSXSAVE).
uint64_t saved_states() {
  if ((cpuid(1).ecx >> 27 & 1u) == 0) return 0;
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

struct Missing {
  const char* avx2;
  const char* avx_vnni;
  const char* avx512;
  const char* vnni;
  const char* bf16;
  const char* amx;
};

// Bits: Intel SDM volume 2A, CPUID; XCR0: volume 1, chapter 13.
Missing missing_features() {
  const auto bit = [](unsigned value, int index) { return (value >> index & 1u) != 0; };
  const Registers base = cpuid(1);
  const Registers extended = cpuid(7);
  const Registers extended1 = cpuid(7, 1);
  const uint64_t saved = saved_states();
  const bool saves_ymm = (saved & 0x6) == 0x6;
  const bool saves_zmm = (saved & 0xe6) == 0xe6;
  Missing missing;
  missing.avx2 = first_missing({{"avx", bit(base.ecx, 28)},
                                {"operating system support for ymm", saves_ymm},
                                {"avx2", bit(extended.ebx, 5)},
                                {"fma", bit(base.ecx, 12)},
                                {"f16c", bit(base.ecx, 29)}});
  const auto below = [](const char* lower, const char* own) {
    return lower[0] != '\0' ? lower : own;
  };
  missing.avx_vnni = below(missing.avx2, first_missing({{"avx_vnni", bit(extended1.eax, 4)}}));
  missing.avx512 =
      below(missing.avx2, first_missing({{"avx512f", bit(extended.ebx, 16)},
                                         {"operating system support for zmm", saves_zmm},
                                         {"avx512bw", bit(extended.ebx, 30)},
                                         {"avx512cd", bit(extended.ebx, 28)},
                                         {"avx512dq", bit(extended.ebx, 17)},
                                         {"avx512vl", bit(extended.ebx, 31)}}));
  missing.vnni = below(missing.avx512, first_missing({{"avx512_vnni", bit(extended.ecx, 11)}}));
  missing.bf16 = below(missing.avx512, first_missing({{"avx512_bf16", bit(extended1.eax, 5)}}));
  missing.amx =
      below(missing.bf16,
            first_missing({{"amx_tile", bit(extended.edx, 24)},
                           {"amx_bf16", bit(extended.edx, 22)},
                           {"amx_int8", bit(extended.edx, 25)},
                           {"operating system support for tiles", (saved & 0x60000) == 0x60000}}));
  if (kBuiltAmx && missing.amx[0] == '\0' && !tiles_permitted()) {
    missing.amx = "permission to use tiles (arch_prctl)";
  }
  return missing;
}

#else

struct Missing {
  const char* avx2 = "an x86-64 CPU";
  const char* avx_vnni = "an x86-64 CPU";
  const char* avx512 = "an x86-64 CPU";
  const char* vnni = "an x86-64 CPU";
  const char* bf16 = "an x86-64 CPU";
  const char* amx = "an x86-64 CPU";
};
Missing missing_features() { return {}; }

#endif

IsaTier tier(Isa isa, const char* name, bool built, const char* missing) {
  if (!built) return {isa, name, false, false, "a compiler that builds this tier"};
  return {isa, name, true, missing[0] == '\0', missing};
}

std::array<IsaTier, 7> detect() {
  const Missing missing = missing_features();
  return {tier(Isa::scalar, "scalar", true, ""),
          tier(Isa::avx2, "avx2", kBuiltAvx2, missing.avx2),
          tier(Isa::avx_vnni, "avx_vnni", kBuiltAvxVnni, missing.avx_vnni),
          tier(Isa::avx512, "avx512", kBuiltAvx512, missing.avx512),
          tier(Isa::avx512_vnni, "avx512_vnni", kBuiltAvx512Vnni, missing.vnni),
          tier(Isa::avx512_bf16, "avx512_bf16", kBuiltAvx512Bf16, missing.bf16),
          tier(Isa::amx, "amx", kBuiltAmx, missing.amx)};
}

const IsaTier& tier_of(Isa isa) {
  for (const IsaTier& candidate : isa_tiers()) {
    if (candidate.isa == isa) return candidate;
  }
  throw Error(ErrorCode::internal, "no such kernel tier (isa); please report this");
}

const IsaTier& best_tier() {
  const IsaTier* best = &isa_tiers().front();
  for (const IsaTier& candidate : isa_tiers()) {
    if (candidate.available) best = &candidate;
  }
  return *best;
}

Isa require(Isa isa, const std::string& where) {
  const IsaTier& wanted = tier_of(isa);
  if (wanted.available) return isa;
  throw Error(ErrorCode::unsupported, std::string("kernel tier ") + wanted.name +
                                          " is not available: missing " + wanted.missing + " (" +
                                          where + "); the best here is " + best_tier().name);
}

}  // namespace

std::span<const IsaTier> isa_tiers() {
  static const std::array<IsaTier, 7> tiers = detect();
  return tiers;
}

const char* isa_name(Isa isa) { return isa == Isa::best ? "best" : tier_of(isa).name; }

Isa parse_isa(const std::string& name) {
  std::string names = "best";
  if (name == names) return Isa::best;
  for (const IsaTier& candidate : isa_tiers()) {
    if (name == candidate.name) return candidate.isa;
    names += std::string(", ") + candidate.name;
  }
  throw Error(ErrorCode::invalid_argument,
              "unknown kernel tier '" + name + "' (isa); use one of " + names);
}

Isa resolve_isa(Isa requested) {
  if (requested != Isa::best) return require(requested, "isa");
  const char* environment = std::getenv("PALI_ISA");
  if (environment == nullptr || environment[0] == '\0') return best_tier().isa;
  const Isa named = parse_isa(environment);
  return named == Isa::best ? best_tier().isa : require(named, "PALI_ISA");
}

KernelTable kernel_table(Isa isa) {
  [[maybe_unused]] const Isa highest = resolve_isa(isa);  // unused where only scalar is built
  KernelTable table;
  table.l2_bytes = l2_bytes();
  fill_scalar(table), fill_scalar_int8(table);
#if defined(PALI_TIER_AVX2)
  if (highest >= Isa::avx2) fill_avx2(table), fill_avx2_int8(table);
#endif
#if defined(PALI_TIER_AVX_VNNI)
  if (highest == Isa::avx_vnni) fill_avx_vnni(table);  // the tiers above do not stand on it
#endif
#if defined(PALI_TIER_AVX512)
  if (highest >= Isa::avx512) fill_avx512(table), fill_avx512_int8(table);
#endif
#if defined(PALI_TIER_AVX512_VNNI)
  // The tiers above do not stand on this one.
  if (highest >= Isa::avx512_vnni && tier_of(Isa::avx512_vnni).available) fill_avx512_vnni(table);
#endif
#if defined(PALI_TIER_AVX512_BF16)
  if (highest >= Isa::avx512_bf16) fill_avx512_bf16(table), fill_avx512_bf16_attention(table);
#endif
#if defined(PALI_TIER_AMX)
  if (highest >= Isa::amx) fill_amx(table), fill_amx_int8(table), fill_amx_attention(table);
#endif
  return table;
}

std::string cpu_name() {
#if defined(__x86_64__)
  if (cpuid(0x80000000u).eax >= 0x80000004u) {
    char brand[49] = {};
    for (unsigned i = 0; i < 3; ++i) {
      const Registers r = cpuid(0x80000002u + i);
      const unsigned words[4] = {r.eax, r.ebx, r.ecx, r.edx};
      std::memcpy(brand + 16 * i, words, sizeof(words));
    }
    const std::string name = brand;
    const size_t first = name.find_first_not_of(' ');
    if (first != std::string::npos)
      return name.substr(first, name.find_last_not_of(' ') + 1 - first);
  }
#endif
  return "unknown CPU";
}

// Linux keeps the tiles' state (8 KB a thread) off until a process asks for it; the answer holds
// for later threads too. Refused where a seccomp filter or a small signal stack is in the way.
// Documentation/arch/x86/xstate.rst.
bool tiles_permitted() {
#if defined(__x86_64__) && defined(__linux__) && defined(SYS_arch_prctl)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool cpu_is_intel() {
#if defined(__x86_64__)
  const Registers r = cpuid(0);
  return r.ebx == signature_INTEL_ebx && r.ecx == signature_INTEL_ecx &&
         r.edx == signature_INTEL_edx;
#else
  return false;
#endif
}

}  // namespace pali

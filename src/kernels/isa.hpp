// Which kernel tiers this CPU, this operating system and this build have; and the table of one.
#pragma once

#include <span>
#include <string>

#include "kernels/kernel_table.hpp"
#include "pali/options.hpp"

namespace pali {

struct IsaTier {
  Isa isa = Isa::scalar;
  const char* name = "scalar";
  bool built = true;         // compiled into this library
  bool available = true;     // built, and CPUID and XCR0 have all it needs
  const char* missing = "";  // the first feature that is missing, e.g. "avx512bf16"
};

// scalar first, best last.
std::span<const IsaTier> isa_tiers();
const char* isa_name(Isa isa);
// "avx2" -> Isa::avx2. Throws Error(invalid_argument) listing the names.
Isa parse_isa(const std::string& name);
// `best` becomes the best tier available (PALI_ISA in the environment lowers it). Throws
// Error(unsupported) for a tier that the CPU or the build lacks, naming what is missing.
Isa resolve_isa(Isa requested);
// scalar overlaid by every tier that `isa` (already resolved) stands on, and by itself.
KernelTable kernel_table(Isa isa);
// Brand string of the CPU, e.g. "AMD EPYC 9B45".
std::string cpu_name();
bool cpu_is_intel();
// Asks the operating system for the tile registers of AMX, for all threads of this process. False
// where it refuses; only where CPUID and XCR0 have them.
bool tiles_permitted();

}  // namespace pali

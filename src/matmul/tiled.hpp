// Products of many rows by a register-tiled kernel (KernelTable::gemm_f32, gemm_bf16) over panels
// of W that are packed on the way, or were at load, epilogue included.
#pragma once

#include "matmul/matmul.hpp"

namespace pali {

// Columns [k0, k0 + kc) of n rows of W from n0 on into a panel of GemmKernels; k0 is a multiple of
// 32.
using PackPanel =
    FunctionRef<void(int64_t n0, int64_t n, int64_t k0, int64_t kc, std::byte* panel)>;

// What panels are packed from.
struct PanelSource {
  PackPanel pack;  // borrowed
  // W as `pack` reads it: [out, k] values of `value_bytes`, rows `stride` bytes apart. Null: it is
  // not prefetched.
  const std::byte* rows = nullptr;
  int64_t stride = 0;
  int64_t value_bytes = 0;
};

// All panels of W [out, k]: block of K after block, each with the panels of all its rows.
AlignedBuffer<std::byte> pack_panels(const GemmKernels& gemm, int64_t out, int64_t k,
                                     PackPanel pack);

// y = epilogue(x W^T), y [M, out], W [out, k]. x: M rows of k of the kernel's elements, filled up
// with zeros to a multiple of its k_step; x_stride in elements. `ready`: what pack_panels() made;
// null: panels are packed here. Bit-equal at any thread count, and either way.
void run_tiled(const Context& context, const GemmKernels& gemm, const std::byte* x,
               int64_t x_stride, int64_t k, const PanelSource& source, const std::byte* ready,
               Mat y, const Epilogue& epilogue);

}  // namespace pali

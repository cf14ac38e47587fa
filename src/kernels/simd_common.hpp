// What the vector tiers share: compile-time unrolling, and e^x from a vector class's own
// primitives. Everything here and in the other kernel headers lies in an unnamed namespace on
// purpose: each ISA source gets its own copy, compiled with its own flags, and the linker has
// nothing to merge.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernel_table.hpp"

namespace pali {
namespace {

template <int kValue>
struct Index {
  static constexpr int value = kValue;
  constexpr operator int() const { return kValue; }
};

// f(Index<0>{}), ..., f(Index<kCount - 1>{}). Accumulator arrays indexed only this way live in
// registers; a loop, even with a constant count, may leave them on the stack (gcc 12).
template <int kCount, class F>
[[gnu::always_inline]] inline void unroll(F&& f) {
  if constexpr (kCount > 0) {
    unroll<kCount - 1>(f);
    f(Index<kCount - 1>{});
  }
}

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

constexpr int64_t bytes_of(KernelType type) { return type == KernelType::f32 ? 4 : 2; }

// Asks for the lines of n bytes at p, ahead of their use.
[[gnu::always_inline]] inline void prefetch(const std::byte* p, int64_t n) {
  for (int64_t i = 0; i < n; i += 64) __builtin_prefetch(p + i);
}

// e^r - 1, r = x - n ln2, |r| <= ln2 / 2, as r + r^2 P(r). ln2 in two parts (Cody and Waite), so
// that r is good to the last bit. P: Chebyshev fit, 8e-9 of e^r.
template <class S>
[[gnu::always_inline]] inline typename S::F exp_minus_one_near_zero(typename S::F x,
                                                                    typename S::F n) {
  auto r = S::fma(n, S::set(-0.693359375f), x);
  r = S::fma(n, S::set(2.12194440e-4f), r);
  auto p = S::set(0.00139336521f);
  p = S::fma(p, r, S::set(0.00836318173f));
  p = S::fma(p, r, S::set(0.0416664667f));
  p = S::fma(p, r, S::set(0.166665763f));
  p = S::fma(p, r, S::set(0.5f));
  return S::fma(S::mul(r, r), p, r);
}

// e^x = 2^n e^r for x in [-104, 89]; with roundings below 1.5e-7 everywhere.
template <class S>
[[gnu::always_inline]] inline typename S::F exp_within(typename S::F x) {
  const auto n = S::round(S::mul(x, S::set(1.44269504088896341f)));
  const auto p = exp_minus_one_near_zero<S>(x, n);
  return S::scale_by_power_of_two(S::add(p, S::set(1.0f)), n);
}

// Underflows through subnormals to 0, overflows to inf; NaN stays NaN (x is the second operand of
// max and min, which is the one they return then).
template <class S>
[[gnu::always_inline]] inline typename S::F exp(typename S::F x) {
  return exp_within<S>(S::max(S::set(-104.0f), S::min(S::set(89.0f), x)));
}

// The same, but 0 where it would be less than 1.2e-37: for what is added to larger ones. A
// subnormal costs an Intel core more than a hundred cycles, here and where it is an operand: GELU
// of a vector took 16 times as long where one of its values was above 11.
template <class S>
[[gnu::always_inline]] inline typename S::F exp_without_subnormals(typename S::F x) {
  const auto least = S::set(-85.0f);  // GELU by erf halves it, and more
  const auto power = exp_within<S>(S::max(least, S::min(S::set(89.0f), x)));
  return S::zero_where_less(x, least, power);
}

// tanh x = m / (m + 2), m = e^(2x) - 1 = 2^n (e^r - 1) + (2^n - 1): the parts of exp above, of
// which the second is exact, so that small x keep their relative precision. Below 4e-7 of tanh x.
template <class S>
[[gnu::always_inline]] inline typename S::F tanh(typename S::F x) {
  const auto y = S::max(S::set(-20.0f), S::min(S::set(20.0f), S::add(x, x)));
  const auto n = S::round(S::mul(y, S::set(1.44269504088896341f)));
  const auto p = exp_minus_one_near_zero<S>(y, n);
  const auto power = S::scale_by_power_of_two(S::set(1.0f), n);
  const auto m = S::fma(power, p, S::sub(power, S::set(1.0f)));
  return S::div(m, S::add(m, S::set(2.0f)));
}

}  // namespace
}  // namespace pali

// Row kernels, written once over a vector class S: norms, epilogues, reductions, conversions.
// Included once by each ISA source.
#pragma once

#include <immintrin.h>

#include "kernels/simd_common.hpp"

namespace pali {
namespace {

constexpr int kSums = 4;  // independent sums: hides the latency of the adds, and adds pairwise

// Sum over i < n of term(vector of x at i); rest lanes of the last vector hold term(0), which
// callers arrange to be 0 (fix(vector, lanes)).
template <class S, class Term>
[[gnu::always_inline]] inline float sum_of(int64_t n, Term term) {
  typename S::F sums[kSums] = {S::zero(), S::zero(), S::zero(), S::zero()};
  int64_t i = 0;
  for (; i + kSums * S::kLanes <= n; i += kSums * S::kLanes) {
    unroll<kSums>([&](auto s) __attribute__((always_inline)) {
      sums[s] = S::add(sums[s], term(i + s * S::kLanes, int64_t{S::kLanes}));
    });
  }
  for (; i < n; i += S::kLanes) {
    sums[0] = S::add(sums[0], term(i, smaller(n - i, S::kLanes)));
  }
  return S::sum(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])));
}

template <class S>
[[gnu::always_inline]] inline typename S::F load_lanes(const float* p, int64_t lanes) {
  return lanes == S::kLanes ? S::load(p) : S::load_n(p, lanes);
}

template <class S>
[[gnu::always_inline]] inline void store_lanes(float* p, typename S::F x, int64_t lanes) {
  if (lanes == S::kLanes) {
    S::store(p, x);
  } else {
    S::store_n(p, x, lanes);
  }
}

// 1 / sqrt(x) of one float, correctly rounded steps (the approximate instruction is not enough).
inline float reciprocal_root(float x) { return 1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

template <class S>
void layer_norm(const float* x, const float* weight, const float* bias, float eps, int64_t n,
                float* y) {
  const float mean =
      sum_of<S>(
          n, [=](int64_t i, int64_t lanes)
                 __attribute__((always_inline)) { return load_lanes<S>(x + i, lanes); }) /
      static_cast<float>(n);
  const auto center = S::set(mean);
  // Rest lanes are 0 - mean: taken out again by the masked square below.
  const float squares = sum_of<S>(
      n, [=](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        if (lanes == S::kLanes) {
          const auto d = S::sub(S::load(x + i), center);
          return S::mul(d, d);
        }
        float part[S::kLanes];
        S::store(part, center);
        for (int64_t l = 0; l < lanes; ++l) part[l] = x[i + l];
        const auto d = S::sub(S::load(part), center);
        return S::mul(d, d);
      });
  const auto scale = S::set(reciprocal_root(squares / static_cast<float>(n) + eps));
  for (int64_t i = 0; i < n; i += S::kLanes) {
    const int64_t lanes = smaller(n - i, S::kLanes);
    const auto unit = S::mul(S::sub(load_lanes<S>(x + i, lanes), center), scale);
    auto value = S::mul(unit, load_lanes<S>(weight + i, lanes));
    if (bias != nullptr) value = S::add(value, load_lanes<S>(bias + i, lanes));
    store_lanes<S>(y + i, value, lanes);
  }
}

template <class S>
void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* y) {
  const float squares = sum_of<S>(
      n, [=](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        const auto v = load_lanes<S>(x + i, lanes);
        return S::mul(v, v);
      });
  const auto scale = S::set(reciprocal_root(squares / static_cast<float>(n) + eps));
  for (int64_t i = 0; i < n; i += S::kLanes) {
    const int64_t lanes = smaller(n - i, S::kLanes);
    const auto unit = S::mul(load_lanes<S>(x + i, lanes), scale);
    store_lanes<S>(y + i, S::mul(unit, load_lanes<S>(weight + i, lanes)), lanes);
  }
}

// x sigmoid(s x) as x / (1 + e^-(s x)).
template <class S>
[[gnu::always_inline]] inline typename S::F times_sigmoid(typename S::F x, typename S::F scaled) {
  return S::div(x, S::add(S::set(1.0f), exp_without_subnormals<S>(S::negate(scaled))));
}

// x Phi(x), Phi(-z sqrt(2)) = erfc(z) / 2 = u e^(P(u) - z^2) / 2 with u = 1 / (1 + 0.4 z), z >= 0:
// the form of Press et al., "Numerical Recipes", 6.2, with coefficients of our own (Chebyshev fit
// over z in [0, 10], 1.1e-7 of erfc; with roundings below 5e-7 while z < 2, below 1.5e-7 of x
// always).
template <class S>
[[gnu::always_inline]] inline typename S::F gelu_erf(typename S::F x) {
  const auto one = S::set(1.0f);
  const auto z = S::mul(S::absolute(x), S::set(0.70710678118654752f));
  const auto u = S::div(one, S::fma(z, S::set(0.4f), one));
  auto p = S::set(-0.21272181f);
  p = S::fma(p, u, S::set(0.950186968f));
  p = S::fma(p, u, S::set(-1.53893888f));
  p = S::fma(p, u, S::set(1.05971849f));
  p = S::fma(p, u, S::set(-0.485119671f));
  p = S::fma(p, u, S::set(0.317978054f));
  p = S::fma(p, u, S::set(0.395332932f));
  p = S::fma(p, u, S::set(1.00231004f));
  p = S::fma(p, u, S::set(-1.48874629f));
  const auto power = exp_without_subnormals<S>(S::fma(S::negate(z), z, p));
  const auto below = S::mul(S::mul(u, S::set(0.5f)), power);
  return S::mul(x, S::if_negative(x, below, S::sub(one, below)));
}

template <class S, KernelActivation kActivation>
[[gnu::always_inline]] inline typename S::F activate(typename S::F x) {
  if constexpr (kActivation == KernelActivation::gelu_tanh) {
    // (1 + tanh(y)) / 2 = sigmoid(2 y), y = sqrt(2/pi) (x + 0.044715 x^3).
    const auto cubic = S::fma(S::mul(S::mul(x, x), x), S::set(0.044715f), x);
    return times_sigmoid<S>(x, S::mul(cubic, S::set(1.5957691216057308f)));
  } else if constexpr (kActivation == KernelActivation::gelu_erf) {
    return gelu_erf<S>(x);
  } else if constexpr (kActivation == KernelActivation::quick_gelu) {
    return times_sigmoid<S>(x, S::mul(x, S::set(1.702f)));
  } else if constexpr (kActivation == KernelActivation::silu) {
    return times_sigmoid<S>(x, x);
  } else if constexpr (kActivation == KernelActivation::relu) {
    return S::max(S::zero(), x);
  } else {
    return x;
  }
}

template <class S, KernelActivation kActivation>
void epilogue_of(const float* x, const float* bias, const float* gate, const float* residual,
                 int64_t n, float* y) {
  for (int64_t i = 0; i < n; i += S::kLanes) {
    const int64_t lanes = smaller(n - i, S::kLanes);
    auto value = load_lanes<S>(x + i, lanes);
    if (bias != nullptr) value = S::add(value, load_lanes<S>(bias + i, lanes));
    value = activate<S, kActivation>(value);
    if (gate != nullptr) value = S::mul(value, load_lanes<S>(gate + i, lanes));
    if (residual != nullptr) value = S::add(value, load_lanes<S>(residual + i, lanes));
    store_lanes<S>(y + i, value, lanes);
  }
}

template <class S>
void epilogue(const float* x, const float* bias, KernelActivation activation, const float* gate,
              const float* residual, int64_t n, float* y) {
  using A = KernelActivation;
  switch (activation) {
    case A::none:
      return epilogue_of<S, A::none>(x, bias, gate, residual, n, y);
    case A::gelu_tanh:
      return epilogue_of<S, A::gelu_tanh>(x, bias, gate, residual, n, y);
    case A::gelu_erf:
      return epilogue_of<S, A::gelu_erf>(x, bias, gate, residual, n, y);
    case A::quick_gelu:
      return epilogue_of<S, A::quick_gelu>(x, bias, gate, residual, n, y);
    case A::silu:
      return epilogue_of<S, A::silu>(x, bias, gate, residual, n, y);
    case A::relu:
      return epilogue_of<S, A::relu>(x, bias, gate, residual, n, y);
  }
}

template <class S>
void rope(float* head, const float* cosines, const float* sines, int64_t half) {
  for (int64_t i = 0; i < half; i += S::kLanes) {
    const int64_t lanes = smaller(half - i, S::kLanes);
    const auto a = load_lanes<S>(head + i, lanes), b = load_lanes<S>(head + half + i, lanes);
    const auto c = load_lanes<S>(cosines + i, lanes), s = load_lanes<S>(sines + i, lanes);
    store_lanes<S>(head + i, S::sub(S::mul(a, c), S::mul(b, s)), lanes);
    store_lanes<S>(head + half + i, S::add(S::mul(b, c), S::mul(a, s)), lanes);
  }
}

// tanh(u) = 1 - 2 / (1 + e^2u): off by at most 2e-7, by absolute value, which is what a logit
// needs.
template <class S>
void soft_cap(const float* x, float cap, int64_t n, float* y) {
  const auto one = S::set(1.0f), twice = S::set(2.0f / cap), high = S::set(cap);
  for (int64_t i = 0; i < n; i += S::kLanes) {
    const int64_t lanes = smaller(n - i, S::kLanes);
    const auto power = exp<S>(S::mul(load_lanes<S>(x + i, lanes), twice));
    const auto rest = S::div(S::set(2.0f), S::add(one, power));
    store_lanes<S>(y + i, S::mul(high, S::sub(one, rest)), lanes);
  }
}

template <class S>
float dot(const float* a, const float* b, int64_t n) {
  return sum_of<S>(
      n, [=](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        return S::mul(load_lanes<S>(a + i, lanes), load_lanes<S>(b + i, lanes));
      });
}

template <class S>
float max(const float* x, int64_t n) {
  if (n < S::kLanes) {
    float padded[S::kLanes];
    S::store(padded, S::set(x[0]));
    for (int64_t i = 0; i < n; ++i) padded[i] = x[i];
    return max<S>(padded, S::kLanes);
  }
  auto best = S::load(x);
  auto nan = S::nan_lanes(best);
  for (int64_t i = S::kLanes; i < n; i += S::kLanes) {
    // The last vector overlaps the one before it.
    const auto v = S::load(x + smaller(i, n - S::kLanes));
    nan = S::either(nan, S::nan_lanes(v));
    best = S::max(best, v);
  }
  return S::any(nan) ? __builtin_nanf("") : S::highest(best);
}

template <class S>
float sum_exp(const float* x, float shift, int64_t n) {
  const auto subtract = S::set(shift);
  return sum_of<S>(
      n, [=](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        if (lanes == S::kLanes) return exp<S>(S::sub(S::load(x + i), subtract));
        float part[S::kLanes];
        S::store(part, exp<S>(S::sub(S::load_n(x + i, lanes), subtract)));
        return S::load_n(part, lanes);
      });
}

template <class S, KernelType kType>
void widen_as(const std::byte* x, int64_t n, float* y) {
  int64_t i = 0;
  for (; i + S::kLanes <= n; i += S::kLanes) {
    S::store(y + i, S::template load_as<kType>(x + i * bytes_of(kType)));
  }
  if (i < n) S::store_n(y + i, S::template load_as_n<kType>(x + i * bytes_of(kType), n - i), n - i);
}

template <class S>
void widen(const std::byte* x, KernelType type, int64_t n, float* y) {
  if (type == KernelType::f32) return widen_as<S, KernelType::f32>(x, n, y);
  if (type == KernelType::bf16) return widen_as<S, KernelType::bf16>(x, n, y);
  return widen_as<S, KernelType::f16>(x, n, y);
}

template <class S>
void to_bf16(const float* x, int64_t n, uint16_t* y) {
  int64_t i = 0;
  for (; i + S::kLanes <= n; i += S::kLanes) S::store_bf16(y + i, S::load(x + i));
  if (i < n) S::store_bf16_n(y + i, S::load_n(x + i, n - i), n - i);
}

}  // namespace
}  // namespace pali

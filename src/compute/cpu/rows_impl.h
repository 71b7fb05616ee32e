// How kernels reach rows, and exp and SiLU on sixteen lanes. Included after one of the vec headers;
// internal to the including translation unit. Nothing here is blocked: one register at a time.
#pragma once

#include "compute/kernels.h"

#if defined(__clang__)
#define WIDELOAD_UNROLL _Pragma("unroll")
#else
#define WIDELOAD_UNROLL _Pragma("GCC unroll 16")
#endif

namespace wideload::compute {
namespace {

inline int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }

template <class T>
const T* Row(const InRows& rows, int64_t i) {
  return reinterpret_cast<const T*>(rows.pointers != nullptr ? rows.pointers[i]
                                                             : rows.base + i * rows.stride_bytes);
}
template <class T>
T* Row(const OutRows& rows, int64_t i) {
  return reinterpret_cast<T*>(rows.pointers != nullptr ? rows.pointers[i]
                                                       : rows.base + i * rows.stride_bytes);
}

// count lanes, of which all sixteen is the common case.
inline Vec LoadUpTo(const float* p, int64_t count) {
  return count >= kLanes ? Load(p) : LoadPartial(p, count);
}
inline Vec LoadUpTo(const uint16_t* p, int64_t count) {
  return count >= kLanes ? LoadBf16(p) : LoadBf16Partial(p, count);
}
inline Vec LoadUpToMixed(const uint16_t* p, int64_t count) {
  return count >= kLanes ? LoadBf16Mixed(p) : Mixed(LoadBf16Partial(p, count));
}
inline void StoreUpTo(float* p, Vec a, int64_t count) {
  if (count >= kLanes) {
    Store(p, a);
  } else {
    StorePartial(p, a, count);
  }
}
inline void StoreUpTo(uint16_t* p, Vec a, int64_t count) {
  if (count >= kLanes) {
    StoreBf16(p, a);
  } else {
    StoreBf16Partial(p, a, count);
  }
}

// e^x within 2 ulp; 0 below about -103.3, infinity above about 88.7, NaN of NaN, 1 of 0. x = n ln 2
// + r with |r| <= ln 2 / 2, e^r = 1 + r + r^2 p(r). Source: the coefficients of expf in the Cephes
// mathematical library.
inline Vec Exp(Vec x) {
  x = Min(Set1(89.0F), Max(Set1(-104.0F), x));
  const Vec n = Round(Mul(x, Set1(1.44269504F)));
  Vec r = NegFma(n, Set1(0.693359375F), x);
  r = NegFma(n, Set1(-2.12194440e-4F), r);
  Vec p = Set1(1.9875691500e-4F);
  p = Fma(p, r, Set1(1.3981999507e-3F));
  p = Fma(p, r, Set1(8.3334519073e-3F));
  p = Fma(p, r, Set1(4.1665795894e-2F));
  p = Fma(p, r, Set1(1.6666665459e-1F));
  p = Fma(p, r, Set1(5.0000001201e-1F));
  return Scale2(Add(Fma(p, Mul(r, r), r), Set1(1.0F)), n);
}

inline Vec Sigmoid(Vec x) { return Div(Set1(1.0F), Add(Set1(1.0F), Exp(Sub(Zero(), x)))); }

// The order of arguments to Min and Max keeps NaN.
inline Vec Activate(const GatedActivation& a, Vec gate, Vec up) {
  const Vec limit = Set1(a.limit);
  gate = Min(limit, gate);
  up = Max(Sub(Zero(), limit), Min(limit, up));
  const Vec denominator = Add(Set1(1.0F), Exp(Sub(Zero(), Mul(Set1(a.alpha), gate))));
  return Mul(Div(gate, denominator), Add(up, Set1(a.up_offset)));
}

}  // namespace
}  // namespace wideload::compute

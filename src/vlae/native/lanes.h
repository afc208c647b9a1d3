// Sixteen floats at a time, and how features are stored. All other code is written in these terms.
//
// With AVX-512 the floats fill one register, and features are stored in bfloat16. With AVX2 they
// fill two registers, and features stay in single precision: without bfloat16 dot products,
// rounding saves nothing.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

using bf16 = uint16_t;
constexpr int LANES = 16;

inline bf16 to_bf16(float v) {
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    return bf16((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
inline float from_bf16(bf16 v) {
    const uint32_t bits = uint32_t(v) << 16;
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
}

// If an operand is NaN, smaller and larger return the second one. load and store need an address
// that is aligned to the vector, unless they are given the lanes to move (First); those that are
// not loaded are 0.
#ifdef __AVX512F__

using Feature = bf16;
using Lanes = __m512;
using First = __mmask16;

inline First first_lanes(int64_t n) {
    return n >= LANES ? __mmask16(0xffff) : __mmask16((1u << n) - 1);
}
inline Lanes zeros() { return _mm512_setzero_ps(); }
inline Lanes all(float v) { return _mm512_set1_ps(v); }
inline Lanes load(const float* at) { return _mm512_load_ps(at); }
inline void store(float* at, Lanes v) { _mm512_store_ps(at, v); }
inline Lanes load_anywhere(const float* at) { return _mm512_loadu_ps(at); }
inline void store_anywhere(float* at, Lanes v) { _mm512_storeu_ps(at, v); }
inline Lanes load(const float* at, First lanes) { return _mm512_maskz_loadu_ps(lanes, at); }
inline void store(float* at, Lanes v, First lanes) { _mm512_mask_storeu_ps(at, lanes, v); }
inline Lanes load(const bf16* at) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_load_si256((const __m256i*)at)), 16));
}
inline void store(bf16* at, Lanes v) {
    _mm256_store_si256((__m256i*)at, (__m256i)_mm512_cvtneps_pbh(v));
}
inline Lanes load(const bf16* at, First lanes) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, at)), 16));
}
inline void store(bf16* at, Lanes v, First lanes) {
    _mm256_mask_storeu_epi16(at, lanes, (__m256i)_mm512_cvtneps_pbh(v));
}
inline Lanes add(Lanes a, Lanes b) { return _mm512_add_ps(a, b); }
inline Lanes subtract(Lanes a, Lanes b) { return _mm512_sub_ps(a, b); }
inline Lanes multiply(Lanes a, Lanes b) { return _mm512_mul_ps(a, b); }
inline Lanes divide(Lanes a, Lanes b) { return _mm512_div_ps(a, b); }
inline Lanes smaller(Lanes a, Lanes b) { return _mm512_min_ps(a, b); }
inline Lanes larger(Lanes a, Lanes b) { return _mm512_max_ps(a, b); }
inline Lanes magnitude(Lanes a) { return _mm512_abs_ps(a); }
inline float sum(Lanes a) { return _mm512_reduce_add_ps(a); }
// a b + c, a b - c and c - a b
inline Lanes multiply_add(Lanes a, Lanes b, Lanes c) { return _mm512_fmadd_ps(a, b, c); }
inline Lanes multiply_subtract(Lanes a, Lanes b, Lanes c) { return _mm512_fmsub_ps(a, b, c); }
inline Lanes subtract_product(Lanes c, Lanes a, Lanes b) { return _mm512_fnmadd_ps(a, b, c); }
// x > 0 ? yes : no, and the same for x >= 0
inline Lanes if_positive(Lanes x, Lanes yes, Lanes no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, zeros(), _CMP_GT_OQ), no, yes);
}
inline Lanes unless_negative(Lanes x, Lanes yes, Lanes no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, zeros(), _CMP_GE_OQ), no, yes);
}
// An exponent of two for t <= 0, split into a whole number and a rest, and p 2^whole.
struct Exponent {
    Lanes whole, rest;
    explicit Exponent(Lanes t) : whole(_mm512_roundscale_ps(t, 0)), rest(subtract(t, whole)) {}
    Lanes scale(Lanes p) const { return _mm512_scalef_ps(p, whole); }
};

#else

using Feature = float;
struct Lanes { __m256 a, b; };
struct First { __m256i a, b; };

inline First first_lanes(int64_t n) {
    const __m256i count = _mm256_set1_epi32(int(n < LANES ? n : LANES));
    return {_mm256_cmpgt_epi32(count, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
            _mm256_cmpgt_epi32(count, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15))};
}
inline Lanes zeros() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Lanes all(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
inline Lanes load(const float* at) { return {_mm256_load_ps(at), _mm256_load_ps(at + 8)}; }
inline void store(float* at, Lanes v) {
    _mm256_store_ps(at, v.a);
    _mm256_store_ps(at + 8, v.b);
}
inline Lanes load_anywhere(const float* at) {
    return {_mm256_loadu_ps(at), _mm256_loadu_ps(at + 8)};
}
inline void store_anywhere(float* at, Lanes v) {
    _mm256_storeu_ps(at, v.a);
    _mm256_storeu_ps(at + 8, v.b);
}
inline Lanes load(const float* at, First lanes) {
    return {_mm256_maskload_ps(at, lanes.a), _mm256_maskload_ps(at + 8, lanes.b)};
}
inline void store(float* at, Lanes v, First lanes) {
    _mm256_maskstore_ps(at, lanes.a, v.a);
    _mm256_maskstore_ps(at + 8, lanes.b, v.b);
}
inline Lanes add(Lanes x, Lanes y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline Lanes subtract(Lanes x, Lanes y) {
    return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}
inline Lanes multiply(Lanes x, Lanes y) {
    return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
inline Lanes divide(Lanes x, Lanes y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline Lanes smaller(Lanes x, Lanes y) {
    return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)};
}
inline Lanes larger(Lanes x, Lanes y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline Lanes magnitude(Lanes x) {
    const __m256 sign = _mm256_set1_ps(-0.f);
    return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
inline float sum(Lanes x) {
    const __m256 eight = _mm256_add_ps(x.a, x.b);
    __m128 v = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)));
}
inline Lanes multiply_add(Lanes x, Lanes y, Lanes z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
inline Lanes multiply_subtract(Lanes x, Lanes y, Lanes z) {
    return {_mm256_fmsub_ps(x.a, y.a, z.a), _mm256_fmsub_ps(x.b, y.b, z.b)};
}
inline Lanes subtract_product(Lanes z, Lanes x, Lanes y) {
    return {_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)};
}
inline Lanes if_positive(Lanes x, Lanes yes, Lanes no) {
    const Lanes zero = zeros();
    return {_mm256_blendv_ps(no.a, yes.a, _mm256_cmp_ps(x.a, zero.a, _CMP_GT_OQ)),
            _mm256_blendv_ps(no.b, yes.b, _mm256_cmp_ps(x.b, zero.b, _CMP_GT_OQ))};
}
inline Lanes unless_negative(Lanes x, Lanes yes, Lanes no) {
    const Lanes zero = zeros();
    return {_mm256_blendv_ps(no.a, yes.a, _mm256_cmp_ps(x.a, zero.a, _CMP_GE_OQ)),
            _mm256_blendv_ps(no.b, yes.b, _mm256_cmp_ps(x.b, zero.b, _CMP_GE_OQ))};
}
struct Exponent {
    Lanes whole, rest;
    explicit Exponent(Lanes t) {
        t = larger(all(-127), t);  // 2^-127 counts as 0; a number that is NaN stays so
        constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        whole = {_mm256_round_ps(t.a, nearest), _mm256_round_ps(t.b, nearest)};
        rest = subtract(t, whole);
    }
    Lanes scale(Lanes p) const { return multiply(p, {power(whole.a), power(whole.b)}); }
    static __m256 power(__m256 n) {  // 2^n for -127 <= n <= 0, from the bits of a float
        const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
    }
};

#endif

inline Lanes negative(Lanes x) { return subtract(zeros(), x); }

// exp(x) for x <= 0, with a relative error below 4e-6
inline Lanes exp_negative(Lanes x) {
    const Exponent t(multiply(x, all(1.44269504f)));  // 2^t = 2^whole 2^rest
    Lanes p = all(1.3398874e-3f);
    for (float c : {9.6184374e-3f, 5.5503324e-2f, 2.4022648e-1f, 6.9314720e-1f, 1.f})
        p = multiply_add(p, t.rest, all(c));
    return t.scale(p);
}
// The order of operands keeps NaN.
inline Lanes elu(Lanes x) {
    const Lanes e = exp_negative(smaller(zeros(), x));
    return larger(subtract(e, all(1.f)), x);
}
// d elu / dx, from y = elu(x)
inline Lanes elu_slope(Lanes y) { return smaller(all(1.f), add(y, all(1.f))); }

// The operations between the convolutions of the colour model, each in one pass over memory.
// Features are bfloat16, channels last, with any number of channels.
#pragma once
#include "tiles.h"

inline __mmask16 first_lanes(int64_t n) {
    return n >= LANES ? __mmask16(0xffff) : __mmask16((1u << n) - 1);
}
inline __m512 load(const bf16* at, __mmask16 lanes) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, at)), 16));
}
inline void store(bf16* at, __m512 v, __mmask16 lanes) {
    _mm256_mask_storeu_epi16(at, lanes, (__m256i)_mm512_cvtneps_pbh(v));
}
inline __m512 negative(__m512 x) { return _mm512_sub_ps(_mm512_setzero_ps(), x); }
inline __m512 exp_minus_magnitude(__m512 x) { return exp_negative(negative(_mm512_abs_ps(x))); }

struct Part { bf16* at; int64_t channels; };  // features (images, height, width, channels)

// Images with a border of zeros around the computed pixels.
struct Bordered { int64_t images, height, width, left, right, top, bottom; };

// Calls each(first pixel of a row, its place in the bordered images) for all rows of all images.
template <class Each>
void over_rows(const Bordered& b, int64_t threads, Each each) {
    const int64_t width = b.left + b.width + b.right, height = b.top + b.height + b.bottom;
#pragma omp parallel for num_threads(std::max<int64_t>(1, threads))
    for (int64_t row = 0; row < b.images * b.height; ++row) {
        const int64_t image = row / b.height, r = row % b.height + b.top;
        each(row * b.width, (image * height + r) * width + b.left);
    }
}

inline int64_t total(const Part* parts, int64_t count) {
    int64_t channels = 0;
    for (int64_t p = 0; p < count; ++p) channels += parts[p].channels;
    return channels;
}

// Writes elu of the concatenated parts, followed by elu of their negatives. If `plus` is given,
// there is one part; `plus` has its channels and is added to it first.
inline void concat_elu(const Part* parts, int64_t count, const bf16* plus, const Bordered& b,
                       bf16* out, int64_t threads) {
    const int64_t all = total(parts, count);
    const int64_t width = b.left + b.width + b.right, height = b.top + b.height + b.bottom;
    const __m512 one = _mm512_set1_ps(1.f), zero = _mm512_setzero_ps();
    const size_t pixel = 2 * all * sizeof(bf16);
    for (int64_t image = 0; image < b.images; ++image) {
        bf16* to = out + image * height * width * 2 * all;
        std::memset(to, 0, b.top * width * pixel);
        std::memset(to + (b.top + b.height) * width * 2 * all, 0, b.bottom * width * pixel);
    }
    over_rows(b, threads, [&](int64_t from, int64_t into) {
        bf16* y = out + into * 2 * all;
        std::memset(y - b.left * 2 * all, 0, b.left * pixel);
        std::memset(y + b.width * 2 * all, 0, b.right * pixel);
        for (int64_t i = from; i < from + b.width; ++i, y += 2 * all) {
            bf16* at = y;
            for (const Part* p = parts; p < parts + count; at += p->channels, ++p)
                for (int64_t c = 0; c < p->channels; c += LANES) {
                    const __mmask16 lanes = first_lanes(p->channels - c);
                    __m512 x = load(p->at + i * p->channels + c, lanes);
                    if (plus) x = _mm512_add_ps(x, load(plus + i * p->channels + c, lanes));
                    const __m512 e = _mm512_sub_ps(exp_minus_magnitude(x), one);
                    const __mmask16 above = _mm512_cmp_ps_mask(x, zero, _CMP_GT_OQ);
                    store(at + c, _mm512_mask_blend_ps(above, e, x), lanes);
                    store(at + all + c, _mm512_mask_blend_ps(above, negative(x), e), lanes);
                }
        }
    });
}

// Computes the gradient of the parts (and of `plus`) from y, the output of concat_elu, and its
// gradient.
inline void concat_elu_back(const bf16* y, const bf16* gradient, const Bordered& b,
                            const Part* parts, int64_t count, int64_t threads) {
    const int64_t all = total(parts, count);
    over_rows(b, threads, [&](int64_t to, int64_t from) {
        for (int64_t i = to, at = from * 2 * all; i < to + b.width; ++i, at += 2 * all) {
            int64_t k = at;
            for (const Part* p = parts; p < parts + count; k += p->channels, ++p)
                for (int64_t c = 0; c < p->channels; c += LANES) {
                    const __mmask16 lanes = first_lanes(p->channels - c);
                    const __m512 up = _mm512_mul_ps(load(gradient + k + c, lanes),
                                                    elu_slope(load(y + k + c, lanes)));
                    const __m512 d = _mm512_fnmadd_ps(load(gradient + k + all + c, lanes),
                                                      elu_slope(load(y + k + all + c, lanes)), up);
                    store(p->at + i * p->channels + c, d, lanes);
                }
        }
    });
}

constexpr int64_t PIXELS = 256;  // pixels per piece of work for a thread

template <class Each>
void over_pixels(int64_t pixels, int64_t threads, Each each) {
#pragma omp parallel for num_threads(std::max<int64_t>(1, threads))
    for (int64_t begin = 0; begin < pixels; begin += PIXELS)
        for (int64_t i = begin; i < std::min(pixels, begin + PIXELS); ++i) each(i);
}

// value and sigmoid(gate), from the halves of h + plus (pixels, 2 channels); plus may be null.
struct Gate {
    __m512 value, open;
    Gate(const bf16* h, const bf16* plus, int64_t channels, __mmask16 lanes) {
        const __m512 one = _mm512_set1_ps(1.f);
        value = load(h, lanes);
        __m512 gate = load(h + channels, lanes);
        if (plus) {
            value = _mm512_add_ps(value, load(plus, lanes));
            gate = _mm512_add_ps(gate, load(plus + channels, lanes));
        }
        const __m512 e = exp_minus_magnitude(gate);
        const __mmask16 above = _mm512_cmp_ps_mask(gate, _mm512_setzero_ps(), _CMP_GT_OQ);
        open = _mm512_div_ps(_mm512_mask_blend_ps(above, e, one), _mm512_add_ps(one, e));
    }
};

// out = x + value sigmoid(gate)
inline void gated(int64_t pixels, int64_t channels, const bf16* x, const bf16* h,
                  const bf16* plus, bf16* out, int64_t threads) {
    over_pixels(pixels, threads, [&](int64_t i) {
        for (int64_t c = 0; c < channels; c += LANES) {
            const __mmask16 lanes = first_lanes(channels - c);
            const int64_t at = i * channels + c, two = 2 * i * channels + c;
            const Gate g(h + two, plus ? plus + two : nullptr, channels, lanes);
            store(out + at, _mm512_fmadd_ps(g.value, g.open, load(x + at, lanes)), lanes);
        }
    });
}

// Computes the gradient of h and `plus` from the gradient of the output, which also is that of x.
inline void gated_back(int64_t pixels, int64_t channels, const bf16* gradient, const bf16* h,
                       const bf16* plus, bf16* dh, int64_t threads) {
    const __m512 one = _mm512_set1_ps(1.f);
    over_pixels(pixels, threads, [&](int64_t i) {
        for (int64_t c = 0; c < channels; c += LANES) {
            const __mmask16 lanes = first_lanes(channels - c);
            const int64_t two = 2 * i * channels + c;
            const Gate g(h + two, plus ? plus + two : nullptr, channels, lanes);
            const __m512 d = _mm512_mul_ps(load(gradient + i * channels + c, lanes), g.open);
            const __m512 closed = _mm512_sub_ps(one, g.open);
            store(dh + two, d, lanes);
            store(dh + two + channels, _mm512_mul_ps(_mm512_mul_ps(d, g.value), closed), lanes);
        }
    });
}

inline void elu(int64_t count, const bf16* x, bf16* y, int64_t threads) {
    over_pixels((count + LANES - 1) / LANES, threads, [&](int64_t i) {
        const __mmask16 lanes = first_lanes(count - i * LANES);
        store(y + i * LANES, elu(load(x + i * LANES, lanes)), lanes);
    });
}
inline void elu_back(int64_t count, const bf16* y, const bf16* gradient, bf16* dx,
                     int64_t threads) {
    over_pixels((count + LANES - 1) / LANES, threads, [&](int64_t i) {
        const __mmask16 lanes = first_lanes(count - i * LANES);
        const __m512 slope = elu_slope(load(y + i * LANES, lanes));
        store(dx + i * LANES, _mm512_mul_ps(load(gradient + i * LANES, lanes), slope), lanes);
    });
}

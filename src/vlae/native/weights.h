// Weight normalisation of many layers in one call: w = g v m / ||v m|| (fold), and its gradient
// (unfold).
#pragma once
#include <cmath>

#include "planes.h"

// Pointers and sizes of one layer, filled in by Python. A pointer is 0 if the layer has no such
// tensor. v, mask, w, dw and dv share a layout: element e of unit u is at
// u * unit_stride + e * element_stride, where one of the two strides is 1. The mask has its own
// unit stride, mask_stride, which is 0 if all units share one mask.
struct WeightEntry {
    const float *v, *gain, *mask, *bias;
    void* w;          // bfloat16 if `rounded`, else float
    float* bias_out;
    const void* dw;   // like w
    const float* dbias_in;
    float *dv, *dgain, *dbias;
    int64_t units, size, unit_stride, element_stride, mask_stride, rounded, accumulate;
};

constexpr float NORM_FLOOR = 1e-12f;  // added to squared norms, which are 0 if all is masked

// For layers that store the elements of a unit contiguously.
template <bool MASK, bool ROUNDED>
void fold_rows(const WeightEntry& e, int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
        const float* v = e.v + u * e.unit_stride;
        const float* m = e.mask + u * e.mask_stride;
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < e.size; ++i) {
            const float x = MASK ? v[i] * m[i] : v[i];
            squares += x * x;
        }
        const float scale = e.gain[u] / std::sqrt(squares + NORM_FLOOR);
        float* w = static_cast<float*>(e.w) + u * e.unit_stride;
        bf16* r = static_cast<bf16*>(e.w) + u * e.unit_stride;
#pragma omp simd
        for (int64_t i = 0; i < e.size; ++i) {
            const float x = (MASK ? v[i] * m[i] : v[i]) * scale;
            if (ROUNDED) r[i] = to_bf16(x);
            else w[i] = x;
        }
    }
}

template <bool MASK, bool ROUNDED>
void unfold_rows(const WeightEntry& e, int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
        const float* v = e.v + u * e.unit_stride;
        const float* m = e.mask + u * e.mask_stride;
        const float* w = static_cast<const float*>(e.dw) + u * e.unit_stride;
        const bf16* r = static_cast<const bf16*>(e.dw) + u * e.unit_stride;
        float squares = 0, product = 0;
#pragma omp simd reduction(+ : squares, product)
        for (int64_t i = 0; i < e.size; ++i) {
            const float x = MASK ? v[i] * m[i] : v[i];
            const float d = ROUNDED ? from_bf16(r[i]) : w[i];
            squares += x * x;
            product += x * d;
        }
        const float inverse = 1 / std::sqrt(squares + NORM_FLOOR);
        const float scale = e.gain[u] * inverse, back = product * inverse * inverse;
        e.dgain[u] = product * inverse;
        float* dv = e.dv + u * e.unit_stride;
        const bool add = e.accumulate;
#pragma omp simd
        for (int64_t i = 0; i < e.size; ++i) {
            const float x = MASK ? v[i] * m[i] : v[i];
            const float d = ROUNDED ? from_bf16(r[i]) : w[i];
            const float g = scale * (MASK ? m[i] : 1.f) * (d - x * back);
            dv[i] = add ? dv[i] + g : g;
        }
    }
}

// For layers that store the units contiguously (transposed convolutions; never masked or rounded).
inline void fold_columns(const WeightEntry& e) {
    std::vector<float> scale(e.units);
    for (int64_t i = 0; i < e.size; ++i)
        for (int64_t u = 0; u < e.units; ++u) {
            const float x = e.v[i * e.element_stride + u];
            scale[u] += x * x;
        }
    for (int64_t u = 0; u < e.units; ++u) scale[u] = e.gain[u] / std::sqrt(scale[u] + NORM_FLOOR);
    float* w = static_cast<float*>(e.w);
    for (int64_t i = 0; i < e.size; ++i)
        for (int64_t u = 0; u < e.units; ++u)
            w[i * e.element_stride + u] = e.v[i * e.element_stride + u] * scale[u];
}

inline void unfold_columns(const WeightEntry& e) {
    std::vector<float> scale(e.units), back(e.units);
    const float* dw = static_cast<const float*>(e.dw);
    for (int64_t i = 0; i < e.size; ++i)
        for (int64_t u = 0; u < e.units; ++u) {
            const float x = e.v[i * e.element_stride + u];
            scale[u] += x * x;
            back[u] += x * dw[i * e.element_stride + u];
        }
    for (int64_t u = 0; u < e.units; ++u) {
        const float inverse = 1 / std::sqrt(scale[u] + NORM_FLOOR);
        e.dgain[u] = back[u] * inverse;
        back[u] *= inverse * inverse;
        scale[u] = e.gain[u] * inverse;
    }
    for (int64_t i = 0; i < e.size; ++i)
        for (int64_t u = 0; u < e.units; ++u) {
            const int64_t at = i * e.element_stride + u;
            const float g = scale[u] * (dw[at] - e.v[at] * back[u]);
            e.dv[at] = e.accumulate ? e.dv[at] + g : g;
        }
}

constexpr int64_t PIECE = 1 << 16;  // values per piece of work for a thread

// Calls work(i) for all i < count, in several threads.
template <class Work>
void in_threads(int64_t count, int64_t threads, Work work) {
#pragma omp parallel for schedule(dynamic) num_threads(std::max<int64_t>(1, std::min(threads, count)))
    for (int64_t i = 0; i < count; ++i) work(i);
}

// Calls each(entry, begin, end) for pieces of the layers' units. Layers that share a direction add
// to one gradient in a fixed order, so they run in a single thread.
template <class Each>
void over_units(int64_t count, const WeightEntry* entries, int64_t threads, Each each) {
    struct Piece { const WeightEntry* e; int64_t begin, end; };
    std::vector<Piece> pieces;
    for (const WeightEntry* e = entries; e < entries + count; ++e) {
        if (e->accumulate) threads = 1;
        const int64_t rows = e->element_stride == 1 ? std::max<int64_t>(1, PIECE / e->size) : e->units;
        for (int64_t u = 0; u < e->units; u += rows)
            pieces.push_back({e, u, std::min(u + rows, e->units)});
    }
    int64_t size = 0;
    for (const Piece& p : pieces) size += (p.end - p.begin) * p.e->size;
    in_threads(pieces.size(), size < 4 * PIECE ? 1 : threads,
               [&](int64_t i) { each(*pieces[i].e, pieces[i].begin, pieces[i].end); });
}

inline void fold(const WeightEntry& e, int64_t begin, int64_t end) {
    if (e.element_stride != 1) fold_columns(e);
    else if (e.mask) (e.rounded ? fold_rows<true, true> : fold_rows<true, false>)(e, begin, end);
    else (e.rounded ? fold_rows<false, true> : fold_rows<false, false>)(e, begin, end);
    if (e.bias_out)
        std::memcpy(e.bias_out + begin, e.bias + begin, (end - begin) * sizeof(float));
}

inline void unfold(const WeightEntry& e, int64_t begin, int64_t end) {
    if (e.element_stride != 1) unfold_columns(e);
    else if (e.mask) (e.rounded ? unfold_rows<true, true> : unfold_rows<true, false>)(e, begin, end);
    else (e.rounded ? unfold_rows<false, true> : unfold_rows<false, false>)(e, begin, end);
    if (e.dbias)
        std::memcpy(e.dbias + begin, e.dbias_in + begin, (end - begin) * sizeof(float));
}

// A tensor for one step of Adamax and of the exponential moving average of its values.
struct StepEntry {
    float* weight;
    const float* gradient;
    float *momentum, *norm, *average;
    int64_t size;
};
struct StepSizes { float rate, beta1, beta2, epsilon, polyak; };  // rate: bias-corrected

inline void adamax(const StepEntry& e, const StepSizes& s, int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
        const float g = e.gradient[i];
        const float m = e.momentum[i] + (1 - s.beta1) * (g - e.momentum[i]);
        const float u = std::max(s.beta2 * e.norm[i], std::fabs(g) + s.epsilon);
        const float w = e.weight[i] - s.rate * m / u;
        e.momentum[i] = m;
        e.norm[i] = u;
        e.weight[i] = w;
        e.average[i] += (1 - s.polyak) * (w - e.average[i]);
    }
}

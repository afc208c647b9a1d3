// Convolutions of small images with AVX2, in single precision. It takes the place of tiles.h
// and dots.h.
//
// The kernel adds products to the sums of up to 14 rows, each with 8, 12 or 16 outputs. A row is an
// output pixel, or in a weight's gradient an input channel of a tap.
#pragma once
#include <array>

#include "planes.h"

inline bool amx_allowed() { return false; }
struct TileConfig {
    TileConfig() {}
};

// The number of computed outputs of a plane, and of rows whose sums fit into the registers.
constexpr int width_for(int outputs) { return outputs <= 8 ? 8 : outputs <= 12 ? 12 : 16; }
constexpr int rows_for(int width) { return width == 8 ? 14 : width == 12 ? 8 : 6; }
constexpr int ROW_POINTERS = 8;  // rows of a weight's gradient: each needs an address of its own

// Calls each(0), each(1), ... with constants; GCC keeps arrays in registers only if it sees them.
template <class Each, int... I>
[[gnu::always_inline]] inline void repeat(std::integer_sequence<int, I...>, Each each) {
    (each(std::integral_constant<int, I>()), ...);
}
template <int COUNT, class Each>
[[gnu::always_inline]] inline void repeat(Each each) {
    repeat(std::make_integer_sequence<int, COUNT>(), each);
}
#define INLINED __attribute__((always_inline))

// (rows, outputs). If the last outputs are but four, two rows share a vector.
template <int ROWS, int WIDTH>
struct Sums {
    static constexpr bool SHARED = WIDTH % 8 != 0;
    static constexpr int FULL = WIDTH / 8, PAIRS = SHARED ? (ROWS + 1) / 2 : 0;
    __m256 full[ROWS][FULL], shared[PAIRS + 1];

    INLINED void zero() {
        repeat<ROWS>([&](auto r) INLINED {
            repeat<FULL>([&](auto v) INLINED { full[r][v] = _mm256_setzero_ps(); });
        });
        repeat<PAIRS>([&](auto p) INLINED { shared[p] = _mm256_setzero_ps(); });
    }
    template <class At>  // at(row): address of 16 floats
    INLINED void load(At at) {
        repeat<ROWS>([&](auto r) INLINED {
            repeat<FULL>([&](auto v) INLINED { full[r][v] = _mm256_load_ps(at(r) + 8 * v); });
        });
        repeat<PAIRS>([&](auto p) INLINED {
            const __m128 low = _mm_load_ps(at(2 * p) + 8 * FULL);
            const __m128 high = _mm_load_ps(at(std::min(2 * p + 1, ROWS - 1)) + 8 * FULL);
            shared[p] = _mm256_insertf128_ps(_mm256_castps128_ps256(low), high, 1);
        });
    }
    template <class At>
    INLINED void store(At at) const {
        repeat<ROWS>([&](auto r) INLINED {
            repeat<FULL>([&](auto v) INLINED { _mm256_store_ps(at(r) + 8 * v, full[r][v]); });
        });
        repeat<PAIRS>([&](auto p) INLINED {
            _mm_store_ps(at(2 * p) + 8 * FULL, _mm256_castps256_ps128(shared[p]));
            if (2 * p + 1 < ROWS)
                _mm_store_ps(at(2 * p + 1) + 8 * FULL, _mm256_extractf128_ps(shared[p], 1));
        });
    }
    // sums (row, output) += *x(row) by[output]
    template <class X>
    INLINED void add(X x, const float* by) {
        __m256 w[FULL], last = {};
        repeat<FULL>([&](auto v) INLINED { w[v] = _mm256_load_ps(by + 8 * v); });
        if (SHARED) last = _mm256_broadcast_ps((const __m128*)(by + 8 * FULL));
        repeat<(ROWS + 1) / 2>([&](auto p) INLINED {
            constexpr int R = 2 * p;
            const __m256 a = _mm256_broadcast_ss(x(R));
            repeat<FULL>(
                [&](auto v) INLINED { full[R][v] = _mm256_fmadd_ps(a, w[v], full[R][v]); });
            if constexpr (R + 1 < ROWS) {
                const __m256 b = _mm256_broadcast_ss(x(R + 1));
                repeat<FULL>([&](auto v) INLINED {
                    full[R + 1][v] = _mm256_fmadd_ps(b, w[v], full[R + 1][v]);
                });
                if (SHARED)
                    shared[p] = _mm256_fmadd_ps(_mm256_blend_ps(a, b, 0xf0), last, shared[p]);
            } else if (SHARED) {
                shared[p] = _mm256_fmadd_ps(a, last, shared[p]);
            }
        });
    }
};

// How many of `left` rows to compute next, so that the pieces are about as large.
inline int next_rows(int left, int most, int width) {
    const int pieces = (left + most - 1) / most, rows = (left + pieces - 1) / pieces;
    return width == 12 ? std::min(left, (rows + 1) / 2 * 2) : rows;
}

// Calls function(rows) with a constant, for 1 <= rows <= MOST.
template <int MOST, class Function>
void with_rows(int rows, Function function) {
    if (rows == MOST) function(std::integral_constant<int, MOST>());
    else if constexpr (MOST > 1) with_rows<MOST - 1>(rows, function);
}
template <class Function>
void with_width(int width, Function function) {
    if (width == 8) function(std::integral_constant<int, 8>());
    else if (width == 12) function(std::integral_constant<int, 12>());
    else function(std::integral_constant<int, 16>());
}

// A convolution packed for one direction. Each plane of outputs has steps of one tap; the weights of
// a step are (16 inputs, 16 outputs).
struct Packed {
    struct Step { int in, offset, inputs; };
    struct Output {
        std::vector<Step> steps;
        size_t weights = 0;
        int width = 8;
    };
    std::vector<Output> outputs;
    std::vector<Term> members;
    std::vector<int32_t> places;  // of the weights in their tensor; -1: weight 0
    Aligned<float> weights;

    Packed(std::vector<Term> terms, int planes_out)
        : outputs(planes_out), weights(terms.size() * 256) {
        std::sort(terms.begin(), terms.end(), [](const Term& a, const Term& b) {
            return std::tie(a.out, a.in, a.offset) < std::tie(b.out, b.in, b.offset);
        });
        for (const Term& t : terms) {
            Output& output = outputs[t.out];
            if (output.steps.empty()) output.weights = members.size() * 256;
            output.steps.push_back({t.in, t.offset, t.inputs});
            output.width = width_for(t.outputs);
            members.push_back(t);
        }
    }
    // index(term, i, o) returns the place of a weight in its tensor, or -1.
    template <class Index>
    void place(Index index) {
        places.clear();
        for (const Term& t : members)
            for (int i = 0; i < LANES; ++i)
                for (int o = 0; o < LANES; ++o) places.push_back(int32_t(index(t, i, o)));
    }
    void fill(const float* values) {
        for (size_t i = 0; i < places.size(); ++i)
            if (places[i] >= 0) weights.at[i] = values[places[i]];
    }
};

template <int ROWS, int WIDTH>
void convolve(const Planes& in, const Packed::Output& output, const float* weights, int place,
              float* to) {
    Sums<ROWS, WIDTH> sums;
    sums.zero();
    for (const auto& step : output.steps) {
        const float* x = in[step.in].pixel(place + step.offset);
        const float* w = weights;
#pragma GCC unroll 4
        for (int i = 0; i < step.inputs; ++i, ++x, w += LANES)
            sums.add([x](int r) { return x + LANES * r; }, w);
        weights += 256;
    }
    sums.store([to](int r) { return to + LANES * r; });
}

// Calls each(place, value) for the image's pixels in one plane of outputs.
template <class Each>
void convolve(const Grid& g, const Planes& in, const Packed& conv, int out, Each each) {
    const auto& output = conv.outputs[out];
    const float* weights = conv.weights.at + output.weights;
    with_width(output.width, [&](auto width) {
        constexpr int MOST = rows_for(width);
        alignas(64) float sums[MOST * LANES] = {};
        for (int row = 0; row < g.side; ++row)
            for (int c = 0, count; c < g.side; c += count) {
                count = next_rows(g.side - c, MOST, width);
                const int place = g.place(row, c);
                with_rows<MOST>(count, [&](auto rows) {
                    convolve<rows, width>(in, output, weights, place, sums);
                });
                for (int i = 0; i < count; ++i) each(place + i, load(sums + LANES * i));
            }
    });
}

// What the gradient of weights needs beside the planes: nothing.
struct Rearranged {
    Rearranged(const Grid&, int) {}
};

// blocks (terms, 16 inputs, 16 outputs) += sum over pixels p of x[p + offset][input] dy[p][output].
// The terms are sorted by (in, out).
inline void weight_gradients(const Grid& g, const std::vector<Term>& terms, const Planes& x,
                             const Planes& dy, Rearranged&, float* blocks) {
    struct Row { const float* x; float* sums; };
    std::vector<Row> rows;
    const int band = std::max(1, 128 / g.side);  // image rows whose features stay in the cache
    for (size_t t = 0, end; t < terms.size(); t = end) {
        const Term& first = terms[t];
        rows.clear();
        for (end = t; end < terms.size() && terms[end].in == first.in &&
                      terms[end].out == first.out; ++end)
            for (int i = 0; i < first.inputs; ++i)
                rows.push_back({x[first.in].pixel(terms[end].offset) + i,
                                blocks + 256 * end + LANES * i});
        with_width(width_for(first.outputs), [&](auto width) {
            constexpr int MOST = std::min(ROW_POINTERS, rows_for(width));
            for (int from = 0; from < g.side; from += band)
                for (int k = 0, count; k < int(rows.size()); k += count) {
                    count = next_rows(int(rows.size()) - k, MOST, width);
                    with_rows<MOST>(count, [&](auto number) {
                        constexpr int ROWS = number;
                        const float* from_x[ROWS];
                        for (int r = 0; r < ROWS; ++r) from_x[r] = rows[k + r].x;
                        Sums<ROWS, width> sums;
                        sums.load([&](int r) { return rows[k + r].sums; });
                        for (int row = from; row < std::min(g.side, from + band); ++row) {
                            const size_t begin = size_t(g.place(row, 0)) * LANES;
                            const float* by = dy[first.out].at;
                            for (size_t at = begin; at < begin + g.side * LANES; at += LANES)
                                sums.add([&](int r) { return from_x[r] + at; }, by + at);
                        }
                        sums.store([&](int r) { return rows[k + r].sums; });
                    });
                }
        });
    }
}

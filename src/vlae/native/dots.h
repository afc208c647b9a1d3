// Convolutions of small images, 16 channels at a time, by dot products of pairs of bfloat16
// (AVX-512). Channels that are not in use, and the padding of an image, are left out.
#pragma once
#include "planes.h"

// A convolution packed for one direction. Each plane of outputs has steps of one or two adjacent
// taps; the weights of a step are (16 pairs of inputs, 16 outputs, 2). pairs: how many of the 8 pairs
// of a tap are in use.
struct Packed {
    struct Step { int in, offset, pairs; bool both; };
    struct Output { std::vector<Step> steps; size_t weights; };
    std::vector<Output> outputs;
    std::vector<std::pair<Term, Term>> members;  // tap -1: no term
    std::vector<int32_t> places;  // of the weights in their tensor; -1: weight 0
    Aligned<bf16> weights;

    Packed(std::vector<Term> terms, int planes_out)
        : outputs(planes_out), weights(terms.size() * 512) {
        std::sort(terms.begin(), terms.end(), [](const Term& a, const Term& b) {
            return std::tie(a.out, a.in, a.offset) < std::tie(b.out, b.in, b.offset);
        });
        for (size_t t = 0; t < terms.size(); ++t) {
            const Term &a = terms[t], none{0, 0, 0, -1, 0, 0};
            const bool both = t + 1 < terms.size() && terms[t + 1].out == a.out &&
                              terms[t + 1].in == a.in && terms[t + 1].offset == a.offset + 1;
            Output& output = outputs[a.out];
            if (output.steps.empty()) output.weights = members.size() * 512;
            output.steps.push_back({a.in, a.offset, (a.inputs + 1) / 2, both});
            members.push_back({a, both ? terms[t + 1] : none});
            t += both;
        }
    }
    // index(term, i, o) returns the place of a weight in its tensor, or -1.
    template <class Index>
    void place(Index index) {
        places.assign(members.size() * 512, -1);
        int32_t* block = places.data();
        for (const auto& [first, second] : members)
            for (const Term& t : {first, second}) {
                if (t.tap >= 0)
                    for (int i = 0; i < LANES; ++i)
                        for (int o = 0; o < LANES; ++o)
                            block[(i / 2 * LANES + o) * 2 + i % 2] = int32_t(index(t, i, o));
                block += 256;
            }
    }
    void fill(const float* values) {
        for (size_t i = 0; i < places.size(); ++i)
            if (places[i] >= 0) weights.at[i] = to_bf16(values[places[i]]);
    }
};

inline __m512bh broadcast_pair(const bf16* at) {
    int pair;
    std::memcpy(&pair, at, 4);
    return (__m512bh)_mm512_set1_epi32(pair);
}

// Pixels that are computed together, one register of sums for each: parts of ROWS rows of a plane.
// PITCH: the length of its rows, which does not matter with one row.
template <int ROWS_, int WIDTH_, int PITCH>
struct Block {
    static constexpr int ROWS = ROWS_, WIDTH = WIDTH_, PIXELS = ROWS * WIDTH;
    static constexpr int offset(int i) { return i / WIDTH * PITCH + i % WIDTH; }
};

// Calls function(block) with the block that covers an image of this side with the least padding.
template <class Function>
void with_block(int side, Function function) {
    if (side % 14 == 0) function(Block<1, 14, 0>());
    else if (side > 8) function(Block<1, 16, 0>());
    else if (side == 7) function(Block<2, 7, 8>());
    else if (side > 4) function(Block<2, 8, 8>());
    else function(Block<4, 4, 8>());
}

// Writes the sums of a block's pixels to `to` (pixels, 16 outputs).
template <class Block>
void convolve_block(const Planes& in, const Packed::Output& output, const bf16* weights, int place,
                    float* to) {
    __m512 sum[Block::PIXELS];
#pragma GCC unroll 16
    for (auto& s : sum) s = _mm512_setzero_ps();
    for (const auto& step : output.steps) {
        const bf16* x = in[step.in].pixel(place + step.offset);
        for (int tap = 0; tap <= step.both; ++tap, x += LANES)
            for (int k = 0; k < step.pairs; ++k) {
                const __m512bh w = (__m512bh)_mm512_load_si512(weights + 256 * tap + 32 * k);
#pragma GCC unroll 16
                for (int i = 0; i < Block::PIXELS; ++i)
                    sum[i] = _mm512_dpbf16_ps(
                        sum[i], broadcast_pair(x + LANES * Block::offset(i) + 2 * k), w);
            }
        weights += 512;
    }
#pragma GCC unroll 16
    for (int i = 0; i < Block::PIXELS; ++i) _mm512_store_ps(to + LANES * i, sum[i]);
}

// Calls each(place, value) for the image's pixels in one plane of outputs.
template <class Each>
void convolve_blocks(const Grid& g, const Planes& in, const Packed::Output& output,
                     const bf16* weights, Each each) {
    with_block(g.side, [&](auto block) {
        using Block = decltype(block);
        alignas(64) float sums[Block::PIXELS * LANES];
        for (int row = 0; row < g.side; row += Block::ROWS)
            for (int column = 0; column < g.side; column += Block::WIDTH) {
                convolve_block<Block>(in, output, weights, g.place(row, column), sums);
                const int rows = std::min(Block::ROWS, g.side - row);
                const int columns = std::min(Block::WIDTH, g.side - column);
                for (int r = 0; r < rows; ++r)
                    for (int c = 0; c < columns; ++c)
                        each(g.place(row + r, column + c),
                             load(sums + (r * Block::WIDTH + c) * LANES));
            }
    });
}

// A plane with each pixel interleaved with the next one, (16 channels, 2), at every step-th pixel.
struct Pairs {
    int first, last, step;
    Aligned<bf16> data;
    // With step 1, the pixels around the image are there too, for the taps of a convolution.
    Pairs(const Grid& g, int step)
        : first(step > 1 ? 0 : -g.guard), last(g.pixels() + (step > 1 ? 0 : g.guard - 1)),
          step(step), data(size_t((last - first + step - 1) / step) * 32) {}
    const bf16* at(int place) const { return data.at + (place - first) / step * 32; }
    void from(const Plane& plane) {
        const __m512i order =
            _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7,
                             22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
        const bf16 *from = plane.pixel(first), *end = plane.pixel(last);
        const int stride = step * LANES;  // a local copy, which the stores cannot change
        for (bf16* to = data.at; from < end; from += stride, to += 32)
            _mm512_store_si512(to, _mm512_permutexvar_epi16(order, _mm512_loadu_si512(from)));
    }
};

// block (16 inputs, 16 outputs) += sum over pixels p of x[p + offset][input] dy[p][output], for the
// first INPUTS inputs of a term.
template <int INPUTS>
void weight_gradient(const Grid& g, const Pairs& x, const Pairs& dy, int offset, float* block) {
    __m512 sum[INPUTS];
#pragma GCC unroll 16
    for (int i = 0; i < INPUTS; ++i) sum[i] = _mm512_load_ps(block + LANES * i);
    for (int row = 0; row < g.side; ++row) {
        const bf16* from = x.at(g.place(row, 0) + offset);
        const bf16* by = dy.at(g.place(row, 0));
        for (int column = 0; column < g.side; column += 2, from += 64, by += 32) {
            const __m512bh b = (__m512bh)_mm512_load_si512(by);
#pragma GCC unroll 16
            for (int i = 0; i < INPUTS; ++i)
                sum[i] = _mm512_dpbf16_ps(sum[i], broadcast_pair(from + 2 * i), b);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < INPUTS; ++i) _mm512_store_ps(block + LANES * i, sum[i]);
}
inline void weight_gradient(const Grid& g, const Pairs& x, const Pairs& dy, const Term& term,
                            float* block) {
    const auto compute = term.inputs <= 4    ? weight_gradient<4>
                         : term.inputs <= 8  ? weight_gradient<8>
                         : term.inputs <= 12 ? weight_gradient<12>
                                             : weight_gradient<16>;
    compute(g, x, dy, term.offset, block);
}

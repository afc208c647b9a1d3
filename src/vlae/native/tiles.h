// Convolutions of small images, 16 channels at a time, on a CPU that multiplies bfloat16. AMX
// tiles, or else AVX-512, compute 16 pixels x 16 channels at a time.
#pragma once
#ifdef __AMX_BF16__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "planes.h"

#ifdef __AMX_BF16__
inline bool amx_allowed() {  // a process has to ask the kernel for permission to use tiles
    static const bool allowed =
        !std::getenv("VLAE_NO_AMX") && syscall(SYS_arch_prctl, 0x1023 /* XCOMP_PERM */, 18) == 0;
    return allowed;
}
struct TileConfig {  // eight tiles of 16 rows of 64 bytes; restores the previous configuration
    alignas(64) uint8_t before[64] = {};
    TileConfig() {
        if (!amx_allowed()) return;
        alignas(64) uint8_t config[64] = {1};
        for (int t = 0; t < 8; ++t) config[16 + 2 * t] = 64, config[48 + t] = 16;
        _tile_storeconfig(before);
        _tile_loadconfig(config);
    }
    ~TileConfig() {
        if (!amx_allowed()) return;
        if (before[0]) _tile_loadconfig(before);
        else _tile_release();
    }
};
#else
inline bool amx_allowed() { return false; }
struct TileConfig {
    TileConfig() {}
};
#endif

constexpr bool SKIP_MASKED = false;  // the taps that a causal mask removes have weight 0

// A convolution packed for one direction. Each plane of outputs has steps of one or two adjacent
// taps; the weights of a step are (16 pairs of inputs, 16 outputs, 2).
struct Packed {
    struct Step { int in, offset; bool both; };
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
            output.steps.push_back({a.in, a.offset, both});
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

// Computes acc (2, 16 pixels, 16 outputs) of a tile and the next without tile instructions.
inline void convolve_vectors(const Planes& in, const Packed::Output& output,
                             const bf16* weights, int tile, float* acc) {
    for (int half = 0; half < 2; ++half) {
        __m512 sum[LANES];
        for (auto& s : sum) s = _mm512_setzero_ps();
        const bf16* w = weights;
        for (const auto& step : output.steps) {
            const bf16* x = in[step.in].pixel((tile + half) * LANES + step.offset);
            const int pairs = step.both ? 16 : 8;
            for (int k = 0; k < pairs; ++k) {
                const __m512bh b = (__m512bh)_mm512_load_si512(w + 32 * k);
#pragma GCC unroll 16
                for (int i = 0; i < LANES; ++i)
                    sum[i] = _mm512_dpbf16_ps(sum[i], broadcast_pair(x + LANES * i + 2 * k), b);
            }
            w += 512;
        }
        for (int i = 0; i < LANES; ++i) _mm512_store_ps(acc + 256 * half + LANES * i, sum[i]);
    }
}

// Calls each(tile, acc) with acc (2, 16 pixels, 16 outputs) of this tile and the next.
template <class Each>
void convolve_tiles(const Grid& grid, const Planes& in, const Packed& conv, int out, Each each) {
    const auto& output = conv.outputs[out];
    const bf16* weights = conv.weights.at + output.weights;
#ifdef __AMX_BF16__
    if (amx_allowed()) {
        // The tile unit works on the next pair while each() works on the last one.
        alignas(64) float acc[2][2 * LANES * LANES];
        for (int tile = 0; tile <= grid.tiles; tile += 2) {
            if (tile < grid.tiles) {
                const bf16* w = weights;
                _tile_zero(0);
                _tile_zero(1);
                for (const auto& step : output.steps) {
                    const bf16* x = in[step.in].pixel(tile * LANES + step.offset);
                    _tile_loadd(4, w, 64);
                    _tile_loadd(2, x, 32);
                    _tile_loadd(3, x + LANES * LANES, 32);
                    _tile_dpbf16ps(0, 2, 4);
                    _tile_dpbf16ps(1, 3, 4);
                    w += 512;
                }
            }
            if (tile) each(tile - 2, acc[(tile / 2 - 1) % 2]);
            if (tile < grid.tiles) {
                _tile_stored(0, acc[tile / 2 % 2], 64);
                _tile_stored(1, acc[tile / 2 % 2] + 256, 64);
            }
        }
        return;
    }
#endif
    alignas(64) float acc[2 * LANES * LANES];
    for (int tile = 0; tile < grid.tiles; tile += 2) {
        convolve_vectors(in, output, weights, tile, acc);
        each(tile, acc);
    }
}

// Calls each(place, value) for the image's pixels in one plane of outputs.
template <class Each>
void convolve(const Grid& g, const Planes& in, const Packed& conv, int out, Each each) {
    const Run* next = g.runs.data();
    const Run* end = next + g.runs.size();
    convolve_tiles(g, in, conv, out, [&](int tile, const float* acc) {
        for (; next != end && next->tile < tile + 2; ++next) {
            const int first = next->tile * LANES + next->first;
            const float* from = acc + (first - tile * LANES) * LANES;
            for (int i = 0; i < next->length; ++i) each(first + i, load(from + LANES * i));
        }
    });
}

// A plane with the pixels of a channel contiguous: (16 channels, guard + pixels + guard).
struct Transposed {
    int stride;
    Aligned<bf16> data;
    const bf16* at;
    explicit Transposed(const Grid& g)
        : stride(g.pixels() + 2 * g.guard), data(stride * LANES), at(data.at + g.guard) {}
    void from(const Grid& grid, const Plane& plane) {
        for (int place = 0; place < grid.pixels(); place += 32) {
            const bf16* p = plane.pixel(place);
            __m512i a[16], b[16];
            for (int i = 0; i < 16; ++i)
                a[i] = _mm512_inserti64x4(
                    _mm512_castsi256_si512(_mm256_load_si256((const __m256i*)(p + 16 * i))),
                    _mm256_load_si256((const __m256i*)(p + 16 * (i + 16))), 1);
            // Transpose 8 x 8 blocks within 128-bit lanes, in units of 16, 32 and 64 bits.
            for (int i = 0; i < 8; ++i) {
                b[2 * i] = _mm512_unpacklo_epi16(a[2 * i], a[2 * i + 1]);
                b[2 * i + 1] = _mm512_unpackhi_epi16(a[2 * i], a[2 * i + 1]);
            }
            for (int i = 0; i < 4; ++i)
                for (int j = 0; j < 2; ++j) {
                    a[4 * i + 2 * j] = _mm512_unpacklo_epi32(b[4 * i + j], b[4 * i + 2 + j]);
                    a[4 * i + 2 * j + 1] = _mm512_unpackhi_epi32(b[4 * i + j], b[4 * i + 2 + j]);
                }
            for (int i = 0; i < 2; ++i)
                for (int j = 0; j < 4; ++j) {
                    b[8 * i + 2 * j] = _mm512_unpacklo_epi64(a[8 * i + j], a[8 * i + 4 + j]);
                    b[8 * i + 2 * j + 1] = _mm512_unpackhi_epi64(a[8 * i + j], a[8 * i + 4 + j]);
                }
            // Now lane l of b[8 i + j] has pixels 8 i + 16 (l / 2) + 0..7 of channel 8 (l % 2) + j.
            const __m512i low = _mm512_set_epi64(13, 12, 5, 4, 9, 8, 1, 0);
            const __m512i high = _mm512_set_epi64(15, 14, 7, 6, 11, 10, 3, 2);
            bf16* to = const_cast<bf16*>(at) + place;
            for (int j = 0; j < 8; ++j) {
                _mm512_storeu_si512(to + j * stride, _mm512_permutex2var_epi64(b[j], low, b[8 + j]));
                _mm512_storeu_si512(to + (8 + j) * stride,
                                    _mm512_permutex2var_epi64(b[j], high, b[8 + j]));
            }
        }
    }
};

// A plane with pairs of pixels interleaved: (pixels / 2, 16 channels, 2).
struct Pairs {
    Aligned<bf16> data;
    explicit Pairs(const Grid& g) : data(g.pixels() * LANES) {}
    void from(const Grid& grid, const Plane& plane) {
        const __m512i order =
            _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7,
                             22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
        for (int k = 0; k < grid.pixels() / 2; ++k)
            _mm512_store_si512(
                data.at + 32 * k,
                _mm512_permutexvar_epi16(order, _mm512_load_si512(plane.pixel(2 * k))));
    }
};

// block (16 inputs, 16 outputs) += sum over pixels p of x[p + offset][input] dy[p][output],
// for up to four terms with consecutive blocks.
inline void weight_gradient(const Grid& grid, const Transposed& x, const Pairs& dy,
                            const int* offsets, int count, float* block) {
    if (amx_allowed()) {
#ifdef __AMX_BF16__
        const int offset[4] = {offsets[0], offsets[count > 1 ? 1 : 0], offsets[count > 2 ? 2 : 0],
                               offsets[count > 3 ? 3 : 0]};
        _tile_loadd(0, block, 64);
        if (count > 1) _tile_loadd(1, block + 256, 64);
        if (count > 2) _tile_loadd(2, block + 512, 64);
        if (count > 3) _tile_loadd(3, block + 768, 64);
        for (int place = 0; place < grid.pixels(); place += 32) {
            const bf16* row = x.at + place;
            const size_t stride = x.stride * sizeof(bf16);
            _tile_loadd(6, dy.data.at + place * LANES, 64);
            _tile_loadd(4, row + offset[0], stride);
            _tile_dpbf16ps(0, 4, 6);
            if (count > 1) {
                _tile_loadd(5, row + offset[1], stride);
                _tile_dpbf16ps(1, 5, 6);
            }
            if (count > 2) {
                _tile_loadd(7, row + offset[2], stride);
                _tile_dpbf16ps(2, 7, 6);
            }
            if (count > 3) {
                _tile_loadd(4, row + offset[3], stride);
                _tile_dpbf16ps(3, 4, 6);
            }
        }
        _tile_stored(0, block, 64);
        if (count > 1) _tile_stored(1, block + 256, 64);
        if (count > 2) _tile_stored(2, block + 512, 64);
        if (count > 3) _tile_stored(3, block + 768, 64);
#endif
        return;
    }
    for (int t = 0; t < count; ++t, block += 256) {
        __m512 sum[LANES];
        for (int i = 0; i < LANES; ++i) sum[i] = _mm512_load_ps(block + LANES * i);
        for (int place = 0; place < grid.pixels(); place += 2) {
            const bf16* row = x.at + place + offsets[t];
            const __m512bh b = (__m512bh)_mm512_load_si512(dy.data.at + place * LANES);
#pragma GCC unroll 16
            for (int i = 0; i < LANES; ++i)
                sum[i] = _mm512_dpbf16_ps(sum[i], broadcast_pair(row + i * x.stride), b);
        }
        for (int i = 0; i < LANES; ++i) _mm512_store_ps(block + LANES * i, sum[i]);
    }
}

// The features as the gradient of weights needs them.
struct Rearranged {
    std::vector<Transposed> transposed;
    std::vector<Pairs> pairs;
    Rearranged(const Grid& g, int planes) {
        for (int i = 0; i < planes; ++i) {
            transposed.emplace_back(g);
            pairs.emplace_back(g);
        }
    }
};

// blocks (terms, 16 inputs, 16 outputs) += sum over pixels p of x[p + offset][input] dy[p][output].
// The terms are sorted by (in, out).
inline void weight_gradients(const Grid& g, const std::vector<Term>& terms, const Planes& x,
                             const Planes& dy, Rearranged& r, float* blocks) {
    int planes_in = 0, planes_out = 0;
    for (const Term& t : terms) {
        planes_in = std::max(planes_in, t.in + 1);
        planes_out = std::max(planes_out, t.out + 1);
    }
    for (int i = 0; i < planes_in; ++i) r.transposed[i].from(g, x[i]);
    for (int o = 0; o < planes_out; ++o) r.pairs[o].from(g, dy[o]);
    for (size_t t = 0; t < terms.size();) {
        const int in = terms[t].in, out = terms[t].out;
        int offsets[4], count = 0;
        while (count < 4 && t + count < terms.size() && terms[t + count].in == in &&
               terms[t + count].out == out) {
            offsets[count] = terms[t + count].offset;
            ++count;
        }
        weight_gradient(g, r.transposed[in], r.pairs[out], offsets, count, blocks);
        blocks += 256 * count;
        t += count;
    }
}

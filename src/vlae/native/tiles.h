// Convolutions of small images, 16 channels at a time, on a CPU that multiplies bfloat16. AMX
// tiles compute 16 pixels x 16 channels at a time; without them dots.h computes.
#pragma once
#ifdef __AMX_BF16__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "dots.h"

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

#ifdef __AMX_BF16__
// Calls each(tile, acc) with acc (2, 16 pixels, 16 outputs) of this tile and the next.
template <class Each>
void convolve_tiles(const Grid& grid, const Planes& in, const Packed::Output& output,
                    const bf16* weights, Each each) {
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
}
#endif

// Calls each(place, value) for the image's pixels in one plane of outputs.
template <class Each>
void convolve(const Grid& g, const Planes& in, const Packed& conv, int out, Each each) {
    const auto& output = conv.outputs[out];
    const bf16* weights = conv.weights.at + output.weights;
#ifdef __AMX_BF16__
    if (amx_allowed()) {
        const Run* next = g.runs.data();
        const Run* end = next + g.runs.size();
        convolve_tiles(g, in, output, weights, [&](int tile, const float* acc) {
            for (; next != end && next->tile < tile + 2; ++next) {
                const int first = next->tile * LANES + next->first;
                const float* from = acc + (first - tile * LANES) * LANES;
                for (int i = 0; i < next->length; ++i) each(first + i, load(from + LANES * i));
            }
        });
        return;
    }
#endif
    convolve_blocks(g, in, output, weights, each);
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

#ifdef __AMX_BF16__
// block (16 inputs, 16 outputs) += sum over pixels p of x[p + offset][input] dy[p][output],
// for up to four terms with consecutive blocks.
inline void weight_gradient_tiles(const Grid& grid, const Transposed& x, const Pairs& dy,
                                  const int* offsets, int count, float* block) {
    const int offset[4] = {offsets[0], offsets[count > 1 ? 1 : 0], offsets[count > 2 ? 2 : 0],
                           offsets[count > 3 ? 3 : 0]};
    _tile_loadd(0, block, 64);
    if (count > 1) _tile_loadd(1, block + 256, 64);
    if (count > 2) _tile_loadd(2, block + 512, 64);
    if (count > 3) _tile_loadd(3, block + 768, 64);
    for (int place = 0; place < grid.pixels(); place += 32) {
        const bf16* row = x.at + place;
        const size_t stride = x.stride * sizeof(bf16);
        _tile_loadd(6, dy.at(place), 64);
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
}
#endif

// The features as the gradient of weights needs them.
struct Rearranged {
    std::vector<Transposed> transposed;  // of x, with tiles
    std::vector<Pairs> x, dy;            // x: without tiles
    Rearranged(const Grid& g, int planes) {
        for (int i = 0; i < planes; ++i) {
            if (amx_allowed()) transposed.emplace_back(g);
            else x.emplace_back(g, 1);
            dy.emplace_back(g, 2);
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
    for (int o = 0; o < planes_out; ++o) r.dy[o].from(dy[o]);
#ifdef __AMX_BF16__
    if (amx_allowed()) {
        for (int i = 0; i < planes_in; ++i) r.transposed[i].from(g, x[i]);
        for (size_t t = 0; t < terms.size();) {
            const int in = terms[t].in, out = terms[t].out;
            int offsets[4], count = 0;
            while (count < 4 && t + count < terms.size() && terms[t + count].in == in &&
                   terms[t + count].out == out) {
                offsets[count] = terms[t + count].offset;
                ++count;
            }
            weight_gradient_tiles(g, r.transposed[in], r.dy[out], offsets, count, blocks);
            blocks += 256 * count;
            t += count;
        }
        return;
    }
#endif
    for (int i = 0; i < planes_in; ++i) r.x[i].from(x[i]);
    for (const Term& t : terms) {
        weight_gradient(g, r.x[t.in], r.dy[t.out], t, blocks);
        blocks += 256;
    }
}

// The layout of an image's features.
//
// A plane holds 16 channels of an image. The length of its rows is a half, one or two tiles of 16
// pixels. Rows end in zeros, which pad this row on the right and the next one on the left. A tap is
// therefore one offset: the input of consecutive output pixels is loaded from the outputs' place
// plus that offset.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <new>
#include <tuple>
#include <utility>
#include <vector>

#include "lanes.h"

template <class T>
struct Aligned {  // a zeroed array, aligned to cache lines
    T* at;
    explicit Aligned(size_t n) {
        const size_t bytes = (n * sizeof(T) + 63) / 64 * 64;
        at = static_cast<T*>(std::aligned_alloc(64, bytes));
        if (!at) throw std::bad_alloc();
        std::memset(at, 0, bytes);
    }
    Aligned(Aligned&& other) noexcept : at(other.at) { other.at = nullptr; }
    Aligned(const Aligned&) = delete;
    ~Aligned() { std::free(at); }
};

struct Run { int tile, first, length; };  // consecutive pixels of a tile that belong to the image

// The places of a square image's pixels in a plane.
struct Grid {
    int side, pitch, tiles, guard;
    std::vector<Run> runs;
    explicit Grid(int side) : side(side) {
        pitch = side > 16 ? 32 : side > 8 ? 16 : 8;
        tiles = (side * pitch + 31) / 32 * 2;  // even, because tiles are processed in pairs
        guard = pitch == 32 ? 4 * pitch + 16 : 2 * pitch;
        for (int r = 0; r < side; ++r)
            for (int c = 0; c < side; c += LANES)
                runs.push_back({(r * pitch + c) / LANES, (r * pitch + c) % LANES,
                                std::min(side - c, LANES)});
    }
    int pixels() const { return tiles * LANES; }
    int place(int r, int c) const { return r * pitch + c; }
};

struct Plane {
    Aligned<Feature> data;
    Feature* at;  // address of the first pixel
    explicit Plane(const Grid& g)
        : data((g.pixels() + 2 * g.guard) * LANES), at(data.at + g.guard * LANES) {}
    Feature* pixel(int place) { return at + place * LANES; }
    const Feature* pixel(int place) const { return at + place * LANES; }
};

using Planes = std::vector<Plane>;

// One tap between two planes of 16 channels: out[p] += weight[tap] in[p + offset]. inputs, outputs:
// the number of channels that are in use in the two.
struct Term { int in, out, offset, tap, inputs, outputs; };

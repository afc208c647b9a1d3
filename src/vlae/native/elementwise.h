// The operations between the convolutions of the colour model, each in one pass over memory.
// Features are stored channels last, with any number of channels.
#pragma once
#include "planes.h"

inline Lanes exp_minus_magnitude(Lanes x) { return exp_negative(negative(magnitude(x))); }

struct Part { Feature* at; int64_t channels; };  // features (images, height, width, channels)

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
inline void concat_elu(const Part* parts, int64_t count, const Feature* plus, const Bordered& b,
                       Feature* out, int64_t threads) {
    const int64_t channels = total(parts, count);
    const int64_t width = b.left + b.width + b.right, height = b.top + b.height + b.bottom;
    const Lanes one = all(1.f);
    const size_t pixel = 2 * channels * sizeof(Feature);
    for (int64_t image = 0; image < b.images; ++image) {
        Feature* to = out + image * height * width * 2 * channels;
        std::memset(to, 0, b.top * width * pixel);
        std::memset(to + (b.top + b.height) * width * 2 * channels, 0, b.bottom * width * pixel);
    }
    over_rows(b, threads, [&](int64_t from, int64_t into) {
        Feature* y = out + into * 2 * channels;
        std::memset(y - b.left * 2 * channels, 0, b.left * pixel);
        std::memset(y + b.width * 2 * channels, 0, b.right * pixel);
        for (int64_t i = from; i < from + b.width; ++i, y += 2 * channels) {
            Feature* at = y;
            for (const Part* p = parts; p < parts + count; at += p->channels, ++p)
                for (int64_t c = 0; c < p->channels; c += LANES) {
                    const First lanes = first_lanes(p->channels - c);
                    Lanes x = load(p->at + i * p->channels + c, lanes);
                    if (plus) x = add(x, load(plus + i * p->channels + c, lanes));
                    const Lanes e = subtract(exp_minus_magnitude(x), one);
                    store(at + c, if_positive(x, x, e), lanes);
                    store(at + channels + c, if_positive(x, e, negative(x)), lanes);
                }
        }
    });
}

// Computes the gradient of the parts (and of `plus`) from y, the output of concat_elu, and its
// gradient.
inline void concat_elu_back(const Feature* y, const Feature* gradient, const Bordered& b,
                            const Part* parts, int64_t count, int64_t threads) {
    const int64_t channels = total(parts, count);
    over_rows(b, threads, [&](int64_t to, int64_t from) {
        for (int64_t i = to, at = from * 2 * channels; i < to + b.width; ++i, at += 2 * channels) {
            int64_t k = at;
            for (const Part* p = parts; p < parts + count; k += p->channels, ++p)
                for (int64_t c = 0; c < p->channels; c += LANES) {
                    const First lanes = first_lanes(p->channels - c);
                    const Lanes up = multiply(load(gradient + k + c, lanes),
                                                    elu_slope(load(y + k + c, lanes)));
                    const Lanes d = subtract_product(up, load(gradient + k + channels + c, lanes),
                                                     elu_slope(load(y + k + channels + c, lanes)));
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
    Lanes value, open;
    Gate(const Feature* h, const Feature* plus, int64_t channels, First lanes) {
        const Lanes one = all(1.f);
        value = load(h, lanes);
        Lanes gate = load(h + channels, lanes);
        if (plus) {
            value = add(value, load(plus, lanes));
            gate = add(gate, load(plus + channels, lanes));
        }
        const Lanes e = exp_minus_magnitude(gate);
        open = divide(if_positive(gate, one, e), add(one, e));
    }
};

// out = x + value sigmoid(gate)
inline void gated(int64_t pixels, int64_t channels, const Feature* x, const Feature* h,
                  const Feature* plus, Feature* out, int64_t threads) {
    over_pixels(pixels, threads, [&](int64_t i) {
        for (int64_t c = 0; c < channels; c += LANES) {
            const First lanes = first_lanes(channels - c);
            const int64_t at = i * channels + c, two = 2 * i * channels + c;
            const Gate g(h + two, plus ? plus + two : nullptr, channels, lanes);
            store(out + at, multiply_add(g.value, g.open, load(x + at, lanes)), lanes);
        }
    });
}

// Computes the gradient of h and `plus` from the gradient of the output, which also is that of x.
inline void gated_back(int64_t pixels, int64_t channels, const Feature* gradient, const Feature* h,
                       const Feature* plus, Feature* dh, int64_t threads) {
    const Lanes one = all(1.f);
    over_pixels(pixels, threads, [&](int64_t i) {
        for (int64_t c = 0; c < channels; c += LANES) {
            const First lanes = first_lanes(channels - c);
            const int64_t two = 2 * i * channels + c;
            const Gate g(h + two, plus ? plus + two : nullptr, channels, lanes);
            const Lanes d = multiply(load(gradient + i * channels + c, lanes), g.open);
            const Lanes closed = subtract(one, g.open);
            store(dh + two, d, lanes);
            store(dh + two + channels, multiply(multiply(d, g.value), closed), lanes);
        }
    });
}

inline void elu(int64_t count, const Feature* x, Feature* y, int64_t threads) {
    over_pixels((count + LANES - 1) / LANES, threads, [&](int64_t i) {
        const First lanes = first_lanes(count - i * LANES);
        store(y + i * LANES, elu(load(x + i * LANES, lanes)), lanes);
    });
}
inline void elu_back(int64_t count, const Feature* y, const Feature* gradient, Feature* dx,
                     int64_t threads) {
    over_pixels((count + LANES - 1) / LANES, threads, [&](int64_t i) {
        const First lanes = first_lanes(count - i * LANES);
        const Lanes slope = elu_slope(load(y + i * LANES, lanes));
        store(dx + i * LANES, multiply(load(gradient + i * LANES, lanes), slope), lanes);
    });
}

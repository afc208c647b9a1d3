// The functions that Python calls (network.py, elementwise.py, optimizer.py). Unless declared
// otherwise, arrays are float, contiguous, channels last.
#include <memory>
#include <mutex>

#include "elementwise.h"
#include "network.h"
#include "weights.h"

namespace {

constexpr int CHUNK = 8;  // images whose gradients are summed in order, whatever the threads

struct Handle {
    Network network;
    std::vector<Tape> tapes;  // spare ones, as are the scratches
    std::vector<Scratch> scratches;
    std::mutex lock;
    Handle(const OpRow* rows, int count) : network(rows, count) {}

    Tape take() { return take(tapes, [&] { return network.new_tape(); }); }
    void give(Tape tape) { give(tapes, std::move(tape)); }

    template <class T, class New>
    T take(std::vector<T>& spare, New fresh) {
        {
            const std::lock_guard<std::mutex> guard(lock);
            if (!spare.empty()) {
                T taken = std::move(spare.back());
                spare.pop_back();
                return taken;
            }
        }
        return fresh();
    }
    template <class T>
    void give(std::vector<T>& spare, T used) {
        const std::lock_guard<std::mutex> guard(lock);
        spare.push_back(std::move(used));
    }
};

// Calls work(scratch, begin, end, chunk) for all chunks of the images, in several threads.
template <class Work>
void in_chunks(Handle& handle, int64_t images, int64_t threads, Work work) {
    const int64_t chunks = (images + CHUNK - 1) / CHUNK;
#pragma omp parallel num_threads(std::max<int64_t>(1, std::min(threads, chunks)))
    {
        const TileConfig tiles;
        Scratch scratch =
            handle.take(handle.scratches, [&] { return handle.network.new_scratch(); });
#pragma omp for schedule(dynamic)
        for (int64_t chunk = 0; chunk < chunks; ++chunk)
            work(scratch, chunk * CHUNK, std::min(images, (chunk + 1) * CHUNK), chunk);
        handle.give(handle.scratches, std::move(scratch));
    }
}

// log(1 + e) for 0 <= e <= 1, with an absolute error below 2e-7
Lanes log1p_fraction(Lanes e) {
    const Lanes s = divide(e, add(e, all(2.f)));
    const Lanes square = multiply(s, s);
    Lanes p = all(2.f / 13);
    for (float c : {2.f / 11, 2.f / 9, 2.f / 7, 2.f / 5, 2.f / 3, 2.f})
        p = multiply_add(p, square, all(c));
    return multiply(p, s);
}

// Returns the sum of log p(target) over pixels (a multiple of 16) and overwrites the logits with
// their gradient.
float bernoulli(int pixels, const float* target, float* logits) {
    const Lanes one = all(1.f);
    Lanes total = zeros();
    for (int i = 0; i < pixels; i += LANES) {
        const Lanes l = load_anywhere(logits + i), t = load_anywhere(target + i);
        const Lanes e = exp_negative(negative(magnitude(l)));
        const Lanes positive = larger(l, zeros());
        total = add(total, subtract(multiply_subtract(t, l, positive), log1p_fraction(e)));
        const Lanes p = divide(unless_negative(l, one, e), add(one, e));
        store_anywhere(logits + i, subtract(t, p));
    }
    return sum(total);
}

}  // namespace

extern "C" {

void vlae_fold(int64_t count, const WeightEntry* entries, int64_t threads) {
    over_units(count, entries, threads, fold);
}
void vlae_unfold(int64_t count, const WeightEntry* entries, int64_t threads) {
    over_units(count, entries, threads, unfold);
}

void vlae_adamax(int64_t count, const StepEntry* entries, float rate, float beta1, float beta2,
                 float epsilon, float polyak, int64_t threads) {
    struct Piece { const StepEntry* e; int64_t begin, end; };
    std::vector<Piece> pieces;
    for (const StepEntry* e = entries; e < entries + count; ++e)
        for (int64_t i = 0; i < e->size; i += PIECE)
            pieces.push_back({e, i, std::min(i + PIECE, e->size)});
    in_threads(pieces.size(), threads, [&](int64_t i) {
        adamax(*pieces[i].e, {rate, beta1, beta2, epsilon, polyak}, pieces[i].begin,
               pieces[i].end);
    });
}

void vlae_concat_elu(const Part* parts, int64_t count, const Feature* plus, const Bordered* b,
                     Feature* out, int64_t threads) {
    concat_elu(parts, count, plus, *b, out, threads);
}
void vlae_concat_elu_back(const Feature* y, const Feature* gradient, const Bordered* b,
                          const Part* parts, int64_t count, int64_t threads) {
    concat_elu_back(y, gradient, *b, parts, count, threads);
}
void vlae_gated(int64_t pixels, int64_t channels, const Feature* x, const Feature* h, const Feature* plus,
                Feature* out, int64_t threads) {
    gated(pixels, channels, x, h, plus, out, threads);
}
void vlae_gated_back(int64_t pixels, int64_t channels, const Feature* gradient, const Feature* h,
                     const Feature* plus, Feature* dh, int64_t threads) {
    gated_back(pixels, channels, gradient, h, plus, dh, threads);
}
void vlae_elu(int64_t count, const Feature* x, Feature* y, int64_t threads) {
    elu(count, x, y, threads);
}
void vlae_elu_back(int64_t count, const Feature* y, const Feature* gradient, Feature* dx,
                   int64_t threads) {
    elu_back(count, y, gradient, dx, threads);
}

int32_t vlae_has_tiles() { return amx_allowed(); }

void* vlae_network(const int32_t* rows, int32_t count) {
    return new Handle(reinterpret_cast<const OpRow*>(rows), count);
}
void vlae_release(void* handle) { delete static_cast<Handle*>(handle); }
int64_t vlae_parameters(const void* handle) {
    return int64_t(static_cast<const Handle*>(handle)->network.parameters());
}

// in (images, ...) -> out (images, ...). With `keep`, returns tapes with everything that the
// gradient needs; vlae_backward or vlae_forget must take them back.
void* vlae_forward(void* of, const float* parameters, int64_t images, const float* in, float* out,
                   int32_t keep, int64_t threads) {
    Handle& handle = *static_cast<Handle*>(of);
    Network& network = handle.network;
    network.set(parameters, false);
    const size_t size_in = size_t(network.side_in()) * network.side_in() * network.channels_in();
    const size_t size_out = size_t(network.side_out()) * network.side_out() * network.channels_out();
    auto tapes = std::make_unique<std::vector<Tape>>(keep ? images : 0);
    in_chunks(handle, images, threads, [&](Scratch& s, int64_t begin, int64_t end, int64_t) {
        Tape passing = keep ? Tape{} : handle.take();
        for (int64_t b = begin; b < end; ++b) {
            if (keep) (*tapes)[b] = handle.take();
            network.forward(in + b * size_in, out + b * size_out, keep ? (*tapes)[b] : passing, s);
        }
        if (!keep) handle.give(std::move(passing));
    });
    return keep ? tapes.release() : nullptr;
}

// gradient: (chunks of 8 images, parameters), initially zero; receives the sum of each chunk.
// d_in: (images, ...), receives the gradient of the input; may be null.
void vlae_backward(void* of, void* kept, const float* parameters, int64_t images,
                   const float* d_out, float* gradient, float* d_in, int64_t threads) {
    Handle& handle = *static_cast<Handle*>(of);
    Network& network = handle.network;
    network.set(parameters, true);
    const std::unique_ptr<std::vector<Tape>> tapes(static_cast<std::vector<Tape>*>(kept));
    const size_t size_in = size_t(network.side_in()) * network.side_in() * network.channels_in();
    const size_t size_out = size_t(network.side_out()) * network.side_out() * network.channels_out();
    in_chunks(handle, images, threads, [&](Scratch& s, int64_t begin, int64_t end, int64_t chunk) {
        float* to = gradient + chunk * network.parameters();
        for (int64_t b = begin; b < end; ++b) {
            network.backward(d_out + b * size_out, d_in ? d_in + b * size_in : nullptr,
                             (*tapes)[b], s, to);
            handle.give(std::move((*tapes)[b]));
        }
        network.unpack(s, to);
    });
}

void vlae_forget(void* of, void* kept) {
    std::unique_ptr<std::vector<Tape>> tapes(static_cast<std::vector<Tape>*>(kept));
    for (Tape& tape : *tapes) static_cast<Handle*>(of)->give(std::move(tape));
}

// Computes log p(target | in) of each image with a network that outputs one logit per pixel.
// gradient: (chunks, parameters), initially zero, or null; receives the gradient of the sum over
// the images, each multiplied by its `scale` unless that is null. d_in: receives the gradient with
// respect to the input; may be null.
void vlae_log_likelihood(void* of, const float* parameters, int64_t images, const float* in,
                         const float* target, float* log_likelihood, const float* scale,
                         float* gradient, float* d_in, int64_t threads) {
    Handle& handle = *static_cast<Handle*>(of);
    Network& network = handle.network;
    network.set(parameters, gradient != nullptr);
    const int pixels = network.side_out() * network.side_out();
    const size_t size_in = size_t(network.side_in()) * network.side_in() * network.channels_in();
    in_chunks(handle, images, threads, [&](Scratch& s, int64_t begin, int64_t end, int64_t chunk) {
        Tape tape = handle.take();
        const Aligned<float> logits(pixels);
        float* to = gradient ? gradient + chunk * network.parameters() : nullptr;
        for (int64_t b = begin; b < end; ++b) {
            network.forward(in + b * size_in, logits.at, tape, s);
            log_likelihood[b] = bernoulli(pixels, target + b * pixels, logits.at);
            if (!gradient) continue;
            if (scale)
                for (int i = 0; i < pixels; ++i) logits.at[i] *= scale[b];
            network.backward(logits.at, d_in ? d_in + b * size_in : nullptr, tape, s, to);
        }
        if (gradient) network.unpack(s, to);
        handle.give(std::move(tape));
    });
}

}  // extern "C"

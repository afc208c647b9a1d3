// A stack of convolutions and residual blocks on one image: forward pass and gradient.
//
// Between blocks the features are in single precision (a Stream). The inputs of a convolution are
// stored as features (Planes: bfloat16 with AVX-512); its sums are in single precision.
#pragma once
#include <map>
#include <tuple>

#ifdef __AVX512F__
#include "tiles.h"
#else
#include "vectors.h"
#endif

// Python describes a network by one row of eight numbers per operation.
enum Kind { CONV = 0, ELU_CONV = 1, ELU = 2, BLOCK = 3, DOWN = 4, UP = 5 };
struct OpRow { int32_t kind, inputs, outputs, side_in, side_out, kernel, causal, thousandths; };

inline Planes new_planes(const Grid& grid, int count) {
    Planes planes;
    for (int i = 0; i < count; ++i) planes.emplace_back(grid);
    return planes;
}

// Features (groups, pixels, 16), float.
struct Stream {
    int pixels;
    Aligned<float> data;
    Stream(const Grid& g, int groups) : pixels(g.pixels()), data(groups * pixels * LANES) {}
    float* at(int group, int place) { return data.at + (group * pixels + place) * LANES; }
};

struct Conv {
    const Grid* grid;
    int inputs, outputs, groups_in, groups_out, planes_in, planes_out, taps;
    bool transposed;  // weight (inputs, taps, outputs) instead of (outputs, taps, inputs)
    std::vector<Term> terms;  // sorted by (in, out)
    Packed forward, backward;
    std::vector<int32_t> places;  // of each term's weights (16 inputs, 16 outputs); -1: none
    size_t weight_at = 0, bias_at = 0, blocks_at = 0;

    Conv(const Grid* grid, int inputs, int outputs, int parities_in, int parities_out, int taps,
         std::vector<Term> terms)
        : grid(grid), inputs(inputs), outputs(outputs), groups_in((inputs + 15) / 16),
          groups_out((outputs + 15) / 16), planes_in(parities_in * groups_in),
          planes_out(parities_out * groups_out), taps(taps), transposed(parities_out > 1),
          terms(sized(terms)), forward(this->terms, planes_out),
          backward(reversed(this->terms), planes_in) {
        for (const Term& t : this->terms)
            for (int i = 0; i < LANES; ++i)
                for (int o = 0; o < LANES; ++o)
                    places.push_back(int32_t(index(t.tap, t.in, t.out, i, o)));
        forward.place([&](const Term& t, int i, int o) { return index(t.tap, t.in, t.out, i, o); });
        backward.place([&](const Term& t, int o, int i) { return index(t.tap, t.out, t.in, i, o); });
    }

    std::vector<Term> sized(std::vector<Term> terms) const {
        for (Term& t : terms) {
            t.inputs = std::min(LANES, inputs - t.in % groups_in * LANES);
            t.outputs = std::min(LANES, outputs - t.out % groups_out * LANES);
        }
        return terms;
    }
    static std::vector<Term> reversed(std::vector<Term> terms) {
        for (Term& t : terms) t = {t.out, t.in, -t.offset, t.tap, t.outputs, t.inputs};
        return terms;
    }
    // The place of a weight in its tensor, or -1.
    int64_t index(int tap, int in, int out, int i, int o) const {
        const int ci = in % groups_in * LANES + i, co = out % groups_out * LANES + o;
        if (ci >= inputs || co >= outputs) return -1;
        return transposed ? int64_t(ci * taps + tap) * outputs + co
                          : int64_t(co * taps + tap) * inputs + ci;
    }
    void fill(const float* parameters, bool gradient) {
        forward.fill(parameters + weight_at);
        if (gradient) backward.fill(parameters + weight_at);
    }
};

// A tap of a stride-2 convolution in one dimension: the parity of the coordinate in the large
// image, and the offset in the small one. The k-th tap reads or writes coordinate 2 i - 1 + k.
inline std::pair<int, int> halved(int k) { return {k == 1 ? 0 : 1, k == 0 ? -1 : 0}; }

struct Op {
    OpRow row;
    const Grid *in, *out;
    std::vector<int> convs;       // indices; for a block: [shortcut,] first, second
    int x = -1, a = -1, u = -1;   // sets of planes on the tape: input, its elu, inside the branch
    float scale;
};

struct Tape { std::vector<Planes> planes; };  // the features of one image that the gradient needs

// Working memory of one thread for one network.
struct Scratch {
    std::map<int, Stream> streams;   // by side
    std::map<int, Planes> dy, inner; // gradients as inputs of convolutions, by side
    std::map<int, Rearranged> rearranged;
    Aligned<float> blocks;           // weight gradients, (16, 16) per term
    explicit Scratch(size_t terms) : blocks(terms * 256) {}
};

class Network {
  public:
    Network(const OpRow* rows, int count) {
        for (int i = 0; i < count; ++i) append(rows[i]);
    }
    Network(const Network&) = delete;

    int side_in() const { return ops.front().row.side_in; }
    int side_out() const { return ops.back().row.side_out; }
    int channels_in() const { return ops.front().row.inputs; }
    int channels_out() const { return ops.back().row.outputs; }
    size_t parameters() const { return size; }

    void set(const float* values, bool gradient) {
        current = values;
        for (Conv& c : convs) c.fill(values, gradient);
    }

    Tape new_tape() const {
        Tape tape;
        for (const auto& [grid, count] : plane_sets) tape.planes.push_back(new_planes(*grid, count));
        return tape;
    }
    Scratch new_scratch() const {
        Scratch s(terms);
        for (const auto& [side, grid] : grids) {
            s.streams.emplace(side, Stream(grid, widest));
            s.dy.emplace(side, new_planes(grid, 4 * widest));
            s.inner.emplace(side, new_planes(grid, 4 * widest));
            s.rearranged.emplace(side, Rearranged(grid, 4 * widest));
        }
        return s;
    }

    // in (side, side, channels) -> out (side, side, channels)
    void forward(const float* in, float* out, Tape& tape, Scratch& s) const {
        read(*ops.front().in, channels_in(), in, s.streams.at(side_in()));
        for (size_t i = 0; i < ops.size(); ++i) {
            const Op& op = ops[i];
            const bool fused = i && ops[i - 1].row.kind != ELU && plain(ops[i]);
            const Op* next = i + 1 < ops.size() && plain(ops[i + 1]) ? &ops[i + 1] : nullptr;
            step(op, tape, s, fused, next ? &tape.planes[next->a] : nullptr);
        }
        write(*ops.back().out, channels_out(), s.streams.at(side_out()), out);
    }

    // Computes the gradient of the output's sum weighted by d_out. Adds it to s.blocks (weights)
    // and `gradient` (biases), and writes it to d_in (input) unless that is null.
    void backward(const float* d_out, float* d_in, const Tape& tape, Scratch& s,
                  float* gradient) const {
        read(*ops.back().out, channels_out(), d_out, s.streams.at(side_out()));
        for (size_t i = ops.size(); i-- > 0;)
            step_back(ops[i], tape, s, gradient, i > 0 || d_in);
        if (d_in) write(*ops.front().in, channels_in(), s.streams.at(side_in()), d_in);
    }

    // Adds the weight gradients of s.blocks to their places in `gradient`; zeroes the blocks.
    void unpack(Scratch& s, float* gradient) const {
        for (const Conv& c : convs) {
            float* to = gradient + c.weight_at;
            const float* block = s.blocks.at + c.blocks_at;
            for (size_t i = 0; i < c.places.size(); ++i)
                if (c.places[i] >= 0) to[c.places[i]] += block[i];
        }
        std::memset(s.blocks.at, 0, terms * 256 * sizeof(float));
    }

  private:
    std::map<int, Grid> grids;
    std::vector<Op> ops;
    std::vector<Conv> convs;
    std::vector<std::pair<const Grid*, int>> plane_sets;
    const float* current = nullptr;
    size_t size = 0, terms = 0;
    int widest = 1;  // groups of 16 channels

    const Grid* grid(int side) { return &grids.try_emplace(side, side).first->second; }

    int planes(const Grid* g, int count) {
        plane_sets.push_back({g, count});
        return int(plane_sets.size()) - 1;
    }

    // True for an operation that reads elu of its input as one set of planes on the same grid.
    static bool plain(const Op& op) { return op.row.kind == BLOCK || op.row.kind == ELU_CONV; }

    // masked: the taps behind the pixel itself are left out, since their weight is 0.
    int conv(const Grid* g, const OpRow& row, bool masked) {
        return conv(g, row.inputs, row.outputs, row.kernel, row.causal, masked);
    }
    int conv(const Grid* g, int inputs, int outputs, int kernel, bool causal, bool masked) {
        const int gi = (inputs + 15) / 16, go = (outputs + 15) / 16, half = kernel / 2;
        const int rows = causal ? half + 1 : kernel;
        std::vector<Term> list;
        for (int i = 0; i < gi; ++i)
            for (int o = 0; o < go; ++o)
                for (int r = 0; r < rows; ++r)
                    for (int c = 0; c < kernel; ++c) {
                        if (masked && r == half && c > half) continue;
                        list.push_back({i, o, g->place(r - half, c - half), r * kernel + c, 0, 0});
                    }
        return keep(Conv(g, inputs, outputs, 1, 1, rows * kernel, list));
    }
    int strided(const Grid* small, int inputs, int outputs, bool up) {
        const int gi = (inputs + 15) / 16, go = (outputs + 15) / 16;
        std::vector<Term> list;
        for (int i = 0; i < gi; ++i)
            for (int o = 0; o < go; ++o)
                for (int r = 0; r < 3; ++r)
                    for (int c = 0; c < 3; ++c) {
                        const auto [row_parity, row] = halved(r);
                        const auto [column_parity, column] = halved(c);
                        const int parity = 2 * row_parity + column_parity;
                        const int offset = small->place(row, column);
                        if (up) list.push_back({i, parity * go + o, -offset, 3 * r + c, 0, 0});
                        else list.push_back({parity * gi + i, o, offset, 3 * r + c, 0, 0});
                    }
        std::stable_sort(list.begin(), list.end(), [](const Term& a, const Term& b) {
            return std::tie(a.in, a.out) < std::tie(b.in, b.out);
        });
        return keep(Conv(small, inputs, outputs, up ? 1 : 4, up ? 4 : 1, 9, list));
    }
    int keep(Conv c) {
        c.weight_at = size;
        size += size_t(c.inputs) * c.outputs * c.taps;
        c.bias_at = size;
        size += c.outputs;
        c.blocks_at = terms * 256;
        terms += c.terms.size();
        convs.push_back(std::move(c));
        return int(convs.size()) - 1;
    }

    void append(const OpRow& row) {
        Op op{row, grid(row.side_in), grid(row.side_out), {}, -1, -1, -1,
              float(row.thousandths) / 1000};
        const int gi = (row.inputs + 15) / 16, go = (row.outputs + 15) / 16;
        widest = std::max({widest, gi, go});
        switch (row.kind) {
            case CONV:
                op.x = planes(op.in, gi);
                op.convs = {conv(op.in, row, false)};
                break;
            case ELU_CONV:
                op.a = planes(op.in, gi);
                op.convs = {conv(op.in, row, row.causal)};
                break;
            case ELU:
                op.a = planes(op.in, gi);
                break;
            case BLOCK:
                op.a = planes(op.in, gi);
                op.u = planes(op.in, gi);
                for (int k = 0; k < 2; ++k)
                    op.convs.push_back(conv(op.in, row, row.causal));
                break;
            default: {
                const bool up = row.kind == UP;
                const Grid* small = up ? op.in : op.out;
                op.x = planes(small, up ? gi : 4 * gi);
                op.a = planes(small, up ? gi : 4 * gi);
                op.u = planes(op.out, go);
                for (int k = 0; k < 2; ++k)
                    op.convs.push_back(strided(small, row.inputs, row.outputs, up));
                op.convs.push_back(conv(op.out, row.outputs, row.outputs, 3, false, false));
            }
        }
        ops.push_back(op);
    }

    // ---- pixels ----

    template <class Each>  // each(place, row, column)
    static void everywhere(const Grid& g, Each each) {
        for (int r = 0; r < g.side; ++r)
            for (int c = 0; c < g.side; ++c) each(g.place(r, c), r, c);
    }
    static void read(const Grid& g, int channels, const float* from, Stream& h) {
        for (int first = 0; first < channels; first += LANES) {
            const First lanes = first_lanes(channels - first);
            everywhere(g, [&](int place, int r, int c) {
                store(h.at(first / LANES, place),
                      load(from + (r * g.side + c) * channels + first, lanes));
            });
        }
    }
    static void write(const Grid& g, int channels, Stream& h, float* to) {
        for (int first = 0; first < channels; first += LANES) {
            const First lanes = first_lanes(channels - first);
            everywhere(g, [&](int place, int r, int c) {
                store(to + (r * g.side + c) * channels + first, load(h.at(first / LANES, place)),
                      lanes);
            });
        }
    }
    Lanes bias(const Conv& c, int group) const {
        return load(current + c.bias_at + group * LANES, first_lanes(c.outputs - group * LANES));
    }
    static void add_bias(const Conv& c, int group, Lanes sum, float* gradient) {
        const First lanes = first_lanes(c.outputs - group * LANES);
        float* at = gradient + c.bias_at + group * LANES;
        store(at, add(load(at, lanes), sum), lanes);
    }

    // The place in the large image of a pixel of one of its four parities; -1: none.
    static int large_place(const Grid& small, const Grid& large, int parity, int place) {
        const int r = 2 * (place / small.pitch) + parity / 2;
        const int c = 2 * (place % small.pitch) + parity % 2;
        return r < large.side && c < large.side ? large.place(r, c) : -1;
    }

    // ---- forward ----

    void step(const Op& op, Tape& tape, Scratch& s, bool elu_done, Planes* next) const {
        Stream& h = s.streams.at(op.row.side_in);
        Stream& to = s.streams.at(op.row.side_out);
        const int gi = (op.row.inputs + 15) / 16, go = (op.row.outputs + 15) / 16;
        auto put = [&](int group, int place, Lanes v) {
            store(to.at(group, place), v);
            if (next) store((*next)[group].pixel(place), elu(v));
        };
        if (op.row.kind <= BLOCK) {
            const bool activated = op.row.kind != CONV;
            Planes& in = tape.planes[activated ? op.a : op.x];
            if (!elu_done)
                for (int g = 0; g < gi; ++g)
                    everywhere(*op.in, [&](int place, int, int) {
                        const Lanes v = load(h.at(g, place));
                        store(in[g].pixel(place), activated ? elu(v) : v);
                    });
            if (op.row.kind == ELU) {
                for (int g = 0; g < gi; ++g)
                    everywhere(*op.in, [&](int place, int, int) {
                        store(h.at(g, place), elu(load(h.at(g, place))));
                    });
                return;
            }
            const Conv& first = convs[op.convs[0]];
            if (op.row.kind != BLOCK) {
                for (int g = 0; g < go; ++g) {
                    const Lanes b = bias(first, g);
                    convolve(*op.in, in, first.forward, g,
                        [&](int place, Lanes v) { put(g, place, add(v, b)); });
                }
                return;
            }
            Planes& inner = tape.planes[op.u];
            for (int g = 0; g < go; ++g) {
                const Lanes b = bias(first, g);
                convolve(*op.in, in, first.forward, g, [&](int place, Lanes v) {
                    store(inner[g].pixel(place), elu(add(v, b)));
                });
            }
            branch(op, tape, h, put);
            return;
        }
        const bool up = op.row.kind == UP;
        const Grid &small = up ? *op.in : *op.out, &large = up ? *op.out : *op.in;
        Planes &x = tape.planes[op.x], &a = tape.planes[op.a], &u = tape.planes[op.u];
        for (int g = 0; g < gi; ++g)
            everywhere(*op.in, [&](int place, int r, int c) {
                const Lanes v = load(h.at(g, place));
                const int plane = up ? g : (r % 2 * 2 + c % 2) * gi + g;
                const int at = up ? place : small.place(r / 2, c / 2);
                store(x[plane].pixel(at), v);
                store(a[plane].pixel(at), elu(v));
            });
        const Conv &shortcut = convs[op.convs[0]], &first = convs[op.convs[1]];
        for (int out = 0; out < shortcut.planes_out; ++out) {
            const int g = out % go, parity = out / go;
            const Lanes b = bias(shortcut, g), b_first = bias(first, g);
            convolve(small, x, shortcut.forward, out, [&](int place, Lanes v) {
                const int at = up ? large_place(small, large, parity, place) : place;
                if (at >= 0) store(to.at(g, at), add(v, b));
            });
            convolve(small, a, first.forward, out, [&](int place, Lanes v) {
                const int at = up ? large_place(small, large, parity, place) : place;
                if (at >= 0) store(u[g].pixel(at), elu(add(v, b_first)));
            });
        }
        branch(op, tape, to, put);
    }

    // Computes h + scale * second(u) and passes it to put(group, place, value).
    template <class Put>
    void branch(const Op& op, const Tape& tape, Stream& h, Put put) const {
        const Conv& second = convs[op.convs.back()];
        const Lanes scale = all(op.scale);
        for (int g = 0; g < second.groups_out; ++g) {
            const Lanes b = bias(second, g);
            convolve(*op.out, tape.planes[op.u], second.forward, g, [&](int place, Lanes v) {
                put(g, place, multiply_add(add(v, b), scale,
                                              load(h.at(g, place))));
            });
        }
    }

    // ---- backward ----

    // Writes scale * g to planes in bfloat16 and adds the bias gradient of `c`.
    static void round_gradient(const Grid& grid, Stream& g, float scale, Planes& dy,
                               const Conv& c, float* gradient) {
        const Lanes by = all(scale);
        for (int group = 0; group < c.groups_out; ++group) {
            Lanes sum = zeros();
            everywhere(grid, [&](int place, int, int) {
                const Lanes v = multiply(load(g.at(group, place)), by);
                sum = add(sum, v);
                store(dy[group].pixel(place), v);
            });
            add_bias(c, group, sum, gradient);
        }
    }
    static void weights_gradient(const Conv& c, const Planes& x, const Planes& dy, Scratch& s) {
        weight_gradients(*c.grid, c.terms, x, dy, s.rearranged.at(c.grid->side),
                         s.blocks.at + c.blocks_at);
    }

    void step_back(const Op& op, const Tape& tape, Scratch& s, float* gradient,
                   bool input_needed) const {
        Stream& g = s.streams.at(op.row.side_out);
        if (op.row.kind == ELU) {
            for (int group = 0; group < (op.row.inputs + 15) / 16; ++group)
                everywhere(*op.in, [&](int place, int, int) {
                    float* at = g.at(group, place);
                    store(
                        at, multiply(load(at),
                                          elu_slope(load(tape.planes[op.a][group].pixel(place)))));
                });
            return;
        }
        Planes& dy = s.dy.at(op.row.side_out);
        if (op.row.kind == CONV || op.row.kind == ELU_CONV) {
            const Conv& c = convs[op.convs[0]];
            const bool activated = op.row.kind == ELU_CONV;
            const Planes& in = tape.planes[activated ? op.a : op.x];
            round_gradient(*op.out, g, 1, dy, c, gradient);
            weights_gradient(c, in, dy, s);
            if (!input_needed) return;
            for (int group = 0; group < c.groups_in; ++group)
                convolve(*op.in, dy, c.backward, group, [&](int place, Lanes v) {
                    if (activated) v = multiply(v, elu_slope(load(in[group].pixel(place))));
                    store(g.at(group, place), v);
                });
            return;
        }
        const Conv &second = convs[op.convs.back()], &first = convs[op.convs[op.convs.size() - 2]];
        const Planes &a = tape.planes[op.a], &u = tape.planes[op.u];
        const bool block = op.row.kind == BLOCK, up = op.row.kind == UP;
        const Grid &small = up ? *op.in : *op.out, &large = up ? *op.out : *op.in;
        const int go = second.groups_out, gi = first.groups_in;
        // The branch, back to its first convolution: on the small grid, by parity if `up`.
        round_gradient(*op.out, g, op.scale, dy, second, gradient);
        weights_gradient(second, u, dy, s);
        Planes& inner = s.inner.at(small.side);
        for (int group = 0; group < go; ++group) {
            Lanes sum = zeros();
            convolve(*op.out, dy, second.backward, group, [&](int place, Lanes v) {
                v = multiply(v, elu_slope(load(u[group].pixel(place))));
                sum = add(sum, v);
                store(place_of(op, inner, go, group, place), v);
            });
            add_bias(first, group, sum, gradient);
        }
        weights_gradient(first, a, inner, s);
        if (block) {
            for (int group = 0; group < gi; ++group)
                convolve(*op.in, inner, first.backward, group, [&](int place, Lanes v) {
                    float* at = g.at(group, place);
                    store(at, multiply_add(v, elu_slope(load(a[group].pixel(place))),
                                                        load(at)));
                });
            return;
        }
        const Conv& shortcut = convs[op.convs[0]];
        Planes& direct = s.dy.at(small.side);
        for (int group = 0; group < go; ++group) {
            Lanes sum = zeros();
            everywhere(*op.out, [&](int place, int, int) {
                const Lanes v = load(g.at(group, place));
                sum = add(sum, v);
                store(place_of(op, direct, go, group, place), v);
            });
            add_bias(shortcut, group, sum, gradient);
        }
        weights_gradient(shortcut, tape.planes[op.x], direct, s);
        if (!input_needed) return;
        Stream& to = s.streams.at(op.row.side_in);
        for (int in = 0; in < shortcut.planes_in; ++in) {
            const int group = in % gi, parity = in / gi;
            convolve(small, direct, shortcut.backward, in, [&](int place, Lanes v) {
                const int at = up ? place : large_place(small, large, parity, place);
                if (at >= 0) store(to.at(group, at), v);
            });
            convolve(small, inner, first.backward, in, [&](int place, Lanes v) {
                const int at = up ? place : large_place(small, large, parity, place);
                if (at < 0) return;
                store(to.at(group, at),
                                multiply_add(v, elu_slope(load(a[in].pixel(place))),
                                                load(to.at(group, at))));
            });
        }
    }
    // The address, in the input of the first layers' gradient, of a pixel of the block's output.
    static Feature* place_of(const Op& op, Planes& planes, int groups, int group, int place) {
        if (op.row.kind != UP) return planes[group].pixel(place);
        const int r = place / op.out->pitch, c = place % op.out->pitch;
        return planes[(r % 2 * 2 + c % 2) * groups + group].pixel(op.in->place(r / 2, c / 2));
    }
};

// Numpy arrays in and out of the binding, and layers spread over threads. Functions that make
// arrays need the interpreter's lock, the others do not.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/thread_pool.h"
#include "eplb/placement/batch_loads.h"
#include "eplb/placement/index.h"
#include "eplb/placement/placement.h"

namespace wideload::python {

namespace nb = nanobind;

template <class T, int kDimensions>
using In = nb::ndarray<const T, nb::ndim<kDimensions>, nb::c_contig, nb::device::cpu>;
template <class T>
using Out = nb::ndarray<nb::numpy, T>;

using eplb::Index;

// A numpy array that owns `values`. Needs the interpreter's lock.
template <class T>
Out<T> ToNumpy(std::vector<T> values, std::initializer_list<size_t> shape) {
  auto owned = std::make_unique<std::vector<T>>(std::move(values));
  T* const data = owned->data();
  const nb::capsule owner(owned.get(), [](void* p) noexcept {
    std::unique_ptr<std::vector<T>>(static_cast<std::vector<T>*>(p)).reset();
  });
  static_cast<void>(owned.release());  // the capsule's from here on
  return Out<T>(data, shape, owner);
}

// Calls work(layer) for every layer, on up to `num_threads` threads; the first layer's error wins.
template <class Work>
void ForLayers(int64_t num_layers, int32_t num_threads, const Work& work) {
  std::vector<std::exception_ptr> errors(Index(num_layers));
  const auto task = [&](int64_t layer, int) {
    try {
      work(layer);
    } catch (...) {
      errors[Index(layer)] = std::current_exception();
    }
  };
  ThreadPool pool("eplb", static_cast<int>(std::clamp<int64_t>(num_layers, 1, num_threads)));
  pool.Run(num_layers, task);
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

// Values [iterations, layers, width] of any number type.
template <class T>
class Batches {
 public:
  explicit Batches(const In<T, 3>& array)
      : data_(array.data()),
        iterations_(static_cast<int64_t>(array.shape(0))),
        layers_(static_cast<int64_t>(array.shape(1))),
        width_(static_cast<int64_t>(array.shape(2))) {}

  int64_t iterations() const { return iterations_; }
  int64_t layers() const { return layers_; }
  int64_t width() const { return width_; }
  std::span<const T> At(int64_t iteration, int64_t layer) const {
    return {data_ + (iteration * layers_ + layer) * width_, Index(width_)};
  }

 private:
  const T* data_;
  int64_t iterations_, layers_, width_;
};

// The batches of a layer; weights [iterations], empty: all 1.
inline eplb::BatchLoads LayerOf(const Batches<double>& batches, int64_t layer,
                                std::span<const double> weights = {}) {
  eplb::BatchLoads loads{static_cast<int32_t>(batches.width())};
  for (int64_t i = 0; i < batches.iterations(); ++i)
    loads.Add(batches.At(i, layer), weights.empty() ? 1.0 : weights[Index(i)]);
  return loads;
}

// Row `layer` of slots [layers, num_slots], checked.
inline eplb::Placement PlacementOf(const In<int32_t, 2>& slots, int64_t layer, int64_t num_experts,
                                   int32_t num_ranks) {
  const size_t num_slots = slots.shape(1);
  eplb::Placement placement{static_cast<int32_t>(num_experts), num_ranks, {}};
  const int32_t* row = slots.data() + Index(layer) * num_slots;
  placement.slot_expert.reserve(num_slots);
  for (size_t s = 0; s < num_slots; ++s) placement.slot_expert.emplace_back(row[s]);
  eplb::ValidatePlacement(placement, fmt::format("placement, layer {}", layer));
  return placement;
}

inline void CopySlots(const eplb::Placement& placement, int64_t* out) {
  std::transform(placement.slot_expert.begin(), placement.slot_expert.end(), out,
                 [](ExpertId expert) { return int64_t{expert.value}; });
}

}  // namespace wideload::python

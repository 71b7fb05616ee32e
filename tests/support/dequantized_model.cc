#include "support/dequantized_model.h"

#include <filesystem>
#include <list>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "compute/weight_source.h"
#include "tensor/safetensors.h"

namespace wideload::testing_support {
namespace {

using compute::WeightSource;

class Writer {
 public:
  explicit Writer(const std::string& folder) : checkpoint_(folder) {
    for (const std::string_view name : checkpoint_.Names()) Add(std::string(name));
  }
  void Write(const std::string& path) const { WriteSafetensors(path, tensors_); }

 private:
  void Add(const std::string& name) {
    const auto without = [&](std::string_view ending) {
      return name.substr(0, name.size() - ending.size());
    };
    for (const char* companion : {"_scale_inv", "_scale", "_scales", "_shape"})
      if (name.ends_with(companion)) return;
    if (name.ends_with("_packed"))
      return AddMatrix(without("_packed"),
                       WeightSource::Int4(name, checkpoint_.Get(name),
                                          checkpoint_.Get(without("_packed") + "_scale")));
    if (name.ends_with("_blocks")) return AddFused(without("_blocks"));
    if (checkpoint_.Has(name + "_scale_inv"))
      return AddMatrix(name, WeightSource::Fp8(name, checkpoint_.Get(name),
                                               checkpoint_.Get(name + "_scale_inv")));
    tensors_.emplace_back(name, checkpoint_.Get(name));
  }

  TensorView New(const std::string& name, const Shape& shape) {
    buffers_.emplace_back(DType::kF32, shape);
    tensors_.emplace_back(name, buffers_.back().View(DType::kF32, shape));
    return tensors_.back().second;
  }

  void AddMatrix(const std::string& name, const WeightSource& source) {
    const TensorView out = New(name, {source.n(), source.k()});
    for (int64_t i = 0; i < source.n(); ++i)
      for (int64_t j = 0; j < source.k(); ++j) out.row<float>(i)[j] = source.At(i, j);
  }

  // [E, n, k / 32, 16] becomes [E, k, n].
  void AddFused(const std::string& name) {
    const TensorView blocks = checkpoint_.Get(name + "_blocks");
    const TensorView scales = checkpoint_.Get(name + "_scales");
    const int64_t n = blocks.dim(1), groups = blocks.dim(2), k = 32 * groups;
    const TensorView out = New(name, {blocks.dim(0), k, n});
    for (int64_t e = 0; e < blocks.dim(0); ++e) {
      const auto part = [&](const TensorView& all, const Shape& shape) {
        return TensorView(DType::kU8, shape, all.data<uint8_t>() + e * shape.num_elements());
      };
      const WeightSource source =
          WeightSource::Mxfp4(name, part(blocks, {n, groups, 16}), part(scales, {n, groups}));
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < k; ++j) out.data<float>()[(e * k + j) * n + i] = source.At(i, j);
    }
  }

  checkpoint::Checkpoint checkpoint_;
  std::list<Buffer> buffers_;
  std::vector<std::pair<std::string, TensorView>> tensors_;
};

}  // namespace

void WriteDequantized(const std::string& from, const std::string& to) {
  std::filesystem::create_directories(to);
  Json config = ReadJsonFile(from + "/config.json");
  config.erase("quantization_config");
  WriteFileWhole(to + "/config.json", DumpJson(config));
  Writer(from).Write(to + "/model.safetensors");
}

}  // namespace wideload::testing_support

// For tests: a model's folder to be written with other tensors or another config.json.
#pragma once

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "tensor/safetensors.h"

namespace wideload::checkpoint {

// config.json and the tensors of a folder, to be changed at will; Write makes a folder of them.
struct EditedModel {
  struct Tensor {
    DType dtype = DType::kF32;
    Shape shape;
    std::vector<std::byte> bytes;
    template <class T>
    T* data() {
      return reinterpret_cast<T*>(bytes.data());
    }
  };

  explicit EditedModel(const std::string& folder) : config(ReadJsonFile(folder + "/config.json")) {
    const Checkpoint checkpoint(folder);
    for (const std::string_view name : checkpoint.Names()) {
      const TensorView view = checkpoint.Peek(name);
      const auto* bytes = static_cast<const std::byte*>(view.raw());
      tensors[std::string(name)] = {view.dtype(), view.shape(), {bytes, bytes + view.num_bytes()}};
    }
  }

  // The tensors one after the other as one of `shape`, in place of them.
  void Fuse(const std::vector<std::string>& names, const std::string& name, const Shape& shape) {
    Tensor all{.dtype = tensors.at(names.front()).dtype, .shape = shape, .bytes = {}};
    for (const std::string& part : names) {
      const Tensor& tensor = tensors.at(part);
      all.bytes.insert(all.bytes.end(), tensor.bytes.begin(), tensor.bytes.end());
      tensors.erase(part);
    }
    tensors[name] = std::move(all);
  }

  // Of all tensors, `change` of the name.
  template <class Change>
  void Rename(const Change& change) {
    std::map<std::string, Tensor> renamed;
    for (auto& [name, tensor] : tensors) renamed[change(name)] = std::move(tensor);
    tensors = std::move(renamed);
  }

  // Into `folder`, created.
  void Write(const std::string& folder) const {
    std::filesystem::create_directories(folder);
    WriteFileWhole(folder + "/config.json", DumpJson(config));
    std::vector<std::pair<std::string, TensorView>> views;
    for (const auto& [name, tensor] : tensors)
      views.emplace_back(name, TensorView(tensor.dtype, tensor.shape, tensor.bytes.data()));
    WriteSafetensors(folder + "/model.safetensors", views);
  }

  Json config;
  std::map<std::string, Tensor> tensors;
};

}  // namespace wideload::checkpoint

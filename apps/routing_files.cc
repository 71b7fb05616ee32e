#include "routing_files.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "tensor/safetensors.h"

namespace wideload::apps {
namespace {

constexpr int64_t kMaxExperts = 65535;  // ids are kept in 16 bits

// Element i of an integer or floating tensor.
double ElementAt(const TensorView& view, int64_t i) {
  switch (view.dtype()) {
    case DType::kU8:
      return view.data<uint8_t>()[i];
    case DType::kI16:
      return view.data<int16_t>()[i];
    case DType::kI32:
      return view.data<int32_t>()[i];
    case DType::kI64:
      return static_cast<double>(view.data<int64_t>()[i]);
    case DType::kF64:
      return view.data<double>()[i];
    default:
      return LoadFloat(view.dtype(), view.raw(), i);
  }
}

bool IsReadable(DType dtype, bool allow_float) {
  switch (dtype) {
    case DType::kU8:
    case DType::kI16:
    case DType::kI32:
    case DType::kI64:
      return true;
    case DType::kF64:
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      return allow_float;
    default:
      return false;
  }
}

eplb::RoutingTask ReadTask(const SafetensorsFile& file, const std::string& ids_name,
                           const std::string& documents_name) {
  const TensorView ids = file.Get(ids_name);
  const TensorView documents = file.Get(documents_name);
  if (!IsReadable(ids.dtype(), false))
    Throw(ErrorKind::kInvalid, "{}: {} is {}; allowed: U8, I16, I32, I64", file.path(), ids_name,
          DTypeName(ids.dtype()));
  if (documents.dtype() != DType::kI64 || documents.shape().rank() != 1)
    Throw(ErrorKind::kInvalid, "{}: {} is {} {}; it must be I64 [documents]", file.path(),
          documents_name, DTypeName(documents.dtype()), documents.shape().ToString());
  eplb::RoutingTask task;
  int64_t sum = 0;
  for (int64_t i = 0; i < documents.dim(0); ++i) {
    const int64_t tokens = documents.data<int64_t>()[i];
    if (tokens < 0 || tokens > ids.dim(0) - sum)
      Throw(ErrorKind::kInvalid, "{}: {}[{}] is {}; the documents must add up to {} tokens",
            file.path(), documents_name, i, tokens, ids.dim(0));
    sum += tokens;
    task.document_tokens.push_back(tokens);
  }
  if (sum != ids.dim(0))
    Throw(ErrorKind::kInvalid, "{}: {} adds up to {}; {} has {} tokens", file.path(),
          documents_name, sum, ids_name, ids.dim(0));
  for (int64_t i = 0; i < ids.shape().num_elements(); ++i) {
    const double id = ElementAt(ids, i);
    if (id < 0 || id >= kMaxExperts)
      Throw(ErrorKind::kInvalid, "{}: {} holds expert id {}; allowed: 0 to {}", file.path(),
            ids_name, id, kMaxExperts - 1);
    task.expert_ids.push_back(static_cast<uint16_t>(id));
  }
  return task;
}

// The names of the id tensors and of their document tensors.
std::vector<std::pair<std::string, std::string>> TaskNames(const SafetensorsFile& file) {
  constexpr std::string_view kSuffix = "_document_tokens";
  if (file.Has("expert_ids")) return {{"expert_ids", "answer_tokens"}};
  std::vector<std::pair<std::string, std::string>> names;
  for (const auto& [name, view] : file.tensors())
    if (name.ends_with(kSuffix))
      names.emplace_back(name.substr(0, name.size() - kSuffix.size()), name);
  if (names.empty())
    Throw(ErrorKind::kInvalid,
          "{}: no routing found; a routing file has expert_ids [token, layer, k] and "
          "answer_tokens, or TASK [token, layer, k] and TASK_document_tokens",
          file.path());
  return names;
}

}  // namespace

eplb::RoutingTrace ReadRoutingFile(const std::string& path, int32_t num_experts) {
  const SafetensorsFile file(path);
  eplb::RoutingTrace trace;
  uint16_t max_id = 0;
  for (const auto& [ids_name, documents_name] : TaskNames(file)) {
    const TensorView ids = file.Get(ids_name);
    if (ids.shape().rank() != 3 || ids.dim(1) < 1 || ids.dim(2) < 1)
      Throw(ErrorKind::kInvalid, "{}: {} is {}; it must be [token, layer, k]", path, ids_name,
            ids.shape().ToString());
    if (!trace.tasks.empty() && (ids.dim(1) != trace.num_layers || ids.dim(2) != trace.top_k))
      Throw(ErrorKind::kInvalid, "{}: {} is {}; other tasks have {} layers and k {}", path,
            ids_name, ids.shape().ToString(), trace.num_layers, trace.top_k);
    trace.num_layers = static_cast<int32_t>(ids.dim(1));
    trace.top_k = static_cast<int32_t>(ids.dim(2));
    trace.tasks.push_back(ReadTask(file, ids_name, documents_name));
    for (const uint16_t id : trace.tasks.back().expert_ids) max_id = std::max(max_id, id);
  }
  trace.num_experts = num_experts > 0 ? num_experts : max_id + 1;
  if (max_id >= trace.num_experts)
    Throw(ErrorKind::kInvalid, "{}: it holds expert id {}; --num-experts {} allows 0 to {}", path,
          max_id, num_experts, num_experts - 1);
  return trace;
}

LayerLoads ReadLoads(const std::string& file_and_tensor) {
  const size_t colon = file_and_tensor.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == file_and_tensor.size())
    Throw(ErrorKind::kInvalid, "--loads is \"{}\"; it must be FILE:TENSOR", file_and_tensor);
  const SafetensorsFile file(file_and_tensor.substr(0, colon));
  const std::string name = file_and_tensor.substr(colon + 1);
  const TensorView view = file.Get(name);
  if (!IsReadable(view.dtype(), true) || view.shape().rank() != 2 || view.dim(1) < 1)
    Throw(ErrorKind::kInvalid, "{}: {} is {} {}; it must be integers or floats [layer, expert]",
          file.path(), name, DTypeName(view.dtype()), view.shape().ToString());
  LayerLoads loads;
  loads.num_experts = static_cast<int32_t>(view.dim(1));
  for (int64_t l = 0; l < view.dim(0); ++l) {
    std::vector<double> row;
    for (int64_t e = 0; e < view.dim(1); ++e) {
      row.push_back(ElementAt(view, l * view.dim(1) + e));
      if (!(row.back() >= 0) || !std::isfinite(row.back()))
        Throw(ErrorKind::kInvalid, "{}: {}[{}, {}] is {}; loads must be 0 or more", file.path(),
              name, l, e, row.back());
    }
    if (std::accumulate(row.begin(), row.end(), 0.0) <= 0) continue;
    loads.layers.push_back(std::move(row));
    loads.layer_ids.push_back(static_cast<int32_t>(l));
  }
  if (loads.layers.empty())
    Throw(ErrorKind::kInvalid, "{}: {} has no layer with any load", file.path(), name);
  return loads;
}

}  // namespace wideload::apps

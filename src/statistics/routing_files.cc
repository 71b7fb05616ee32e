#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "statistics/load_files.h"
#include "statistics/tensor_numbers.h"

namespace wideload::statistics {
namespace {

constexpr char kAnswerIds[] = "expert_ids";
constexpr char kAnswerTokens[] = "answer_tokens";
constexpr std::string_view kDocumentSuffix = "_document_tokens";
constexpr int64_t kMaxDimension = 1 << 16;

std::vector<int64_t> ReadLengths(const SafetensorsFile& file, const std::string& tensor,
                                 int64_t num_tokens) {
  const TensorView view = file.Get(tensor);
  const std::string where = fmt::format("{}: tensor {}", file.path(), tensor);
  if (view.shape().rank() != 1)
    Throw(ErrorKind::kInvalid, "{} is {}; it must have one dimension", where,
          view.shape().ToString());
  std::vector<int64_t> lengths;
  int64_t left = num_tokens;
  for (int64_t i = 0; i < view.dim(0); ++i) {
    lengths.push_back(IntegerAt(view, i, where));
    if (lengths.back() < 0 || lengths.back() > left)
      Throw(ErrorKind::kInvalid, "{}[{}] is {}; lengths must be at least 0 and sum to {} tokens",
            where, i, lengths.back(), num_tokens);
    left -= lengths.back();
  }
  if (left != 0)
    Throw(ErrorKind::kInvalid, "{} sums to {}; it must sum to {} tokens", where, num_tokens - left,
          num_tokens);
  return lengths;
}

void CheckIdShape(const TensorView& view, const eplb::RoutingTrace& routing,
                  const std::string& where) {
  const Shape& shape = view.shape();
  if (shape.rank() != 3 || shape[1] < 1 || shape[1] > kMaxDimension || shape[2] < 1 ||
      shape[2] > kMaxDimension)
    Throw(ErrorKind::kInvalid, "{} is {}; it must be [token, layer, k]", where, shape.ToString());
  if (!routing.tasks.empty() && (shape[1] != routing.num_layers || shape[2] != routing.top_k))
    Throw(ErrorKind::kInvalid, "{} is {}; the tasks before have {} layers and k {}", where,
          shape.ToString(), routing.num_layers, routing.top_k);
}

void AddTask(const SafetensorsFile& file, const std::string& ids, const std::string& lengths,
             eplb::RoutingTrace& routing) {
  const TensorView view = file.Get(ids);
  const std::string where = fmt::format("{}: tensor {}", file.path(), ids);
  CheckIdShape(view, routing, where);
  routing.num_layers = static_cast<int32_t>(view.dim(1));
  routing.top_k = static_cast<int32_t>(view.dim(2));
  eplb::RoutingTask task{
      .document_tokens = ReadLengths(file, lengths, view.dim(0)),
      .expert_ids = std::vector<uint16_t>(static_cast<size_t>(view.shape().num_elements())),
      .name = ids};
  for (size_t i = 0; i < task.expert_ids.size(); ++i) {
    const int64_t id = IntegerAt(view, static_cast<int64_t>(i), where);
    if (id < 0 || id >= kMaxTableExperts)
      Throw(ErrorKind::kInvalid, "{} holds expert {}; allowed: 0 to {}", where, id,
            kMaxTableExperts - 1);
    task.expert_ids[i] = static_cast<uint16_t>(id);
  }
  routing.tasks.push_back(std::move(task));
}

void SetNumExperts(const SafetensorsFile& file, int32_t num_experts, eplb::RoutingTrace& routing) {
  int32_t largest = -1;
  for (const eplb::RoutingTask& task : routing.tasks) {
    for (const uint16_t id : task.expert_ids) largest = std::max(largest, int32_t{id});
    if (num_experts > 0 && largest >= num_experts)
      Throw(ErrorKind::kInvalid, "{}: tensor {} holds expert {}; allowed: 0 to {} (num_experts)",
            file.path(), task.name, largest, num_experts - 1);
  }
  if (largest < 0) Throw(ErrorKind::kInvalid, "{}: holds no token", file.path());
  routing.num_experts = num_experts > 0 ? num_experts : largest + 1;
}

}  // namespace

eplb::RoutingTrace RoutingOfFile(const SafetensorsFile& file, int32_t num_experts) {
  eplb::RoutingTrace routing;
  if (file.Has(kAnswerIds)) {
    AddTask(file, kAnswerIds, kAnswerTokens, routing);
    if (file.tensors().size() != 2)
      Throw(ErrorKind::kInvalid, "{}: has {} tensors; beside {} only {} is allowed", file.path(),
            file.tensors().size(), kAnswerIds, kAnswerTokens);
  } else {
    for (const auto& [name, view] : file.tensors()) {
      if (name.ends_with(kDocumentSuffix)) {
        file.Get(name.substr(0, name.size() - kDocumentSuffix.size()));
        continue;
      }
      AddTask(file, name, name + std::string(kDocumentSuffix), routing);
    }
  }
  SetNumExperts(file, num_experts, routing);
  return routing;
}

eplb::RoutingTrace ReadRouting(const std::string& path, int32_t num_experts) {
  return RoutingOfFile(SafetensorsFile(path), num_experts);
}

ExpertStatistics CutIntoIterations(const eplb::RoutingTrace& routing,
                                   int64_t tokens_per_iteration) {
  int64_t num_tokens = 0;
  for (const eplb::RoutingTask& task : routing.tasks) num_tokens += routing.NumTokens(task);
  ExpertStatistics result{
      .num_experts = routing.num_experts,
      .experts_per_token = routing.top_k,
      .num_iterations = (num_tokens + tokens_per_iteration - 1) / tokens_per_iteration};
  for (int32_t l = 0; l < routing.num_layers; ++l) result.layers.push_back(l);
  result.counts.assign(static_cast<size_t>(result.num_iterations) * result.layers.size() *
                           static_cast<size_t>(result.num_experts),
                       0);
  int64_t done = 0;
  for (const eplb::RoutingTask& task : routing.tasks)
    for (int64_t t = 0; t < routing.NumTokens(task); ++t, ++done)
      for (int32_t l = 0; l < routing.num_layers; ++l) {
        int64_t* row = result.counts.data() +
                       result.RowOffset(done / tokens_per_iteration, static_cast<size_t>(l), 0);
        for (int32_t k = 0; k < routing.top_k; ++k) ++row[routing.Ids(task, t, l)[k]];
      }
  return result;
}

LoadTable RoutingLoads(const eplb::RoutingTrace& routing) {
  LoadTable table{.num_experts = routing.num_experts};
  for (int32_t l = 0; l < routing.num_layers; ++l)
    table.layers[l].assign(static_cast<size_t>(routing.num_experts), 0);
  for (const eplb::RoutingTask& task : routing.tasks)
    for (int64_t t = 0; t < routing.NumTokens(task); ++t)
      for (int32_t l = 0; l < routing.num_layers; ++l) {
        const uint16_t* ids = routing.Ids(task, t, l);
        for (int32_t k = 0; k < routing.top_k; ++k) table.layers[l][ids[k]] += 1;
      }
  return table;
}

}  // namespace wideload::statistics

#include "formats/sglang_dump.h"

#include <algorithm>
#include <array>
#include <set>

#include "base/error.h"
#include "formats/placement_file.h"

namespace wideload::formats {
namespace {

using statistics::LoadTable;

constexpr char kCounts[] = "logical_count";
constexpr char kMap[] = "physical_to_logical_map";
constexpr char kLastMap[] = "last_physical_to_logical_map";
constexpr char kRecords[] = "records";
constexpr char kPassCounts[] = "global_physical_count";
constexpr char kTokenIds[] = "topk_ids_of_layer";
constexpr std::array<size_t, 1> kThree = {3};
constexpr std::array<size_t, 2> kTwoOrThree = {2, 3};
constexpr int64_t kMaxPass = int64_t{1} << 52;

// One pass of all ranks, [layers][columns].
struct Pass {
  std::vector<std::vector<double>> counts;
  Phase phase = Phase::kUnknown;
};

// SGLang's ForwardMode.
Phase PhaseOfMode(int64_t mode) {
  constexpr int64_t kExtend = 1;
  constexpr int64_t kDecode = 2;
  constexpr int64_t kMixed = 3;
  constexpr int64_t kTargetVerify = 5;  // of drafted tokens: a decode step of several tokens
  return mode == kExtend                            ? Phase::kPrefill
         : mode == kDecode || mode == kTargetVerify ? Phase::kDecode
         : mode == kMixed                           ? Phase::kMixed
                                                    : Phase::kUnknown;
}

std::vector<std::vector<double>> Rows(const NumberArray& array, const std::string& where) {
  std::vector<std::vector<double>> rows;
  for (auto& [layer, loads] : TableOfArray(array, where).layers) rows.push_back(std::move(loads));
  return rows;
}

// Adds up records to passes. Ranks that recorded and the largest k are noted on the way.
class PassSummer {
 public:
  explicit PassSummer(size_t num_slots) : num_slots_(num_slots) {}

  void Add(const Document& record, const std::string& where) {
    const int64_t id = IntegerOf(record, "forward_pass_id", 0, kMaxPass, where);
    ranks_.insert(IntegerOf(record, "rank", 0, 1 << 20, where));
    std::vector<std::vector<double>> counts =
        record.Find(kTokenIds) != nullptr ? CountIds(record, where) : CountsOf(record, where);
    Pass& pass = passes_[id];
    if (record.Find("forward_mode") != nullptr)
      pass.phase = PhaseOfMode(IntegerOf(record, "forward_mode", 0, 1000, where));
    if (pass.counts.empty()) {
      pass.counts = std::move(counts);
      return;
    }
    if (counts.size() != pass.counts.size())
      Throw(ErrorKind::kInvalid, "{}: has {} layers; pass {} has {} of other ranks", where,
            counts.size(), id, pass.counts.size());
    for (size_t l = 0; l < counts.size(); ++l) {
      pass.counts[l].resize(std::max(pass.counts[l].size(), counts[l].size()), 0);
      for (size_t e = 0; e < counts[l].size(); ++e) pass.counts[l][e] += counts[l][e];
    }
  }

  std::map<int64_t, Pass>& passes() { return passes_; }
  const std::set<int64_t>& ranks() const { return ranks_; }
  int32_t top_k() const { return top_k_; }

 private:
  static std::vector<std::vector<double>> CountsOf(const Document& record,
                                                   const std::string& where) {
    return Rows(ArrayOf(record, kPassCounts, kTwoDimensions, "[layers, slots]", where),
                where + ": " + kPassCounts);
  }

  // [layers, tokens, k], -1 where a layer has no experts or a token chose fewer.
  std::vector<std::vector<double>> CountIds(const Document& record, const std::string& where) {
    const NumberArray& ids = ArrayOf(record, kTokenIds, kThree, "[layers, tokens, k]", where);
    const auto per_layer = static_cast<size_t>(ids.shape[1] * ids.shape[2]);
    std::vector<std::vector<double>> counts(static_cast<size_t>(ids.shape[0]),
                                            std::vector<double>(num_slots_, 0));
    for (size_t i = 0; i < ids.values.size(); ++i) {
      const double id = ids.values[i];
      if (id == -1) continue;
      if (!(id >= 0 && id < statistics::kMaxTableExperts))
        Throw(ErrorKind::kInvalid, "{}: {} holds {}; it must be -1 or an expert in [0, {}]", where,
              kTokenIds, id, statistics::kMaxTableExperts - 1);
      std::vector<double>& row = counts[i / per_layer];
      if (static_cast<size_t>(id) >= row.size()) row.resize(static_cast<size_t>(id) + 1, 0);
      row[static_cast<size_t>(id)] += 1;
    }
    for (size_t token = 0; token < ids.values.size() && ids.shape[2] > 0;
         token += static_cast<size_t>(ids.shape[2])) {
      const auto begin = ids.values.begin() + static_cast<int64_t>(token);
      const auto chosen = ids.shape[2] - std::count(begin, begin + ids.shape[2], -1.0);
      top_k_ = std::max(top_k_, static_cast<int32_t>(chosen));
    }
    return counts;
  }

  size_t num_slots_;
  std::map<int64_t, Pass> passes_;
  std::set<int64_t> ranks_;
  int32_t top_k_ = 0;
};

// How many ranks there were a dump does not tell, only who recorded; a gap tells who is missing.
void NoteRanks(const std::set<int64_t>& ranks, Recording& recording) {
  std::vector<int64_t> missing;
  for (int64_t rank = 0; rank < *ranks.rbegin() && missing.size() < 8; ++rank)
    if (!ranks.contains(rank)) missing.push_back(rank);
  if (!missing.empty())
    recording.notes.push_back(fmt::format("ranks {} are missing: rank {} recorded, too",
                                          fmt::join(missing, ", "), *ranks.rbegin()));
  else if (ranks.size() > 1)
    recording.notes.push_back(fmt::format("passes of ranks 0 to {} are added up", *ranks.rbegin()));
}

void TakePasses(PassSummer& summer, Recording& recording) {
  size_t columns = 0;
  size_t layers = 0;
  for (const auto& [id, pass] : summer.passes()) {
    layers = std::max(layers, pass.counts.size());
    for (const std::vector<double>& row : pass.counts) columns = std::max(columns, row.size());
  }
  bool has_phases = false;
  for (auto& [id, pass] : summer.passes()) {
    if (pass.counts.size() != layers)
      Throw(ErrorKind::kInvalid, "{}: pass {} has {} layers; others have {}", recording.source, id,
            pass.counts.size(), layers);
    recording.steps.push_back(id);
    recording.phases.push_back(pass.phase);
    has_phases = has_phases || pass.phase != Phase::kUnknown;
    for (size_t l = 0; l < layers; ++l) {
      pass.counts[l].resize(columns, 0);
      AddBatch(recording.loads, static_cast<int32_t>(l), std::move(pass.counts[l]));
    }
  }
  if (!has_phases) recording.phases.clear();
  recording.top_k = summer.top_k();
  NoteRanks(summer.ranks(), recording);
}

Recording OfRecords(std::span<const NamedDocument> dumps, const std::string& source) {
  Recording recording{.source = source, .engine = Engine::kSglang};
  SlotExperts map = SglangPlacement(dumps[0]);
  const size_t num_slots = map.empty() ? 0 : map.begin()->second.size();
  PassSummer summer(num_slots);
  bool has_tokens = false;
  for (const NamedDocument& dump : dumps) {
    const Document* records = dump.content.Find(kRecords);
    const Document::List* list = records ? records->AsList() : nullptr;
    if (list == nullptr || list->empty())
      Throw(ErrorKind::kInvalid, "{}: {} is {}; it must be a list of at least one pass",
            dump.source, kRecords, records ? records->Describe() : "missing");
    for (size_t i = 0; i < list->size(); ++i) {
      summer.Add((*list)[i], fmt::format("{}: {}[{}]", dump.source, kRecords, i));
      has_tokens = has_tokens || (*list)[i].Find(kTokenIds) != nullptr;
    }
  }
  TakePasses(summer, recording);
  recording.format = has_tokens ? "SGLang's dump, mode per_token" : "SGLang's dump, mode per_pass";
  if (map.empty()) return recording;
  // Layers without experts count nothing, whatever their row of the map holds.
  TakeSlots(map, fmt::format("{}: {}", dumps[0].source, kLastMap), recording);
  recording.notes.emplace_back(
      "slots are mapped to experts by the last placement of the dump; passes before a rebalance "
      "ran "
      "with another");
  return recording;
}

Recording OfCounts(const NamedDocument& dump, const std::string& source) {
  const NumberArray& counts = ArrayOf(dump.content, kCounts, kTwoOrThree,
                                      "[layers, experts] or [steps, layers, experts]", dump.source);
  Recording recording{.source = source,
                      .format = "SGLang's counts (logical_count)",
                      .engine = Engine::kSglang,
                      .loads = TableOfArray(counts, dump.source + ": " + kCounts)};
  recording.slot_expert = SglangPlacement(dump);
  if (recording.slot_expert.size() != recording.loads.layers.size()) recording.slot_expert.clear();
  return recording;
}

}  // namespace

bool HoldsSglangLoads(const Document& document) {
  return document.Find(kCounts) != nullptr || document.Find(kRecords) != nullptr;
}

bool IsSglangDump(const Document& document) {
  return HoldsSglangLoads(document) || document.Find(kMap) != nullptr ||
         document.Find(kLastMap) != nullptr;
}

Recording RecordingOfSglang(std::span<const NamedDocument> dumps, const std::string& source) {
  if (dumps[0].content.Find(kRecords) != nullptr) return OfRecords(dumps, source);
  if (dumps.size() > 1)
    Throw(ErrorKind::kInvalid,
          "{}: holds {} dumps, of which {} has no records; several files are read of the modes "
          "per_pass and per_token only",
          source, dumps.size(), dumps[0].source);
  if (dumps[0].content.Find(kCounts) == nullptr)
    Throw(ErrorKind::kInvalid, "{}: has neither {} nor {}; one of them must be there", source,
          kCounts, kRecords);
  return OfCounts(dumps[0], source);
}

SlotExperts SglangPlacement(const NamedDocument& dump) {
  const char* key = dump.content.Find(kMap) != nullptr ? kMap : kLastMap;
  if (dump.content.Find(key) == nullptr) return {};
  const NumberArray& map =
      ArrayOf(dump.content, key, kTwoDimensions, "[layers, slots]", dump.source);
  return PlacementOfArray(map, dump.source + ": " + key);
}

}  // namespace wideload::formats

// What SGLang's expert distribution recorder dumps (modes stat, stat_approx, per_pass, per_token)
// and what --init-expert-location reads, as JSON or as written by torch.save. Pure; thread-safe.
// Source: sglang/srt/eplb/expert_distribution.py and expert_location.py.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "formats/document.h"
#include "formats/recording.h"
#include "statistics/eplb_yaml.h"

namespace wideload::formats {

// Whether a document has one of the keys that these files have.
bool IsSglangDump(const Document& document);
// Whether it has counts, not only a placement.
bool HoldsSglangLoads(const Document& document);

// A document and its file's name.
struct NamedDocument {
  std::string source;
  Document content;
};

// Of one dump, or of several ranks' dumps of one run (per_pass and per_token write one per rank):
// passes of the same number are one batch. Passes and tokens count slots when the dump holds
// last_physical_to_logical_map. `source` is the recording's name.
// Errors: kInvalid naming file and field: neither logical_count nor records, arrays of other ranks,
// passes of unlike shape, ids out of range, more than one stat dump.
Recording RecordingOfSglang(std::span<const NamedDocument> dumps, const std::string& source);

// "physical_to_logical_map" or "last_physical_to_logical_map" [layers, slots]: rows are the layers
// of the model, dense ones included. Empty when the document has neither. Errors: kInvalid.
SlotExperts SglangPlacement(const NamedDocument& dump);

// {"logical_count": [layers][experts]}, or with steps of these when the table has batches and
// `keep_steps`. Layers that the table lacks (dense ones) are rows of zeros.
std::string FormatSglangCounts(const statistics::LoadTable& table, bool keep_steps);
// {"physical_to_logical_map": [layers][slots]}. Layers that the file lacks are rows of slot mod
// experts.
std::string FormatSglangPlacement(const statistics::EplbConfig& config);

}  // namespace wideload::formats

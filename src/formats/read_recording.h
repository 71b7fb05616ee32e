// Reads what a run recorded from any file of loads that an engine writes. Thread-safe.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "formats/recording.h"

namespace wideload::formats {

// What the axes of an array without names are.
enum class Axes { kStepsLayersExperts, kLayersRanksSlots };
// "steps,layers,experts", "layers,ranks,slots". Errors: kInvalid naming `flag`.
Axes ParseAxes(const std::string& text, const std::string& flag);

// What a file does not tell about itself.
struct ReadRecordingOptions {
  // Of an array of three dimensions; default: layers,ranks,slots for files named moe_load*, which
  // vLLM on Ascend writes, else steps,layers,experts.
  std::optional<Axes> axes = {};
  // Placement of a run that counted slots, where the file does not hold it; any placement file.
  std::optional<std::string> placement_path = {};
};

// Whether a folder holds dumps of SGLang and no statistics of TensorRT-LLM.
bool IsDumpFolder(const std::string& folder);

// By ending: .jsonl (vLLM), .json and .pt (SGLang), .csv, .npy, FILE.npz[:ARRAY],
// FILE.safetensors[:TENSOR]; a folder of several ranks' .pt or .json dumps of SGLang.
// Batches without any load are left out and noted.
// Errors: everything that the readers refuse; kNotFound; kInvalid naming the endings for another.
Recording ReadRecording(const std::string& path, const ReadRecordingOptions& options);

// Text of a CSV file: lines of numbers (see ParseLoadCsv), or with a header line that names columns
// layer, expert and count, and perhaps step (also layer_id, expert_id, load, tokens, iteration):
// one line per number, pairs without a line count 0.
// Errors: those of ParseLoadCsv, kCorrupt and kInvalid with `source` and line.
Recording ParseCsvRecording(std::string_view text, const std::string& source);

}  // namespace wideload::formats

// How many bytes one routed expert takes as stored, told from config.json alone: what quantization
// methods store beside the weights. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "tensor/dtype.h"

namespace wideload {
class JsonFields;
}

namespace wideload::checkpoint {

struct StoredExpert {
  std::optional<uint64_t> bytes;  // scales included; nothing when the storage is not known
  std::string storage;            // "nvfp4, a scale per 16 weights", "unknown: quant_method quark"
};

// `fields` hold "quantization_config" if there is one (hf_quant_config.json's "quantization" counts
// as such); `weights` are those of one expert, `plain` is their type without quantization.
// Errors: kInvalid naming the field for values of another type.
StoredExpert StoredExpertOf(const JsonFields& fields, uint64_t weights, DType plain);

}  // namespace wideload::checkpoint

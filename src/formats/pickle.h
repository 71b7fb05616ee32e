// Pickled data, read by a restricted machine: numbers, texts, plain containers and PyTorch tensors.
// Nothing is imported and nothing is called: a pickle that names any function but those that
// rebuild a tensor or an ordered dictionary, or uses an opcode that is not on the list, is refused
// by that name. Pure; thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace wideload::formats {

// A tensor as torch.save describes it; the numbers lie in a file of the archive.
struct PickledTensor {
  std::string storage_type;  // "IntStorage"
  std::string storage_key;   // its data is the archive's member data/KEY
  int64_t storage_elements = 0;
  int64_t offset = 0;  // elements
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;  // elements
};

// A value of the pickle. Containers refer to values by their place in Pickle::values, as a pickle
// may use one value twice, or inside itself.
struct PickledValue {
  // A list or a tuple.
  struct List {
    std::vector<uint32_t> items;
    bool is_tuple = false;
  };
  // Pairs in the order they were set in.
  struct Dict {
    std::vector<std::pair<uint32_t, uint32_t>> items;  // key, value
  };
  struct Global {  // one of the allowed names
    std::string module;
    std::string name;
  };
  struct Storage {  // what a persistent id stands for
    std::string type;
    std::string key;
    int64_t elements = 0;
  };
  std::variant<std::monostate, bool, int64_t, double, std::string, List, Dict, Global, Storage,
               PickledTensor>
      value;
};

struct Pickle {
  std::vector<PickledValue> values;
  uint32_t root = 0;
};

// Errors, with `source` and the offset: kUnsupported for opcodes and names that are not allowed
// (the message names them); kCorrupt for bytes that are no pickle: truncated, wrong use of the
// stack.
Pickle ParsePickle(std::span<const std::byte> bytes, const std::string& source);

}  // namespace wideload::formats

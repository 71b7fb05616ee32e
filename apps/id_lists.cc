#include "id_lists.h"

#include "base/json.h"

namespace wideload::apps {

std::vector<std::vector<int32_t>> ReadIdLists(const std::string& path) {
  const Json json = ReadJsonFile(path, kMaxTableBytes);
  if (!json.is_array())
    Throw(ErrorKind::kCorrupt, "{}: is not a list; it must be a list of lists of token ids", path);
  std::vector<std::vector<int32_t>> lists;
  for (size_t i = 0; i < json.size(); ++i) {
    if (!json[i].is_array())
      Throw(ErrorKind::kCorrupt, "{}: element {} is not a list of token ids", path, i);
    std::vector<int32_t>& ids = lists.emplace_back();
    for (size_t j = 0; j < json[i].size(); ++j) {
      const Json& id = json[i][j];
      if (!id.is_number_unsigned() || id.get<uint64_t>() > 0x7fffffff)
        Throw(ErrorKind::kInvalid,
              "{}: list {}, position {} is {}; it must be a token id (0 to 2147483647)", path, i, j,
              DumpJson(id));
      ids.push_back(id.get<int32_t>());
    }
  }
  if (lists.empty())
    Throw(ErrorKind::kInvalid, "{}: is an empty list; at least one list of token ids is needed",
          path);
  return lists;
}

}  // namespace wideload::apps

// Where the pages of large memory lie: on which NUMA nodes, and in pages of which size. What the
// system does not grant is told, never an error: the memory works as it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace wideload {

enum class NumaPolicy {
  kOff,         // where the thread runs that touches a page first
  kInterleave,  // over all nodes in turn
  kBind,        // on the nodes of the cores that this process may use
};
// Errors: kInvalid with the allowed names off, interleave, bind.
NumaPolicy ParseNumaPolicy(std::string_view name);

// "0-2,5" as the kernel writes lists of nodes and cores: 0, 1, 2, 5. What is no such list is empty.
std::vector<int> ParseIdList(std::string_view text);
// The nodes that have memory, ascending; {0} where the system does not say.
std::vector<int> NumaNodes();

// While it lives, pages that this thread and threads which it starts take first come from the nodes
// of the policy. Ends on the thread that it began on.
class NumaScope {
 public:
  explicit NumaScope(NumaPolicy policy);
  // Of these nodes.
  NumaScope(NumaPolicy policy, std::span<const int> nodes);
  ~NumaScope();
  NumaScope(const NumaScope&) = delete;
  NumaScope& operator=(const NumaScope&) = delete;

  // Why nothing has changed and what to do about it; "" when it has or nothing was asked for.
  const std::string& note() const { return note_; }
  // Whether that is because the system did not let this process.
  bool is_denied() const { return is_denied_; }

 private:
  void Begin(NumaPolicy policy, std::span<const int> nodes);

  bool is_set_ = false;
  bool is_denied_ = false;
  int before_ = 0;                      // the thread's policy, and
  std::vector<uint64_t> nodes_before_;  // its nodes, one bit each
  std::string note_;
};

// How the kernel grants pages of 2 MiB, of shared memory or of other: always, madvise, advise,
// never,
// ...; "" where it has none.
std::string HugePageMode(bool is_shared);
// Asks that pages of this memory which are taken from now on be of 2 MiB, where the system grants
// them to those who ask; nothing is told and nothing changes where it does not, nor below 4 MiB.
void PreferHugePages(std::span<std::byte> memory);
// Asks for pages of 2 MiB for memory that is in use, at once where the system can. `is_shared`: a
// mapping of shared memory. Returns "" or why there will be none and what to do about it.
std::string UseHugePages(std::span<std::byte> memory, bool is_shared);

}  // namespace wideload

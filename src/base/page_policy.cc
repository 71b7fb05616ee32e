#include "base/page_policy.h"

#include <linux/mempolicy.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <fstream>

#include "base/error.h"

namespace wideload {
namespace {

constexpr int kMaxIds = 4096;  // of nodes and cores; what is above is no machine
constexpr const char* kNodeFolder = "/sys/devices/system/node";
constexpr int kCollapse = 25;  // MADV_COLLAPSE, since Linux 6.1
constexpr size_t kHugePage = size_t{2} << 20;

std::string FirstLine(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

// One bit per node.
using NodeMask = std::vector<uint64_t>;
constexpr size_t kWordBits = 64;
constexpr size_t kMaskBits = kMaxIds + 1;  // the kernel reads one less than it is told

NodeMask NoNodes() { return NodeMask(kMaxIds / kWordBits); }

bool IsAllowed(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof(set), &set) != 0 || core >= CPU_SETSIZE) return true;
  return CPU_ISSET(static_cast<size_t>(core), &set) != 0;
}

std::vector<int> NodesOfAllowedCores() {
  std::vector<int> nodes;
  for (const int node : NumaNodes()) {
    const std::vector<int> cores =
        ParseIdList(FirstLine(fmt::format("{}/node{}/cpulist", kNodeFolder, node)));
    if (std::ranges::any_of(cores, IsAllowed)) nodes.push_back(node);
  }
  return nodes;
}

// The pages that lie within.
std::span<std::byte> WholePages(std::span<std::byte> memory) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<uintptr_t>(memory.data());
  const uintptr_t begin = (first + page - 1) / page * page;
  const uintptr_t end = (first + memory.size()) / page * page;
  if (begin >= end) return {};
  return memory.subspan(begin - first, end - begin);
}

std::string HugePageSetting(bool is_shared) {
  return fmt::format("/sys/kernel/mm/transparent_hugepage/{}",
                     is_shared ? "shmem_enabled" : "enabled");
}

}  // namespace

// The choice in brackets: "always [madvise] never".
std::string HugePageMode(bool is_shared) {
  const std::string modes = FirstLine(HugePageSetting(is_shared));
  const size_t begin = modes.find('[');
  const size_t end = modes.find(']');
  if (begin == std::string::npos || end == std::string::npos) return "";
  return modes.substr(begin + 1, end - begin - 1);
}

NumaPolicy ParseNumaPolicy(std::string_view name) {
  if (name == "off") return NumaPolicy::kOff;
  if (name == "interleave") return NumaPolicy::kInterleave;
  if (name == "bind") return NumaPolicy::kBind;
  Throw(ErrorKind::kInvalid, "NUMA policy is \"{}\"; allowed: off, interleave, bind", name);
}

std::vector<int> ParseIdList(std::string_view text) {
  std::vector<int> ids;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at != end) {
    int first = 0;
    auto read = std::from_chars(at, end, first);
    int last = first;
    if (read.ec == std::errc() && read.ptr != end && *read.ptr == '-')
      read = std::from_chars(read.ptr + 1, end, last);
    if (read.ec != std::errc() || first < 0 || last < first || last >= kMaxIds) return {};
    for (int id = first; id <= last; ++id) ids.push_back(id);
    at = read.ptr;
    if (at == end) return ids;
    if (*at != ',' || at + 1 == end) return {};
    ++at;
  }
  return ids;
}

std::vector<int> NumaNodes() {
  std::vector<int> nodes = ParseIdList(FirstLine(fmt::format("{}/has_memory", kNodeFolder)));
  if (nodes.empty()) nodes = {0};
  return nodes;
}

NumaScope::NumaScope(NumaPolicy policy) {
  if (policy == NumaPolicy::kOff) return;
  const std::vector<int> all = NumaNodes();
  if (all.size() == 1) {
    note_ = "this machine has one NUMA node: nothing to choose";
    return;
  }
  const bool is_bound = policy == NumaPolicy::kBind;
  const std::vector<int> own = is_bound ? NodesOfAllowedCores() : all;
  if (is_bound && (own.empty() || own.size() == all.size())) {
    note_ = fmt::format(
        "this process may use the cores of all {} NUMA nodes; bind it to those of one (mpirun "
        "--map-by numa --bind-to numa, numactl --cpunodebind=N)",
        all.size());
    return;
  }
  Begin(policy, own);
}

NumaScope::NumaScope(NumaPolicy policy, std::span<const int> nodes) {
  if (policy != NumaPolicy::kOff) Begin(policy, nodes);
}

void NumaScope::Begin(NumaPolicy policy, std::span<const int> nodes) {
  const int mode = policy == NumaPolicy::kInterleave ? MPOL_INTERLEAVE : MPOL_BIND;
  NodeMask mask = NoNodes();
  for (const int node : nodes) {
    const auto bit = static_cast<size_t>(node);
    mask[bit / kWordBits] |= uint64_t{1} << bit % kWordBits;
  }
  nodes_before_ = NoNodes();
  is_set_ =
      ::syscall(SYS_get_mempolicy, &before_, nodes_before_.data(), kMaskBits, nullptr, 0) == 0 &&
      ::syscall(SYS_set_mempolicy, mode, mask.data(), kMaskBits) == 0;
  if (is_set_) return;
  const int error = errno;
  is_denied_ = true;
  note_ = fmt::format("the system does not let this process choose NUMA nodes ({}){}",
                      std::strerror(error),
                      error == EPERM ? "; a container needs --cap-add SYS_NICE for it" : "");
}

NumaScope::~NumaScope() {
  if (!is_set_) return;
  const bool has_nodes = before_ != MPOL_DEFAULT;
  ::syscall(SYS_set_mempolicy, before_, has_nodes ? nodes_before_.data() : nullptr,
            has_nodes ? kMaskBits : 0);
}

void PreferHugePages(std::span<std::byte> memory) {
  if (memory.size() < 2 * kHugePage) return;
  const std::span<std::byte> pages = WholePages(memory);
  ::madvise(pages.data(), pages.size(), MADV_HUGEPAGE);
}

std::string UseHugePages(std::span<std::byte> memory, bool is_shared) {
  const std::span<std::byte> pages = WholePages(memory);
  if (pages.empty()) return "";
  const bool is_taken = ::madvise(pages.data(), pages.size(), MADV_HUGEPAGE) == 0;
  if (is_taken && ::madvise(pages.data(), pages.size(), kCollapse) == 0) return "";
  const std::string mode = HugePageMode(is_shared);
  if (!is_taken || mode.empty()) return "the kernel has no transparent huge pages";
  if (mode != "never" && mode != "deny") return "";  // the kernel's thread makes them by and by
  return fmt::format("huge pages are off for {} memory; as root: echo {} > {}",
                     is_shared ? "shared" : "private", is_shared ? "advise" : "madvise",
                     HugePageSetting(is_shared));
}

}  // namespace wideload

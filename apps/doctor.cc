// `wideload doctor`: what this machine offers to a run, what a run wants, and what to do about it.
#include <ifaddrs.h>
#include <net/if.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "base/cpu_info.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/page_policy.h"
#include "base/shared_memory.h"
#include "comm/mpi/launch.h"
#include "comm/mpi/mpi_session.h"
#include "commands.h"
#include "compute/exec.h"
#include "device/gpu_host.h"

namespace wideload::apps {
namespace {

// note: a run works, and works better otherwise. problem: some runs do not work.
enum class Status { kOk, kNote, kProblem };

struct Check {
  std::string name;
  Status status = Status::kOk;
  std::string found;
  std::string wanted;
  std::string run = {};  // command or step; empty when nothing is to do
};

// Large enough for the segments of a few ranks of a large model; containers often have 64 MiB.
constexpr uint64_t kSharedMemoryWanted = uint64_t{1} << 30;
// Shards of a large checkpoint, and connections.
constexpr rlim_t kOpenFilesWanted = 4096;

std::string_view StatusName(Status status) {
  switch (status) {
    case Status::kOk:
      return "ok";
    case Status::kNote:
      return "note";
    case Status::kProblem:
      break;
  }
  return "problem";
}

std::string Variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string FirstLine(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

std::string Joined(const std::vector<std::string>& words, const std::string& when_none) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text.empty() ? when_none : text;
}

// The path of a program that a shell would start, or "".
std::string FindProgram(const std::string& name) {
  std::istringstream folders(Variable("PATH"));
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string path = fmt::format("{}/{}", folder, name);
    if (::access(path.c_str(), X_OK) == 0 && !IsDirectory(path)) return path;
  }
  return {};
}

Check InstructionSets() {
  const CpuInfo& cpu = ThisCpu();
  std::vector<std::string> sets;
  if (cpu.avx2) sets.emplace_back("AVX2");
  if (cpu.avx512) sets.emplace_back("AVX-512");
  if (cpu.avx512_bf16) sets.emplace_back("AVX-512-BF16");
  if (cpu.amx_bf16) sets.emplace_back("AMX-BF16");
  const compute::KernelSet automatic = compute::AutoKernelSet();
  const bool is_reference = automatic == compute::KernelSet::kReference;
  return {
      .name = "kernels",
      .status = is_reference ? Status::kProblem : Status::kOk,
      .found = fmt::format("{}: {}; --kernels auto is {}", cpu.brand,
                           Joined(sets, "no vector extension"), compute::KernelSetName(automatic)),
      .wanted = "at least AVX2, FMA and F16C; the same on all hosts of a run",
      .run = is_reference ? "use another machine; the reference kernels are for tests" : ""};
}

Check Cores(int num_ranks) {
  const int num_cores = NumAllowedCpus();
  const auto num_online = ::sysconf(_SC_NPROCESSORS_ONLN);
  const bool has_enough = num_cores >= num_ranks;
  return {.name = "cores",
          .status = has_enough ? Status::kOk : Status::kNote,
          .found = fmt::format("{} of {} for this process, {} rank{}", num_cores, num_online,
                               num_ranks, num_ranks == 1 ? "" : "s"),
          .wanted = "a core or more per rank; fewer work, the ranks take turns",
          .run = has_enough ? ""
                            : "use fewer ranks, or give the process more cores (taskset, cpusets, "
                              "mpirun --bind-to none)"};
}

Check HugePages() {
  const auto known = [](const std::string& mode) { return mode.empty() ? "unknown" : mode; };
  const std::string mode = known(HugePageMode(false));
  const std::string shared = known(HugePageMode(true));
  const bool is_on = mode == "always" || mode == "madvise";
  const bool is_on_shared = shared != "never" && shared != "deny" && shared != "unknown";
  std::string run;
  if (!is_on) run = "as root: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled";
  if (is_on && !is_on_shared)
    run =
        "for --weight-huge-pages of ranks that are processes, as root: echo advise > "
        "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
  return {.name = "huge pages",
          .status = is_on ? Status::kOk : Status::kNote,
          .found = fmt::format("{}; of shared memory {}", mode, shared),
          .wanted = "madvise or always",
          .run = run};
}

Check Numa() {
  const size_t num_nodes = NumaNodes().size();
  const bool has_several = num_nodes > 1;
  return {.name = "NUMA",
          .status = has_several ? Status::kNote : Status::kOk,
          .found = fmt::format("{} node{}", num_nodes, has_several ? "s" : ""),
          .wanted = "one node, or each rank bound to the cores and memory of one",
          .run = has_several ? "--weight-numa interleave; or mpirun --map-by numa --bind-to numa "
                               "with --weight-numa bind"
                             : ""};
}

// Shared memory that runs which were killed have left. With `clean` it goes; what a living run or
// another program uses never does.
Check Leftovers(bool clean) {
  const int num_removed = clean ? RemoveDeadSegments() : 0;
  std::vector<std::string> dead;
  int num_used = 0;
  for (const SegmentInfo& segment : ListSegments()) {
    if (segment.is_owner_alive) {
      ++num_used;
      continue;
    }
    dead.push_back(fmt::format("{} ({}, of process {})", segment.path,
                               FormatBytes(static_cast<uint64_t>(segment.num_bytes)),
                               segment.owner.pid));
  }
  return {.name = "leftovers",
          .status = dead.empty() ? Status::kOk : Status::kNote,
          .found = fmt::format("{}{}; {} segments of living runs",
                               clean ? fmt::format("{} removed; ", num_removed) : "",
                               Joined(dead, "none"), num_used),
          .wanted = "no segment whose run has ended",
          .run = dead.empty() ? ""
                 : clean      ? "end the processes that still use them, then run this again"
                              : "wideload doctor --clean"};
}

Check SharedMemorySpace() {
  const std::string folder = "/dev/shm";
  const std::string wanted =
      fmt::format("{} free or more for ranks that are processes", FormatBytes(kSharedMemoryWanted));
  struct statvfs space {};
  if (::statvfs(folder.c_str(), &space) != 0)
    return {.name = "shared memory",
            .status = Status::kProblem,
            .found = folder + " is missing",
            .wanted = wanted,
            .run = "as root: mkdir -p /dev/shm && mount -t tmpfs tmpfs /dev/shm"};
  const uint64_t free_bytes = uint64_t{space.f_bavail} * space.f_frsize;
  const bool has_enough = free_bytes >= kSharedMemoryWanted;
  return {.name = "shared memory",
          .status = has_enough ? Status::kOk : Status::kProblem,
          .found = fmt::format("{}: {} free of {}", folder, FormatBytes(free_bytes),
                               FormatBytes(uint64_t{space.f_blocks} * space.f_frsize)),
          .wanted = wanted,
          .run = has_enough ? ""
                            : "as root: mount -o remount,size=SIZE /dev/shm; for a container: "
                              "--shm-size=SIZE"};
}

std::string LimitText(rlim_t limit, bool is_bytes) {
  if (limit == RLIM_INFINITY) return "unlimited";
  return is_bytes ? FormatBytes(limit) : fmt::format("{}", limit);
}

Check OpenFiles() {
  struct rlimit limit {};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const bool has_enough = limit.rlim_cur >= kOpenFilesWanted;
  return {.name = "open files",
          .status = has_enough ? Status::kOk : Status::kNote,
          .found = fmt::format("{}, at most {}", LimitText(limit.rlim_cur, false),
                               LimitText(limit.rlim_max, false)),
          .wanted = fmt::format("{}", kOpenFilesWanted),
          .run = has_enough ? "" : fmt::format("ulimit -n {}", kOpenFilesWanted)};
}

Check LockedMemory() {
  struct rlimit limit {};
  ::getrlimit(RLIMIT_MEMLOCK, &limit);
  const bool is_unlimited = limit.rlim_cur == RLIM_INFINITY;
  return {.name = "locked memory",
          .status = is_unlimited ? Status::kOk : Status::kNote,
          .found = LimitText(limit.rlim_cur, true),
          .wanted = "unlimited where MPI uses RDMA; any elsewhere",
          .run = is_unlimited ? "" : "ulimit -l unlimited, if the network does RDMA"};
}

Check Mpi() {
  const std::string version = comm::MpiVersion();
  const std::string launcher = FindProgram("mpirun");
  const bool is_whole = !version.empty() && !launcher.empty();
  return {.name = "MPI",
          .status = is_whole ? Status::kOk : Status::kNote,
          .found = fmt::format("{}, {}", version.empty() ? "not in this build" : version,
                               launcher.empty() ? "no mpirun" : launcher),
          .wanted = "Open MPI and its mpirun, for ranks that are processes",
          .run = is_whole ? "" : "apt-get install openmpi-bin libopenmpi-dev, then build again"};
}

Check Network() {
  std::set<std::string> names;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) == 0) {
    for (const ifaddrs* i = list; i != nullptr; i = i->ifa_next)
      if (i->ifa_addr != nullptr &&
          (i->ifa_addr->sa_family == AF_INET || i->ifa_addr->sa_family == AF_INET6) &&
          (i->ifa_flags & IFF_UP) != 0 && (i->ifa_flags & IFF_LOOPBACK) == 0)
        names.insert(i->ifa_name);
    ::freeifaddrs(list);
  }
  std::vector<std::string> found;
  for (const std::string& name : names) {
    const int speed = std::atoi(FirstLine("/sys/class/net/" + name + "/speed").c_str());
    found.push_back(speed > 0 ? fmt::format("{} ({} Mbit/s)", name, speed) : name);
  }
  return {.name = "network",
          .status = names.empty() ? Status::kNote : Status::kOk,
          .found = Joined(found, "no interface but loopback"),
          .wanted = "one that reaches the other hosts, for a run on several",
          .run = names.size() > 1 ? "choose with OMPI_MCA_btl_tcp_if_include=NAME" : ""};
}

Check Slurm() {
  const std::string srun = FindProgram("srun");
  const std::string job = Variable("SLURM_JOB_ID");
  std::string found = srun.empty() ? "no srun" : srun;
  found += job.empty() ? ", not in a job"
                       : fmt::format(", job {} on {} ({} tasks)", job,
                                     Variable("SLURM_JOB_NODELIST"), Variable("SLURM_NTASKS"));
  const bool cannot_meet = comm::DetectLaunch(std::getenv) == comm::Launch::kSlurmWithoutPmi;
  if (cannot_meet) found += ", tasks that cannot meet";
  const bool is_odd = cannot_meet || (!job.empty() && srun.empty());
  return {
      .name = "SLURM",
      .status = is_odd ? Status::kProblem : Status::kOk,
      .found = found,
      .wanted = "nothing, or srun with PMIx",
      .run = is_odd ? "srun --mpi=pmix wideload ... (srun --mpi=list shows what there is)" : ""};
}

std::vector<Check> Gpus() {
  std::vector<Check> checks;
  for (device::GpuFinding& finding : device::LookForGpus(device::ThisGpuHost())) {
    using Level = device::GpuFinding::Level;
    const Status status = finding.level == Level::kOk     ? Status::kOk
                          : finding.level == Level::kNote ? Status::kNote
                                                          : Status::kProblem;
    checks.push_back({.name = std::move(finding.name),
                      .status = status,
                      .found = std::move(finding.found),
                      .wanted = std::move(finding.wanted),
                      .run = std::move(finding.run)});
  }
  return checks;
}

struct DoctorCommand {
  int num_ranks = 1;
  bool json = false;
  bool clean = false;

  void Run() const {
    std::vector<Check> checks = {InstructionSets(),
                                 Cores(num_ranks),
                                 HugePages(),
                                 Numa(),
                                 SharedMemorySpace(),
                                 Leftovers(clean),
                                 OpenFiles(),
                                 LockedMemory(),
                                 Mpi(),
                                 Network(),
                                 Slurm()};
    for (Check& gpu : Gpus()) checks.push_back(std::move(gpu));
    WriteFileWhole("-", json ? DumpJson(ToJson(checks), 2) + "\n" : ToText(checks));
  }

  static Json ToJson(const std::vector<Check>& checks) {
    Json list = Json::array();
    for (const Check& check : checks)
      list.push_back({{"name", check.name},
                      {"status", StatusName(check.status)},
                      {"found", check.found},
                      {"wanted", check.wanted},
                      {"run", check.run}});
    return {{"checks", list}};
  }

  static std::string ToText(const std::vector<Check>& checks) {
    std::string text;
    for (const Check& check : checks) {
      text += fmt::format("{:<8} {:<14} {}\n", StatusName(check.status), check.name, check.found);
      if (check.status != Status::kOk)
        text += fmt::format("{:<8} {:<14} wanted: {}\n", "", "", check.wanted);
      if (!check.run.empty()) text += fmt::format("{:<8} {:<14} run: {}\n", "", "", check.run);
    }
    return text;
  }
};

}  // namespace

void AddDoctor(Command program) {
  const Command command =
      program.Subcommand("doctor", "what this machine offers to a run, and what to change");
  DoctorCommand& doctor = command.Runs<DoctorCommand>(&DoctorCommand::Run);
  command.Add("--ep", doctor.num_ranks, "ranks of the run to look at the machine for")
      .Positive()
      .ShowDefault();
  command.Add("--json", doctor.json, "one JSON document on stdout");
  command.Add("--clean", doctor.clean,
              "first remove the shared memory of runs that were killed; that of living ones stays");
}

}  // namespace wideload::apps

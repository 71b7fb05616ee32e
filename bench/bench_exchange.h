// What bench_exchange asks of either side of its comparison, and its MPI side.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace wideload {

// One batch: `iterations` exchanges of `rows_per_peer` rows of kBenchRowBytes between all pairs of
// ranks, themselves included; with `with_return`, there and back. With `reads_rows`, every rank
// reads what it received.
struct BenchBatch {
  int64_t rows_per_peer = 1;
  int64_t iterations = 1;
  bool with_return = false;
  bool reads_rows = false;
};
inline constexpr int64_t kBenchRowBytes = 14'336;  // hidden 7168 in bf16

// P MPI processes that do batches on demand and sleep in between.
class MpiPeer {
 public:
  // Errors: kNotFound when the program was not built (no MPI) or mpirun is missing.
  explicit MpiPeer(int num_ranks);
  ~MpiPeer();
  MpiPeer(const MpiPeer&) = delete;
  MpiPeer& operator=(const MpiPeer&) = delete;

  // Returns microseconds per iteration. Errors: kRunFailed when mpirun ended.
  double Run(const BenchBatch& batch);
  // What MPI says it is.
  const std::string& version() const { return version_; }

 private:
  void MakeFifos(int num_ranks);
  void Start(int num_ranks);
  std::string ReadLine();

  std::string folder_;
  std::vector<int> fifos_;  // commands to each rank
  pid_t pid_ = -1;
  int output_ = -1;  // rank 0's answers
  std::string version_;
};

}  // namespace wideload

// What bounds a kernel on this machine, measured in the same run as the kernel.
#pragma once

#include <cstddef>
#include <span>

#include "base/thread_pool.h"
#include "bench_timing.h"
#include "compute/exec.h"

namespace wideload::bench {

// One core's multiply-adds in registers alone, GFLOP/s of thread CPU time; takes about 10 ms.
double PeakGflops(compute::KernelSet kernels);

// GB/s of plain reading `arena` on all threads of the pool, each with eight streams and prefetches
// as products have them: one stream alone reads about half as fast. arena: whole MiB.
double ReadGbytes(std::span<const std::byte> arena, ThreadPool& pool, const Clock& clock);

// A line that states the machine, how many threads are used, and its load average.
void PrintMachine(int threads);

}  // namespace wideload::bench

// Devices, streams and events of the CUDA runtime. Its calls act on the device that the calling
// thread has chosen, so each of ours chooses first; nothing uses the default stream, which waits
// for the others.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <mutex>

#include "base/error.h"
#include "base/log.h"
#include "device/cuda_check.h"
#include "device/device.h"

namespace wideload::device {

void CheckCuda(int result, const char* call) {
  if (result == cudaSuccess) return;
  cudaGetLastError();  // or the next call that asks for the last error finds this one
  int index = -1;
  cudaGetDevice(&index);
  const auto error = static_cast<cudaError_t>(result);
  Throw(ErrorKind::kRunFailed, "GPU {}: {}: {} ({})", index, call, cudaGetErrorString(error),
        cudaGetErrorName(error));
}

namespace {

class CudaEvent final : public Event {
 public:
  explicit CudaEvent(int index) : index_(index) {
    CheckCuda(cudaSetDevice(index_), "cudaSetDevice");
    CheckCuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate");
  }
  ~CudaEvent() override { cudaEventDestroy(event_); }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  bool IsReached() override {
    CheckCuda(cudaSetDevice(index_), "cudaSetDevice");
    const cudaError_t result = cudaEventQuery(event_);
    if (result == cudaErrorNotReady) {
      cudaGetLastError();  // it counts as an error there
      return false;
    }
    CheckCuda(result, "cudaEventQuery");
    return true;
  }
  cudaEvent_t native() const { return event_; }

 private:
  int index_;
  cudaEvent_t event_ = nullptr;
};

class CudaStream final : public Stream {
 public:
  CudaStream(Device& device, int index, bool is_urgent) : Stream(device), index_(index) {
    Choose();
    int least = 0;
    int greatest = 0;
    CheckCuda(cudaDeviceGetStreamPriorityRange(&least, &greatest),
              "cudaDeviceGetStreamPriorityRange");
    CheckCuda(
        cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, is_urgent ? greatest : least),
        "cudaStreamCreateWithPriority");
  }
  // An error of what is still under way has been or will be seen by another call.
  ~CudaStream() override {
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;

  void Copy(void* to, const void* from, int64_t num_bytes) override {
    if (num_bytes == 0) return;
    Choose();
    CheckCuda(cudaMemcpyAsync(to, from, static_cast<size_t>(num_bytes), cudaMemcpyDefault, stream_),
              "cudaMemcpyAsync");
  }
  void Fill(void* to, uint8_t value, int64_t num_bytes) override {
    if (num_bytes == 0) return;
    Choose();
    CheckCuda(cudaMemsetAsync(to, value, static_cast<size_t>(num_bytes), stream_),
              "cudaMemsetAsync");
  }
  void Record(Event& event) override {
    Choose();
    CheckCuda(cudaEventRecord(static_cast<CudaEvent&>(event).native(), stream_), "cudaEventRecord");
  }
  void WaitFor(const Event& event) override {
    Choose();
    CheckCuda(cudaStreamWaitEvent(stream_, static_cast<const CudaEvent&>(event).native(), 0),
              "cudaStreamWaitEvent");
  }
  // Kernels are put on it next.
  void* native() const override {
    Choose();
    return stream_;
  }

 private:
  void Choose() const { CheckCuda(cudaSetDevice(index_), "cudaSetDevice"); }
  void Wait() override {
    Choose();
    CheckCuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }

  int index_;
  cudaStream_t stream_ = nullptr;
};

Properties ReadProperties(int index) {
  cudaDeviceProp read;
  CheckCuda(cudaGetDeviceProperties(&read, index), "cudaGetDeviceProperties");
  return {.name = read.name,
          .major = read.major,
          .minor = read.minor,
          .num_multiprocessors = read.multiProcessorCount,
          .memory_bytes = static_cast<int64_t>(read.totalGlobalMem),
          .shared_bytes_per_block = static_cast<int64_t>(read.sharedMemPerBlockOptin)};
}

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int index) : index_(index), properties_(ReadProperties(index)) {
    if (properties_.major < 8)
      Throw(ErrorKind::kUnsupported,
            "GPU {} ({}) has compute capability {}.{}; 8.0 and higher are supported", index,
            properties_.name, properties_.major, properties_.minor);
    fill_stream_ = MakeStream(false);
  }
  const Properties& properties() const override { return properties_; }

  int64_t FreeBytes() override {
    CheckCuda(cudaSetDevice(index_), "cudaSetDevice");
    size_t free_bytes = 0;
    size_t all_bytes = 0;
    CheckCuda(cudaMemGetInfo(&free_bytes, &all_bytes), "cudaMemGetInfo");
    return static_cast<int64_t>(free_bytes);
  }
  Memory Allocate(int64_t num_bytes) override {
    CheckCuda(cudaSetDevice(index_), "cudaSetDevice");
    const size_t size = SizeOf(num_bytes);
    void* data = nullptr;
    CheckMemory(cudaMalloc(&data, size), num_bytes, "cudaMalloc");
    Memory memory(*this, static_cast<std::byte*>(data), num_bytes, /*is_host=*/false);
    const std::lock_guard lock(mutex_);
    fill_stream_->Fill(data, 0, static_cast<int64_t>(size));
    fill_stream_->Synchronize();
    return memory;
  }

  Memory AllocateHost(int64_t num_bytes) override {
    CheckCuda(cudaSetDevice(index_), "cudaSetDevice");
    const size_t size = SizeOf(num_bytes);
    void* data = nullptr;
    CheckMemory(cudaHostAlloc(&data, size, cudaHostAllocMapped | cudaHostAllocPortable), num_bytes,
                "cudaHostAlloc");
    Memory memory(*this, static_cast<std::byte*>(data), num_bytes, /*is_host=*/true);
    std::memset(data, 0, size);
    return memory;
  }

  std::unique_ptr<Stream> MakeStream(bool is_urgent) override {
    return std::make_unique<CudaStream>(*this, index_, is_urgent);
  }
  std::unique_ptr<Event> MakeEvent() override { return std::make_unique<CudaEvent>(index_); }

 private:
  // The runtime gives no address for nothing.
  static size_t SizeOf(int64_t num_bytes) {
    return static_cast<size_t>(std::max<int64_t>(num_bytes, 1));
  }

  void CheckMemory(cudaError_t result, int64_t num_bytes, const char* call) const {
    if (result != cudaErrorMemoryAllocation) return CheckCuda(result, call);
    cudaGetLastError();
    size_t free_bytes = 0;
    size_t all_bytes = 0;
    CheckCuda(cudaMemGetInfo(&free_bytes, &all_bytes), "cudaMemGetInfo");
    Throw(ErrorKind::kResource,
          "GPU {} ({}) has {} bytes, {} of them free: {} of {} bytes was refused", index_,
          properties_.name, all_bytes, free_bytes, call, num_bytes);
  }

  // What fails here has failed before, in a call that could say so; at the end of the process the
  // runtime may be gone.
  void Free(std::byte* data, bool is_host) noexcept override {
    cudaSetDevice(index_);
    cudaDeviceSynchronize();
    const cudaError_t result = is_host ? cudaFreeHost(data) : cudaFree(data);
    if (result != cudaSuccess && result != cudaErrorCudartUnloading)
      LogWarn("GPU {}: memory could not be freed: {}", index_, cudaGetErrorString(result));
  }

  int index_;
  Properties properties_;
  std::mutex mutex_;  // of the stream
  std::unique_ptr<Stream> fill_stream_;
};

// Lets kernels and copies of GPU `index` reach the memory of another one.
void ReachMemoryOf(int other, int index) {
  int can_reach = 0;
  CheckCuda(cudaDeviceCanAccessPeer(&can_reach, index, other), "cudaDeviceCanAccessPeer");
  if (can_reach == 0)
    Throw(
        ErrorKind::kUnsupported,
        "GPU {} cannot reach the memory of GPU {} (nvidia-smi topo -p2p r shows which can); ranks "
        "of one process need GPUs that can",
        index, other);
  CheckCuda(cudaSetDevice(index), "cudaSetDevice");
  const cudaError_t result = cudaDeviceEnablePeerAccess(other, 0);
  if (result == cudaErrorPeerAccessAlreadyEnabled) {
    cudaGetLastError();
    return;
  }
  CheckCuda(result, "cudaDeviceEnablePeerAccess");
}

}  // namespace

int NumDevices(std::string& why_none) {
  int count = 0;
  const cudaError_t result = cudaGetDeviceCount(&count);
  if (result == cudaSuccess && count > 0) return count;
  cudaGetLastError();
  why_none = fmt::format("no CUDA device: {}",
                         cudaGetErrorString(result == cudaSuccess ? cudaErrorNoDevice : result));
  return 0;
}

std::vector<std::unique_ptr<Device>> OpenDevices(std::span<const int> indices) {
  std::string why_none;
  const int count = NumDevices(why_none);
  if (count == 0) Throw(ErrorKind::kUnsupported, "{}", why_none);
  std::vector<std::unique_ptr<Device>> devices;
  for (const int index : indices) {
    if (index < 0 || index >= count)
      Throw(ErrorKind::kUnsupported, "there is no GPU {}: this machine has {}, numbered from 0",
            index, count);
    devices.push_back(std::make_unique<CudaDevice>(index));
  }
  for (const int index : indices)
    for (const int other : indices)
      if (index != other) ReachMemoryOf(other, index);
  return devices;
}

}  // namespace wideload::device

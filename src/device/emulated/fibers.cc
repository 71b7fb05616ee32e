#include "device/emulated/fibers.h"

#include <algorithm>
#include <array>
#include <memory>
#include <random>
#include <vector>

#include "base/error.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#elif defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
// A function that a fiber enters and never leaves: the sanitizer would keep its frame.
#define WIDELOAD_NEVER_LEFT __attribute__((no_sanitize("thread")))
#endif
#ifndef WIDELOAD_NEVER_LEFT
#define WIDELOAD_NEVER_LEFT
#endif

// Leaves the registers that a function keeps for its caller on the stack, and that stack's end at
// *from; goes on with what was left on the stack that ends at `to`. swapcontext does the same with
// two system calls, which is most of the time that a test of kernels takes.
extern "C" void WideloadSwitchStack(void** from, void* to);
asm(R"(
.text
.type WideloadSwitchStack, @function
WideloadSwitchStack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size WideloadSwitchStack, .-WideloadSwitchStack
)");

namespace wideload::device::emulated {
namespace {

constexpr size_t kStackBytes = 64 << 10;
constexpr size_t kLaneBytes = 64;
constexpr std::byte kPoison{0xff};  // NaN as bf16 and as fp32
constexpr std::byte kCanary{0xa5};
constexpr int64_t kCanaryBytes = 1024;

struct LateCopy {
  void* to;
  const void* from;
  int num_bytes;
};

enum class State { kReady, kAtWarp, kAtBlock, kDone };

// What a fiber runs on.
struct Stack {
  std::unique_ptr<std::byte[]> bytes{new std::byte[kStackBytes]};
#if defined(__SANITIZE_THREAD__)
  // What the sanitizer knows of who runs here.
  std::unique_ptr<void, void (*)(void*)> fiber{__tsan_create_fiber(0), &__tsan_destroy_fiber};
#endif
};

struct Fiber {
  void* stack_end = nullptr;  // while it does not run
  const Stack* stack = nullptr;
  void* fake_stack = nullptr;  // of the address sanitizer
  State state = State::kReady;
  Place place;
  int64_t num_meetings = 0;  // of its warp
  std::vector<LateCopy> copies;
  std::vector<size_t> groups;  // how many copies the first groups have
};

// Where the lanes of a warp leave what they exchange: by turns in one of two, since nobody comes to
// the next meeting but one before all have read this one.
struct WarpMeeting {
  std::array<std::array<std::byte, kWarp * kLaneBytes>, 2> lanes = {};
  int num_arrived = 0;
  size_t num_bytes = 0;
};

class BlockRun {
 public:
  BlockRun(const Grid& grid, const std::function<void()>& body, std::mt19937& random);
  void Run(int64_t block, int64_t block_y);
  void MeetBlock();
  const std::byte* MeetWarp(const void* mine, size_t num_bytes);
  Fiber& current() { return *current_; }
  void Body();

 private:
  void Prepare(int64_t block, int64_t block_y);
  void Resume(Fiber& fiber);
  void Yield();
  void Finish();
  void ReleaseBlock();

  Grid grid_;
  const std::function<void()>& body_;
  std::mt19937& random_;
  std::vector<Fiber> fibers_;
  std::vector<WarpMeeting> warps_;
  std::vector<Fiber*> ready_;
  std::vector<std::byte> shared_;
  std::byte* shared_begin_ = nullptr;
  int num_at_block_ = 0;
  int num_done_ = 0;
  Fiber* current_ = nullptr;
  void* scheduler_stack_end_ = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  void* scheduler_fake_stack_ = nullptr;
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_stack_bytes_ = 0;
#elif defined(__SANITIZE_THREAD__)
  void* scheduler_fiber_ = __tsan_get_current_fiber();
#endif
};

thread_local BlockRun* running = nullptr;
// Kept for the launches to come.
thread_local std::vector<Stack> stacks;

WIDELOAD_NEVER_LEFT void StartFiber() { running->Body(); }

// A stack from which WideloadSwitchStack returns into StartFiber, which is never returned from.
void* NewStack(std::byte* memory) {
  constexpr size_t kNumKept = 6;  // registers, of any content
  auto* end = reinterpret_cast<void**>(memory + kStackBytes);
  *--end = nullptr;  // the return address of StartFiber; calls leave the stack 16-byte aligned
  *--end = reinterpret_cast<void*>(&StartFiber);
  return static_cast<void*>(end - kNumKept);
}

BlockRun::BlockRun(const Grid& grid, const std::function<void()>& body, std::mt19937& random)
    : grid_(grid),
      body_(body),
      random_(random),
      fibers_(static_cast<size_t>(grid.threads)),
      warps_(static_cast<size_t>(grid.threads / kWarp)),
      shared_(static_cast<size_t>(grid.shared_bytes + 2 * kCanaryBytes)) {
  const auto address = reinterpret_cast<uintptr_t>(shared_.data());
  shared_begin_ = shared_.data() + (kCanaryBytes - address % kCanaryBytes) % kCanaryBytes;
  while (stacks.size() < fibers_.size()) stacks.emplace_back();
  for (size_t i = 0; i < fibers_.size(); ++i) fibers_[i].stack = &stacks[i];
}

void BlockRun::Prepare(int64_t block, int64_t block_y) {
  std::ranges::fill(shared_, kPoison);
  std::fill_n(shared_begin_ + grid_.shared_bytes, kCanaryBytes / 2, kCanary);
  num_at_block_ = 0;
  num_done_ = 0;
  for (WarpMeeting& warp : warps_) warp.num_arrived = 0;
  ready_.clear();
  for (int t = 0; t < grid_.threads; ++t) {
    Fiber& fiber = fibers_[static_cast<size_t>(t)];
    fiber.state = State::kReady;
    fiber.num_meetings = 0;
    fiber.copies.clear();
    fiber.groups.clear();
    fiber.place = {.thread = t,
                   .num_threads = grid_.threads,
                   .block = block,
                   .num_blocks = grid_.blocks,
                   .block_y = block_y,
                   .shared = shared_begin_};
    fiber.stack_end = NewStack(fiber.stack->bytes.get());
    ready_.push_back(&fiber);
  }
}

void BlockRun::Run(int64_t block, int64_t block_y) {
  Prepare(block, block_y);
  running = this;
  while (!ready_.empty()) {
    const size_t chosen = random_() % ready_.size();
    std::swap(ready_[chosen], ready_.back());
    Fiber* const fiber = ready_.back();
    ready_.pop_back();
    Resume(*fiber);
  }
  running = nullptr;
  const auto at_warp = std::ranges::count(fibers_, State::kAtWarp, &Fiber::state);
  WIDELOAD_CHECK(num_done_ == grid_.threads,
                 "block {}: {} threads have ended, {} wait for their warp, {} for their block",
                 block, num_done_, at_warp, num_at_block_);
  for (int64_t i = 0; i < kCanaryBytes / 2; ++i)
    WIDELOAD_CHECK(shared_begin_[grid_.shared_bytes + i] == kCanary,
                   "block {}: byte {} behind {} of shared memory was written", block, i,
                   grid_.shared_bytes);
}

void BlockRun::Resume(Fiber& fiber) {
  current_ = &fiber;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&scheduler_fake_stack_, fiber.stack->bytes.get(), kStackBytes);
#elif defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(fiber.stack->fiber.get(), 0);
#endif
  WideloadSwitchStack(&scheduler_stack_end_, fiber.stack_end);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(scheduler_fake_stack_, nullptr, nullptr);
#endif
}

// Back to the scheduler, until another one has made this fiber ready.
void BlockRun::Yield() {
  Fiber& fiber = *current_;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&fiber.fake_stack, scheduler_stack_, scheduler_stack_bytes_);
#elif defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(scheduler_fiber_, 0);
#endif
  WideloadSwitchStack(&fiber.stack_end, scheduler_stack_end_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &scheduler_stack_, &scheduler_stack_bytes_);
#endif
}

WIDELOAD_NEVER_LEFT void BlockRun::Body() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack_, &scheduler_stack_bytes_);
#endif
  body_();
  Finish();
}

WIDELOAD_NEVER_LEFT void BlockRun::Finish() {
  current_->state = State::kDone;
  ++num_done_;
  ReleaseBlock();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(nullptr, scheduler_stack_, scheduler_stack_bytes_);
#elif defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(scheduler_fiber_, 0);
#endif
  WideloadSwitchStack(&current_->stack_end, scheduler_stack_end_);
}

void BlockRun::ReleaseBlock() {
  if (num_at_block_ == 0 || num_at_block_ + num_done_ < grid_.threads) return;
  num_at_block_ = 0;
  for (Fiber& fiber : fibers_) {
    if (fiber.state != State::kAtBlock) continue;
    fiber.state = State::kReady;
    ready_.push_back(&fiber);
  }
}

void BlockRun::MeetBlock() {
  current_->state = State::kAtBlock;
  ++num_at_block_;
  ReleaseBlock();
  Yield();
}

const std::byte* BlockRun::MeetWarp(const void* mine, size_t num_bytes) {
  Fiber& fiber = *current_;
  const auto warp_index = static_cast<size_t>(fiber.place.thread / kWarp);
  const auto lane = static_cast<size_t>(fiber.place.thread % kWarp);
  WarpMeeting& warp = warps_[warp_index];
  std::byte* const lanes = warp.lanes[static_cast<size_t>(fiber.num_meetings++ % 2)].data();
  WIDELOAD_CHECK(num_bytes <= kLaneBytes && (warp.num_arrived == 0 || warp.num_bytes == num_bytes),
                 "thread {}: exchanges {} bytes, others of its warp {}", fiber.place.thread,
                 num_bytes, warp.num_bytes);
  warp.num_bytes = num_bytes;
  if (num_bytes > 0) std::memcpy(lanes + lane * kLaneBytes, mine, num_bytes);
  fiber.state = State::kAtWarp;
  if (++warp.num_arrived == kWarp) {
    warp.num_arrived = 0;
    for (size_t i = 0; i < kWarp; ++i) {
      Fiber& other = fibers_[warp_index * kWarp + i];
      other.state = State::kReady;
      ready_.push_back(&other);
    }
  }
  Yield();
  return lanes;
}

}  // namespace

const Place& Here() { return running->current().place; }
void MeetBlock() { running->MeetBlock(); }
const std::byte* MeetWarp(const void* mine, size_t num_bytes) {
  return running->MeetWarp(mine, num_bytes);
}

void CheckAlignment(const void* address, size_t alignment) {
  WIDELOAD_CHECK(reinterpret_cast<uintptr_t>(address) % alignment == 0,
                 "thread {}: an access of alignment {} at {}", Here().thread, alignment, address);
}

void CopyLater(void* shared, const void* global, int num_bytes) {
  running->current().copies.push_back({shared, global, num_bytes});
}

void CommitLater() {
  Fiber& fiber = running->current();
  fiber.groups.push_back(fiber.copies.size());
}

void MakeCopies(int pending) {
  constexpr size_t kCopyBytes = 16;
  Fiber& fiber = running->current();
  if (fiber.groups.size() <= static_cast<size_t>(pending)) return;
  const size_t done = fiber.groups.size() - static_cast<size_t>(pending);
  const size_t num_copies = fiber.groups[done - 1];
  for (size_t i = 0; i < num_copies; ++i) {
    const LateCopy& copy = fiber.copies[i];
    const auto bytes = static_cast<size_t>(copy.num_bytes);
    WIDELOAD_CHECK(reinterpret_cast<uintptr_t>(copy.to) % kCopyBytes == 0 &&
                       (bytes == 0 || reinterpret_cast<uintptr_t>(copy.from) % kCopyBytes == 0),
                   "a copy of 16 bytes to {} from {}", copy.to, copy.from);
    if (bytes > 0) std::memcpy(copy.to, copy.from, bytes);
    std::memset(static_cast<std::byte*>(copy.to) + bytes, 0, kCopyBytes - bytes);
  }
  fiber.copies.erase(fiber.copies.begin(),
                     fiber.copies.begin() + static_cast<std::ptrdiff_t>(num_copies));
  fiber.groups.erase(fiber.groups.begin(),
                     fiber.groups.begin() + static_cast<std::ptrdiff_t>(done));
  for (size_t& end : fiber.groups) end -= num_copies;
}

void RunGrid(const Grid& grid, uint32_t seed, const std::function<void()>& body) {
  std::mt19937 random(seed);
  BlockRun run(grid, body, random);
  std::vector<int64_t> blocks(static_cast<size_t>(grid.blocks * grid.blocks_y));
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int64_t>(i);
  std::ranges::shuffle(blocks, random);
  for (const int64_t block : blocks) run.Run(block % grid.blocks, block / grid.blocks);
}

}  // namespace wideload::device::emulated

#include <algorithm>

#include "compute/dispatch.h"
#include "compute/ops.h"

namespace wideload::compute {
namespace {

// How one product [rows, k] x [k, groups of columns] is cut into tasks. Depends on the shape alone;
// no cut changes a bit, since every dot product stays whole.
struct GemmCut {
  int64_t rows_per_task = 0;
  int64_t groups_per_task = 0;
  int64_t row_tasks = 0;
  int64_t group_tasks = 0;
  int64_t num_tasks() const { return row_tasks * group_tasks; }
};

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Tasks are small enough that even one row's product feeds several threads, and whole steps of the
// widest micro-kernel.
GemmCut CutGemm(int64_t rows, int64_t groups, int64_t group_bytes) {
  constexpr int64_t kTaskWeightBytes = 64 * 1024;
  constexpr int64_t kTaskRows = 96;
  constexpr int64_t kGroupStep = 8;
  const auto round_up = [](int64_t n) { return CeilDiv(n, kGroupStep) * kGroupStep; };
  const int64_t most_groups = std::max(kGroupStep, kTaskWeightBytes / group_bytes);
  GemmCut cut;
  cut.groups_per_task = round_up(CeilDiv(groups, CeilDiv(groups, most_groups)));
  cut.rows_per_task = kTaskRows;
  cut.row_tasks = CeilDiv(rows, cut.rows_per_task);
  cut.group_tasks = CeilDiv(groups, cut.groups_per_task);
  return cut;
}

// Row blocks of the same columns follow each other, so that weights are read from memory once.
GemmTile TileOf(const GemmCut& cut, int64_t task, int64_t rows, int64_t groups) {
  const int64_t row_task = task % cut.row_tasks;
  const int64_t group_task = task / cut.row_tasks;
  return {.row_begin = row_task * cut.rows_per_task,
          .row_end = std::min(rows, (row_task + 1) * cut.rows_per_task),
          .group_begin = group_task * cut.groups_per_task,
          .group_end = std::min(groups, (group_task + 1) * cut.groups_per_task)};
}

// Bytes of the weights behind one group of y's columns, roughly.
int64_t GroupBytes(const PackedMatrix& w) {
  return std::max<int64_t>(1, w.num_bytes() / CeilDiv(w.n(), kGroupColumns)) *
         (w.gate_up() ? 2 : 1);
}

void RunGemm(const Exec& exec, const PackedMatrix& w, int64_t rows, const GemmArgs& args) {
  if (rows == 0) return;
  const Kernels& kernels = KernelsOf(exec.kernels);
  const auto gemm = w.precision() == MatrixPrecision::kF32 ? kernels.gemm_f32 : kernels.gemm;
  const int64_t groups = CeilDiv(args.n, kGroupColumns);
  const GemmCut cut = CutGemm(rows, groups, GroupBytes(w));
  RunTasks(exec, cut.num_tasks(), rows * w.n() * w.k(),
           [&](int64_t task, int) { gemm(args, TileOf(cut, task, rows, groups)); });
}

void CheckInput(const char* op, const Exec& exec, const TensorView& x, const PackedMatrix& w) {
  WIDELOAD_CHECK(w.kernels() == exec.kernels, "{}: weights are packed for {}, kernels are {}", op,
                 KernelSetName(w.kernels()), KernelSetName(exec.kernels));
  const DType dtype =
      w.precision() == MatrixPrecision::kF32 ? DType::kF32 : ComputeDType(exec.kernels);
  CheckMatrix(op, "x", x, dtype, {x.dim(0), w.k()});
}

// One expert's rows and where its tasks begin in each of the two products.
struct BusyGroup {
  const ExpertGroup* group = nullptr;
  int64_t first_row = 0;  // in the scratch of activations
  int64_t rows = 0;
  GemmCut cut;
  int64_t first_task = 0;
};

const BusyGroup& GroupOfTask(std::span<const BusyGroup> busy, int64_t task) {
  const auto after =
      std::upper_bound(busy.begin(), busy.end(), task,
                       [](int64_t t, const BusyGroup& group) { return t < group.first_task; });
  return *(after - 1);
}

// Cuts every busy group's product and returns the number of tasks.
int64_t CutGroups(std::span<BusyGroup> busy, int64_t groups, int64_t group_bytes) {
  int64_t num_tasks = 0;
  for (BusyGroup& b : busy) {
    b.cut = CutGemm(b.rows, groups, group_bytes);
    b.first_task = num_tasks;
    num_tasks += b.cut.num_tasks();
  }
  return num_tasks;
}

void CheckGroup(const Exec& exec, const ExpertGroup& group, const ExpertWeights& first) {
  WIDELOAD_CHECK(group.weights != nullptr && group.y_rows.size() == group.x_rows.size(),
                 "ExpertMlp: {} rows in, {} rows out, weights {}", group.x_rows.size(),
                 group.y_rows.size(), group.weights != nullptr ? "given" : "missing");
  const PackedMatrix& gate_up = group.weights->gate_up;
  const PackedMatrix& down = group.weights->down;
  const bool fits = gate_up.gate_up() && !down.gate_up() && down.n() == gate_up.k() &&
                    2 * down.k() == gate_up.n() && gate_up.kernels() == exec.kernels &&
                    down.kernels() == exec.kernels && down.precision() == MatrixPrecision::kCompute;
  WIDELOAD_CHECK(fits && gate_up.n() == first.gate_up.n() && gate_up.k() == first.gate_up.k(),
                 "ExpertMlp: expert of gate and up [{}, {}] and down [{}, {}] among experts [{}, "
                 "{}]",
                 gate_up.n(), gate_up.k(), down.n(), down.k(), first.gate_up.n(),
                 first.gate_up.k());
}

// The groups that have rows.
std::span<BusyGroup> BusyGroups(const Exec& exec, std::span<const ExpertGroup> groups,
                                Workspace& workspace) {
  const std::span<BusyGroup> busy = workspace.Take<BusyGroup>(static_cast<int64_t>(groups.size()));
  size_t num_busy = 0;
  int64_t first_row = 0;
  for (const ExpertGroup& group : groups) {
    if (group.x_rows.empty()) continue;
    const auto rows = static_cast<int64_t>(group.x_rows.size());
    busy[num_busy] = {
        .group = &group, .first_row = first_row, .rows = rows, .cut = {}, .first_task = 0};
    CheckGroup(exec, group, *busy[0].group->weights);
    first_row += rows;
    ++num_busy;
  }
  return busy.first(num_busy);
}

}  // namespace

void MatMul(const Exec& exec, const TensorView& x, const PackedMatrix& w, const TensorView& y,
            bool accumulate) {
  CheckInput("MatMul", exec, x, w);
  WIDELOAD_CHECK(!w.gate_up(), "MatMul: gate and up weights go to MatMulSwiGlu");
  CheckMatrix("MatMul", "y", y, DType::kF32, {x.dim(0), w.n()});
  RunGemm(exec, w, x.dim(0),
          {.x = ReadRows(x),
           .y = WriteRows(y),
           .weights = w.data(),
           .n = w.n(),
           .k = w.k(),
           .epilogue = accumulate ? GemmEpilogue::kAdd : GemmEpilogue::kStore});
}

void MatMulSwiGlu(const Exec& exec, const TensorView& x, const PackedMatrix& w,
                  const TensorView& y) {
  CheckInput("MatMulSwiGlu", exec, x, w);
  WIDELOAD_CHECK(w.gate_up(), "MatMulSwiGlu: weights are not gate and up");
  CheckMatrix("MatMulSwiGlu", "y", y, ComputeDType(exec.kernels), {x.dim(0), w.n() / 2});
  RunGemm(exec, w, x.dim(0),
          {.x = ReadRows(x),
           .y = WriteRows(y),
           .weights = w.data(),
           .n = w.n() / 2,
           .k = w.k(),
           .epilogue = GemmEpilogue::kSwiGlu});
}

void ExpertMlp(const Exec& exec, std::span<const ExpertGroup> groups, Workspace& workspace) {
  const std::span<BusyGroup> busy = BusyGroups(exec, groups, workspace);
  if (busy.empty()) return;
  const int64_t rows = busy.back().first_row + busy.back().rows;
  const ExpertWeights& shape = *busy[0].group->weights;
  const int64_t hidden = shape.down.n();
  const int64_t inner = shape.down.k();
  const TensorView activations = workspace.TakeTensor(ComputeDType(exec.kernels), {rows, inner});
  const auto gemm = KernelsOf(exec.kernels).gemm;

  const auto run = [&](int64_t columns, int64_t group_bytes, auto args_of) {
    const int64_t column_groups = CeilDiv(columns, kGroupColumns);
    const int64_t num_tasks = CutGroups(busy, column_groups, group_bytes);
    RunTasks(exec, num_tasks, rows * hidden * inner, [&](int64_t task, int) {
      const BusyGroup& b = GroupOfTask(busy, task);
      gemm(args_of(b), TileOf(b.cut, task - b.first_task, b.rows, column_groups));
    });
  };
  run(inner, GroupBytes(shape.gate_up), [&](const BusyGroup& b) {
    return GemmArgs{.x = {.pointers = b.group->x_rows.data()},
                    .y = WriteRows(activations.Rows(b.first_row, b.rows)),
                    .weights = b.group->weights->gate_up.data(),
                    .n = inner,
                    .k = hidden,
                    .epilogue = GemmEpilogue::kSwiGlu};
  });
  run(hidden, GroupBytes(shape.down), [&](const BusyGroup& b) {
    return GemmArgs{.x = ReadRows(activations.Rows(b.first_row, b.rows)),
                    .y = {.pointers = b.group->y_rows.data()},
                    .weights = b.group->weights->down.data(),
                    .n = hidden,
                    .k = inner,
                    .epilogue = GemmEpilogue::kRound};
  });
}

}  // namespace wideload::compute

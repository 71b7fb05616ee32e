#include <algorithm>

#include "compute/dispatch.h"
#include "compute/ops.h"
#include "compute/weight_format.h"

namespace wideload::compute {
namespace {

// How one product [rows, k] x [k, groups of columns] is cut into tasks. No cut changes a bit,
// since every dot product stays whole.
struct GemmCut {
  int64_t rows_per_task = 0;
  int64_t groups_per_task = 0;
  int64_t row_tasks = 0;
  int64_t group_tasks = 0;
  int64_t num_tasks() const { return row_tasks * group_tasks; }
};

// How many tasks the threads want, so that those that are done first find more.
int64_t WantedTasks(const Exec& exec) {
  constexpr int64_t kPerThread = 4;
  return kPerThread * (exec.pool != nullptr ? exec.pool->num_threads() : 1);
}

// Tasks are small enough that even one row's product feeds several threads, and whole steps of the
// widest micro-kernel. Those of many rows are wider where tasks stay as many as wanted: a kernel
// brings rows into its own form once for all columns of a task.
GemmCut CutGemm(const Kernels& kernels, int64_t rows, int64_t groups, int64_t group_bytes,
                int64_t wanted_tasks) {
  constexpr int64_t kTaskWeightBytes = int64_t{64} << 10;
  constexpr int64_t kGroupStep = 8;
  constexpr int64_t kManyRows = 8;
  const auto round_up = [](int64_t n) { return CeilDiv(n, kGroupStep) * kGroupStep; };
  GemmCut cut;
  cut.rows_per_task = kTaskRows;
  cut.row_tasks = CeilDiv(rows, cut.rows_per_task);
  int64_t most_groups = std::max(kGroupStep, kTaskWeightBytes / group_bytes);
  if (rows >= kManyRows) {
    const int64_t wanted_groups = groups / CeilDiv(wanted_tasks, cut.row_tasks);
    most_groups = std::max(most_groups, std::min(kernels.wide_task_groups, wanted_groups));
  }
  cut.groups_per_task = round_up(CeilDiv(groups, CeilDiv(groups, most_groups)));
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
          .group_end = std::min(groups, (group_task + 1) * cut.groups_per_task),
          .next = nullptr};
}

// The task that the thread of `task` does next, if all take equally long.
int64_t TaskAfter(const Exec& exec, int64_t task) {
  return task + (exec.pool != nullptr ? exec.pool->num_threads() : 1);
}

static_assert(kNumGemms == kNumWeightFormats && static_cast<int>(WeightFormat::kF32) == kF32Gemm &&
              static_cast<int>(WeightFormat::kBF16) == kBf16Gemm &&
              static_cast<int>(WeightFormat::kFp8) == kFp8Gemm &&
              static_cast<int>(WeightFormat::kInt4) == kInt4Gemm &&
              static_cast<int>(WeightFormat::kMxfp4) == kMxfp4Gemm);

// Bytes of the weights behind one group of y's columns.
int64_t YGroupBytes(const PackedShape& w) {
  return GroupBytes(w.format, w.k) * (w.gate_up ? 2 : 1);
}

auto GemmOf(const PackedShape& w) {
  return KernelsOf(w.kernels).gemm[static_cast<size_t>(w.format)];
}

void RunGemm(const Exec& exec, const PackedMatrix& w, int64_t rows, const GemmArgs& args) {
  if (rows == 0) return;
  const auto gemm = GemmOf(w.shape());
  const int64_t groups = CeilDiv(args.n, kGroupColumns);
  const GemmCut cut =
      CutGemm(KernelsOf(w.kernels()), rows, groups, YGroupBytes(w.shape()), WantedTasks(exec));
  const int64_t y_group_bytes = YGroupBytes(w.shape());
  RunTasks(exec, cut.num_tasks(), rows * w.n() * w.k(), [&](int64_t task, int) {
    GemmTile tile = TileOf(cut, task, rows, groups);
    const int64_t after = TaskAfter(exec, task);
    if (after < cut.num_tasks())
      tile.next = args.weights + TileOf(cut, after, rows, groups).group_begin * y_group_bytes;
    gemm(args, tile);
  });
}

void CheckKernels(const char* op, const Exec& exec, const PackedMatrix& w) {
  WIDELOAD_CHECK(w.kernels() == exec.kernels, "{}: weights are packed for {}, kernels are {}", op,
                 KernelSetName(w.kernels()), KernelSetName(exec.kernels));
}

void CheckInput(const char* op, const Exec& exec, const TensorView& x, const PackedMatrix& w) {
  CheckKernels(op, exec, w);
  CheckMatrix(op, "x", x, InputDType(exec.kernels, w.format()), {x.dim(0), w.k()});
}

GemmEpilogue StoreAs(DType dtype, const Exec& exec, bool accumulate) {
  if (accumulate) return GemmEpilogue::kAdd;
  const bool rounds = dtype == exec.precision().activations;
  return rounds ? GemmEpilogue::kRound : GemmEpilogue::kStore;
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
int64_t CutGroups(const Exec& exec, std::span<BusyGroup> busy, int64_t groups,
                  int64_t group_bytes) {
  const Kernels& kernels = KernelsOf(exec.kernels);
  const int64_t wanted_of_each = CeilDiv(WantedTasks(exec), std::ssize(busy));
  int64_t num_tasks = 0;
  for (BusyGroup& b : busy) {
    b.cut = CutGemm(kernels, b.rows, groups, group_bytes, wanted_of_each);
    b.first_task = num_tasks;
    num_tasks += b.cut.num_tasks();
  }
  return num_tasks;
}

void CheckGroup(const Exec& exec, const ExpertGroup& group, const ExpertShape& first) {
  WIDELOAD_CHECK(group.weights != nullptr && group.y_rows.size() == group.x_rows.size(),
                 "ExpertMlp: {} rows in, {} rows out, weights {}", group.x_rows.size(),
                 group.y_rows.size(), group.weights != nullptr ? "given" : "missing");
  const ExpertShape& shape = group.weights->shape();
  WIDELOAD_CHECK(shape == first && shape.kernels == exec.kernels && shape.hidden > 0,
                 "ExpertMlp: {} expert [{}, {}] for {} among experts {} [{}, {}]",
                 WeightFormatName(shape.format), shape.inner, shape.hidden,
                 KernelSetName(shape.kernels), WeightFormatName(first.format), first.inner,
                 first.hidden);
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
    CheckGroup(exec, group, busy[0].group->weights->shape());
    first_row += rows;
    ++num_busy;
  }
  return busy.first(num_busy);
}

int64_t NumRows(std::span<const BusyGroup> busy) {
  return busy.back().first_row + busy.back().rows;
}

// One of the two products of all groups, to `columns` of each row.
template <class ArgsOf>
void RunExperts(const Exec& exec, std::span<BusyGroup> busy, const PackedShape& matrix,
                int64_t columns, ArgsOf args_of) {
  const auto gemm = GemmOf(matrix);
  const int64_t column_groups = CeilDiv(columns, kGroupColumns);
  const int64_t num_tasks = CutGroups(exec, busy, column_groups, YGroupBytes(matrix));
  RunTasks(exec, num_tasks, NumRows(busy) * columns * matrix.k, [&](int64_t task, int) {
    const auto tile_of = [&](const BusyGroup& b, int64_t t) {
      return TileOf(b.cut, t - b.first_task, b.rows, column_groups);
    };
    const BusyGroup& b = GroupOfTask(busy, task);
    GemmTile tile = tile_of(b, task);
    const int64_t after = TaskAfter(exec, task);
    if (after < num_tasks) {
      const BusyGroup& next = GroupOfTask(busy, after);
      tile.next = args_of(next).weights + tile_of(next, after).group_begin * YGroupBytes(matrix);
    }
    gemm(args_of(b), tile);
  });
}

}  // namespace

void MatMul(const Exec& exec, const TensorView& x, const PackedMatrix& w, const TensorView& y,
            bool accumulate) {
  CheckInput("MatMul", exec, x, w);
  WIDELOAD_CHECK(!w.gate_up(), "MatMul: gate and up weights go to MatMulGated");
  CheckOutput("MatMul", exec, y, {x.dim(0), w.n()});
  WIDELOAD_CHECK(!accumulate || y.dtype() == DType::kF32, "MatMul: adding to {}",
                 DTypeName(y.dtype()));
  RunGemm(exec, w, x.dim(0),
          {.x = ReadRows(x),
           .y = WriteRows(y),
           .weights = w.data(),
           .group_bytes = GroupBytes(w.format(), w.k()),
           .bias = w.bias(),
           .n = w.n(),
           .k = w.k(),
           .epilogue = StoreAs(y.dtype(), exec, accumulate),
           .activation = {}});
}

void MatMulHeads(const Exec& exec, const HeadPart& x, std::span<const PackedMatrix> w,
                 const HeadPart& y) {
  const HeadRuns from = CheckHeads("MatMulHeads", x);
  const HeadRuns to = CheckHeads("MatMulHeads", y);
  const auto heads = static_cast<int64_t>(w.size());
  WIDELOAD_CHECK(heads == from.heads && heads == to.heads && heads > 0,
                 "MatMulHeads: {} matrices for {} heads to {}", heads, from.heads, to.heads);
  const PackedShape& shape = w[0].shape();
  for (const PackedMatrix& head : w) {
    CheckKernels("MatMulHeads", exec, head);
    WIDELOAD_CHECK(
        head.shape() == shape && !shape.gate_up && shape.k == from.width && shape.n == to.width,
        "MatMulHeads: [{}, {}] for heads of {} to {}", head.n(), head.k(), from.width, to.width);
  }
  const int64_t rows = x.rows.dim(0);
  CheckMatrix("MatMulHeads", "x", x.rows, InputDType(exec.kernels, shape.format), x.rows.shape());
  CheckOutput("MatMulHeads", exec, y.rows, {rows, y.rows.dim(1)});
  if (rows == 0) return;
  const auto gemm = GemmOf(shape);
  const int64_t groups = CeilDiv(shape.n, kGroupColumns);
  const GemmCut cut = CutGemm(KernelsOf(shape.kernels), rows, groups, YGroupBytes(shape),
                              CeilDiv(WantedTasks(exec), heads));
  const auto multiply = [&](int64_t h, const GemmTile& tile) {
    InRows head_x = ReadHeads(x);
    OutRows head_y = WriteHeads(y);
    head_x.base += h * from.stride * DTypeBytes(x.rows.dtype());
    head_y.base += h * to.stride * DTypeBytes(y.rows.dtype());
    const PackedMatrix& matrix = w[static_cast<size_t>(h)];
    gemm({.x = head_x,
          .y = head_y,
          .weights = matrix.data(),
          .group_bytes = GroupBytes(shape.format, shape.k),
          .bias = matrix.bias(),
          .n = shape.n,
          .k = shape.k,
          .epilogue = StoreAs(y.rows.dtype(), exec, false),
          .activation = {}},
         tile);
  };
  RunTasks(exec, heads * cut.num_tasks(), heads * rows * shape.n * shape.k, [&](int64_t task, int) {
    multiply(task / cut.num_tasks(), TileOf(cut, task % cut.num_tasks(), rows, groups));
  });
}

void MatMulGated(const Exec& exec, const TensorView& x, const PackedMatrix& w,
                 const GatedActivation& activation, const TensorView& y) {
  CheckInput("MatMulGated", exec, x, w);
  WIDELOAD_CHECK(w.gate_up(), "MatMulGated: weights are not gate and up");
  CheckMatrix("MatMulGated", "y", y, exec.precision().activations, {x.dim(0), w.n() / 2});
  RunGemm(exec, w, x.dim(0),
          {.x = ReadRows(x),
           .y = WriteRows(y),
           .weights = w.data(),
           .group_bytes = GroupBytes(w.format(), w.k()),
           .bias = w.bias(),
           .n = w.n() / 2,
           .k = w.k(),
           .epilogue = GemmEpilogue::kGated,
           .activation = activation});
}

void ExpertGateUp(const Exec& exec, std::span<const ExpertGroup> groups,
                  const GatedActivation& activation, Workspace& workspace,
                  const TensorView& gated) {
  const std::span<BusyGroup> busy = BusyGroups(exec, groups, workspace);
  if (busy.empty()) return;
  const ExpertShape& shape = busy[0].group->weights->shape();
  WIDELOAD_CHECK(InputDType(shape.kernels, shape.format) == exec.precision().activations,
                 "ExpertGateUp: experts in {}", WeightFormatName(shape.format));
  CheckMatrix("ExpertGateUp", "gated", gated, exec.precision().activations,
              {NumRows(busy), shape.own_inner()});
  RunExperts(exec, busy, shape.gate_up(), shape.own_inner(), [&](const BusyGroup& b) {
    const PackedMatrix& w = b.group->weights->gate_up();
    return GemmArgs{.x = {.pointers = b.group->x_rows.data()},
                    .y = WriteRows(gated.Rows(b.first_row, b.rows)),
                    .weights = w.data(),
                    .group_bytes = GroupBytes(w.format(), w.k()),
                    .bias = w.bias(),
                    .n = shape.own_inner(),
                    .k = shape.hidden,
                    .epilogue = GemmEpilogue::kGated,
                    .activation = activation};
  });
}

void ExpertDown(const Exec& exec, std::span<const ExpertGroup> groups, Workspace& workspace,
                const TensorView& gated) {
  const std::span<BusyGroup> busy = BusyGroups(exec, groups, workspace);
  if (busy.empty()) return;
  const ExpertShape& shape = busy[0].group->weights->shape();
  CheckMatrix("ExpertDown", "gated", gated, exec.precision().activations,
              {NumRows(busy), shape.inner});
  RunExperts(exec, busy, shape.down(), shape.own_hidden(), [&](const BusyGroup& b) {
    const PackedMatrix& w = b.group->weights->down();
    return GemmArgs{.x = ReadRows(gated.Rows(b.first_row, b.rows)),
                    .y = {.pointers = b.group->y_rows.data()},
                    .weights = w.data(),
                    .group_bytes = GroupBytes(w.format(), w.k()),
                    .bias = w.bias(),
                    .n = shape.own_hidden(),
                    .k = shape.inner,
                    .epilogue = GemmEpilogue::kRound,
                    .activation = {}};
  });
}

void ExpertMlp(const Exec& exec, std::span<const ExpertGroup> groups,
               const GatedActivation& activation, Workspace& workspace) {
  int64_t rows = 0;
  const ExpertWeights* weights = nullptr;
  for (const ExpertGroup& group : groups) {
    rows += std::ssize(group.x_rows);
    if (!group.x_rows.empty()) weights = group.weights;
  }
  if (rows == 0) return;
  WIDELOAD_CHECK(weights != nullptr && weights->shape().own_inner() == weights->shape().inner &&
                     weights->shape().own_hidden() == weights->shape().hidden,
                 "ExpertMlp: {} rows for parts of experts, or for none", rows);
  const TensorView gated =
      workspace.TakeTensor(exec.precision().activations, {rows, weights->shape().inner});
  ExpertGateUp(exec, groups, activation, workspace, gated);
  ExpertDown(exec, groups, workspace, gated);
}

}  // namespace wideload::compute

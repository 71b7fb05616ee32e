// Python's operators on values.
#include <algorithm>
#include <cmath>
#include <limits>

#include "jinja/ast.h"
#include "jinja/percent_format.h"
#include "jinja/python_text.h"
#include "jinja/runtime.h"

namespace wideload::jinja {
namespace {

std::string_view Sign(Operator op) {
  static constexpr std::string_view kSigns[] = {
      "+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};
  return kSigns[static_cast<size_t>(op)];
}

bool IsNumber(const Value& value) {
  return value.Bool() || value.Int() || value.Float() || value.Big();
}

// What compares item by item.
bool IsListLike(const Sequence& sequence) {
  return sequence.kind == Sequence::Kind::kList || sequence.kind == Sequence::Kind::kTuple ||
         sequence.kind == Sequence::Kind::kRange;
}

int SignOf(bool is_less, bool is_greater) { return is_less ? -1 : is_greater ? 1 : 0; }

// Numbers of any kind. *is_ordered is false with a NaN.
int CompareNumbers(const Value& a, const Value& b, bool* is_ordered) {
  int64_t x = 0;
  int64_t y = 0;
  if (AsInteger(a, &x) && AsInteger(b, &y)) return SignOf(x<y, x> y);
  const auto wide = [](const Value& value) -> long double {
    if (const BigInteger* big = value.Big()) return std::strtold(big->digits.c_str(), nullptr);
    int64_t integer = 0;
    // 64 bits of mantissa: exact.
    if (AsInteger(value, &integer)) return static_cast<long double>(integer);
    return *value.Float();
  };
  if (a.Big() && b.Big() && a.Big()->digits == b.Big()->digits) return 0;
  const long double left = wide(a);
  const long double right = wide(b);
  *is_ordered = !std::isnan(left) && !std::isnan(right);
  return SignOf(left<right, left> right);
}

}  // namespace

bool Runtime::AreEqual(const Value& a, const Value& b) {
  Step();
  if (a.IsUndefined() || b.IsUndefined()) return a.IsUndefined() && b.IsUndefined();
  if (a.IsNone() || b.IsNone()) return a.IsNone() && b.IsNone();
  if (IsNumber(a) && IsNumber(b)) {
    bool is_ordered = true;
    if (a.Big() && b.Big()) return a.Big()->digits == b.Big()->digits;
    return CompareNumbers(a, b, &is_ordered) == 0 && is_ordered;
  }
  if (const MarkedText* x = a.Str(), *y = b.Str(); x && y) {
    if (x->size() != y->size()) return false;
    Work(x->size());
    return x->text() == y->text();
  }
  const Level level(*this);
  if (const Sequence* x = a.Seq(), *y = b.Seq(); x && y) {
    if (x == y) return true;
    if (x->kind != y->kind || !IsListLike(*x) || x->items.size() != y->items.size()) return false;
    for (size_t i = 0; i < x->items.size(); ++i)
      if (!AreEqual(x->items[i], y->items[i])) return false;
    return true;
  }
  if (const Dict* x = a.Map(), *y = b.Map(); x && y) {
    if (x == y) return true;
    if (x->entries().size() != y->entries().size()) return false;
    return std::all_of(x->entries().begin(), x->entries().end(), [&](const Dict::Entry& entry) {
      if (const MarkedText* key = entry.key.Str()) Work(key->size());
      const Value* other = y->Find(entry.key);
      return other && AreEqual(entry.value, *other);
    });
  }
  if (a.Space() || b.Space()) return a.Space() == b.Space();
  if (a.TheLoop() || b.TheLoop()) return a.TheLoop() == b.TheLoop();
  return a.Function() && a.Function() == b.Function();
}

int Runtime::Compare(const Value& a, const Value& b) {
  Step();
  if (IsNumber(a) && IsNumber(b)) {
    bool is_ordered = true;
    return CompareNumbers(a, b, &is_ordered);
  }
  if (const MarkedText* x = a.Str(), *y = b.Str(); x && y) {
    Work(std::min(x->size(), y->size()));
    const int order = x->text().compare(y->text());  // of UTF-8: that of the code points
    return SignOf(order<0, order> 0);
  }
  const Level level(*this);
  const Sequence* x = a.Seq();
  const Sequence* y = b.Seq();
  if (x == nullptr || y == nullptr || x->kind != y->kind || !IsListLike(*x) ||
      x->kind == Sequence::Kind::kRange)
    Refuse(fmt::format("{} and {} have no order", KindOf(a), KindOf(b)));
  const size_t common = std::min(x->items.size(), y->items.size());
  for (size_t i = 0; i < common; ++i)
    if (!AreEqual(x->items[i], y->items[i])) return Compare(x->items[i], y->items[i]);
  return SignOf(x->items.size() < y->items.size(), x->items.size() > y->items.size());
}

bool Runtime::Holds(Operator op, const Value& a, const Value& b) {
  if (op == Operator::kEqual) return AreEqual(a, b);
  if (op == Operator::kNotEqual) return !AreEqual(a, b);
  if (op == Operator::kIn) return Contains(b, a);
  if (op == Operator::kNotIn) return !Contains(b, a);
  if (a.IsUndefined() || b.IsUndefined())
    Refuse(fmt::format("{} {} {}", KindOf(a), Sign(op), KindOf(b)));
  if (IsNumber(a) && IsNumber(b)) {
    bool is_ordered = true;
    CompareNumbers(a, b, &is_ordered);
    if (!is_ordered) return false;
  }
  const int order = Compare(a, b);
  if (op == Operator::kLess) return order < 0;
  if (op == Operator::kLessEqual) return order <= 0;
  return op == Operator::kGreater ? order > 0 : order >= 0;
}

bool Runtime::Contains(const Value& container, const Value& value) {
  if (container.IsUndefined()) return false;
  if (const MarkedText* text = container.Str()) {
    const MarkedText& part = Characters(value, "what is looked for in a string");
    Work(text->size() + part.size());
    return FindFirst(text->text(), part.text()) != std::string::npos;
  }
  if (const Dict* dict = container.Map()) {
    const bool is_tuple = value.Seq() && value.Seq()->kind == Sequence::Kind::kTuple;
    if (value.Map() || (value.Seq() && !is_tuple))
      Refuse(fmt::format("{} in {}", KindOf(value), KindOf(container)));
    if (const MarkedText* key = value.Str()) Work(key->size());
    return dict->Find(value) != nullptr;
  }
  const Sequence* sequence = container.Seq();
  if (sequence == nullptr) Refuse(fmt::format("{} in {}", KindOf(value), KindOf(container)));
  if (sequence->kind == Sequence::Kind::kGenerator) {
    while (const Value* item = NextOf(*sequence))
      if (AreEqual(*item, value)) return true;
    return false;
  }
  return std::any_of(sequence->items.begin(), sequence->items.end(),
                     [&](const Value& item) { return AreEqual(item, value); });
}

Value Runtime::Arithmetic(Operator op, const Value& a, const Value& b) {
  const auto refuse = [&] { Refuse(fmt::format("{} {} {}", KindOf(a), Sign(op), KindOf(b))); };
  const MarkedText* text = a.Str();
  if (op == Operator::kModulo && text) return Value::Text(PercentFormat(*this, *text, b));
  if (a.IsUndefined() || b.IsUndefined()) refuse();
  if (IsNumber(a) && IsNumber(b)) return ArithmeticOfNumbers(op, a, b);
  if (op == Operator::kAdd && text && b.Str()) {
    CheckRoom(text->footprint() + b.Str()->footprint());
    MarkedText joined = *text;
    joined.Append(*b.Str());
    return Text(std::move(joined));
  }
  const Sequence* left = a.Seq();
  const Sequence* right = b.Seq();
  if (op == Operator::kAdd && left && right && left->kind == right->kind &&
      (left->kind == Sequence::Kind::kList || left->kind == Sequence::Kind::kTuple)) {
    CheckRoom((left->items.size() + right->items.size()) * sizeof(Value));
    std::vector<Value> items = left->items;
    items.insert(items.end(), right->items.begin(), right->items.end());
    return List(std::move(items), left->kind);
  }
  int64_t times = 0;
  if (op == Operator::kMultiply && AsInteger(b, &times)) return Repeated(a, times);
  if (op == Operator::kMultiply && AsInteger(a, &times)) return Repeated(b, times);
  refuse();
  return {};
}

Value Runtime::Repeated(const Value& value, int64_t times) {
  const auto count = static_cast<size_t>(std::max<int64_t>(times, 0));
  const Sequence* sequence = value.Seq();
  const MarkedText* text = value.Str();
  const bool is_list = sequence && (sequence->kind == Sequence::Kind::kList ||
                                    sequence->kind == Sequence::Kind::kTuple);
  if (!text && !is_list) Refuse(fmt::format("{} * an integer", KindOf(value)));
  const size_t size = text ? text->footprint() : sequence->items.size() * sizeof(Value);
  if (size > 0 && count > std::numeric_limits<size_t>::max() / size)
    CheckRoom(std::numeric_limits<size_t>::max());
  CheckRoom(size * count);
  MarkedText repeated;
  std::vector<Value> items;
  for (size_t i = 0; size > 0 && i < count; ++i) {
    if (text)
      repeated.Append(*text);
    else
      items.insert(items.end(), sequence->items.begin(), sequence->items.end());
  }
  return text ? Text(std::move(repeated)) : List(std::move(items), sequence->kind);
}

Value Runtime::ArithmeticOfNumbers(Operator op, const Value& a, const Value& b) {
  if (a.Big() || b.Big()) Unsupported("computing with an integer beyond 64 bits");
  int64_t x = 0;
  int64_t y = 0;
  const bool are_integers = AsInteger(a, &x) && AsInteger(b, &y);
  const bool divides =
      op == Operator::kDivide || op == Operator::kFloorDivide || op == Operator::kModulo;
  double real = 0;
  AsDouble(b, &real);
  if (divides && real == 0) Refuse("a division by zero");
  if (are_integers && op != Operator::kDivide && !(op == Operator::kPower && y < 0))
    return ArithmeticOfIntegers(op, x, y);
  double left = 0;
  AsDouble(a, &left);
  return ArithmeticOfFloats(op, left, real);
}

Value Runtime::ArithmeticOfIntegers(Operator op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflows = false;
  switch (op) {
    case Operator::kAdd:
      overflows = __builtin_add_overflow(a, b, &result);
      break;
    case Operator::kSubtract:
      overflows = __builtin_sub_overflow(a, b, &result);
      break;
    case Operator::kMultiply:
      overflows = __builtin_mul_overflow(a, b, &result);
      break;
    case Operator::kFloorDivide:
      if (b == -1)
        overflows = __builtin_sub_overflow(int64_t{0}, a, &result);
      else
        result = a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0);
      break;
    case Operator::kModulo:
      if (b != -1) result = a % b + (a % b != 0 && (a < 0) != (b < 0) ? b : 0);
      break;
    default: {
      result = 1;
      int64_t square = a;
      // The last square is not needed and may overflow.
      for (int64_t rest = b; rest > 0 && !overflows; rest >>= 1) {
        if (rest & 1) overflows |= __builtin_mul_overflow(result, square, &result);
        if (rest > 1) overflows |= __builtin_mul_overflow(square, square, &square);
      }
    }
  }
  if (overflows) Unsupported("an integer beyond 64 bits");
  return {result};
}

Value Runtime::ArithmeticOfFloats(Operator op, double a, double b) {
  switch (op) {
    case Operator::kAdd:
      return {a + b};
    case Operator::kSubtract:
      return {a - b};
    case Operator::kMultiply:
      return {a * b};
    case Operator::kDivide:
      return {a / b};
    case Operator::kPower: {
      if (a == 0 && b < 0) Refuse("0 to a negative power");
      if (a < 0 && std::floor(b) != b && std::isfinite(b))
        Unsupported("a fractional power of a negative number");
      const double power = std::pow(a, b);
      if (std::isinf(power) && std::isfinite(a) && std::isfinite(b))
        Refuse("a power too large for a float");
      return {power};
    }
    default:
      break;
  }
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (b < 0) != (remainder < 0)) remainder += b;
  if (op == Operator::kModulo) return {remainder == 0 ? std::copysign(0.0, b) : remainder};
  double quotient = (a - remainder) / b;
  if (quotient != 0) {
    const double floor = std::floor(quotient);
    quotient = quotient - floor > 0.5 ? floor + 1 : floor;
  } else {
    quotient = std::copysign(0.0, a / b);
  }
  return {quotient};
}

Value Runtime::Negate(const Value& value) {
  if (const double* number = value.Float()) return {-*number};
  if (value.Big()) Unsupported("computing with an integer beyond 64 bits");
  int64_t integer = 0;
  if (!AsInteger(value, &integer)) Refuse("- of " + KindOf(value));
  return ArithmeticOfIntegers(Operator::kSubtract, 0, integer);
}

Value Runtime::Plus(const Value& value) {
  int64_t integer = 0;
  if (value.Float() || value.Big()) return value;
  if (!AsInteger(value, &integer)) Refuse("+ of " + KindOf(value));
  return {integer};
}

}  // namespace wideload::jinja

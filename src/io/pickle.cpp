// Ref: Python's Lib/pickletools.py for the opcodes, torch/serialization.py and torch/_utils.py for
// what is made of them.
#include "io/pickle.hpp"

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "base/quote.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

// Several times what the largest models need: a tensor takes about twenty values.
constexpr size_t kMostValues = size_t{1} << 20;
constexpr size_t kMostDimensions = 64;  // torch's own limit
// A few bytes make a tensor of what stands elsewhere: limits to what a small file asks for.
constexpr size_t kMostTensors = size_t{1} << 16;
constexpr size_t kLongestKey = 256;  // of a storage; torch counts them

constexpr std::array<std::pair<std::string_view, DType>, 10> kStorages = {{
    {"FloatStorage", DType::f32},
    {"HalfStorage", DType::f16},
    {"BFloat16Storage", DType::bf16},
    {"DoubleStorage", DType::f64},
    {"LongStorage", DType::i64},
    {"IntStorage", DType::i32},
    {"ShortStorage", DType::i16},
    {"CharStorage", DType::i8},
    {"ByteStorage", DType::u8},
    {"BoolStorage", DType::boolean},
}};

enum class Kind {
  none,
  other,  // numbers that nothing here needs
  integer,
  text,
  tuple,
  dict,
  list,
  make_dict,       // collections.OrderedDict
  make_tensor,     // torch._utils._rebuild_tensor_v2
  make_parameter,  // torch._utils._rebuild_parameter
  storage_type,    // torch.FloatStorage
  storage,
  tensor,
};

// Values refer to others by number: no chain of owners that could be as deep as the file is long.
using Ref = uint32_t;

struct Value {
  Kind kind = Kind::none;
  int64_t number = 0;        // of an integer; elements of a storage; index into tensors
  DType dtype = DType::f32;  // of a storage and its type
  std::string_view text;     // in the file; key of a storage
  std::vector<Ref> items;    // of a tuple or list; a dict: key, value, key, value
};

class Machine {
 public:
  Machine(std::span<const std::byte> pickle, const std::string& where)
      : bytes_(reinterpret_cast<const char*>(pickle.data()), pickle.size()), where_(where) {}

  std::vector<PickledTensor> run() {
    while (step()) {
    }
    if (at_ != bytes_.size()) corrupt("bytes behind the end of the pickle");
    if (stack_.size() != 1)
      corrupt("a pickle of one value, found " + std::to_string(stack_.size()));
    return state_dict(stack_[0]);
  }

 private:
  [[noreturn]] void corrupt(const std::string& what) const {
    throw Error(ErrorCode::corrupt_file, "a damaged pickle at byte " + std::to_string(at_) + ": " +
                                             what + " (" + where_ + "); download it again");
  }
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(ErrorCode::unsupported,
                "a pickle that holds more than a state dict of tensors: " + what + " (" + where_ +
                    "); pickles are never run: save the weights as safetensors");
  }

  std::string_view take(size_t count) {
    if (count > bytes_.size() - at_) corrupt("it is cut short");
    at_ += count;
    return bytes_.substr(at_ - count, count);
  }
  uint64_t number(size_t bytes) {
    const std::string_view text = take(bytes);
    uint64_t value = 0;  // little-endian
    for (size_t i = bytes; i-- > 0;) value = value << 8 | static_cast<uint8_t>(text[i]);
    return value;
  }
  std::string_view line() {
    const size_t end = bytes_.find('\n', at_);
    if (end == std::string_view::npos) corrupt("a line without an end");
    const std::string_view text = bytes_.substr(at_, end - at_);
    at_ = end + 1;
    return text;
  }

  Value& push(Kind kind) {
    if (values_.size() == kMostValues) corrupt("too many values");
    Value& value = values_.emplace_back();
    value.kind = kind;
    stack_.push_back(static_cast<Ref>(values_.size() - 1));
    return value;
  }
  void push_integer(int64_t value) { push(Kind::integer).number = value; }

  // The value on top, not below the last mark.
  Ref top() const {
    if (stack_.size() == (marks_.empty() ? 0 : marks_.back())) corrupt("too little on the stack");
    return stack_.back();
  }
  Ref pop() {
    const Ref ref = top();
    stack_.pop_back();
    return ref;
  }
  std::vector<Ref> pop_to_mark() {
    if (marks_.empty()) corrupt("no mark on the stack");
    const auto first = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<Ref> items(first, stack_.end());
    stack_.erase(first, stack_.end());
    marks_.pop_back();
    return items;
  }
  void push_tuple(size_t count) {
    std::vector<Ref> items(count);
    for (size_t i = count; i-- > 0;) items[i] = pop();
    push(Kind::tuple).items = std::move(items);
  }

  const Value& value(Ref ref) const { return values_[ref]; }
  const Value& item(const Value& tuple, size_t i, Kind kind, const char* what) const {
    if (i >= tuple.items.size() || value(tuple.items[i]).kind != kind) {
      corrupt(std::string("expected ") + what);
    }
    return value(tuple.items[i]);
  }
  std::vector<int64_t> sizes(const Value& tuple) const {
    if (tuple.items.size() > kMostDimensions) corrupt("a tensor of more than 64 dimensions");
    std::vector<int64_t> result;
    for (size_t i = 0; i < tuple.items.size(); ++i) {
      const int64_t size = item(tuple, i, Kind::integer, "a size").number;
      if (size < 0) corrupt("a negative size or stride");
      result.push_back(size);
    }
    return result;
  }

  bool step();
  void find_name();
  void load_storage();
  void call();
  void set_items(Ref target, const std::vector<Ref>& items);
  void append(Ref target, const std::vector<Ref>& items);
  void build_tensor(const Value& arguments);
  std::vector<PickledTensor> state_dict(Ref ref);

  std::string_view bytes_;
  const std::string& where_;
  size_t at_ = 0;
  std::deque<Value> values_;
  std::vector<Ref> stack_;
  std::vector<size_t> marks_;  // heights of the stack
  std::unordered_map<uint32_t, Ref> memo_;
  std::vector<PickledTensor> tensors_;
};

// One opcode; false after the last.
bool Machine::step() {
  const char op = take(1)[0];
  switch (static_cast<unsigned char>(op)) {
    case 0x80:  // PROTO
      if (number(1) > 5) refuse("an unknown protocol");
      return true;
    case '.':  // STOP
      return false;
    case '(':  // MARK
      marks_.push_back(stack_.size());
      return true;
    case 'N':  // NONE
      push(Kind::none);
      return true;
    case 0x88:  // NEWTRUE
    case 0x89:  // NEWFALSE
      push(Kind::other);
      return true;
    case 'G':  // BINFLOAT
      take(8);
      push(Kind::other);
      return true;
    case 'K':  // BININT1
      push_integer(static_cast<int64_t>(number(1)));
      return true;
    case 'M':  // BININT2
      push_integer(static_cast<int64_t>(number(2)));
      return true;
    case 'J':  // BININT
      push_integer(static_cast<int32_t>(static_cast<uint32_t>(number(4))));
      return true;
    case 0x8a: {  // LONG1: two's complement of any length
      const size_t count = static_cast<size_t>(number(1));
      if (count > 8) refuse("an integer beyond 64 bits");
      const uint64_t bits = number(count);
      const unsigned shift = static_cast<unsigned>(64 - 8 * count);
      push_integer(count == 0 ? 0 : static_cast<int64_t>(bits << shift) >> shift);
      return true;
    }
    case 'X':  // BINUNICODE
      push(Kind::text).text = take(static_cast<size_t>(number(4)));
      return true;
    case 0x8c:  // SHORT_BINUNICODE
      push(Kind::text).text = take(static_cast<size_t>(number(1)));
      return true;
    case ')':  // EMPTY_TUPLE
      push(Kind::tuple);
      return true;
    case 0x85:  // TUPLE1
    case 0x86:  // TUPLE2
    case 0x87:  // TUPLE3
      push_tuple(static_cast<unsigned char>(op) - 0x84u);
      return true;
    case 't': {  // TUPLE
      std::vector<Ref> items = pop_to_mark();
      push(Kind::tuple).items = std::move(items);
      return true;
    }
    case '}':  // EMPTY_DICT
      push(Kind::dict);
      return true;
    case ']':  // EMPTY_LIST
      push(Kind::list);
      return true;
    case 's': {  // SETITEM
      const Ref last = pop(), key = pop();
      set_items(top(), {key, last});
      return true;
    }
    case 'u': {  // SETITEMS
      const std::vector<Ref> items = pop_to_mark();
      set_items(top(), items);
      return true;
    }
    case 'a': {  // APPEND
      const Ref last = pop();
      append(top(), {last});
      return true;
    }
    case 'e': {  // APPENDS
      const std::vector<Ref> items = pop_to_mark();
      append(top(), items);
      return true;
    }
    case 'q':  // BINPUT
      memo_[static_cast<uint32_t>(number(1))] = top();
      return true;
    case 'r':  // LONG_BINPUT
      memo_[static_cast<uint32_t>(number(4))] = top();
      return true;
    case 0x94:  // MEMOIZE
      memo_[static_cast<uint32_t>(memo_.size())] = top();
      return true;
    case 'h':    // BINGET
    case 'j': {  // LONG_BINGET
      const auto it = memo_.find(static_cast<uint32_t>(number(op == 'h' ? 1 : 4)));
      if (it == memo_.end()) corrupt("a reference to nothing");
      if (stack_.size() > kMostValues) corrupt("too many values");
      stack_.push_back(it->second);
      return true;
    }
    case 0x95:  // FRAME
      number(8);
      return true;
    case 'c':  // GLOBAL
      find_name();
      return true;
    case 'Q':  // BINPERSID
      load_storage();
      return true;
    case 'R':  // REDUCE
      call();
      return true;
    case 'b':  // BUILD: attributes of the dictionary (_metadata), which nobody needs
      pop();
      if (value(top()).kind != Kind::dict) refuse("an object with a state");
      return true;
    default:
      refuse("opcode " + std::to_string(static_cast<unsigned char>(op)));
  }
}

void Machine::find_name() {
  const std::string_view module = line(), name = line();
  if (module == "collections" && name == "OrderedDict") {
    push(Kind::make_dict);
    return;
  }
  if (module == "torch._utils" && name == "_rebuild_tensor_v2") {
    push(Kind::make_tensor);
    return;
  }
  if (module == "torch._utils" && name == "_rebuild_parameter") {
    push(Kind::make_parameter);
    return;
  }
  for (const auto& [known, dtype] : kStorages) {
    if (module == "torch" && name == known) {
      push(Kind::storage_type).dtype = dtype;
      return;
    }
  }
  refuse("the name " + quote(std::string(module) + "." + std::string(name)));
}

// ('storage', torch.FloatStorage, key, device, elements)
void Machine::load_storage() {
  const Value& id = value(pop());
  if (id.kind != Kind::tuple || id.items.size() != 5 ||
      item(id, 0, Kind::text, "the word storage").text != "storage") {
    corrupt("expected a storage of five parts");
  }
  const DType dtype = item(id, 1, Kind::storage_type, "the type of a storage").dtype;
  const std::string_view key = item(id, 2, Kind::text, "the key of a storage").text;
  const int64_t elements = item(id, 4, Kind::integer, "the size of a storage").number;
  if (elements < 0) corrupt("a storage of negative size");
  if (key.size() > kLongestKey) corrupt("the key of a storage is too long");
  Value& storage = push(Kind::storage);
  storage.dtype = dtype;
  storage.text = key;
  storage.number = elements;
}

void Machine::call() {
  const Value& arguments = value(pop());
  const Value& callee = value(pop());
  if (arguments.kind != Kind::tuple) corrupt("a call without arguments");
  switch (callee.kind) {
    case Kind::make_dict:
      if (!arguments.items.empty()) refuse("an OrderedDict made of something");
      push(Kind::dict);
      return;
    case Kind::make_tensor:
      build_tensor(arguments);
      return;
    case Kind::make_parameter: {
      const Value& tensor = item(arguments, 0, Kind::tensor, "the tensor of a parameter");
      push(Kind::tensor).number = tensor.number;
      return;
    }
    default:
      corrupt("a call of what is no function");
  }
}

// (storage, offset, shape, strides, requires_grad, backward_hooks, ...)
void Machine::build_tensor(const Value& arguments) {
  const Value& storage = item(arguments, 0, Kind::storage, "the storage of a tensor");
  if (tensors_.size() == kMostTensors) corrupt("too many tensors");
  PickledTensor tensor;
  tensor.storage = std::string(storage.text);
  tensor.dtype = storage.dtype;
  tensor.storage_elements = storage.number;
  tensor.offset = item(arguments, 1, Kind::integer, "the offset of a tensor").number;
  tensor.shape = sizes(item(arguments, 2, Kind::tuple, "the shape of a tensor"));
  tensor.strides = sizes(item(arguments, 3, Kind::tuple, "the strides of a tensor"));
  if (tensor.offset < 0 || tensor.shape.size() != tensor.strides.size()) {
    corrupt("a tensor with a negative offset, or strides that are not of its shape");
  }
  tensors_.push_back(std::move(tensor));
  push(Kind::tensor).number = static_cast<int64_t>(tensors_.size() - 1);
}

void Machine::set_items(Ref target, const std::vector<Ref>& items) {
  if (items.size() % 2 != 0) corrupt("a key without a value");
  if (value(target).kind != Kind::dict) corrupt("items for what is no dictionary");
  std::vector<Ref>& all = values_[target].items;
  all.insert(all.end(), items.begin(), items.end());
}

void Machine::append(Ref target, const std::vector<Ref>& items) {
  if (value(target).kind != Kind::list) corrupt("items for what is no list");
  std::vector<Ref>& all = values_[target].items;
  all.insert(all.end(), items.begin(), items.end());
}

std::vector<PickledTensor> Machine::state_dict(Ref ref) {
  const Value& dict = value(ref);
  if (dict.kind != Kind::dict) refuse("no dictionary at all");
  std::map<std::string_view, bool> seen;
  std::vector<PickledTensor> result;
  for (size_t i = 0; i + 1 < dict.items.size(); i += 2) {
    const Value& key = value(dict.items[i]);
    const Value& held = value(dict.items[i + 1]);
    if (key.kind != Kind::text) refuse("a key that is no text");
    if (held.kind != Kind::tensor) refuse(quote(key.text) + ", which is no tensor");
    if (!seen.emplace(key.text, true).second)
      corrupt("tensor " + quote(key.text) + " stands twice");
    if (result.size() == kMostTensors) corrupt("too many tensors");
    result.push_back(tensors_[static_cast<size_t>(held.number)]);
    result.back().name = std::string(key.text);
  }
  return result;
}

}  // namespace

std::vector<PickledTensor> read_state_dict(std::span<const std::byte> pickle,
                                           const std::string& where) {
  return Machine(pickle, where).run();
}

}  // namespace pali

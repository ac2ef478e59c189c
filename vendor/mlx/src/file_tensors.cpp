#include "file_tensors.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <set>

#include "cuda/staging.h"
#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/primitives.h"

namespace mlxlm {

namespace {

// What one thread reads at a time. The system reads ahead of one read by itself, so on a CPU most tensors are one; to the
// GPU, reading and copying go side by side.
constexpr size_t host_piece = 32 << 20;
constexpr size_t gpu_piece = 4 << 20;

int64_t pieces_of(size_t bytes, size_t piece) {
  return static_cast<int64_t>((bytes + piece - 1) / piece);
}

// Where each element of a tensor lies: bytes from one to the next, by axis.
using FileStrides = std::vector<size_t>;

FileStrides in_rows(const mx::Shape& shape, size_t itemsize) {
  FileStrides strides(shape.size());
  size_t bytes = itemsize;
  for (size_t i = shape.size(); i-- > 0; bytes *= static_cast<size_t>(shape[i])) {
    strides[i] = bytes;
  }
  return strides;
}

FileBox box_of(size_t start, const mx::Shape& shape, const FileStrides& strides, size_t itemsize) {
  FileBox box = {start, {}, itemsize};
  for (size_t i = shape.size(); i-- > 0;) {
    auto count = static_cast<size_t>(shape[i]);
    auto& axes = box.axes;
    if (count == 1) {
      continue;
    }
    if (axes.empty() && strides[i] == box.run) {
      box.run *= count;
    } else if (!axes.empty() && strides[i] == axes.front().count * axes.front().stride) {
      axes.front().count *= count;
    } else {
      axes.insert(axes.begin(), {count, strides[i]});
    }
  }
  return box;
}

bool is_gpu(const mx::Stream& stream) {
  return stream.device.type == mx::Device::gpu;
}

// Of each dtype one zero: there are many blank tensors, and MLX has place for some thousands of scalars.
array blank_tensor(const mx::Shape& shape, mx::Dtype dtype, mx::Stream stream) {
  static auto* zeros = new std::map<mx::Dtype::Val, array>();
  auto& zero = zeros->try_emplace(dtype.val(), array(0, dtype)).first->second;
  return mx::full(shape, zero, dtype, stream);
}

// Reads a tensor when it is evaluated. On a CPU stream it has no inputs. On a GPU its one input is a blank tensor, whose
// memory it fills and takes over.
class FileTensor : public mx::UnaryPrimitive {
 public:
  FileTensor(
      mx::Stream stream, std::shared_ptr<OpenFile> file, size_t start, FileStrides strides, std::optional<array> blank)
      : UnaryPrimitive(stream),
        file_(std::move(file)),
        start_(start),
        strides_(std::move(strides)),
        blank_(std::move(blank)) {
    if (blank_) {
      std::lock_guard<std::mutex> guard(lock());
      waiting().insert(this);
    }
  }

  ~FileTensor() override {
    {
      std::lock_guard<std::mutex> guard(lock());
      waiting().erase(this);
    }
    if (reads_) {
      reads_->wait();
    }
  }

  static array make(
      const mx::Shape& shape, mx::Dtype dtype, mx::Stream stream, std::shared_ptr<OpenFile> file, size_t start,
      FileStrides strides) {
    bool is_empty = std::find(shape.begin(), shape.end(), 0) != shape.end();
    if (is_empty) {
      return mx::zeros(shape, dtype, stream);
    }
    std::vector<array> inputs;
    std::optional<array> blank;
    if (is_gpu(stream)) {
      blank = blank_tensor(shape, dtype, stream);
      inputs.push_back(*blank);
    }
    auto primitive =
        std::make_shared<FileTensor>(stream, std::move(file), start, std::move(strides), std::move(blank));
    return array(shape, dtype, std::move(primitive), std::move(inputs));
  }

  array slice(const Box& box, mx::Dtype dtype) {
    size_t start = start_;
    for (size_t i = 0; i < strides_.size(); ++i) {
      start += static_cast<size_t>(box.from[i]) * strides_[i];
    }
    return make(shape_of(box), dtype, stream(), file_, start, strides_);
  }

  std::optional<array> reshape(const mx::Shape& before, const mx::Shape& shape, mx::Dtype dtype) {
    auto strides = reshaped_strides(before, strides_, shape);
    return strides ? std::optional(make(shape, dtype, stream(), file_, start_, std::move(*strides))) : std::nullopt;
  }

  void eval_cpu(const std::vector<array>&, array& out) override {
    out.set_data(mx::allocator::malloc(out.nbytes()));
    auto data = out.data<char>();
    auto reads = start_reads(
        pieces_of(out.nbytes(), host_piece),
        [file = file_, box = box_of(start_, out.shape(), strides_, out.itemsize()), data, bytes = out.nbytes()](
            int, int64_t i) {
          size_t first = static_cast<size_t>(i) * host_piece;
          read_box(*file, box, first, std::min(host_piece, bytes - first), data + first);
        });
    mx::cpu::get_command_encoder(stream()).dispatch([reads] { reads->wait(); });
  }

  // Other streams of ours write to the blank, so nothing may be left to do on MLX's stream that does: its memory comes in
  // that stream's order, and may have been another's, freed before what writes to it was even launched. So all is launched
  // and awaited first, and then every blank that has memory is filled, not only this one: MLX evaluates some twenty before
  // the tensors that they are for. Reading ends before this returns, ahead of any kernel that takes the result.
  void eval_gpu(const std::vector<array>& inputs, array& out) override {
    auto& blank = inputs[0];
    if (!blank.flags().row_contiguous || blank.data_size() != blank.size()) {
      throw std::runtime_error("a blank tensor does not have the memory of its elements");
    }
    out.copy_shared_buffer(blank);
    if (!reads_) {
      mx::synchronize(stream());
      std::lock_guard<std::mutex> guard(lock());
      for (auto next = waiting().begin(); next != waiting().end();) {
        bool has_memory = (*next)->stream() == stream() && (*next)->blank_->status() != array::Status::unscheduled;
        if (has_memory) {
          (*next)->start_staging();
        }
        next = has_memory ? waiting().erase(next) : std::next(next);
      }
    }
    if (!reads_) {
      throw std::runtime_error("a tensor of a file was evaluated in a copy of its graph");
    }
    reads_->wait();
    cuda::check_driver(*code_, "a tensor cannot be copied to the GPU");
  }

  DEFINE_NAME(FileTensor)

 private:
  static std::mutex& lock() {
    static auto* made = new std::mutex();
    return *made;
  }

  // Those on GPUs that nothing is read of.
  static std::set<FileTensor*>& waiting() {
    static auto* made = new std::set<FileTensor*>();
    return *made;
  }

  void start_staging() {
    auto& blank = *blank_;
    auto to = cuda::address_of(blank);
    auto context = cuda::current_context();
    reads_ = start_reads(
        pieces_of(blank.nbytes(), gpu_piece),
        [file = file_, box = box_of(start_, blank.shape(), strides_, blank.itemsize()), to, context, code = code_,
         bytes = blank.nbytes()](int thread, int64_t i) {
          size_t first = static_cast<size_t>(i) * gpu_piece;
          auto read = [&](size_t begin, size_t count, char* data) { read_box(*file, box, begin, count, data); };
          int failed = cuda::stage(thread, context, to, first, std::min(gpu_piece, bytes - first), read);
          if (failed) {
            code->store(failed);
          }
        });
  }

  std::shared_ptr<OpenFile> file_;
  size_t start_;
  FileStrides strides_;
  std::optional<array> blank_;
  std::shared_ptr<const Reads> reads_;
  std::shared_ptr<std::atomic<int>> code_ = std::make_shared<std::atomic<int>>(0); // of the driver's error
};

FileTensor& primitive_of(const array& a) {
  return static_cast<FileTensor&>(a.primitive());
}

} // namespace

array file_tensor(const array& like, std::shared_ptr<OpenFile> file, size_t start) {
  auto stream = like.primitive().stream();
  if (is_gpu(stream) && !cuda::can_stage(stream, reading_threads())) {
    return like;
  }
  return FileTensor::make(
      like.shape(), like.dtype(), stream, std::move(file), start, in_rows(like.shape(), like.itemsize()));
}

array slice_file_tensor(const array& a, const Box& box) {
  return primitive_of(a).slice(box, a.dtype());
}

std::optional<array> reshape_file_tensor(const array& a, const mx::Shape& shape) {
  return primitive_of(a).reshape(a.shape(), shape, a.dtype());
}

} // namespace mlxlm

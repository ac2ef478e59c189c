#include "cpu/meetings.h"

#include <algorithm>

#include "cpu/arrays.h"

namespace mlxlm::cpu {

void run(const Product& product, std::vector<Meeting>& meetings, const std::function<Job(int64_t w)>& job_of) {
  auto by_matrix = [](const Meeting& a, const Meeting& b) { return a.w < b.w; };
  if (!std::is_sorted(meetings.begin(), meetings.end(), by_matrix)) {
    std::stable_sort(meetings.begin(), meetings.end(), by_matrix);
  }
  std::vector<int64_t> x_rows(meetings.size());
  std::vector<int64_t> out_rows(meetings.size());
  std::vector<Job> jobs;
  for (size_t i = 0; i < meetings.size(); ++i) {
    x_rows[i] = meetings[i].x;
    out_rows[i] = meetings[i].out;
    if (i == 0 || meetings[i].w != meetings[i - 1].w) {
      jobs.push_back(job_of(meetings[i].w));
      jobs.back().x_rows = x_rows.data() + i;
      jobs.back().out_rows = out_rows.data() + i;
    }
    ++jobs.back().rows;
  }
  run(product, jobs);
}

std::vector<Meeting> meetings_of(const array& x, const array& w, const array& out) {
  auto matrices = offsets_of(w.shape(), w.strides(), 2);
  auto rows = offsets_of(x.shape(), x.strides(), 1);
  int64_t n = out.shape(-1);
  int64_t rows_per_matrix = matrices.size() == 1 ? rows.size() : x.shape(-2);
  std::vector<Meeting> meetings;
  meetings.reserve(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    meetings.push_back({rows[i], static_cast<int64_t>(i) * n, matrices[i / rows_per_matrix]});
  }
  return meetings;
}

std::vector<Meeting> meetings_of(const array& x, const array& w, const array& out, const array& lhs, const array& rhs) {
  auto matrices = offsets_of(w.shape(), w.strides(), 2);
  std::vector<Meeting> meetings;
  int64_t n = out.shape(-1);
  auto batches = offsets_of(x.shape(), x.strides(), 2);
  auto lhs_places = offsets_of(lhs.shape(), lhs.strides(), 0);
  auto rhs_places = offsets_of(rhs.shape(), rhs.strides(), 0);
  meetings.reserve(rhs_places.size() * x.shape(-2));
  for (size_t i = 0; i < rhs_places.size(); ++i) {
    uint32_t left = lhs.data<uint32_t>()[lhs_places[i]];
    uint32_t right = rhs.data<uint32_t>()[rhs_places[i]];
    if (left >= batches.size() || right >= matrices.size()) {
      bool is_left = left >= batches.size();
      throw std::out_of_range(
          "index " + std::to_string(is_left ? left : right) + " of " +
          std::to_string(is_left ? batches.size() : matrices.size()) + " gathered matrices");
    }
    for (int m = 0; m < x.shape(-2); ++m) {
      meetings.push_back(
          {batches[left] + m * x.strides(-2), static_cast<int64_t>(meetings.size()) * n, matrices[right]});
    }
  }
  return meetings;
}

} // namespace mlxlm::cpu

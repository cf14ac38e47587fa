// Shares and reports from given times.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "bench_rows.hpp"

namespace pali::bench {
namespace {

Row row() {
  Row row;
  row.name = "gemm_f32";
  row.shape = "2x3x4";
  row.dtype = "bf16";
  row.isa = "avx2";
  row.backend = "native";
  row.threads = 2;
  row.times_ms = {4, 1, 2};
  row.cost = {8e6, 1e6};  // in 2 ms: 4 GFLOP/s, 0.5 GB/s
  row.peak_gflops = 8;
  row.peak_gbps = 10;
  return row;
}

TEST(Row, FiguresComeFromTheMedian) {
  EXPECT_DOUBLE_EQ(row().median_ms(), 2);
  EXPECT_DOUBLE_EQ(row().min_ms(), 1);
  EXPECT_DOUBLE_EQ(row().max_ms(), 4);
  EXPECT_DOUBLE_EQ(row().gflops(), 4);
  EXPECT_DOUBLE_EQ(row().gbps(), 0.5);
}

TEST(Row, TheLargerShareIsOfThePeakThatBinds) {
  Row bound = row();
  EXPECT_DOUBLE_EQ(bound.share(), 0.5);  // 4 of 8 GFLOP/s
  bound.peak_gbps = 0.625;
  EXPECT_DOUBLE_EQ(bound.share(), 0.8);  // 0.5 of 0.625 GB/s
  bound.peak_gflops = bound.peak_gbps = 0;
  EXPECT_EQ(bound.share(), 0);  // nothing measured, nothing claimed
  bound.times_ms.clear();
  EXPECT_EQ(bound.gflops(), 0);
}

TEST(Row, TheFloorOfStagesIsWhatBindsEachOfThem) {
  Row total = row();
  total.stages = {{6e6, 1e6}, {2e6, 5e6}};  // at 8 GFLOP/s and 10 GB/s: 0.75 and 0.5 ms
  EXPECT_DOUBLE_EQ(total.floor_ms(), 1.25);
  EXPECT_DOUBLE_EQ(total.share(), 0.625);
  const std::string text = to_report({total, row()}, 0, Format::text);
  EXPECT_NE(text.find("gemm_f32: 1.60 times the floor of 1.2 ms"), std::string::npos) << text;
  EXPECT_EQ(text.find("floor"), text.rfind("floor"));  // of one stage it says no more than a share
}

TEST(Row, TheTargetIsTheTimeAtTheSharesThatAreAsked) {
  Row stage = row();
  stage.cost = stage_cost(4.3e6, 1.1e6, 511, 1e6);
  EXPECT_DOUBLE_EQ(stage.cost.flops, 5.4e6);
  EXPECT_DOUBLE_EQ(stage.target_ms(), (5 + 2) / 8.0);
  stage.cost = stage_cost(4.3e6, 1.4e6, 512, 1e6);
  EXPECT_DOUBLE_EQ(stage.target_ms(), (5 + 2) / 8.0);
  const std::string text = to_report({stage}, 0, Format::text);
  EXPECT_NE(text.find("gemm_f32: 2.29 times the target of 0.9 ms"), std::string::npos) << text;
  EXPECT_EQ(row().target_ms(), 0);  // nothing asked
}

TEST(Row, AttentionHasThePeakOfItsOwnOperands) {
  Row stage = row();
  stage.cost = stage_cost(4e6, 1.4e6, 512, 1e6);
  stage.attention_gflops = 4;
  stage.product_share = 0.8;
  EXPECT_DOUBLE_EQ(stage.floor_ms(), 4 / 8.0 + 1.4 / 4);
  EXPECT_DOUBLE_EQ(stage.target_ms(), 5 / 8.0 + 2 / 4.0);
}

TEST(Report, JsonHasTheFieldsOfTheContractInTheirOrder) {
  const auto report = nlohmann::ordered_json::parse(to_report({row()}, 123, Format::json));
  std::string keys;
  for (const auto& [key, value] : report[0].items()) keys += key + " ";
  EXPECT_EQ(keys,
            "name shape dtype isa backend threads median_ms min_ms max_ms runs gflops gbps "
            "peak_gflops peak_gbps share target_ms ");
  EXPECT_EQ(report[0]["runs"], 3);
  EXPECT_EQ(report[1].dump(), R"({"name":"peak_rss","bytes":123})");
}

TEST(Report, CsvIsTheSameInColumns) {
  Row odd = row();
  odd.shape = "zmm, 4 streams";
  EXPECT_EQ(to_report({odd}, 123, Format::csv),
            "name,shape,dtype,isa,backend,threads,median_ms,min_ms,max_ms,runs,gflops,gbps,"
            "peak_gflops,peak_gbps,share,target_ms,bytes\n"
            "gemm_f32,zmm; 4 streams,bf16,avx2,native,2,2,1,4,3,4,0.5,8,10,0.5,0,\n"
            "peak_rss,,,,,,,,,,,,,,,,123\n");
}

TEST(Report, TextNamesTierThreadsAndMemory) {
  const std::string text = to_report({row()}, 1'500'000'000, Format::text);
  EXPECT_NE(text.find("50.0%"), std::string::npos) << text;
  EXPECT_NE(text.find("avx2, 2 threads"), std::string::npos) << text;
  EXPECT_NE(text.find("peak resident size 1.50 GB"), std::string::npos) << text;
}

TEST(PeakRss, StartsAnewWhereTheSystemLetsIt) {
  restart_peak_rss();
  EXPECT_GT(peak_rss_bytes(), 0);
}

}  // namespace
}  // namespace pali::bench

//! Percentile distributions as the plotter of HdrHistogram reads them (`.hgrm`), in milliseconds.
//!
//! The text is that of `AbstractHistogram.outputPercentileDistribution` in HdrHistogram's Java library, with 5 ticks
//! a half distance: value, percentile, count up to it, and 1/(1-percentile), which is the plotter's axis.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::load::result::{LatencyHistogram, Step};

use super::figure::Series;

const TICKS_PER_HALF_DISTANCE: u32 = 5;
const US_PER_MS: f64 = 1e3;

/// A file each for deliveries, and for the first, median and last subscribers: the plotter lays files over each
/// other, and names the curves after them. `run.hgrm` becomes `run.delivery.hgrm` and so on; series without a value
/// make no file.
pub fn files(step: &Step, path: &Path) -> Vec<(PathBuf, String)> {
    let named = [
        (Series::Delivery, "delivery.hgrm"),
        (Series::First, "first.hgrm"),
        (Series::Median, "median.hgrm"),
        (Series::Last, "last.hgrm"),
    ];
    let stem = match path.extension() {
        Some(extension) if extension == "hgrm" => path.with_extension(""),
        Some(_) | None => path.to_path_buf(),
    };
    let recorded = named
        .into_iter()
        .filter(|(series, _)| !series.of(step).is_empty());
    let file = |(series, extension): (Series, &str)| {
        let mut name = stem.clone().into_os_string();
        name.push(".");
        name.push(extension);
        (PathBuf::from(name), text(series.of(step)))
    };
    recorded.map(file).collect()
}

pub fn text(latencies: &LatencyHistogram) -> String {
    let values = latencies.values();
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut say = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).expect("a string takes all");
    };
    let mut count = 0;
    for step in values.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        count += step.count_since_last_iteration();
        let ms = step.value_iterated_to() as f64 / US_PER_MS;
        let quantile = step.quantile_iterated_to();
        say(format_args!("{ms:>12.3} {quantile:>2.12} {count:>10}"));
        if quantile < 1.0 {
            say(format_args!(" {:>14.2}", 1.0 / (1.0 - quantile)));
        }
        say(format_args!("\n"));
    }
    say(format_args!(
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]\n",
        values.mean() / US_PER_MS,
        values.stdev() / US_PER_MS
    ));
    say(format_args!(
        "#[Max     = {:>12.3}, Total count    = {:>12}]\n",
        values.max() as f64 / US_PER_MS,
        values.len()
    ));
    say(format_args!(
        "#[Buckets = {:>12}, SubBuckets     = {:>12}]\n",
        values.buckets(),
        sub_buckets(values.sigfig())
    ));
    text
}

/// How many values one bucket tells apart: the power of two that keeps so many significant digits, twice.
fn sub_buckets(significant_digits: u8) -> u64 {
    (2 * 10_u64.pow(u32::from(significant_digits))).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::result::samples;

    #[test]
    fn the_text_is_the_plotters() {
        let mut latencies = LatencyHistogram::new();
        for ms in 1..=4 {
            latencies.record_us(ms * 500);
        }
        let expected = "       Value     Percentile TotalCount 1/(1-Percentile)

       0.500 0.000000000000          1           1.00
       0.500 0.100000000000          1           1.11
       0.500 0.200000000000          1           1.25
       1.000 0.300000000000          2           1.43
       1.000 0.400000000000          2           1.67
       1.000 0.500000000000          2           2.00
       1.500 0.550000000000          3           2.22
       1.500 0.600000000000          3           2.50
       1.500 0.650000000000          3           2.86
       1.500 0.700000000000          3           3.33
       2.000 0.750000000000          4           4.00
       2.000 1.000000000000          4
#[Mean    =        1.250, StdDeviation   =        0.559]
#[Max     =        2.000, Total count    =            4]
#[Buckets =           22, SubBuckets     =         2048]
";
        assert_eq!(text(&latencies), expected);
    }

    #[test]
    fn nothing_recorded_is_a_table_without_rows() {
        let text = text(&LatencyHistogram::new());
        assert!(text.contains("Total count    =            0]"), "{text}");
        assert!(!text.contains("NaN"), "{text}");
    }

    #[test]
    fn each_series_has_a_file_of_its_own() {
        let mut results = samples::fanout();
        results.steps[0].latency.first = LatencyHistogram::new();
        let names = |path: &str| -> Vec<String> {
            let files = files(&results.steps[0], Path::new(path));
            files
                .iter()
                .map(|(path, _)| path.display().to_string())
                .collect()
        };
        let expected = [
            "a/run.delivery.hgrm",
            "a/run.median.hgrm",
            "a/run.last.hgrm",
        ];
        assert_eq!(names("a/run.hgrm"), expected);
        assert_eq!(names("a/run"), expected);
        assert_eq!(names("a/run.1")[0], "a/run.1.delivery.hgrm");
    }
}

//! Statistics, and the lines that a bench ends with.

use std::time::Duration;

/// The middle value.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value that this share of all values does not exceed (nearest rank).
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A row for people: median, 90th and 99th percentile, maximum.
pub fn print_row(name: &str, milliseconds: &[f64]) {
    let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|share| quantile(milliseconds, share));
    println!("{name:<44} {p50:>9.3} {p90:>9.3} {p99:>9.3} {max:>9.3}");
}

pub fn print_head(title: &str) {
    println!("\n{title:<44} {:>9} {:>9} {:>9} {:>9}", "p50", "p90", "p99", "max");
}

/// The line of a figure that must not be greater than its limit, judged as it is printed.
pub fn at_most(name: &str, value: f64, limit: f64) {
    let shown = |number: f64| (number * 100.0).round();
    println!("bench: {name} {value:.2} {limit:.2} {}", if shown(value) <= shown(limit) { "ok" } else { "over" });
}

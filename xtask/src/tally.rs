//! Counting tests: reads the closing lines of the runners.

#[cfg(test)]
mod tests;

use std::ops::AddAssign;

/// How many tests ran, by result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Adds up the closing lines in `output`. A runner shows what failing tests printed, which may look like the closing
/// line of another runner; so only one kind counts: nextest's (`Summary [...] ...`) where there is one, else those of
/// `cargo test` (`test result: ...`), else the plain `N passed, N failed`, alone on its line, of the simulator.
pub(crate) fn count(output: &str) -> Tally {
    let kinds: [fn(&str) -> Option<Tally>; 3] = [nextest, cargo_test, plain];
    for kind in kinds {
        let found: Vec<Tally> = output.lines().filter_map(kind).collect();
        if !found.is_empty() {
            let mut sum = Tally::default();
            found.into_iter().for_each(|tally| sum += tally);
            return sum;
        }
    }
    Tally::default()
}

fn nextest(line: &str) -> Option<Tally> {
    line.trim_start().starts_with("Summary [").then(|| numbers_before(line))
}

fn cargo_test(line: &str) -> Option<Tally> {
    line.starts_with("test result: ").then(|| numbers_before(line))
}

/// The numbers that stand before `passed`, `failed`, and nextest's `timed out` and `exec failed`.
fn numbers_before(line: &str) -> Tally {
    let mut sum = Tally::default();
    for part in line.split([',', ';', ':', '.', '(', ')']) {
        let Some((number, what)) = part.trim().split_once(' ') else { continue };
        let Ok(number) = number.parse::<u64>() else { continue };
        match what {
            "passed" => sum.passed += number,
            "failed" | "timed out" | "exec failed" => sum.failed += number,
            _ => {}
        }
    }
    sum
}

fn plain(line: &str) -> Option<Tally> {
    let (passed, failed) = line.split_once(", ")?;
    Some(Tally {
        passed: passed.strip_suffix(" passed")?.parse().ok()?,
        failed: failed.strip_suffix(" failed")?.parse().ok()?,
    })
}

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

/// Adds up the closing lines in `output`: of `cargo test` (`test result: ...`), of nextest (`Summary [...] ...`) and
/// the plain one, `N passed, N failed`, alone on its line, which the simulator and this tool print.
pub(crate) fn count(output: &str) -> Tally {
    let mut sum = Tally::default();
    for line in output.lines() {
        let line = line.trim();
        if line.starts_with("test result: ") || line.starts_with("Summary [") {
            sum += numbers_before(line);
        } else if let Some(tally) = plain(line) {
            sum += tally;
        }
    }
    sum
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

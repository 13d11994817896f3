//! Results: as JSON for programs, as Markdown for people.

#[cfg(test)]
mod tests;

use std::fmt::Write;

use serde::Serialize;

use crate::import::Imports;
use crate::latency::Summary;
use crate::machine::Machine;
use crate::targets::{BASE, CEILING, Target};

/// A target whose ratio is above this part of the ceiling's is bound by the ceiling.
const BOUND: f64 = 0.95;
/// A load generator that uses this part of a core, or more, may be the bound itself.
const GENERATOR_BUSY: f64 = 0.9;

/// Everything a run found out.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) date: String,
    pub(crate) commit: String,
    pub(crate) machine: Machine,
    pub(crate) settings: SettingsTold,
    pub(crate) seconds_in_all: u64,
    pub(crate) targets: Vec<TargetResult>,
    /// None when no images were imported.
    pub(crate) imports: Option<Imports>,
}

impl Results {
    /// What failed, by name.
    pub(crate) fn failed(&self) -> Vec<&'static str> {
        let targets = self.targets.iter().filter(|target| target.failure.is_some()).map(|target| target.name);
        let programs = self.imports.iter().flat_map(|imports| &imports.programs);
        let programs = programs.filter(|program| program.failure.is_some()).map(|program| program.name);
        targets.chain(programs).collect()
    }
}

/// What the run was asked for.
#[derive(Debug, Serialize)]
pub(crate) struct SettingsTold {
    pub(crate) seconds: u64,
    pub(crate) size_mib: u64,
    pub(crate) rounds: u64,
    pub(crate) seed: u64,
    pub(crate) compressible: f64,
    pub(crate) duplicates: f64,
    /// Share of Holdfast's media that the disk fills, where that was asked for.
    pub(crate) full: Option<f64>,
    pub(crate) verified_in_cases: bool,
}

/// One target.
#[derive(Debug, Serialize)]
pub(crate) struct TargetResult {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) note: String,
    /// Share of its media that was used when its disk was written, and at the end.
    pub(crate) used: Vec<f64>,
    /// Resident memory of its server: before the first write, and after all cases.
    pub(crate) idle_rss_mib: u64,
    pub(crate) end_rss_mib: u64,
    /// Rate of the first pass over its disk.
    pub(crate) fill_mib_s: f64,
    /// Read at the end and found as written; 0 when it was not read.
    pub(crate) verified_mib: u64,
    /// Why it took no further part.
    pub(crate) failure: Option<String>,
    pub(crate) cases: Vec<CaseResult>,
}

impl TargetResult {
    pub(crate) fn new(target: &Target) -> Self {
        Self {
            name: target.name,
            about: target.about,
            note: String::new(),
            used: Vec::new(),
            idle_rss_mib: 0,
            end_rss_mib: 0,
            fill_mib_s: 0.0,
            verified_mib: 0,
            failure: None,
            cases: Vec::new(),
        }
    }

    /// The median over the rounds of a figure of a case.
    fn median(&self, case: &str, figure: impl Fn(&CaseResult) -> f64) -> Option<f64> {
        let mut all: Vec<f64> = self.cases.iter().filter(|result| result.case == case).map(figure).collect();
        all.sort_by(f64::total_cmp);
        match all.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(all[odd / 2]),
            even => Some((all[even / 2 - 1] + all[even / 2]) / 2.0),
        }
    }
}

/// One case on one target in one round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CaseResult {
    pub(crate) case: &'static str,
    pub(crate) round: u64,
    /// Time counted, without the warm-up.
    pub(crate) seconds: f64,
    pub(crate) operations: u64,
    pub(crate) iops: f64,
    pub(crate) mib_s: f64,
    pub(crate) latency: Summary,
    /// CPU time of the server for an operation, what it does until it is at rest included.
    pub(crate) server_cpu_us: f64,
    /// CPU time of the load generator for an operation.
    pub(crate) client_cpu_us: f64,
    /// Cores the load generator used; each connection is one thread.
    pub(crate) client_cores: f64,
    /// How long the server went on working after the last reply.
    pub(crate) settle_s: f64,
}

/// The results for people.
pub(crate) fn markdown(results: &Results) -> String {
    let mut text = String::new();
    head(results, &mut text);
    if !results.targets.is_empty() {
        cases(results, &mut text);
        targets(results, &mut text);
    }
    if let Some(found) = &results.imports {
        imports(found, &mut text);
    }
    text
}

fn cases(results: &Results, text: &mut String) {
    table(
        results,
        text,
        "IOPS, mean / p99 / p99.9 us (MiB/s for seq); g = the load generator used 0.9 of a core or more",
        |target, case| {
            let figure = |figure: fn(&CaseResult) -> f64| target.median(case, figure);
            let rate = if case.starts_with("seq") {
                format!("**{}** MiB/s", number(figure(|result| result.mib_s)?))
            } else {
                format!("**{}**", number(figure(|result| result.iops)?))
            };
            let mean = number(figure(|result| result.latency.mean_us)?);
            let p99 = number(figure(|result| result.latency.p99_us)?);
            let p999 = number(figure(|result| result.latency.p999_us)?);
            let is_busy = figure(|result| result.client_cores)? >= GENERATOR_BUSY;
            Some(format!("{rate}, {mean} / {p99} / {p999}{}", if is_busy { " g" } else { "" }))
        },
    );
    let title = format!("ratio to {BASE} of the same round; * = bound by the ceiling ({CEILING})");
    table(results, text, &title, |target, case| {
        let ratio = ratio(results, target, case)?;
        let is_bound = target.name != CEILING
            && find(results, CEILING)
                .and_then(|ceiling| crate::report::ratio(results, ceiling, case))
                .is_some_and(|ceiling| ratio > BOUND * ceiling);
        Some(format!("{ratio:.2}{}", if is_bound { " *" } else { "" }))
    });
    table(results, text, "CPU us of the server + of the load generator for an operation", |target, case| {
        let server = target.median(case, |result| result.server_cpu_us)?;
        let client = target.median(case, |result| result.client_cpu_us)?;
        let settle = target.median(case, |result| result.settle_s)?;
        let after = if settle > 1.0 { format!(", busy {settle:.1} s more") } else { String::new() };
        Some(format!("{} + {}{after}", number(server), number(client)))
    });
}

fn head(results: &Results, text: &mut String) {
    let (machine, settings) = (&results.machine, &results.settings);
    let _ = writeln!(
        text,
        "{} cores ({}), {} GiB RAM, {}, kernel {}; {}, commit {}. Load before: {}; after: {}.\n\
         Disks of {} MiB, cases of {} s, {} round(s), seed {}; {:.0} % of each block zeros, {:.0} % of the blocks \
         repeat others. {} s in all.\n",
        machine.cores,
        machine.cpu,
        machine.memory_gib,
        machine.file_system,
        machine.kernel,
        results.date,
        results.commit,
        machine.load_before,
        machine.load_after,
        settings.size_mib,
        settings.seconds,
        settings.rounds,
        settings.seed,
        settings.compressible * 100.0,
        settings.duplicates * 100.0,
        results.seconds_in_all,
    );
}

/// A table of cases by targets; what `cell` does not give is a dash.
fn table(
    results: &Results,
    text: &mut String,
    title: &str,
    cell: impl Fn(&TargetResult, &'static str) -> Option<String>,
) {
    let mut cases: Vec<&'static str> = Vec::new();
    for result in results.targets.iter().flat_map(|target| &target.cases) {
        if !cases.contains(&result.case) {
            cases.push(result.case);
        }
    }
    let names: Vec<&str> = results.targets.iter().map(|target| target.name).collect();
    let _ =
        writeln!(text, "{title}\n\n| case | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    for case in cases {
        let cells = results.targets.iter().map(|target| cell(target, case).unwrap_or_else(|| "-".to_owned()));
        let _ = writeln!(text, "| {case} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    text.push('\n');
}

fn targets(results: &Results, text: &mut String) {
    text.push_str(
        "| target | what it is | RSS idle / end, MiB | fill, MiB/s | verified |\n|---|---|---|---|---|\n",
    );
    for target in &results.targets {
        let mut note = if target.note.is_empty() { String::new() } else { format!(", {}", target.note) };
        if let [written, end] = target.used[..] {
            let _ =
                write!(note, ", {:.0} % used once written and {:.0} % at the end", written * 1e2, end * 1e2);
        }
        let verified = match (&target.failure, target.verified_mib) {
            (Some(_), _) => "FAILED".to_owned(),
            (None, 0) => "keeps nothing".to_owned(),
            (None, mib) => format!("all {mib} MiB"),
        };
        let _ = writeln!(
            text,
            "| {} | {}{note} | {} / {} | {:.0} | {verified} |",
            target.name, target.about, target.idle_rss_mib, target.end_rss_mib, target.fill_mib_s
        );
    }
    for target in &results.targets {
        if let Some(failure) = &target.failure {
            let _ = writeln!(text, "\n{} FAILED: {failure}", target.name);
        }
    }
    text.push('\n');
}

fn imports(imports: &Imports, text: &mut String) {
    let _ = writeln!(
        text,
        "import: {}, {} MiB of data in {} MiB\n\n| program | how | s | s more until at rest | CPU s | stored, MiB \
         |\n|---|---|---|---|---|---|",
        imports.images, imports.data_mib, imports.apparent_mib
    );
    for program in &imports.programs {
        let _ = match &program.failure {
            None => writeln!(
                text,
                "| {} | {} | {:.1} | {:.1} | {:.1} | {} |",
                program.name,
                program.about,
                program.seconds,
                program.settle_s,
                program.cpu_s,
                program.stored_mib
            ),
            Some(why) => writeln!(text, "| {} | FAILED: {} | - | - | - | - |", program.name, line(why)),
        };
    }
}

/// A text as one line, fit for a table.
fn line(text: &str) -> String {
    text.replace('|', "/").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn find<'a>(results: &'a Results, name: &str) -> Option<&'a TargetResult> {
    results.targets.iter().find(|target| target.name == name)
}

/// The median over the rounds of a target's rate over the base's of the same round.
fn ratio(results: &Results, target: &TargetResult, case: &str) -> Option<f64> {
    let base = find(results, BASE)?;
    target
        .median(case, |result| {
            let other = base.cases.iter().find(|other| other.case == case && other.round == result.round);
            other.map_or(f64::NAN, |other| result.iops / other.iops)
        })
        .filter(|ratio| ratio.is_finite())
}

/// A figure with as many digits as mean something.
fn number(value: f64) -> String {
    if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

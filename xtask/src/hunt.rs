//! `cargo x hunt`: fresh seeds and samples, round after round.
//!
//! `cargo x test` tries the same for every commit; this goes where it does not. Each round draws a pick of its own, and a
//! suite that fails is told with the line that repeats it.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use crate::process::{Show, run, seconds};
use crate::suites::{PATIENCE, Suite, find};
use crate::tally::{Tally, count};
use crate::{Failure, Result, failed, setup, test, tree};

/// The suites that choose by the pick, in the order of a round.
const HUNTED: &[&str] = &["sim", "flip", "kill", "unit", "clients"];
/// Length of a hunt that is told no other, minutes: some four rounds.
const MINUTES: u64 = 45;
/// Bits of a pick: short enough to be typed.
const PICK_BITS: u32 = 32;

/// What to hunt in, and for how long.
#[derive(Debug)]
struct Hunt {
    suites: Vec<&'static Suite>,
    length: Duration,
}

/// `cargo x hunt`.
pub(crate) fn command(arguments: &[String]) -> Result {
    let hunt = parse(arguments)?;
    setup::packages()?;
    setup::schemathesis()?;
    if !test::build_tree()? {
        return Err(failed("the tree does not build"));
    }
    println!("hunting at commit {}", tree::commit().as_deref().unwrap_or("unknown"));
    let start = Instant::now();
    let (mut sum, mut found) = (Tally::default(), Vec::new());
    while start.elapsed() < hunt.length {
        let pick = fresh_pick();
        for suite in &hunt.suites {
            let (tally, repeat) = round(suite, pick)?;
            sum += tally;
            found.extend(repeat);
            if start.elapsed() >= hunt.length {
                break;
            }
        }
    }
    println!("{sum} in {}", seconds(start.elapsed()));
    if found.is_empty() { Ok(()) } else { Err(failed(format!("found, repeat by:\n{}", found.join("\n")))) }
}

fn parse(arguments: &[String]) -> Result<Hunt> {
    let (mut suites, mut minutes) = (Vec::new(), MINUTES);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--minutes" {
            let number = rest.next().and_then(|text| text.parse().ok()).filter(|minutes| *minutes > 0);
            minutes =
                number.ok_or_else(|| Failure::Usage("--minutes takes a number from 1 on".to_owned()))?;
        } else {
            let suite = find(argument).filter(|suite| HUNTED.contains(&suite.name));
            let names = HUNTED.join(", ");
            suites.push(suite.ok_or_else(|| {
                Failure::Usage(format!("no suite {argument:?} that chooses by a pick (there are {names})"))
            })?);
        }
    }
    if suites.is_empty() {
        suites = HUNTED.iter().filter_map(|name| find(name)).collect();
    }
    Ok(Hunt { suites, length: Duration::from_secs(minutes * 60) })
}

/// A number that no other round has had, most likely.
fn fresh_pick() -> u64 {
    (RandomState::new().hash_one(std::process::id()) >> (u64::BITS - PICK_BITS)).max(1)
}

/// Runs a suite with a pick; gives the line that repeats it where it failed.
fn round(suite: &Suite, pick: u64) -> Result<(Tally, Option<String>)> {
    println!("\n== {} with pick {pick}", suite.name);
    let (mut tally, mut failed) = (Tally::default(), false);
    for mut command in suite.commands(pick) {
        let outcome = run(&mut command, Show::Live, suite.budget * PATIENCE)?;
        tally += count(&outcome.output);
        failed |= !outcome.success;
    }
    let repeat = failed.then(|| format!("HOLDFAST_PICK={pick} cargo x test {}", suite.name));
    Ok((tally, repeat))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_hunt_is_told_its_length_and_suites() {
        let hunt = parse(&arguments("--minutes 3 kill")).expect("it is well-formed");
        assert_eq!((hunt.length.as_secs(), hunt.suites.len(), hunt.suites[0].name), (180, 1, "kill"));
        assert_eq!(parse(&[]).expect("all of them").suites.len(), HUNTED.len());
        for wrong in ["--minutes", "--minutes 0", "--minutes x", "etcd", "nothing"] {
            assert!(matches!(parse(&arguments(wrong)), Err(Failure::Usage(_))), "{wrong}");
        }
    }

    #[test]
    fn picks_differ_and_are_never_the_fixed_one() {
        let picks: std::collections::BTreeSet<u64> = (0..8).map(|_| fresh_pick()).collect();
        assert!(picks.len() > 1 && !picks.contains(&tree::FIXED_PICK));
        assert!(picks.iter().all(|pick| *pick < 1 << PICK_BITS));
    }
}

//! One case on one disk: who asks for what, when it ends, what it took.
//!
//! Vocabulary. **Region**: the part of the disk that one connection has for itself, so that the order of its writes is
//! known. **Generation**: how often a block was written. **Warm-up**: the first eighth of a case, which is not counted.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::client::{Client, Done, Operation, Request};
use crate::data::{BLOCK, Generator, Random, mix};
use crate::latency::Latencies;

/// A kind of load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// From the start of the region on and around; else at random.
    pub(crate) sequential: bool,
    /// Of 100 operations so many are reads.
    pub(crate) reads: u64,
    /// Bytes of an operation: whole blocks.
    pub(crate) bytes: usize,
    /// Operations of a connection on their way.
    pub(crate) depth: usize,
    pub(crate) connections: usize,
    /// A flush follows each write and belongs to it.
    pub(crate) durable: bool,
    /// Blocks of a region that are used, from its start: few enough for every cache to hold.
    pub(crate) hot: Option<usize>,
}

const MIB: usize = 1 << 20;
/// Blocks of the cached cases: 32 MiB. Holdfast's cache of blocks holds 128 MiB.
const HOT: usize = (32 << 20) / BLOCK;

/// Every case, in the order they run.
pub(crate) const CASES: &[Case] = &[
    case("seqwrite", true, 0, MIB, 8),
    case("seqread", true, 100, MIB, 8),
    case("randwrite-qd1", false, 0, BLOCK, 1),
    case("randwrite-qd32", false, 0, BLOCK, 32),
    case("randread-qd1", false, 100, BLOCK, 1),
    case("randread-qd32", false, 100, BLOCK, 32),
    Case { hot: Some(HOT), ..case("cachedread-qd1", false, 100, BLOCK, 1) },
    Case { hot: Some(HOT), ..case("cachedread-qd32", false, 100, BLOCK, 32) },
    case("mixed-qd16", false, 70, BLOCK, 16),
    Case { durable: true, ..case("durable-1", false, 0, BLOCK, 1) },
    Case { durable: true, connections: 8, ..case("durable-8", false, 0, BLOCK, 1) },
];
/// The pass that writes the whole disk before the cases.
pub(crate) const FILL: Case = case("fill", true, 0, MIB, 8);
/// The pass that reads the whole disk after the cases.
pub(crate) const SWEEP: Case = case("verify", true, 100, MIB, 8);

const fn case(name: &'static str, sequential: bool, reads: u64, bytes: usize, depth: usize) -> Case {
    Case { name, sequential, reads, bytes, depth, connections: 1, durable: false, hot: None }
}

/// A disk under load and what must be on it.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) socket: PathBuf,
    pub(crate) export: String,
    /// The generation of every block.
    generations: Vec<u32>,
}

/// How long a case goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Span {
    /// So long, warm-up included.
    Time(Duration),
    /// Once over the region, all of it counted.
    Once,
}

/// What a case came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) operations: u64,
    pub(crate) bytes: u64,
    /// From the end of the warm-up to the last reply.
    pub(crate) took: Duration,
    pub(crate) latencies: Latencies,
    /// Operations with those of the warm-up: what CPU time is divided by.
    pub(crate) operations_in_all: u64,
}

impl Disk {
    /// A disk of `size` bytes on which nothing was written yet.
    pub(crate) fn new(socket: &Path, export: &str, size: u64) -> Self {
        let generations = vec![0; (size / BLOCK as u64) as usize];
        Self { socket: socket.to_owned(), export: export.to_owned(), generations }
    }

    /// Runs a case; with `check`, reads are compared with what was written.
    pub(crate) fn run(
        &mut self,
        case: &Case,
        span: Span,
        generator: &Generator,
        seed: u64,
        check: bool,
    ) -> Result<Outcome, Failure> {
        let blocks = self.generations.len() / case.connections;
        if blocks * BLOCK < case.bytes * case.depth * 2 {
            return Err(Failure::failed(format!("the disk is too small for {}", case.name)));
        }
        let mut clients = Vec::new();
        for _ in 0..case.connections {
            let client = Client::connect(&self.socket, &self.export, check)?;
            if client.size() < (self.generations.len() * BLOCK) as u64 {
                return Err(Failure::failed(format!("the export has only {} bytes", client.size())));
            }
            clients.push(client);
        }
        let start = Instant::now();
        let outcomes: Vec<Result<Outcome, Failure>> = std::thread::scope(|scope| {
            let regions = self.generations.chunks_exact_mut(blocks);
            let workers: Vec<_> = clients
                .into_iter()
                .zip(regions)
                .enumerate()
                .map(|(number, (client, generations))| {
                    let number = number as u64;
                    let worker = Worker {
                        client,
                        case,
                        generator,
                        first: number * blocks as u64,
                        generations,
                        random: Random::new(mix(seed ^ mix(number))),
                        cursor: 0,
                        check: check.then(|| vec![0; BLOCK]),
                    };
                    scope.spawn(move || worker.run(start, span))
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().expect("workers do not panic")).collect()
        });
        let mut sum: Option<Outcome> = None;
        for outcome in outcomes {
            let outcome = outcome?;
            match &mut sum {
                None => sum = Some(outcome),
                Some(sum) => sum.add(&outcome),
            }
        }
        sum.ok_or_else(|| Failure::failed("a case without connections"))
    }
}

impl Outcome {
    fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.bytes += other.bytes;
        self.took = self.took.max(other.took);
        self.latencies.add(&other.latencies);
        self.operations_in_all += other.operations_in_all;
    }
}

/// One connection's part of a case.
struct Worker<'a> {
    client: Client,
    case: &'a Case,
    generator: &'a Generator,
    /// First block of the region.
    first: u64,
    /// Those of the region's blocks.
    generations: &'a mut [u32],
    random: Random,
    /// Next block of a sequential case, from the region's start.
    cursor: usize,
    /// When reads are compared: a block to work in.
    check: Option<Vec<u8>>,
}

impl Worker<'_> {
    fn run(mut self, start: Instant, span: Span) -> Result<Outcome, Failure> {
        let (counted_from, end, mut left) = match span {
            Span::Time(time) => (start + time / 8, Some(start + time), u64::MAX),
            Span::Once => (start, None, (self.generations.len() * BLOCK / self.case.bytes) as u64),
        };
        let mut outcome = Outcome {
            operations: 0,
            bytes: 0,
            took: Duration::ZERO,
            latencies: Latencies::new(),
            operations_in_all: 0,
        };
        let mut done = Vec::new();
        let mut now = start;
        loop {
            crate::stop::check()?;
            while self.client.on_the_way() < self.case.depth && left > 0 && end.is_none_or(|end| now < end) {
                self.ask();
                left -= 1;
            }
            if self.client.on_the_way() == 0 {
                return Ok(outcome);
            }
            self.client.wait(&mut done)?;
            now = Instant::now();
            for done in done.drain(..) {
                if self.case.durable && done.request.operation == Operation::Write {
                    let flush = Request { operation: Operation::Flush, offset: 0, length: 0, ..done.request };
                    self.client.submit(flush, |_| {});
                    continue;
                }
                self.compare(&done)?;
                outcome.operations_in_all += 1;
                if now >= counted_from {
                    outcome.operations += 1;
                    outcome.bytes += self.case.bytes as u64;
                    outcome.took = now - counted_from;
                    outcome.latencies.record(now - done.request.since);
                }
            }
        }
    }

    /// The next operation of the case.
    fn ask(&mut self) {
        let blocks = self.case.bytes / BLOCK;
        let place = self.place(blocks);
        let is_read = self.case.reads == 100 || self.random.below(100) < self.case.reads;
        let request = Request {
            operation: if is_read { Operation::Read } else { Operation::Write },
            offset: (self.first + place as u64) * BLOCK as u64,
            length: self.case.bytes,
            since: Instant::now(),
        };
        if !is_read {
            for generation in &mut self.generations[place..place + blocks] {
                *generation = generation.wrapping_add(1).max(1);
            }
        }
        let (first, generator) = (self.first, self.generator);
        let generations = &self.generations[place..place + blocks];
        self.client.submit(request, |out| {
            for (number, (out, generation)) in out.chunks_exact_mut(BLOCK).zip(generations).enumerate() {
                generator.fill(first + (place + number) as u64, *generation, out);
            }
        });
    }

    /// Where in the region the next operation goes, in blocks: nowhere that another one is at work, so that the
    /// outcome is known.
    fn place(&mut self, blocks: usize) -> usize {
        let used = self.case.hot.unwrap_or(usize::MAX).min(self.generations.len());
        let spots = used / blocks;
        loop {
            let place = if self.case.sequential {
                let place = self.cursor;
                self.cursor = (self.cursor + blocks) % (spots * blocks);
                place
            } else {
                self.random.below(spots as u64) as usize * blocks
            };
            let offset = (self.first + place as u64) * BLOCK as u64;
            if self.client.is_quiet(offset, self.case.bytes) {
                return place;
            }
        }
    }

    fn compare(&mut self, done: &Done) -> Result<(), Failure> {
        let Some(room) = &mut self.check else { return Ok(()) };
        for (number, read) in done.data.chunks_exact(BLOCK).enumerate() {
            let place = done.request.offset / BLOCK as u64 + number as u64;
            let generation = self.generations[(place - self.first) as usize];
            self.generator.check(place, generation, read, room).map_err(Failure::Failed)?;
        }
        Ok(())
    }
}
